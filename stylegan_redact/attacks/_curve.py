# SPDX-License-Identifier: Apache-2.0
"""Cost curves: how often an attack has succeeded by the time that it has cost so much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from stylegan_redact.estimates import clopper_pearson
from stylegan_redact.types import Estimate


@dataclass(frozen=True)
class Curve:
    """Of one attack on one victim."""

    unit: str
    """What is paid: images drawn, gradient steps, steps of fine-tuning."""
    what: str
    """What the points are, in percent: starting points where the feature came back, images that show it."""
    points: Mapping[int, Estimate]
    """Cost -> percent."""
    figures: Mapping[str, Estimate] = field(default_factory=dict)
    """What else there is to know, such as the distance to the prior."""

    @staticmethod
    def of_first_hits(hits: torch.Tensor, budgets: Sequence[int], unit: str, what: str = "starts where it came back") -> Curve:
        """hits [n]: what each start had cost when it first succeeded, inf for never."""
        points = {budget: percent(hits <= budget) for budget in budgets}
        return Curve(unit, what, points)


def percent(flags: torch.Tensor) -> Estimate:
    """The share of flags [n], n > 0, that is True, with Clopper and Pearson's interval."""
    share = clopper_pearson(int(flags.sum()), len(flags))
    return Estimate(100 * share.value, 100 * share.low, 100 * share.high, share.n, "%", share.confidence)


def budgets_up_to(most: int) -> tuple[int, ...]:
    """1, 2, 5, 10, 20, ... and `most`."""
    steps = [mantissa * 10**power for power in range(len(str(most))) for mantissa in (1, 2, 5)]
    return (*[step for step in steps if step < most], most)


def render(curves: Mapping[str, Mapping[str, Curve]]) -> str:
    """Attack -> victim -> curve, as aligned text: a row for each victim, a column for each cost, the last with its interval."""
    lines: list[str] = []
    for attack, by_victim in curves.items():
        costs = sorted({cost for curve in by_victim.values() for cost in curve.points})
        some = next(iter(by_victim.values()))
        rows = [["", *(f"{cost:,}" for cost in costs), "at the end"]]
        for victim, curve in by_victim.items():
            last = curve.points[max(curve.points)]
            cells = [f"{curve.points[cost].value:.1f}" if cost in curve.points else "" for cost in costs]
            rows.append([victim, *cells, f"{last.low:.1f} to {last.high:.1f}, n = {last.n}"])
        lines += ["", f"{attack.replace('_', ' ')}: {some.what}, %, by {some.unit}"]
        widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
        lines += ["  " + "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        for victim, curve in by_victim.items():
            lines += [f"  {victim}, {name.replace('_', ' ')}: {_text(value)}" for name, value in curve.figures.items()]
    return "\n".join(lines[1:]) + "\n"


def as_json(curve: Curve) -> dict[str, Any]:
    """Plain values."""
    points = {str(cost): _plain(estimate) for cost, estimate in curve.points.items()}
    return {"unit": curve.unit, "what": curve.what, "points": points, "figures": {name: _plain(value) for name, value in curve.figures.items()}}


def _plain(estimate: Estimate) -> dict[str, Any]:
    numbers = {name: getattr(estimate, name) for name in ("value", "low", "high")}
    return {name: number if math.isfinite(number) else None for name, number in numbers.items()} | {"n": estimate.n, "unit": estimate.unit}


def _text(estimate: Estimate) -> str:
    return f"{estimate.value:.4g} ({estimate.low:.4g} to {estimate.high:.4g}, n = {estimate.n})"
