# SPDX-License-Identifier: Apache-2.0
"""`redact.py inspect FILE`: what a network pickle holds. Executes nothing of it."""

from __future__ import annotations

import json

import click

from stylegan_redact.cli import context, echo, failure, offline_option
from stylegan_redact.run_dir import strict
from stylegan_redact.types import RedactError


def command() -> click.Command:
    """The verb."""
    params: list[click.Parameter] = [
        click.Argument(["network"], metavar="NAME|PATH|URL"),
        click.Option(["--json", "as_json"], is_flag=True, help="Print JSON"),
        offline_option(),
        click.Option(["--source"], metavar="SHA256", help="Print the embedded source with this hash instead, to be read before it is trusted"),
    ]
    doc = "Say what a network pickle holds, without executing any of it."
    return click.Command("inspect", callback=_inspect, params=params, help=doc, context_settings=context())


def _inspect(network: str, as_json: bool, source: str | None) -> None:
    from stylegan_redact import network_files
    from stylegan_redact.verbs._inspect import describe, lines, source_text

    try:
        path = network_files.locate(network)
        if source is not None:
            echo(source_text(path, source))
            return
        found = describe(path)
    except RedactError as error:
        raise failure(error) from None
    click.echo(json.dumps(strict(found), indent=2, default=str) if as_json else "\n".join(lines(found)))
