# SPDX-License-Identifier: Apache-2.0
"""What a video walks through, as the command line says it. Needs no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from stylegan_redact.types import RedactError

MOST_PLACES = 1000


@dataclass(frozen=True)
class Walk:
    """What is walked through, and how."""

    seeds: tuple[int, ...] = tuple(range(8))
    codes: Path | None = None
    """An .npz with `w` [n, num_ws, w_dim], as NVIDIA's projector writes it: these come first."""
    classes: str | None = None
    """As --class says."""
    trunc: float = 1.0
    """Truncation psi of the seeds."""
    frames: int = 30
    """From one place to the next."""
    fps: int = 30
    scale: int = 1
    """How many times as large as the network draws."""


def seeds_of(text: str) -> tuple[int, ...]:
    """What `0-3,12` means, in its order.

    Raises:
        RedactError: no such list, or too long a one.
    """
    found: list[int] = []
    for part in [] if text.strip().lower() == "none" else text.split(","):
        match = re.fullmatch(r"\s*(\d{1,10})(?:-(\d{1,10}))?\s*", part)
        first, last = (0, -1) if match is None else (int(match[1]), int(match[2] or match[1]))
        if first > last or last >= 2**32 or last - first >= MOST_PLACES:
            raise RedactError(
                f"--seeds={text} was asked - {part.strip()!r} is no seed and no range of at most {MOST_PLACES} - give for example 0-7,12"
            )
        found += range(first, last + 1)
    if len(found) > MOST_PLACES:
        raise RedactError(f"--seeds={text} was asked - these are {len(found)} - give {MOST_PLACES} at most")
    return tuple(found)
