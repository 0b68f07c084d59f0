# SPDX-License-Identifier: Apache-2.0
"""`redact.py convert SRC DST`: pickles of PyTorch or TensorFlow, safetensors files and rosinality's checkpoints, to any of these but TensorFlow's."""

from __future__ import annotations

from pathlib import Path

import click

from stylegan_redact.asking import CONVERTS_TO
from stylegan_redact.cli import CommaList, context, echo, failure, offline_option
from stylegan_redact.types import RedactError


def command() -> click.Command:
    """The verb."""
    params: list[click.Parameter] = [
        click.Argument(["source"], metavar="NAME|PATH|URL"),
        click.Argument(["dest"], metavar="PATH", type=click.Path(path_type=Path)),
        offline_option(),
        click.Option(
            ["--trust-source"],
            type=CommaList(),
            default=(),
            metavar="SHA256,...",
            help="Run these sources of the file, with all your rights: for networks that are not known here; .pkl to .pkl only",
        ),
    ]
    doc = "Convert a network: pickles of PyTorch or TensorFlow, .safetensors, or .pt of rosinality's stylegan2-pytorch, "
    doc += f"to {' or '.join(CONVERTS_TO)}. Executes nothing of the source unless told to."
    return click.Command("convert", callback=_convert, params=params, help=doc, context_settings=context())


def _convert(source: str, dest: Path, trust_source: tuple[str, ...]) -> None:
    from stylegan_redact.verbs._convert import convert

    try:
        for line in convert(source, dest, trust_source):
            echo(line)
    except RedactError as error:
        raise failure(error) from None
