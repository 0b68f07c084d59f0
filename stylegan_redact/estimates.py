# SPDX-License-Identifier: Apache-2.0
"""Counts or samples -> Estimate: no number without its interval.

Every function takes `before` in front of `after`. A quotient that the samples say nothing about (no hit before) has the value nan and an interval
that says as much; it never raises, because a rare attribute among forty must not end a report. Clopper and Pearson's interval covers at least as
often as it says for every rate; the intervals for changes do so on average and may fall short by about a point for single rates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from stylegan_redact.types import Estimate, RedactError

Flags = torch.Tensor | np.ndarray | Sequence[bool]
"""One bool per sample."""


def clopper_pearson(hits: int, n: int, confidence: float = 0.95) -> Estimate:
    """The rate behind `hits` of `n` independent samples, with an interval that covers at least as often as it says.

    Args:
        hits: Samples that show the feature, in [0, n].
        n: Samples looked at, > 0.
        confidence: Two-sided, in (0, 1).

    Returns:
        A share in [0, 1].

    Raises:
        RedactError: counts that no sample can have.

    Source: Clopper and Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial".
    """
    _check_count("hits", hits, n)
    tail = _tail(confidence)
    low = float(_stats().beta.ppf(tail, hits, n - hits + 1)) if hits > 0 else 0.0
    high = float(_stats().beta.isf(tail, hits + 1, n - hits)) if hits < n else 1.0
    return Estimate(hits / n, low, high, n, "", confidence)


def mean_interval(samples: torch.Tensor | np.ndarray | Sequence[float], confidence: float = 0.95, *, unit: str = "") -> Estimate:
    """The mean of independent samples with Student's t interval.

    Args:
        samples: [n], finite, n > 1.
        confidence: Two-sided, in (0, 1).
        unit: Of the samples; handed on.

    Returns:
        The mean, in the unit of the samples.

    Raises:
        RedactError: fewer than two samples, or one that is not finite.

    Source: Student 1908, "The probable error of a mean".
    """
    values = np.asarray(samples.detach().cpu() if isinstance(samples, torch.Tensor) else samples, dtype=np.float64)
    if values.ndim != 1 or values.size < 2 or not np.isfinite(values).all():
        raise RedactError(f"A mean with its interval was asked - the samples have shape {values.shape} - give two or more finite numbers, [n]")
    half = float(_stats().t.isf(_tail(confidence), values.size - 1)) * float(values.std(ddof=1)) / math.sqrt(values.size)
    mean = float(values.mean())
    return Estimate(mean, mean - half, mean + half, values.size, unit, confidence)


def separation(shows: Flags, score: Sequence[float] | np.ndarray | torch.Tensor, confidence: float = 0.95) -> Estimate:
    """AUC: how often a score of one that shows the feature is above that of one that does not, ties counting half; 0.5 is chance.

    Args:
        shows:      [n] bool, both occur.
        score:      [n].
        confidence: Two-sided, in (0, 1).

    Source: Mann and Whitney 1947; variance of DeLong, DeLong and Clarke-Pearson 1988. The interval is symmetric in the log odds; where every
    pair is the same way round it is Clopper and Pearson's of as many trials as there are of the rarer kind.
    """
    flags, values = (np.asarray(side.cpu() if isinstance(side, torch.Tensor) else side) for side in (shows, score))
    mine, others = np.sort(values[flags]), np.sort(values[~flags])
    of_mine = (np.searchsorted(others, mine, "left") + np.searchsorted(others, mine, "right")) / 2 / len(others)
    of_others = 1 - (np.searchsorted(mine, others, "left") + np.searchsorted(mine, others, "right")) / 2 / len(mine)
    value, rarer = float(of_mine.mean()), min(len(mine), len(others))
    if value in (0.0, 1.0) or rarer < 2:
        edge = clopper_pearson(rarer if value > 0.5 else 0, rarer, confidence)
        return Estimate(value, min(value, edge.low), max(value, edge.high), len(values), "", confidence)
    error = math.sqrt(of_mine.var(ddof=1) / len(mine) + of_others.var(ddof=1) / len(others))
    half = float(_stats().norm.isf(_tail(confidence))) * error / (value * (1 - value))
    logit = math.log(value / (1 - value))
    return Estimate(value, 1 / (1 + math.exp(half - logit)), 1 / (1 + math.exp(-half - logit)), len(values), "", confidence)


def paired_rate_change(before: Flags, after: Flags, confidence: float = 0.95) -> Estimate:
    """Rate after minus rate before, in percentage points, over pairs (the same seed before and after).

    Args:
        before: [n] bool, does sample i show the feature before.
        after: [n] bool, does the same sample show it after.
        confidence: Two-sided, in (0, 1).

    Returns:
        Percentage points in [-100, 100], negative where the feature became rarer. If no pair changed: 0 +- 100 z^2 / (n + z^2).

    Raises:
        RedactError: not bool, or not as many before as after.

    Source: Tango 1998, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design" (score interval).
    """
    both, before_hits, after_hits, n = pair_counts(before, after)
    gained, lost = after_hits - both, before_hits - both
    z = float(_stats().norm.isf(_tail(confidence)))
    value = (gained - lost) / n

    def statistic(delta: float) -> float:
        return _tango_statistic(delta, gained, lost, n)

    low = _where_equal(statistic, z, -1.0, value)
    high = _where_equal(statistic, -z, value, 1.0)
    return Estimate(100 * value, 100 * low, 100 * high, n, "points", confidence)


def relative_change(before: Flags, after: Flags, confidence: float = 0.95) -> Estimate:
    """Rate after / rate before - 1 over pairs: -1 is gone, 0 is unchanged, 1 is twice as frequent.

    Args:
        before: [n] bool, does sample i show the feature before.
        after: [n] bool, does the same sample show it after.
        confidence: Two-sided, in (0, 1).

    Returns:
        A ratio in [-1, inf). Without a hit before, `high` is inf, and the value is inf, or nan if there is none after either.

    Raises:
        RedactError: not bool, or not as many before as after.

    Source: Bonett and Price 2006, "Confidence intervals for a ratio of binomial proportions based on paired data" (hybrid of Wilson intervals).
    """
    both, before_hits, after_hits, n = pair_counts(before, after)
    low, high = _paired_ratio_bounds(before_hits, after_hits, both, float(_stats().norm.isf(_tail(confidence))))
    return Estimate(_quotient(after_hits, before_hits) - 1, low - 1, high - 1, n, "", confidence)


def removed_fraction(
    before_hits: int, after_hits: int, n: int, *, n_after: int | None = None, both_hits: int | None = None, confidence: float = 0.95
) -> Estimate:
    """1 - rate after / rate before: 1 is all removed, 0 is nothing removed, negative is more than before.

    Args:
        before_hits: Samples that show the feature before, in [0, n].
        after_hits: Samples that show it after, in [0, n_after].
        n: Samples looked at before.
        n_after: Samples looked at after; None: n.
        both_hits: Of the same n seeds, how many show it before and after. Makes the interval that of pairs, which is narrower. None: the two sets
            count as independent, which is cautious for the same seeds (what still shows was mostly there before).
        confidence: Two-sided, in (0, 1).

    Returns:
        A share in (-inf, 1]. Without a hit before, `low` is -inf, and the value is -inf, or nan if there is none after either.

    Raises:
        RedactError: counts that no samples can have.

    Source: independent: Koopman 1984, "Confidence intervals for the ratio of two binomial proportions" (score); pairs: Bonett and Price 2006.
    """
    count_after = n if n_after is None else n_after
    _check_count("before_hits", before_hits, n)
    _check_count("after_hits", after_hits, count_after)
    z = float(_stats().norm.isf(_tail(confidence)))
    if both_hits is None:
        low, high = _koopman_bounds(before_hits, n, after_hits, count_after, z)
    else:
        if count_after != n or not max(0, before_hits + after_hits - n) <= both_hits <= min(before_hits, after_hits):
            raise RedactError(
                f"An interval over pairs was asked with both_hits={both_hits} - hits are {before_hits} of {n} before and {after_hits} of "
                f"{count_after} after - pairs need the same n, and both_hits that fits both counts"
            )
        low, high = _paired_ratio_bounds(before_hits, after_hits, both_hits, z)
    rate_ratio = _quotient(after_hits * n, before_hits * count_after)
    return Estimate(1 - rate_ratio, 1 - high, 1 - low, count_after, "", confidence)


def pair_counts(before: Flags, after: Flags) -> tuple[int, int, int, int]:
    """Hits in both, hits before, hits after, and the number of pairs. Raises RedactError: not bool, or not as many before as after."""
    flags = [np.asarray(side.detach().cpu() if isinstance(side, torch.Tensor) else side) for side in (before, after)]
    if any(side.dtype != np.bool_ for side in flags) or flags[0].ndim != 1 or flags[0].shape != flags[1].shape or flags[0].size == 0:
        told = ", ".join(f"{side.dtype} {side.shape}" for side in flags)
        raise RedactError(f"A change over pairs was asked - before, after are {told} - give two bool arrays [n] in one order (score > 0)")
    return int((flags[0] & flags[1]).sum()), int(flags[0].sum()), int(flags[1].sum()), flags[0].size


def likeliest_lost(delta: float, gained: float, lost: float, n: float) -> float:
    """P(lost) by maximum likelihood if P(gained) - P(lost) is delta, a share in (-1, 1). Source: Tango 1998, section 3."""
    a, b, c = 2 * n, -gained - lost + (2 * n - gained + lost) * delta, -lost * delta * (1 - delta)
    root = math.sqrt(max(b * b - 4 * a * c, 0.0))
    return (root - b) / (2 * a) if b <= 0 else -2 * c / (b + root)  # second form: no cancellation


def _stats() -> Any:
    """scipy.stats, imported with the first figure: it takes as long as torch, and a run has no figure before it has labels."""
    from scipy import stats

    return stats


def _tail(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise RedactError(f"confidence={confidence} was asked - a confidence lies in (0, 1) - 0.95 is the usual one")
    return (1 - confidence) / 2


def _check_count(name: str, hits: int, n: int) -> None:
    if n < 1 or not 0 <= hits <= n:
        raise RedactError(f"An interval for {name}={hits} of n={n} was asked - hits lie in [0, n] and n is 1 or more - count again")


def _quotient(numerator: int, denominator: int) -> float:
    if denominator == 0:
        return math.inf if numerator > 0 else math.nan
    return numerator / denominator


def _where_equal(function: Callable[[float], float], level: float, left: float, right: float) -> float:
    """Where a falling function on (left, right) takes the level; an end point of the range if it does not get there."""
    inset = 1e-13 * max(1.0, abs(left), abs(right))
    if right - left <= 2 * inset:
        return left
    start, stop = left + inset, right - inset
    if function(start) <= level:
        return left
    if function(stop) >= level:
        return right
    from scipy.optimize import brentq  # As _stats.

    return float(brentq(lambda x: function(x) - level, start, stop, xtol=1e-14))


def _tango_statistic(delta: float, gained: int, lost: int, n: int) -> float:
    """Tango 1998, section 3: the score of P(gained) - P(lost) = delta, standard normal if that is so; falls in delta."""
    excess = gained - lost - n * delta
    variance = n * (2 * likeliest_lost(delta, gained, lost, n) + delta * (1 - delta))
    return excess / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, excess) if excess else 0.0


def _paired_ratio_bounds(before_hits: int, after_hits: int, both_hits: int, z: float) -> tuple[float, float]:
    """Bonett and Price 2006: a quotient of two Wilson intervals, narrowed for what the pairs share. Pairs without any hit do not enter."""
    m = before_hits + after_hits - both_hits
    changed = before_hits + after_hits - 2 * both_hits

    def log_error(hits: int) -> float:
        return math.sqrt((1 - (hits + 1) / (m + 2)) / (hits + 1))

    joint = math.sqrt((changed + 2) / ((before_hits + 1) * (after_hits + 1)))
    narrowed = z * joint / (log_error(before_hits) + log_error(after_hits))

    def wilson(hits: int, side: int) -> float:
        spread = side * narrowed * math.sqrt(narrowed**2 + 4 * hits * (1 - hits / max(m, 1)))
        bound = (2 * hits + narrowed**2 + spread) / (2 * (m + narrowed**2))
        return bound if hits > 0 or side > 0 else 0.0  # exactly 0, where rounding leaves a trace

    least_before = wilson(before_hits, -1)
    return wilson(after_hits, -1) / wilson(before_hits, +1), wilson(after_hits, +1) / least_before if least_before > 0 else math.inf


def _koopman_bounds(before_hits: int, n_before: int, after_hits: int, n_after: int, z: float) -> tuple[float, float]:
    """Koopman 1984: the rate ratios after / before that a score test at z does not reject."""

    def statistic(log_ratio: float) -> float:
        ratio = math.exp(log_ratio)
        # Rate before by maximum likelihood given the ratio: the smaller root of a p^2 - b p + c.
        a, c = (n_before + n_after) * ratio, before_hits + after_hits
        b = (n_after + before_hits) * ratio + n_before + after_hits
        p = 2 * c / (b + math.sqrt(max(b * b - 4 * a * c, 0.0)))
        excess = after_hits / n_after - ratio * before_hits / n_before
        variance = ratio * p * max(1 - ratio * p, 0.0) / n_after + ratio**2 * p * max(1 - p, 0.0) / n_before
        return excess / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, excess) if excess else 0.0

    if before_hits + after_hits == 0:
        return 0.0, math.inf
    limit = math.log(n_before + n_after) + 20.0  # wider than any ratio that the counts can leave open
    estimate = math.log(after_hits * n_before / (before_hits * n_after)) if before_hits and after_hits else -limit if before_hits else limit
    low = math.exp(_where_equal(statistic, z, -limit, estimate)) if after_hits else 0.0
    return low, math.exp(_where_equal(statistic, -z, estimate, limit)) if before_hits else math.inf
