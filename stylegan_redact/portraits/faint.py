# SPDX-License-Identifier: Apache-2.0
"""Portraits that show one attribute in part only: a patch of a beard, one pale lens, half a hat.

A classifier that was shown attributes whole or not at all takes what an edit leaves of one for nothing, and so would both the detector that
steers a redaction and the judge that measures it.
"""

from __future__ import annotations

import numpy as np

from stylegan_redact.portraits.draw import draw_portrait
from stylegan_redact.portraits.portrait import ATTRIBUTES, Portrait, sample_portrait, with_attribute

PARTIAL: tuple[str, ...] = ("beard", "mustache", "eyeglasses", "hat", "smile", "earrings")
"""Attributes that are a thing at a place, of which there can be a part; of lipstick or bushy eyebrows, a part is nobody's idea."""
VISIBLE = 24
"""Levels of 255 by which a pixel has to differ for anybody to see it."""
UNSEEN = 8
"""Levels by which it may differ unseen."""
SHOWS_FROM = 0.2
"""With this share of its visible pixels, an attribute shows."""
GONE_BELOW = 0.05
"""With less than this share it does not; what lies between is nobody's guess, and not drawn."""
_SHOWING = 0.65
"""Share of the drawings whose partial attribute is to show."""
_TRIES = 12


def draw_faint(seed: int, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and truth of `num` random people who show one attribute in part; the i-th depends on (seed, i) alone.

    Args:
        seed: Names the series, >= 0; other people than those of `draw_portraits` with this seed.
        num:  How many, >= 0.

    Returns:
        uint8 [num, 64, 64, 3] and bool [num, len(ATTRIBUTES)]: the partial attribute is True from SHOWS_FROM of it on, False below GONE_BELOW.
    """
    images = np.empty((num, 64, 64, 3), dtype=np.uint8)
    truth = np.empty((num, len(ATTRIBUTES)), dtype=bool)
    for index in range(num):
        images[index], truth[index] = _one(np.random.default_rng([seed, index, 1]))
    return images, truth


def _one(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    person, other = _pair(rng)
    without, whole = (draw_portrait(each).astype(np.float32) for each in (person, other))
    visible = _pixels(whole - without, VISIBLE)
    show = rng.random() < _SHOWING
    for _ in range(_TRIES):
        change = (whole - without) * _mask(rng, without.shape[0])[:, :, None]
        fits = _pixels(change, VISIBLE) >= SHOWS_FROM * visible if show else _pixels(change, UNSEEN) <= GONE_BELOW * visible
        if fits:
            return np.rint(without + change).astype(np.uint8), (other if show else person).truth
    return (whole if show else without).astype(np.uint8), (other if show else person).truth


def _pair(rng: np.random.Generator) -> tuple[Portrait, Portrait]:
    """Somebody without an attribute, and the same person with it, all else being the same."""
    while True:
        name = PARTIAL[rng.integers(len(PARTIAL))]
        person = with_attribute(sample_portrait(rng), name, False)
        other = with_attribute(person, name, True)
        if (person.truth != other.truth).sum() == 1:
            return person, other


def _pixels(change: np.ndarray, levels: int) -> int:
    """How many pixels [h, w, 3] differ by at least so many levels in some channel."""
    return int((np.abs(change).max(axis=2) >= levels).sum())


def _mask(rng: np.random.Generator, side: int) -> np.ndarray:
    """How much of the attribute shows where, [side, side] in [0, 1]: everywhere alike, on one side of a line, or in blotches; and how strongly.

    Half of them are the same on the left and on the right, as what a generator leaves of a face often is.
    """
    y, x = np.mgrid[0:side, 0:side] / (side - 1.0) - 0.5
    x = np.abs(x) if rng.random() < 0.5 else x
    kind = rng.integers(4)
    if kind == 0:
        field = np.full((side, side), 9.0)
    elif kind == 1:
        angle = rng.uniform(0, 2 * np.pi)
        field = 20 * (x * np.cos(angle) + y * np.sin(angle) + rng.uniform(-0.35, 0.35))
    else:
        waves = rng.normal(0, 3.0 if kind == 2 else 7.0, size=(6, 2)), rng.uniform(0, 2 * np.pi, size=6)
        field = sum(np.cos(2 * np.pi * (x * fx + y * fy) + phase) for (fx, fy), phase in zip(*waves, strict=True)) * 3 + rng.uniform(-9, 3)
    return rng.uniform(0.3, 1.0) / (1 + np.exp(-np.clip(field, -30, 30)))
