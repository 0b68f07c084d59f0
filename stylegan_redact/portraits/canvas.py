# SPDX-License-Identifier: Apache-2.0
"""A supersampled canvas measured in 64ths of its side, and the colours and outlines that are put on it."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]

SUPERSAMPLING = 4
GRID = 64.0
HALF_TURN = np.linspace(0.0, np.pi, 25)


def mix(first: Sequence[float], second: Sequence[float], share: float) -> Colour:
    """The colour that lies `share` of the way from first to second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def darker(colour: Colour, factor: float) -> Colour:
    """The colour times a factor, in [0, 1]."""
    return mix((0, 0, 0), colour, factor)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """RGB of hue, saturation and value, each in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


class Canvas:
    """An image that is drawn on in 64ths of its side; everything but the background is shifted by `shift` (x, y)."""

    def __init__(self, size: int, *, shift: tuple[float, float], top: Colour, bottom: Colour) -> None:
        side = size * SUPERSAMPLING
        self.scale = side / GRID
        self.shift = shift
        first, last = np.array(top, dtype=np.float32), np.array(bottom, dtype=np.float32)
        rows = first + (last - first) * np.linspace(0.0, 1.0, side, dtype=np.float32)[:, None]  # [side, 3]
        self.image = Image.fromarray(np.repeat(np.rint(rows).astype(np.uint8)[:, None], side, axis=1))
        self.pen = ImageDraw.Draw(self.image)

    def pixels(self) -> np.ndarray:
        """The picture at its final size, uint8 [size, size, 3]."""
        return np.array(self.image.reduce(SUPERSAMPLING))

    def polygon(self, points: np.ndarray, fill: Colour) -> None:
        """Fill an outline, points [n, 2]."""
        self.pen.polygon(((points + self.shift) * self.scale).ravel().tolist(), fill=fill)

    def _box(self, x: float, y: float, rx: float, ry: float) -> list[float]:
        x, y = x + self.shift[0], y + self.shift[1]
        return [(x - rx) * self.scale, (y - ry) * self.scale, (x + rx) * self.scale, (y + ry) * self.scale]

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        """Fill an ellipse about (x, y)."""
        self.pen.ellipse(self._box(x, y, rx, ry), fill=fill)

    def bar(self, x: float, y: float, rx: float, ry: float, fill: Colour) -> None:
        """Fill a bar about (x, y) with round ends."""
        self.pen.rounded_rectangle(self._box(x, y, rx, ry), radius=min(rx, ry) * self.scale, fill=fill)

    def frame(self, x: float, y: float, rx: float, ry: float, outline: Colour, width: float) -> None:
        """Stroke a rounded rectangle about (x, y)."""
        self.pen.rounded_rectangle(self._box(x, y, rx, ry), radius=0.7 * ry * self.scale, outline=outline, width=round(width * self.scale))


def arc(x: float, y: float, rx: float, ry: float, turn: np.ndarray = HALF_TURN) -> np.ndarray:
    """Points of an ellipse, [n, 2]; turn runs from the right (0) over the bottom (pi / 2) to the left (pi)."""
    return np.stack([x + rx * np.cos(turn), y + ry * np.sin(turn)], axis=1)


def mirrored(points: Sequence[tuple[float, float]]) -> np.ndarray:
    """A left-right symmetric outline from its right half, [2 n, 2]."""
    right = np.array(points, dtype=float)
    return np.concatenate([right, (right * (-1.0, 1.0) + (64.0, 0.0))[::-1]])
