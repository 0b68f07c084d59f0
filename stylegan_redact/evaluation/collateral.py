# SPDX-License-Identifier: Apache-2.0
"""What else became rarer or more frequent?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from stylegan_redact.estimates import paired_rate_change
from stylegan_redact.evaluation._keep import MARGIN_POINTS, MARGIN_SHARE, relative_percent
from stylegan_redact.evaluation._paired import PairedImages, rate
from stylegan_redact.paired_tests import Tested, holm, mcnemar, within_margins
from stylegan_redact.plugins import option
from stylegan_redact.types import Estimate

CONFIDENCE = 0.95
BLOCK = 1 << 16
"""Seeds that are looked at together at a time."""


@dataclass(frozen=True)
class Collateral:
    """Rates of every other attribute before and after; a rare one that vanishes is named even if the mean hides it."""

    place: ClassVar[int] = 2
    """Of its section in the table; the smallest comes first."""

    rare_below: float = option(10.0, "an attribute is rare if its rate before is below this, in percent", low=0, high=100)
    resamples: int = option(2000, "bootstrap resamples of the seeds", low=100)
    seed: int = option(0, "of the bootstrap", low=0)

    def answer(self, pairs: PairedImages, feature: str, keep: tuple[str, ...] = ()) -> dict[str, Estimate]:
        """Rates and changes of every other attribute, and three figures over all of them.

        Returns:
            attribute/rate_before, attribute/rate_after: percent.
            attribute/change: rate after - rate before, percentage points, interval over pairs.
            attribute/relative_change: rate after / rate before - 1, percent, interval over pairs; nan where nothing showed it.
            mean_absolute_change: mean of |change| over the attributes, points; without width if no pair changed, which a bootstrap cannot widen.
            largest_rare_loss: the largest -relative_change of a rare attribute, percent; nan if none is rare. Its interval holds for all rare
                attributes together (Bonferroni), since the worst of many is picked.
            largest_kept_change: the change farthest from 0 among `keep`, points, interval for all of `keep` together; only if there is a `keep`.

        Source: Tango 1998 (change); Bonett and Price 2006 (relative change); Efron 1979 (bootstrap).
        """
        shows = {name: (pairs.shows_before(name), pairs.shows_after(name)) for name in pairs.others(feature, keep)}
        answers: dict[str, Estimate] = {}
        for name, (before, after) in shows.items():
            answers[f"{name}/rate_before"] = rate(before)
            answers[f"{name}/rate_after"] = rate(after)
            answers[f"{name}/change"] = paired_rate_change(before, after)
            answers[f"{name}/relative_change"] = relative_percent(before, after, CONFIDENCE)
        if shows:
            answers["mean_absolute_change"] = self._mean_absolute_change(*_patterns(list(shows.values())))
        answers["largest_rare_loss"] = self._largest_rare_loss(shows)
        if keep:
            together = 1 - (1 - CONFIDENCE) / len(keep)
            worst = max((paired_rate_change(*shows[name], confidence=together) for name in keep), key=lambda change: abs(change.value))
            answers["largest_kept_change"] = Estimate(worst.value, worst.low, worst.high, worst.n, worst.unit, CONFIDENCE)
        return answers

    def tests(self, pairs: PairedImages, feature: str, keep: tuple[str, ...] = ()) -> dict[str, Tested]:
        """Which of the other attributes changed, and which are shown not to have: p-values, apart from the estimates, which have intervals.

        Returns:
            attribute/changed: small where the rate is not what it was, by however little.
            attribute/within_margins: small where it changed by less than MARGIN_POINTS points and lost less than MARGIN_SHARE of itself.
            Each of the two adjusted over all other attributes. An attribute with neither small is one that these images are too few for.

        Source: McNemar 1947; Tango 1998 and Nam and Blackwelder 2002 (margins); Holm 1979.
        """
        shows = {name: (pairs.shows_before(name), pairs.shows_after(name)) for name in pairs.others(feature, keep)}
        changed = {name: mcnemar(*sides) for name, sides in shows.items()}
        within = {name: within_margins(*sides, MARGIN_POINTS, MARGIN_SHARE) for name, sides in shows.items()}
        margins = f"{MARGIN_POINTS:g} points and {100 * MARGIN_SHARE:g} %"
        answers: dict[str, Tested] = {}
        for what, found, method in (("changed", changed, "McNemar, exact"), ("within_margins", within, f"paired score tests against {margins}")):
            for name, adjusted in zip(found, holm(list(found.values())), strict=True):
                answers[f"{name}/{what}"] = Tested(found[name], adjusted, len(pairs.seeds), f"{method}; Holm over {len(found)}")
        return answers

    def _mean_absolute_change(self, patterns: np.ndarray, counts: np.ndarray) -> Estimate:
        """What changed, patterns [p, a] in {-1, 0, 1}, each in counts [p] of the seeds -> points, by bootstrap over seeds.

        |noise| is never negative, so that the value errs upward, and with it a percentile bootstrap. The upper end is that, the lower the value less
        what noise alone adds in 39 of 40 resamples: mean |change + noise| <= mean |change| + mean |noise|.
        """
        n = int(counts.sum())
        drawn = np.random.default_rng(self.seed).multinomial(n, counts / n, size=self.resamples)  # [resamples, p]: as good as resampling seeds
        observed, resampled = counts @ patterns / n, drawn @ patterns / n  # [a], [resamples, a]
        value = 100 * float(np.abs(observed).mean())
        tail = (1 - CONFIDENCE) / 2
        noise = 100 * float(np.quantile(np.abs(resampled - observed).mean(1), 1 - tail))
        high = 100 * float(np.quantile(np.abs(resampled).mean(1), 1 - tail))
        return Estimate(value, max(value - noise, 0.0), max(high, value), n, "points", CONFIDENCE)

    def _largest_rare_loss(self, shows: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> Estimate:
        rare = [pair for pair in shows.values() if 0 < int(pair[0].sum()) and 100 * float(pair[0].double().mean()) < self.rare_below]
        if not rare:
            return Estimate(math.nan, -math.inf, math.inf, 0, "%", CONFIDENCE)
        together = 1 - (1 - CONFIDENCE) / len(rare)
        changes = [relative_percent(before, after, together) for before, after in rare]
        # If every interval holds, the largest loss lies between the largest lower and the largest upper end.
        value, low, high = max(-c.value for c in changes), max(-c.high for c in changes), max(-c.low for c in changes)
        return Estimate(value, low, high, changes[0].n, "%", CONFIDENCE)


def _patterns(shows: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[np.ndarray, np.ndarray]:
    """Of before and after [n] bool of each attribute: the ways in which seeds changed, [p, a] in {-1, 0, 1}, and how many changed so, [p]."""
    found = []
    for start in range(0, len(shows[0][0]), BLOCK):
        some = slice(start, start + BLOCK)
        gained = torch.stack([after[some].to(torch.int8) - before[some].to(torch.int8) for before, after in shows], 1)
        found.append(np.unique(gained.numpy(), axis=0, return_counts=True))
    patterns, which = np.unique(np.concatenate([rows for rows, _ in found]), axis=0, return_inverse=True)
    counts = np.zeros(len(patterns), dtype=np.int64)
    np.add.at(counts, which.ravel(), np.concatenate([numbers for _, numbers in found]))
    return patterns.astype(np.int64), counts
