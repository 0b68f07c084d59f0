# SPDX-License-Identifier: Apache-2.0
"""Redactions that were kept apart from their network -> the network with them on again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stylegan_redact import delta, network_files, pickles, run_dir
from stylegan_redact.types import RedactError
from stylegan_redact.version import VERSION


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
    if not paths:
        raise RedactError("--delta= was asked - it names no file, and the network would be written as it is - give one or more")
    run_dir.check_pickle(dest, [network_files.locate(network), *paths])
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
