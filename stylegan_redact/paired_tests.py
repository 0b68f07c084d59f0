# SPDX-License-Identifier: Apache-2.0
"""The same seeds before and after -> p-values: did an attribute change at all, did it stay within margins, did it leave them?

McNemar's test is exact. The tests against a margin are score tests, corrected for skewness and for continuity. Uncorrected they reject up to three
times as often as they say where few images change; corrected, and enumerated over all outcomes, at most 1.15 times as often from 20 images on that
show the attribute, at most 1.4 times below that. `tests/test_paired_tests.py` holds this.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from stylegan_redact.estimates import Flags, likeliest_lost, pair_counts
from stylegan_redact.types import RedactError

POWER = 0.8
"""How often as many images as `images_needed` says are to be enough."""
MOST_TIMES = 1000
"""So many times the images at hand is as far as `images_needed` looks."""
DRAWS, STEPS = 400, 300
"""Tables that it draws for each number of images, and numbers of images between one and MOST_TIMES that it may answer with."""


@dataclass(frozen=True)
class Tested:
    """A hypothesis with its p-value; `dataclasses.asdict` is its JSON."""

    p: float
    """Of this hypothesis alone."""
    p_adjusted: float
    """Over all hypotheses that were tested with it."""
    n: int
    """Pairs."""
    method: str


def mcnemar(before: Flags, after: Flags) -> float:
    """The p-value of "as many pairs gained as lost it", two-sided and exact.

    Args:
        before: [n] bool, does sample i show the attribute before.
        after:  [n] bool, does the same sample show it after.

    Returns:
        In (0, 1]; 1 if no pair changed.

    Raises:
        RedactError: not bool, or not as many before as after.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions", with the binomial distribution itself.
    """
    table = _table(before, after)
    fewer, changed = min(table.gained, table.lost), table.gained + table.lost
    return min(1.0, 2 * float(special.bdtr(fewer, changed, 0.5)))


def equivalence(before: Flags, after: Flags, points: float) -> float:
    """The p-value of "the rate changed by `points` or more, up or down"; a small one shows that it did not.

    Args:
        before: [n] bool, does sample i show the attribute before.
        after:  [n] bool, does the same sample show it after.
        points: The margin, percentage points in (0, 100).

    Raises:
        RedactError: a margin out of its range, not bool, or not as many before as after.

    Source: Schuirmann 1987 (two one-sided tests); Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the
    paired-sample design" (score); Gart and Nam 1988, "Approximate interval estimation of the ratio of binomial parameters" (skewness).
    """
    return _equivalence(_table(before, after), _checked("points", points, 100) / 100)


def keeps_share(before: Flags, after: Flags, share: float) -> float:
    """The p-value of "rate after / rate before is 1 - `share` or less"; a small one shows that less than that share was lost.

    Args:
        before: [n] bool, does sample i show the attribute before.
        after:  [n] bool, does the same sample show it after.
        share:  Of the rate before that may be lost, in (0, 1).

    Returns:
        In [0, 1]; 1 if no pair shows it at all.

    Raises:
        RedactError: a share out of its range, not bool, or not as many before as after.

    Source: Nam and Blackwelder 2002, "Analysis of the ratio of marginal probabilities in a matched-pair setting" (score); Gart and Nam 1988.
    """
    return _ratio(_table(before, after), 1 - _checked("share", share, 1), +1)


def within_margins(before: Flags, after: Flags, points: float, share: float) -> float:
    """The p-value of "changed by `points` or more, or lost `share` or more": of all margins the worst, which needs no correction.

    Args and raises as `equivalence` and `keeps_share`. Source: Berger 1982, "Multiparameter hypothesis testing and acceptance sampling".
    """
    return _within(_table(before, after), _checked("points", points, 100) / 100, 1 - _checked("share", share, 1))


def beyond_margins(before: Flags, after: Flags, points: float, share: float) -> float:
    """The p-value of "changed by `points` at most, and lost `share` at most": three times the best of three (Bonferroni).

    Args and raises as `equivalence` and `keeps_share`.
    """
    return _beyond(_table(before, after), _checked("points", points, 100) / 100, 1 - _checked("share", share, 1))


def images_needed(before: Flags, after: Flags, points: float, share: float, level: float = 0.05) -> int | None:
    """About how many pairs would show a change within or beyond the margins, four times in five, if the rates seen were the true ones (simulated).

    Args:
        before: [n] bool, does sample i show the attribute before.
        after:  [n] bool, does the same sample show it after.
        points: As `equivalence`.
        share:  As `keeps_share`.
        level:  That the p-value is held against.

    Returns:
        Pairs, more than n; None: more than MOST_TIMES as many as there are.

    Raises:
        RedactError: as `equivalence` and `keeps_share`.
    """
    table = _table(before, after)
    delta, ratio = _checked("points", points, 100) / 100, 1 - _checked("share", share, 1)
    cells = np.array([table.both, table.lost, table.gained, table.n - table.both - table.lost - table.gained]) / table.n

    def often_enough(step: int) -> bool:
        n = math.ceil(table.n * MOST_TIMES ** (step / STEPS))
        counts = np.random.default_rng(0).multinomial(n, cells, DRAWS).tolist()
        drawn = [_Table(both, lost, gained, n) for both, lost, gained, _ in counts]
        told = sum(_within(each, delta, ratio) <= level or _beyond(each, delta, ratio) <= level for each in drawn)
        return told >= POWER * DRAWS

    step = 1 + bisect.bisect_left(range(1, STEPS + 1), True, key=often_enough)
    return None if step > STEPS else math.ceil(table.n * MOST_TIMES ** (step / STEPS))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """p-values adjusted for how many they are: one that is at most 5 % may be called so with at most 5 % for any false call among all.

    Args:
        p_values: Each in [0, 1], in any order; they may depend on each other.

    Returns:
        In the order given, each in [0, 1] and no smaller than it was.

    Raises:
        RedactError: a p-value outside [0, 1].

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    values = np.asarray(p_values, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        raise RedactError(f"Holm's correction was asked - the p-values are {list(p_values)} - give probabilities, each in [0, 1]")
    order = np.argsort(values)
    stepped = np.minimum(np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1)), 1.0)
    adjusted = np.empty_like(values)
    adjusted[order] = stepped
    return tuple(float(value) for value in adjusted)


