# SPDX-License-Identifier: Apache-2.0
"""Scores of generated pictures -> log odds that the feature shows: two groups of one spread are fitted to them, nobody having labelled any."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch

STARTS = (0.05, 0.2, 0.5)
"""Shares of the upper group that the fit is begun with; the likeliest end is taken."""
LEAST_APART = 2.0
"""Spreads between the means: with less, a mixture in equal parts has one peak. Ashman, Bird & Zepf 1994."""
LEAST_EVIDENCE = 10.0
"""Difference in Schwarz's criterion (BIC) to a single normal distribution: past this it is very strong. Kass & Raftery 1995."""
_STEPS, _SETTLED = 500, 1e-9


@dataclass(frozen=True)
class Groups:
    """Two normal distributions of one spread."""

    low: float
    """Mean of the group without the feature."""
    high: float
    """Mean of the group with it."""
    spread: float
    """Standard deviation within each."""
    share: float
    """Of the upper group."""
    evidence: float = math.nan
    """By how much Schwarz's criterion prefers two groups to one."""

    @property
    def apart(self) -> float:
        """Distance of the means in spreads."""
        return (self.high - self.low) / self.spread

    @property
    def distinct(self) -> bool:
        """Whether these are two groups."""
        return self.apart > LEAST_APART and self.evidence > LEAST_EVIDENCE

    def __str__(self) -> str:
        needed = f"{LEAST_APART:g} and {LEAST_EVIDENCE:g} are needed"
        return f"their means lie {self.apart:.1f} spreads apart, the evidence for two is {self.evidence:.0f}; {needed}"

    def log_odds(self, score: torch.Tensor) -> torch.Tensor:
        """[n] of belonging to the upper group: linear in the score, since both groups have one spread."""
        slope = (self.high - self.low) / self.spread**2
        middle = (self.high + self.low) / 2 - math.log(self.share / (1 - self.share)) / slope
        return slope * (score - middle)


def two_groups(score: torch.Tensor) -> Groups:
    """The two groups that make the scores [n] likeliest, by the EM algorithm from several starts.

    Source: Dempster, Laird and Rubin 1977.
    """
    values = score.detach().double().cpu()
    found = [_fit(values, share) for share in STARTS]
    best = max(found, key=lambda groups: _log_likelihood(values, groups))
    single = -len(values) * (math.log(max(float(values.std(correction=0)), 1e-30)) + 0.5)
    return replace(best, evidence=2 * (_log_likelihood(values, best) - single) - 2 * math.log(len(values)))  # Two numbers more than one group has.


def _fit(values: torch.Tensor, share: float) -> Groups:
    cut = values.quantile(1 - share)
    least = 1e-9 * float(values.std()) + 1e-30
    high, low = values[values >= cut].mean(), values[values <= cut].mean()
    groups = Groups(float(low), float(high), max(float(values.std()) / 2, least), share)
    for _ in range(_STEPS):
        if not groups.high > groups.low or not 0 < groups.share < 1:
            break
        mine = torch.sigmoid(groups.log_odds(values))
        share = float(mine.mean())
        low, high = ((1 - mine) * values).sum() / (1 - mine).sum(), (mine * values).sum() / mine.sum()
        spread = float((mine * (values - high).square() + (1 - mine) * (values - low).square()).mean()) ** 0.5
        before, groups = groups, Groups(float(low), float(high), max(spread, least), share)
        if abs(groups.share - before.share) < _SETTLED and abs(groups.high - before.high) < _SETTLED * groups.spread:
            break
    return groups


def _log_likelihood(values: torch.Tensor, groups: Groups) -> float:
    if not groups.high > groups.low or not 0 < groups.share < 1:
        return -math.inf
    parts = [
        math.log(share) - 0.5 * ((values - mean) / groups.spread).square() - math.log(groups.spread)
        for share, mean in ((groups.share, groups.high), (1 - groups.share, groups.low))
    ]
    return float(torch.logaddexp(*parts).sum())
