# SPDX-License-Identifier: Apache-2.0
"""`redact.py apply --network=BASE.pkl --delta=FILE[,FILE...] OUT.pkl`: redactions that were kept apart from their network, put on it again."""

from __future__ import annotations

from pathlib import Path

import click

from stylegan_redact import run_dir
from stylegan_redact.cli import CommaList, context, echo, failure, offline_option
from stylegan_redact.types import RedactError


def command() -> click.Command:
    """The verb."""
    params: list[click.Parameter] = [
        click.Option(["--network"], required=True, metavar="NAME|PATH|URL", help="The network that the deltas are of"),
        click.Option(["--delta", "deltas"], required=True, type=CommaList(), metavar="FILE,...", help=f"{run_dir.DELTA} of runs, stacked"),
        click.Option(["--strength"], type=CommaList(), default="1", metavar="X,...", help="Of all, or one for each; 1: the redacted network itself"),
        offline_option(),
        click.Argument(["dest"], metavar="PATH", type=click.Path(path_type=Path)),
    ]
    doc = "Apply redactions that were written apart from their network. Measures nothing: `redact.py evaluate` does."
    return click.Command("apply", callback=_apply, params=params, help=doc, context_settings=context())


def _apply(network: str, deltas: tuple[str, ...], strength: tuple[str, ...], dest: Path) -> None:
    from stylegan_redact.verbs._apply import apply, strengths_of

    try:
        for line in apply(network, [Path(path) for path in deltas], strengths_of(strength, len(deltas)), dest):
            echo(line)
    except RedactError as error:
        raise failure(error) from None
