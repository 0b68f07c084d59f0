# SPDX-License-Identifier: Apache-2.0
"""`redact.py doctor`: what this machine has of what StyleGAN code needs, and locks that an interrupted build left behind."""

from __future__ import annotations

import sys

import click

from stylegan_redact.cli import context


def command() -> click.Command:
    """The verb."""
    option = click.Option(["--clear-locks", "--clear-lock"], is_flag=True, help="Delete stale build locks without asking")
    doc = "Say what this machine has, and find stale build locks."
    return click.Command("doctor", callback=_doctor, params=[option], help=doc, context_settings=context())


def _doctor(clear_locks: bool) -> None:
    from stylegan_redact.verbs._doctor import extensions_folder, findings, stale_locks

    for label, text in findings():
        click.echo(f"{label + ':':<18} {text}")
    for lock in stale_locks(extensions_folder()):
        click.echo(f"{'stale lock:':<18} {lock}: an interrupted build left it, and every later one waits for it")
        if clear_locks or (asks() and click.confirm("Delete it?", default=True)):
            lock.unlink(missing_ok=True)
            click.echo(f"{'':<18} deleted")
        else:
            click.echo(f"{'':<18} delete it, or run `redact.py doctor --clear-locks`")


def asks() -> bool:
    """Whether somebody is there to answer."""
    return sys.stdin.isatty()