@dataclass(frozen=True)
class _Table:
    """How many pairs show it before and after, only before, only after, and how many pairs there are."""

    both: int
    lost: int
    gained: int
    n: int


def _table(before: Flags, after: Flags) -> _Table:
    both, before_hits, after_hits, n = pair_counts(before, after)
    return _Table(both, before_hits - both, after_hits - both, n)


def _checked(name: str, margin: float, limit: float) -> float:
    if not 0 < margin < limit:
        raise RedactError(f"a margin of {margin} ({name}) was asked - a margin lies in (0, {limit}) - give what may be lost without harm")
    return margin


def _within(table: _Table, delta: float, ratio: float) -> float:
    return max(_equivalence(table, delta), _ratio(table, ratio, +1))


def _beyond(table: _Table, delta: float, ratio: float) -> float:
    return min(1.0, 3 * min(_change(table, delta, +1), _change(table, -delta, -1), _ratio(table, ratio, -1)))


def _equivalence(table: _Table, delta: float) -> float:
    return max(_change(table, -delta, +1), _change(table, delta, -1))


def _change(table: _Table, delta: float, side: int) -> float:
    """The p-value of "the rate changed by delta, a share, at most" (side +1), or "at least" (side -1)."""
    lost = likeliest_lost(delta, table.gained, table.lost, table.n)
    gained = lost + delta
    variance = lost + gained - delta**2
    third = gained * (1 - delta) ** 3 - lost * (1 + delta) ** 3 - (1 - lost - gained) * delta**3
    return _p_of_score(table.gained - table.lost - table.n * delta, table.n, variance, third, side)


def _ratio(table: _Table, ratio: float, side: int) -> float:
    """The p-value of "rate after / rate before is `ratio` at most" (side +1), or "at least" (side -1). Pairs that never show it do not enter."""
    m = table.both + table.lost + table.gained
    if m == 0:
        return 1.0
    # Among those m, P(gained) by maximum likelihood given the ratio: the larger root of a g^2 - b g - c.
    a, c = ratio * (1 + ratio) * m, table.gained * ratio * (1 - ratio)
    b = table.gained * (2 * ratio**2 - 1) + table.lost * ratio**2 - table.both * (1 - ratio**2)
    root = math.sqrt(b * b + 4 * a * c)
    gained = (b + root) / (2 * a) if b >= 0 else 2 * c / (root - b)  # second form: no cancellation
    lost = 1 - ratio + ratio * gained
    variance = (1 - gained - lost) * (1 - ratio) ** 2 + gained + ratio**2 * lost
    third = (1 - gained - lost) * (1 - ratio) ** 3 + gained - ratio**3 * lost
    return _p_of_score(table.both + table.gained - ratio * (table.both + table.lost), m, variance, third, side)


def _p_of_score(excess: float, n: float, variance: float, third: float, side: int) -> float:
    """The upper (side +1) or lower tail of a sum of n terms with mean 0, this variance, and this third moment, at a sum of whole steps.

    Half a step is for continuity. z solves score = z + skewness (z^2 - 1) / 6, as Cornish and Fisher 1938 have it; where that has no solution, it is
    the least extreme one that there could be.
    """
    score = (excess - side / 2) / math.sqrt(n * variance)
    sixth = third / (6 * variance**1.5 * math.sqrt(n))
    square = 1 + 4 * sixth * (score + sixth)
    z = 2 * (score + sixth) / (1 + math.sqrt(square)) if square > 0 else -1 / (2 * sixth)
    return float(special.ndtr(-side * z))
