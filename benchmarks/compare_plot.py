# SPDX-License-Identifier: Apache-2.0
"""The plot of `compare_methods.py`: how much each method removes against how much else it moves, and which methods no other one beats at both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MOST_REMOVED = 99.99
"""Percent that the axis ends at: it shows the share left on a logarithmic scale, where nothing left is infinitely far."""
TICKS_REMOVED = (0, 50, 80, 90, 95, 98, 99, 99.5, 99.9, MOST_REMOVED)
TICKS_OTHERS = (0, 0.1, 0.5, 1, 2, 5, 10, 20, 50)
INK, MUTED, ACCENT = "#222222", "#7a7a7a", "#1f5fa8"
FRONTIER_TOLD = "frontier: no other is better at both"
Row = Mapping[str, Any]


def draw(rows: Sequence[Row], path: Path) -> list[Path]:
    """`path` as SVG and PNG, a panel for each feature; nothing where no row has both figures."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {feature: points_of([row for row in rows if row["feature"] == feature]) for feature in dict.fromkeys(row["feature"] for row in rows)}
    panels = {feature: points for feature, points in panels.items() if points}
    if not panels:
        return []
    columns = min(len(panels), 2)
    with matplotlib.rc_context({"font.size": 10, "svg.hashsalt": "compare_methods", "svg.fonttype": "path", "axes.edgecolor": MUTED}):
        figure = Figure(figsize=(7.2 * columns, 5.4 * math.ceil(len(panels) / columns)), layout="constrained", facecolor="white")
        canvas = FigureCanvasAgg(figure)
        axes = figure.subplots(math.ceil(len(panels) / columns), columns, squeeze=False).flatten()
        for panel in axes[len(panels) :]:
            panel.remove()
        for panel, (feature, points) in zip(axes, panels.items(), strict=False):
            _panel(panel, feature, points)
        canvas.draw()  # The layout has to stand before labels can be placed by what they cover.
        figure.set_layout_engine("none")
        for panel, points in zip(axes, panels.values(), strict=False):
            _label(panel, points, canvas.get_renderer())
        files = [path.with_suffix(suffix) for suffix in (".svg", ".png")]
        for file in files:
            figure.savefig(file, dpi=150, metadata={"Date": None} if file.suffix == ".svg" else {})
    return files


