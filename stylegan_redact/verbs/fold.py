# SPDX-License-Identifier: Apache-2.0
"""`redact.py fold SRC DST --direction=FILE`: an edit of W along a direction that you have, folded into a network that cannot be drawn here."""

from __future__ import annotations

from pathlib import Path

import click

from stylegan_redact.cli import context, echo, failure, offline_option
from stylegan_redact.types import RedactError


def command() -> click.Command:
    """The verb."""
    params: list[click.Parameter] = [
        click.Argument(["source"], metavar="NAME|PATH|URL"),
        click.Argument(["dest"], metavar="PATH", type=click.Path(path_type=Path)),
        offline_option(),
        click.Option(["--direction"], required=True, metavar="FILE", type=click.Path(path_type=Path), help=".npy with [w_dim] or [1, w_dim] numbers"),
        click.Option(["--target"], type=float, help="Where on the unit direction to move every w to  [default: where the mean w of the file is]"),
    ]
    doc = "Move every w to one place along a direction, in the style layers of G and G_ema. For networks that cannot be drawn: measures nothing."
    return click.Command("fold", callback=_fold, params=params, help=doc, context_settings=context())


def _fold(source: str, dest: Path, direction: Path, target: float | None) -> None:
    from stylegan_redact.verbs._fold import fold

    try:
        for line in fold(source, dest, direction, target):
            echo(line)
    except RedactError as error:
        raise failure(error) from None
