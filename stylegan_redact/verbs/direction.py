# SPDX-License-Identifier: Apache-2.0
"""`redact.py direction --network=NETWORK --feature=NAME`: the direction of W that a feature lies along, in files for other tools, with pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stylegan_redact import asking
from stylegan_redact.cli import context, echo, failure, offline_option
from stylegan_redact.types import RedactError


def command() -> click.Command:
    """The verb."""
    params: list[click.Parameter] = [
        click.Option(["--network"], required=True, metavar="NAME|PATH|URL", help="Network pickle, or the name of a bundled network"),
        click.Option(["--feature"], required=True, metavar="NAME|SOURCE:VALUE", help="One feature, as in the main command; sefa:N needs no labels"),
        click.Option(["--out"], default="direction", metavar="PATH", type=click.Path(path_type=Path), help="Of the files, without their endings"),
        click.Option(["--classifier"], type=click.Path(), metavar="FILE", help="As in the main command"),
        click.Option(["--judge"], type=click.Path(), metavar="FILE", help="As in the main command"),
        click.Option(["--labels"], type=click.Path(), metavar="FILE.npz", help="As in the main command"),
        click.Option(["--class", "classes"], metavar="N|all", help="As in the main command"),
        click.Option(["--num-latents"], type=click.IntRange(1, asking.MOST_SEEDS), default=6_000, help="Seeds to label"),
        click.Option(["--seed"], type=click.IntRange(0, asking.LARGEST_SEED), default=0, help="As in the main command"),
        click.Option(["--steps"], type=click.IntRange(3, 15), default=7, help="Pictures of each person in the strip"),
        click.Option(["--reach"], type=click.FloatRange(0.1, 10), default=2.0, help="How far the strip goes, in standard deviations of w along it"),
        click.Option(["--batch-gpu"], type=click.IntRange(1), show_default="by resolution", help="Images at a time"),
        click.Option(["--device"], type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute"),
        offline_option(),
    ]
    doc = "Write the direction of W of a feature: .npy and .pt [1, w_dim] for other tools, .json with its threshold, .png with pictures along it."
    return click.Command("direction", callback=_direction, params=params, help=doc, context_settings=context())


def _direction(out: Path, steps: int, reach: float, **request: Any) -> None:
    from stylegan_redact.verbs._direction import find

    try:
        for line in find(asking.Request(**request, method="fold", outdir=str(out.parent)), out, steps=steps, reach=reach):
            echo(line)
    except RedactError as error:
        raise failure(error) from None
