# SPDX-License-Identifier: Apache-2.0
"""Two yes-or-no answers about the same images -> Estimate: how far they agree beyond chance, and how far they go together."""

from __future__ import annotations

import math

import numpy as np

from stylegan_redact.estimates import Flags, clopper_pearson, pair_counts
from stylegan_redact.types import Estimate


def cohen_kappa(one: Flags, other: Flags, confidence: float = 0.95) -> Estimate:
    """Agreement beyond chance: 1 is always, 0 is what two who do not look would reach; nan if both always say the same one thing.

    Args:
        one:        [n] bool, what the first says of each image.
        other:      [n] bool, what the second says of the same images.
        confidence: Two-sided, in (0, 1).

    Raises:
        RedactError: not bool, or not as many of one as of the other.

    Source: Cohen 1960, "A coefficient of agreement for nominal scales"; the error is that of Fleiss, Cohen and Everitt 1969, "Large sample standard
    errors of kappa and weighted kappa", as influences of single images; k = (a - e) / (1 - e), a the share of equal answers, e that by chance.
    """
    x, y = _answers(one, other)
    p, q, same = x.mean(), y.mean(), (x == y).astype(float)
    chance = p * q + (1 - p) * (1 - q)
    if chance == 1:
        return Estimate(math.nan, -1.0, 1.0, len(x), "", confidence)
    value = (same.mean() - chance) / (1 - chance)
    if value == 1:
        return Estimate(1.0, _least(x, confidence), 1.0, len(x), "", confidence)
    # d chance = (2 q - 1) d p + (2 p - 1) d q
    by_chance = (2 * q - 1) * (x - p) + (2 * p - 1) * (y - q)
    influence = ((same - same.mean()) - (1 - value) * by_chance) / (1 - chance)
    half = _half(influence, confidence)
    return Estimate(float(value), max(-1.0, float(value) - half), min(1.0, float(value) + half), len(x), "", confidence)


def phi(one: Flags, other: Flags, confidence: float = 0.95) -> Estimate:
    """The correlation of two yes-or-no answers, in [-1, 1]; nan if one of them is always the same.

    Args:
        one:        [n] bool.
        other:      [n] bool, of the same images.
        confidence: Two-sided, in (0, 1).

    Raises:
        RedactError: not bool, or not as many of one as of the other.

    Source: Pearson's correlation; its error by the delta method on multinomial counts (Bishop, Fienberg and Holland 1975, chapter 11), as influences
    of single images: zx zy - r (zx^2 + zy^2) / 2. The interval is symmetric on Fisher's scale.
    """
    x, y = _answers(one, other)
    if x.std() == 0 or y.std() == 0:
        return Estimate(math.nan, -1.0, 1.0, len(x), "", confidence)
    zx, zy = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    value = float((zx * zy).mean())
    if abs(value) > 1 - 1e-12:
        least = _least(x, confidence)
        return Estimate(1.0, least, 1.0, len(x), "", confidence) if value > 0 else Estimate(-1.0, -1.0, -least, len(x), "", confidence)
    influence = (zx * zy - value * (zx**2 + zy**2) / 2) / (1 - value**2)
    half = _half(influence, confidence)
    return Estimate(value, math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half), len(x), "", confidence)


def _answers(one: Flags, other: Flags) -> tuple[np.ndarray, np.ndarray]:
    pair_counts(one, other)
    return tuple(np.asarray(side.cpu() if hasattr(side, "cpu") else side).astype(float) for side in (one, other))  # type: ignore[return-value]


def _half(influence: np.ndarray, confidence: float) -> float:
    from scipy import stats  # It takes as long as torch to import, and the first step does not need it.

    return float(stats.norm.isf((1 - confidence) / 2)) * math.sqrt(float((influence**2).mean()) / len(influence))


def _least(x: np.ndarray, confidence: float) -> float:
    """What may lie behind answers that all agree, where the errors are 0: as many unequal ones as n equal ones leave room for, half and half."""
    unequal = clopper_pearson(0, len(x), confidence).high
    return max(-1.0, 1 - unequal / (2 * float(x.mean()) * (1 - float(x.mean()))))
