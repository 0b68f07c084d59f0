# SPDX-License-Identifier: Apache-2.0
"""Estimates as a plain-text table and as values for JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from stylegan_redact.evaluation._targets import Verdict
from stylegan_redact.types import Estimate


def format_estimate(estimate: Estimate) -> str:
    """`12.9 % (12.2-13.6)`: value, unit, interval, with as many decimals as the interval's width leaves meaning to; `-` for nan."""
    width = estimate.high - estimate.low
    decimals = 3 if width <= 0 or not math.isfinite(width) else min(max(-math.floor(math.log10(width / 5)), 0), 6)
    value, low, high = (_number(number, decimals) for number in (estimate.value, estimate.low, estimate.high))
    unit = f" {estimate.unit}" if estimate.unit else ""
    between = "-" if estimate.low >= 0 else " to "
    return f"{value}{unit} ({low}{between}{high})"


def render(estimates: Mapping[str, Estimate], feature: str) -> str:
    """The answers to all questions as aligned text: one section per question, one line per figure, one row per attribute.

    Args:
        estimates: Under `question/figure` or `question/attribute/figure`, as `ask` gives them.
        feature:   For the heading.
    """
    sections: dict[str, dict[str, Estimate]] = {}
    for key, estimate in estimates.items():
        question, _, rest = key.partition("/")
        sections.setdefault(question, {})[rest] = estimate
    confidences = sorted({f"{100 * estimate.confidence:g} %" for estimate in estimates.values()})
    lines = [f"{feature}, before -> after, with {' and '.join(confidences)} intervals"]
    for question, figures in sections.items():
        lines += ["", question.replace("_", " ")]
        lines += _aligned(_figure_lines({key: estimate for key, estimate in figures.items() if "/" not in key}))
        lines += _aligned(_attribute_rows({key: estimate for key, estimate in figures.items() if "/" in key}))
    return "\n".join(lines) + "\n"


def render_targets(verdicts: Sequence[Verdict]) -> str:
    """One line per target: met or MISSED, the target, what was measured."""
    rows = [
        ["met" if verdict.met else "MISSED", verdict.target.text, format_estimate(verdict.measured), _count(verdict.measured)] for verdict in verdicts
    ]
    return "\n".join(_aligned(rows)) + "\n"


def as_json(estimates: Mapping[str, Estimate]) -> dict[str, dict[str, float | int | str | None]]:
    """Plain values for JSON: value, low, high, n, unit, confidence under each key; None for a number that is not finite, which JSON has not."""
    return {
        key: {
            "value": _finite(estimate.value),
            "low": _finite(estimate.low),
            "high": _finite(estimate.high),
            "n": estimate.n,
            "unit": estimate.unit,
            "confidence": estimate.confidence,
        }
        for key, estimate in estimates.items()
    }


def _figure_lines(figures: Mapping[str, Estimate]) -> list[list[str]]:
    return [[label, text, _count(last)] for label, (text, last) in _joined(figures).items()]


def _attribute_rows(figures: Mapping[str, Estimate]) -> list[list[str]]:
    """A heading and one row per attribute; n stands in the heading, since an attribute does not change the number of images."""
    by_attribute: dict[str, dict[str, Estimate]] = {}
    for key, estimate in figures.items():
        attribute, _, figure = key.rpartition("/")
        by_attribute.setdefault(attribute, {})[figure] = estimate
    rows: list[list[str]] = []
    for attribute, own in by_attribute.items():
        cells = _joined(own)
        if not rows:
            rows.append(["", *(f"{label}, {_count(last)}" for label, (_, last) in cells.items())])
        rows.append([attribute.replace("_", " "), *(text for text, _ in cells.values())])
    return rows


def _joined(figures: Mapping[str, Estimate]) -> dict[str, tuple[str, Estimate]]:
    """Label -> text and estimate; `x_before` and `x_after` become one, labelled x."""
    joined: dict[str, tuple[str, Estimate]] = {}
    for name, estimate in figures.items():
        stem, _, side = name.rpartition("_")
        if side == "after" and f"{stem}_before" in figures:
            joined[stem.replace("_", " ")] = (f"{format_estimate(figures[f'{stem}_before'])} -> {format_estimate(estimate)}", estimate)
        elif side != "before" or f"{stem}_after" not in figures:
            joined[name.replace("_", " ")] = (format_estimate(estimate), estimate)
    return joined


def _aligned(rows: list[list[str]]) -> list[str]:
    if not rows:
        return []
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _count(estimate: Estimate) -> str:
    return f"n = {estimate.n:,}"


def _number(number: float, decimals: int) -> str:
    if math.isnan(number):
        return "-"
    text = f"{number:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text  # no -0.0


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
