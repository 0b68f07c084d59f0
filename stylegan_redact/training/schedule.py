# SPDX-License-Identifier: Apache-2.0
"""How long and in what portions something is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """Settings that every training of ours has."""

    steps: int
    """Optimiser steps of `batch` samples each."""
    batch: int
    lr: float
    """Adam's step at its largest; it falls to zero."""
    seed: int
    """Of all randomness."""
    micro_batch: int | None = None
    """Images at a time, to save memory; gradients add up. None: the whole batch."""


def steps_of(kimg: float, batch: int) -> int:
    """Optimiser steps that see so many thousands of images; one at least."""
    return max(round(kimg * 1000 / batch), 1)


def falling(step: int, steps: int) -> float:
    """Factor of the learning rate at a step: from 1 along half a cosine to 0."""
    return 0.5 * (1 + math.cos(math.pi * step / steps))
