# SPDX-License-Identifier: Apache-2.0
"""What the default method promises on the bundled network, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from stylegan_redact.types import Estimate, RedactError


@dataclass(frozen=True)
class Target:
    """A limit on one number of an estimate."""

    text: str
    """For people."""
    key: str
    """`question/figure`."""
    part: str
    """Which number of the estimate: value, low or high."""
    limit: float
    """In the unit of the estimate."""
    at_least: bool = False
    """Otherwise at most."""


@dataclass(frozen=True)
class Verdict:
    """A target, what was measured, and whether it was met."""

    target: Target
    measured: Estimate
    met: bool


TARGETS = (
    Target("removed: at least 99 % of the feature", "residual_rate/removed", "value", 99.0, at_least=True),
    Target("residual rate: upper 95 % bound at most 0.25 %", "residual_rate/rate_after", "high", 0.25),
    Target("other attributes: mean change at most 0.5 points", "collateral/mean_absolute_change", "value", 0.5),
    Target("rare attributes: none loses more than 15 % of its share", "collateral/largest_rare_loss", "value", 15.0),
    Target("feature-free images: mean L1 at most 0.02", "image_change/l1_feature_free", "value", 0.02),
)


def at_bounds(targets: tuple[Target, ...] = TARGETS) -> tuple[Target, ...]:
    """The same limits for the end of the interval that is the worse one."""
    return tuple(replace(target, part="low" if target.at_least else "high") for target in targets)


def measurable(estimates: Mapping[str, Estimate], targets: tuple[Target, ...] = TARGETS) -> tuple[Target, ...]:
    """Those of the targets that there is a number for: not for a rare attribute where there is none."""
    return tuple(target for target in targets if target.key in estimates and estimates[target.key].n > 0)


def check(estimates: Mapping[str, Estimate], targets: tuple[Target, ...] = TARGETS) -> list[Verdict]:
    """Every target with what was measured; a figure that is nan meets none.

    Args:
        estimates: As `ask` gives them.
        targets:   To hold them against.

    Raises:
        RedactError: an estimate is missing.
    """
    verdicts = []
    for target in targets:
        if target.key not in estimates:
            raise RedactError(
                f"target {target.text!r} was to be checked - there is no estimate {target.key} - ask the question {target.key.split('/')[0]}"
            )
        number = getattr(estimates[target.key], target.part)
        verdicts.append(Verdict(target, estimates[target.key], number >= target.limit if target.at_least else number <= target.limit))
    return verdicts
