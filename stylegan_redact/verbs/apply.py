# SPDX-License-Identifier: Apache-2.0
"""`redact.py apply --network=BASE.pkl --delta=FILE[,FILE...] OUT.pkl`: redactions that were kept apart from their network, put on it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from stylegan_redact import delta, network_files, pickles
from stylegan_redact.cli import CommaList, context, echo, failure, offline_option
from stylegan_redact.types import RedactError
from stylegan_redact.version import VERSION


def command() -> click.Command:
    """The verb."""
    params: list[click.Parameter] = [
        click.Option(["--network"], required=True, metavar="NAME|PATH|URL", help="The network that the deltas are of"),
        click.Option(["--delta", "deltas"], required=True, type=CommaList(), metavar="FILE,...", help=f"{delta.NAME} of runs, stacked"),
        click.Option(["--strength"], type=CommaList(), default="1", metavar="X,...", help="Of all, or one for each; 1: the redacted network itself"),
        offline_option(),
        click.Argument(["dest"], metavar="PATH", type=click.Path(path_type=Path)),
    ]
    doc = "Apply redactions that were written apart from their network. Measures nothing: `redact.py evaluate` does."
    return click.Command("apply", callback=_apply, params=params, help=doc, context_settings=context())


def _apply(network: str, deltas: tuple[str, ...], strength: tuple[str, ...], dest: Path) -> None:
    try:
        for line in apply(network, [Path(path) for path in deltas], strengths_of(strength, len(deltas)), dest):
            echo(line)
    except RedactError as error:
        raise failure(error) from None


def strengths_of(texts: Sequence[str], count: int) -> list[float]:
    """One strength for each delta.

    Raises:
        RedactError: no numbers within the range, or neither one nor as many.
    """
    asked = f"--strength={','.join(texts)} was asked"
    try:
        values = [float(text) for text in texts]
    except ValueError:
        raise RedactError(f"{asked} - these are no numbers - give one, or one for each delta") from None
    return delta.checked_strengths(values, count, asked)


def apply(network: str, paths: Sequence[Path], strengths: Sequence[float], dest: Path) -> tuple[str, ...]:
    """Writes `dest`; what to know of it comes back.

    Args:
        network:   As `--network` takes it.
        paths:     Deltas of it.
        strengths: One for each.
        dest:      The new pickle.

    Raises:
        RedactError: files that are missing, damaged, or do not fit each other.
    """
    snapshot = network_files.find_network(network).snapshot
    deltas = [delta.read(path) for path in paths]
    base = {key: snapshot.modules[key].tensors for key in delta.GENERATORS}
    tensors = delta.applied(snapshot.sha256, base, deltas, strengths)
    record = {
        "tool": "stylegan-redact",
        "version": VERSION,
        "method": "deltas, not measured",
        "deltas": [
            {"sha256": network_files.sha256_of(path), "strength": strength, "redaction": dict(each.told["redaction"])}
            for path, strength, each in zip(paths, strengths, deltas, strict=True)
        ],
        "network_sha256": snapshot.sha256,
    } | ({"earlier": snapshot.redaction} if snapshot.redaction is not None else {})
    dropped = pickles.write_snapshot(snapshot, dest, tensors=tensors, redaction=record)
    told = [f"{each.told['redaction'].get('feature')} by {each.told['redaction'].get('method')}, strength {strength:g}: {each.name}"
            for each, strength in zip(deltas, strengths, strict=True)]  # fmt: skip
    return (*told, *(f"Left out, a private path: {name}" for name in dropped), f"Wrote {dest}")
