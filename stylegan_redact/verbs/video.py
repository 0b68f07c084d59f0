# SPDX-License-Identifier: Apache-2.0
"""`redact.py video --before=A.pkl --after=B.pkl --out=walk.mp4`: a walk from seed to seed and back to the first, before and after side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from stylegan_redact.cli import CommaList, context, echo, failure, offline_option
from stylegan_redact.types import RedactError
from stylegan_redact.verbs._walk import Walk, seeds_of


def command() -> click.Command:
    """The verb."""
    default = Walk()
    params: list[click.Parameter] = [
        click.Option(["--before"], required=True, metavar="NAME|PATH|URL", help="Network pickle as it was; on the left"),
        click.Option(["--after"], required=True, metavar="NAME|PATH|URL", help="The redacted one; on the right"),
        click.Option(["--out"], required=True, metavar="FILE", type=click.Path(path_type=Path), help="Of the video, .mp4 or .webp"),
        click.Option(
            ["--seeds"], default="0-7", metavar="N,N-N,...", help="To walk through, in this order and back to the first; none: only --codes"
        ),
        click.Option(["--codes"], metavar="FILE.npz", type=click.Path(path_type=Path), help="Walk through these first: w [n, num_ws, w_dim]"),
        click.Option(["--frames"], type=click.IntRange(1, 10_000), default=default.frames, help="From one place to the next"),
        click.Option(["--fps"], type=click.IntRange(1, 120), default=default.fps, help="Frames a second"),
        click.Option(["--scale"], type=click.IntRange(1, 16), default=default.scale, help="How many times as large as the network draws"),
        click.Option(["--trunc"], type=click.FloatRange(0, 2), default=default.trunc, help="Truncation psi of the seeds"),
        click.Option(["--class", "classes"], metavar="N|all", help="Class of a conditional network, or all: of each seed's own"),
        click.Option(["--batch-gpu"], type=click.IntRange(1), show_default="by resolution", help="Images at a time; less memory if smaller"),
        click.Option(["--device"], type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where to compute"),
        click.Option(["--trust-source"], type=CommaList(), default=(), show_default=False, metavar="SHA256,...", help="As in the main command"),
        offline_option(),
    ]
    doc = "Make a video of a walk through seeds or codes, before and after side by side: .mp4 where there is an encoder, else an animated WebP."
    return click.Command("video", callback=_video, params=params, help=doc, context_settings=context())


def _video(before: str, after: str, out: Path, seeds: str, **values: Any) -> None:
    from stylegan_redact.verbs._video import film

    try:
        machine = {name: values.pop(name) for name in ("device", "batch_gpu", "trust_source")}
        for line in film(before, after, out, Walk(seeds_of(seeds), **values), **machine):
            echo(line)
    except RedactError as error:
        raise failure(error) from None