def points_of(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """Method -> [[others, low, high], [removed, low, high]], of rows that have both."""
    points = {}
    for row in rows:
        pair = [row.get("estimates", {}).get(key) for key in ("collateral/mean_absolute_change", "residual_rate/removed")]
        numbers = [[None if each is None else each[name] for name in ("value", "low", "high")] for each in pair]
        if all(number is not None for each in numbers for number in each):
            points[row["method"]] = np.array(numbers, dtype=float)
    return points


def frontier(points: Mapping[str, np.ndarray]) -> list[str]:
    """Methods that no other beats at both, by the values, from the one that moves least to the one that removes most."""
    values = {name: (each[0, 0], each[1, 0]) for name, each in points.items()}

    def beaten(name: str) -> bool:
        x, y = values[name]
        return any(u <= x and v >= y and (u, v) != (x, y) for u, v in values.values())

    return sorted((name for name in values if not beaten(name)), key=lambda name: values[name])


def _panel(panel: Any, feature: str, points: Mapping[str, np.ndarray]) -> None:
    """Axes, points with their intervals, and the frontier as steps; labels come later."""
    best = frontier(points)
    panel.set_facecolor("white")
    panel.set_title(feature, loc="left", color=INK, fontweight="bold")
    panel.set_yscale("function", functions=(_to_axis, _from_axis))
    panel.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
    for name, ((x, x_low, x_high), (y, y_low, y_high)) in points.items():
        shown = np.clip([y, y_low, y_high], None, MOST_REMOVED)
        bars = {"xerr": [[max(x - x_low, 0)], [max(x_high - x, 0)]], "yerr": [[max(shown[0] - shown[1], 0)], [max(shown[2] - shown[0], 0)]]}
        colour = ACCENT if name in best else MUTED
        panel.errorbar(x, shown[0], **bars, fmt="o", ms=5, color=colour, elinewidth=1.1, capsize=2.5, zorder=3, clip_on=False)
    steps = np.array([[points[name][0, 0], min(points[name][1, 0], MOST_REMOVED)] for name in best])
    panel.step(steps[:, 0], steps[:, 1], where="post", color=ACCENT, lw=1, ls="--", alpha=0.7, zorder=2, label=FRONTIER_TOLD)
    _axes(panel, points)


def _axes(panel: Any, points: Mapping[str, np.ndarray]) -> None:
    highest = max(each[0].max() for each in points.values())
    lowest = min(min(each[1].min() for each in points.values()), 0.0)
    panel.set_xlim(0, max(highest * 1.25, 0.5))
    panel.set_ylim(lowest - 8 if lowest < 0 else -8, MOST_REMOVED)
    panel.set_yticks(TICKS_REMOVED, labels=[f"{tick:g}" for tick in TICKS_REMOVED[:-1]] + [f"≥ {MOST_REMOVED}"])
    ticks = [tick for tick in TICKS_OTHERS if tick <= panel.get_xlim()[1]]
    panel.set_xticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    panel.minorticks_off()
    panel.grid(color="#e6e6e6", lw=0.7, zorder=0)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    panel.tick_params(colors=INK, length=3)
    panel.set_xlabel("others moved, points (mean over attributes)", color=INK)
    panel.set_ylabel("removed, %", color=INK)
    panel.legend(loc="lower right", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)


def _label(panel: Any, points: Mapping[str, np.ndarray], renderer: Any) -> None:
    """A name at each point, where it covers neither a point, nor a bar, nor another name; a thin line leads to one that had to go farther away."""
    from matplotlib.transforms import Bbox

    best = frontier(points)
    corners = {name: panel.transData.transform(np.minimum(each.T, [np.inf, MOST_REMOVED])) for name, each in points.items()}
    taken = []
    for (px, py), (left, low), (right, high) in corners.values():
        taken += [Bbox.from_extents(left - 6, py - 6, right + 6, py + 6), Bbox.from_extents(px - 6, low - 4, px + 6, high + 4)]
    for (left, low), (right, high) in zip((corners[name][0] for name in best), (corners[name][0] for name in best[1:]), strict=False):
        taken += [Bbox.from_extents(left, low - 3, right, low + 3), Bbox.from_extents(right - 3, low, right + 3, high)]
    taken.append(panel.get_legend().get_window_extent(renderer))
    inside = panel.get_window_extent(renderer)
    for name, ((x, *_), (y, *_)) in sorted(points.items(), key=lambda item: tuple(item[1][:, 0])):
        leader = {"arrowstyle": "-", "color": "#bbbbbb", "lw": 0.7, "shrinkA": 1, "shrinkB": 4}
        place = {"xytext": (0, 0), "textcoords": "offset points", "va": "center", "ha": "left", "annotation_clip": False}
        colour = INK if name in best else "#555555"
        told = panel.annotate(name, (x, min(y, MOST_REMOVED)), fontsize=9, color=colour, arrowprops=leader, zorder=4, **place)
        for offset in _offsets(told.get_window_extent(renderer).width * 72 / panel.figure.dpi):
            told.set_position(offset)
            box = _text_box(told, renderer)
            if inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1 and not box.count_overlaps(taken):
                break
        taken.append(_text_box(told, renderer))


def _text_box(told: Any, renderer: Any) -> Any:
    """Of the words alone, without the line that leads to them."""
    from matplotlib.text import Text

    told.update_positions(renderer)
    return Text.get_window_extent(told, renderer)


def _offsets(width: float) -> list[tuple[float, float]]:
    """Places for the left end of a text of this width, in points, nearest first."""
    places = []
    for radius in (10, 16, 24, 34, 46, 60, 76, 94):
        for angle in np.deg2rad([0, 30, -30, 60, -60, 90, -90, 120, -120, 150, -150, 180]):
            x, y = radius * np.cos(angle), radius * np.sin(angle)
            places.append((x - width * (1 - np.cos(angle)) / 2, y))
    return places


def _to_axis(removed: np.ndarray) -> np.ndarray:
    """Percent removed -> decades of what is left."""
    return -np.log10(1 - np.minimum(removed, MOST_REMOVED) / 100)


def _from_axis(decades: np.ndarray) -> np.ndarray:
    return 100 * (1 - 10 ** -np.asarray(decades, dtype=float))
