# SPDX-License-Identifier: Apache-2.0
"""What became of the other attributes, apart for the seeds that had the feature and for those that never did?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stylegan_redact.evaluation._paired import PairedImages, rate
from stylegan_redact.types import Estimate


@dataclass(frozen=True)
class ConditionalRates:
    """P(attribute | this seed had the feature): alike before and after if the same people are there without the feature."""

    place: ClassVar[int] = 4
    """Of its section in the table; the smallest comes first."""

    def answer(self, pairs: PairedImages, feature: str, keep: tuple[str, ...] = ()) -> dict[str, Estimate]:
        """Rates of every other attribute among the seeds whose image before showed the feature (had) and among the others (never).

        Returns:
            attribute/had_before, attribute/had_after, attribute/never_before, attribute/never_after, in percent; nan where there is no such seed.
        """
        had = pairs.shows_before(feature)
        return {
            f"{name}/{group}_{side}": rate(shows[chosen])
            for name in pairs.others(feature, keep)
            for group, chosen in (("had", had), ("never", ~had))
            for side, shows in (("before", pairs.shows_before(name)), ("after", pairs.shows_after(name)))
        }
