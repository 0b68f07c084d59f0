# SPDX-License-Identifier: Apache-2.0
"""Charts as SVG to be put into a page: text stays text, colours are the page's own, so that they follow its theme."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from stylegan_redact.evaluation import MARGIN_POINTS, MARGIN_SHARE
from stylegan_redact.report.facts import Side, Way

_COLOURS = {"ink": "#010203", "muted": "#040506", "line": "#070809", "before": "#0a0b0c", "after": "#0d0e0f", "other": "#101112", "band": "#131415"}
"""Placeholders: each becomes var(--chart-NAME)."""
_WIDTH = 7.6
"""Inches; a page shows them at about 96 pixels."""
_ROW = 0.27
_VICTIMS = {"after": ("after", "-", "o"), "before": ("before", "--", "s"), "clean": ("other", ":", "^")}
_LABELS = {"after": "redacted", "before": "original", "clean": "fine-tuned original"}
_TEXT = 9.0


def collateral(sides: Sequence[Side]) -> str:
    """The change of every other attribute with its interval: in points, and as a share of the rate before."""
    figure = _figure(_ROW * len(sides) + 0.95)
    rows = list(range(len(sides)))[::-1]
    panels = figure.subplots(1, 2, sharey=True)
    shown = (
        ([side.change for side in sides], "change of its rate, percentage points", (-MARGIN_POINTS, MARGIN_POINTS)),
        ([side.relative for side in sides], "change relative to its rate before, %", (-100 * MARGIN_SHARE, None)),
    )
    for axes, (estimates, label, (low, high)) in zip(panels, shown, strict=True):
        _bare(axes)
        axes.axvline(0, color=_COLOURS["muted"], linewidth=0.8)
        for limit in (low, high):
            if limit is not None:
                axes.axvline(limit, color=_COLOURS["muted"], linewidth=0.8, linestyle=(0, (2, 3)))
        for row, estimate in zip(rows, estimates, strict=True):
            axes.plot([estimate.low, estimate.high], [row, row], color=_COLOURS["after"], linewidth=1.6, solid_capstyle="round")
            axes.plot([estimate.value], [row], "o", color=_COLOURS["after"], markersize=4)
        axes.set_xlabel(label, color=_COLOURS["muted"])
        axes.margins(x=0.08)
    panels[0].set_yticks(rows, [side.name.replace("_", " ") + (" (keep)" if side.kept else "") for side in sides])
    panels[0].set_ylim(-0.7, len(sides) - 0.3)
    return _svg(figure, "collateral")


def ways(found: Sequence[Way]) -> str:
    """How often the feature shows before and after, for every way to sample."""
    figure = _figure(_ROW * 1.3 * len(found) + 0.95)
    axes = figure.subplots()
    _bare(axes)
    for row, way in zip(list(range(len(found)))[::-1], found, strict=True):
        for estimate, colour, marker in ((way.before, "before", "s"), (way.after, "after", "o")):
            axes.plot([estimate.low, estimate.high], [row, row], color=_COLOURS[colour], linewidth=1.8, solid_capstyle="round")
            axes.plot([estimate.value], [row], marker, color=_COLOURS[colour], markersize=4.5, label=colour if row == 0 else None)
    axes.set_xscale("symlog", linthresh=0.1, linscale=0.5)
    axes.set_xlim(-0.01, 100)
    axes.set_xticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
    axes.set_xticks([], minor=True)
    axes.set_yticks(list(range(len(found)))[::-1], [way.name for way in found])
    axes.set_ylim(-0.7, len(found) - 0.3)
    axes.set_xlabel("pictures that show it, %; logarithmic above 0.1", color=_COLOURS["muted"])
    _legend(figure, axes)
    return _svg(figure, "ways")


def attack(name: str, by_victim: Mapping[str, Any]) -> str:
    """How often an attack has brought the feature back by the time that it has cost so much, on the redacted network and on its controls.

    Args:
        name:      Of the attack.
        by_victim: Victim -> curve, as JSON has it.
    """
    figure = _figure(3.1, 0.7 * _WIDTH)
    axes = figure.subplots()
    _bare(axes)
    for victim, curve in by_victim.items():
        colour, style, marker = _VICTIMS.get(victim, ("other", "-.", "d"))
        points = sorted((int(cost), each) for cost, each in curve["points"].items())
        costs = [max(cost, 0.5) for cost, _ in points]
        values, low, high = ([float("nan") if each[end] is None else each[end] for _, each in points] for end in ("value", "low", "high"))
        axes.fill_between(costs, low, high, color=_COLOURS[colour], alpha=0.15, linewidth=0)
        axes.plot(costs, values, style, marker=marker, markersize=3, color=_COLOURS[colour], linewidth=1.4, label=_LABELS.get(victim, victim))
    some = next(iter(by_victim.values()))
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda cost, _: f"{cost:g}")
    axes.set_xticks([], minor=True)
    axes.set_ylim(-3, 103)
    axes.set_xlabel(some["unit"], color=_COLOURS["muted"])
    axes.set_ylabel("%", color=_COLOURS["muted"])
    _legend(figure, axes)
    return _svg(figure, f"attack-{re.sub('[^a-z0-9]+', '-', name.lower())}")


def _figure(height: float, width: float = _WIDTH) -> Any:
    # Imported when a report is made: it takes long, and most commands make none. No pyplot, which keeps a state of its own.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _bare(axes: Any) -> None:
    """Only the lower spine, and a light grid."""
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(_COLOURS["line"])
    axes.grid(axis="x", color=_COLOURS["line"], linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, colors=_COLOURS["ink"], labelsize=_TEXT)
    axes.xaxis.label.set_size(_TEXT)
    axes.yaxis.label.set_size(_TEXT)
    axes.patch.set_visible(False)


def _legend(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False, fontsize=_TEXT - 0.5, labelcolor=_COLOURS["ink"])


def _svg(figure: Any, name: str) -> str:
    """The figure as an <svg> element: no date in it, its ids apart from those of other charts, its colours the page's."""
    import matplotlib as mpl

    data = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(data, format="svg", transparent=True, metadata={key: None for key in ("Creator", "Date", "Format", "Type")})
    text = data.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\1{name}-", text)
    for colour, placeholder in _COLOURS.items():
        text = text.replace(placeholder, f"var(--chart-{colour})")
    text = re.sub(r"font-family: [^;\"]*|(?<=font: )([\d.]+px) [^;\"]*", lambda found: f"{found[1]} var(--sans)" if found[1] else "", text)
    return re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg class="chart" viewBox="\1" aria-hidden="true">', text, count=1)
