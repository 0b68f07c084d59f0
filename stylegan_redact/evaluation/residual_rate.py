# SPDX-License-Identifier: Apache-2.0
"""How often does the feature still show?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stylegan_redact.estimates import clopper_pearson, removed_fraction
from stylegan_redact.evaluation._paired import PairedImages, rate
from stylegan_redact.types import Estimate


@dataclass(frozen=True)
class ResidualRate:
    """The judge's rate of the feature before and after: valid for these seeds' distribution, this way in, and this judge's idea of the feature."""

    place: ClassVar[int] = 1
    """Of its section in the table; the smallest comes first."""

    def answer(self, pairs: PairedImages, feature: str, keep: tuple[str, ...] = ()) -> dict[str, Estimate]:
        """Rates of the feature and the share that was removed.

        Returns:
            rate_before, rate_after: of all images.
            removed: 1 - rate after / rate before, with an interval over pairs; nan if no image showed it before.
            bound: rate after / (1 - the judge's miss rate), where that is known: what the rate may truly be, if the judge overlooks as much in these
                images as in those that it was counted on. Its upper end takes the upper ends of both, each of 97.5 %: joint 95 % (Bonferroni).
            still_shown: rate after among the images that showed it before.
            newly_shown: rate after among those that did not.
            All in percent.

        Source: Clopper and Pearson 1934 (rates); Bonett and Price 2006 (removed).
        """
        pairs.others(feature, keep)  # refuses unknown names
        before, after = pairs.shows_before(feature), pairs.shows_after(feature)
        removed = removed_fraction(int(before.sum()), int(after.sum()), len(before), both_hits=int((before & after).sum()))
        bound = {} if pairs.judge_misses is None else {"bound": _bound(rate(after), *pairs.judge_misses)}
        return {
            "rate_before": rate(before),
            "rate_after": rate(after),
            "removed": Estimate(100 * removed.value, 100 * removed.low, 100 * removed.high, removed.n, "%", removed.confidence),
            **bound,
            "still_shown": rate(after[before]),
            "newly_shown": rate(after[~before]),
        }


def _bound(after: Estimate, missed: int, n: int) -> Estimate:
    """The rate of the feature, of which the judge sees the share 1 - missed / n. What it sees where there is nothing counts as seen: cautious."""
    miss = clopper_pearson(missed, n)

    def true_rate(seen: float, overlooked: float) -> float:
        return min(seen / (1 - overlooked), 100.0) if overlooked < 1 else 100.0

    return Estimate(true_rate(after.value, miss.value), after.low, true_rate(after.high, miss.high), after.n, "%", after.confidence)
