# SPDX-License-Identifier: Apache-2.0
"""Which pairs of images a report shows, and the small pictures of them that it carries inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image, features

from stylegan_redact import evaluation
from stylegan_redact.pictures import AMPLIFIED, to_grid
from stylegan_redact.types import Network

LEFT, MOVED, HAD, FREE = "left", "moved", "had", "free"
MOST = {LEFT: 60, MOVED: 60, HAD: 40, FREE: 40}
"""Pairs of each kind: 200 in all."""
SIDE = 192
"""Pixels of a picture in the report at most: 200 pairs of a network of 1024 pixels then come to a few MB."""
LARGE = 448
"""Of the first pair, which opens the report."""
_QUALITY, _MAP_QUALITY = 78, 50


@dataclass(frozen=True)
class Pair:
    """One seed before and after."""

    seed: int
    kinds: tuple[str, ...]
    """Why it is shown: left (shows the feature after), moved (never had it, and changed most), had and free (the first of either kind)."""
    score_before: float | None
    """The judge's logit, > 0: shows it. None: nobody judged."""
    score_after: float | None
    change: float
    """Mean of |after - before|, images in [-1, 1]."""
    gained: tuple[str, ...]
    """Other attributes that the judge sees after and did not before."""
    lost: tuple[str, ...]
    before: str
    """Pictures as data URIs."""
    after: str
    map: str
    """Where it changed: the mean over channels of |after - before|, amplified, white is much."""
    side: int
    """Pixels of the pictures."""


def choose(pairs: evaluation.PairedImages, feature: str, *, bystanders: bool = False) -> dict[int, tuple[str, ...]]:
    """Row of `pairs` -> why it is shown, worst first: what is left by score, then what should not have changed and did, then the rest by change.

    Args:
        pairs:      All that was measured; if nobody judged them, every image is one that had the feature.
        feature:    That was redacted.
        bystanders: None of them has it: all should have stayed.
    """
    judged = feature in pairs.attributes
    had = pairs.shows_before(feature) if judged else torch.full([len(pairs.seeds)], not bystanders)
    left = pairs.shows_after(feature) if judged else torch.zeros_like(had)
    score = pairs.logits_after[:, pairs.attributes.index(feature)] if judged else pairs.l1
    moved = ~had & ~left & (pairs.l1 > 0)
    found = {
        LEFT: _first(score.argsort(descending=True, stable=True), left)[: MOST[LEFT]],
        MOVED: _first(pairs.l1.argsort(descending=True, stable=True), moved)[: MOST[MOVED]],
        HAD: _first(torch.arange(len(had)), had)[: MOST[HAD]],
        FREE: _first(torch.arange(len(had)), ~had)[: MOST[FREE]],
    }
    kinds: dict[int, tuple[str, ...]] = {}
    rest = sorted({*found[HAD], *found[FREE]}, key=lambda row: (-float(pairs.l1[row]), row))
    for row in [*found[LEFT], *found[MOVED], *rest]:
        kinds[row] = tuple(kind for kind in MOST if row in found[kind])
    return kinds


def illustrate(before: Network, after: Network, pairs: evaluation.PairedImages, feature: str, *, bystanders: bool = False, **how: Any) -> list[Pair]:
    """The chosen pairs with their pictures, worst first.

    Args:
        before, after: The networks that were measured.
        pairs:         What the judge said of them.
        feature:       That was redacted.
        bystanders:    As `choose` takes it.
        how:           batch, access, labels, noise_mode and truncation_psi that the pairs were measured with.
    """
    kinds = choose(pairs, feature, bystanders=bystanders)
    first = opening(list(kinds), kinds)
    seeds = pairs.seeds[list(kinds)].tolist()
    drawn = _one_by_one(evaluation.image_pairs(before, after, seeds, **how))
    return [_pair(pairs, row, kinds[row], feature, *images, LARGE if row == first else SIDE) for row, images in zip(kinds, drawn, strict=True)]


def opening(rows: list[int], kinds: dict[int, tuple[str, ...]]) -> int:
    """The row that opens the report: the first seed that had the feature, whatever became of it; else the first of all."""
    return min([row for row in rows if HAD in kinds[row]] or rows)


def _first(order: torch.Tensor, wanted: torch.Tensor) -> list[int]:
    return [row for row in order.tolist() if bool(wanted[row])]


def _one_by_one(batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for img_before, img_after in batches:
        yield from zip(img_before.cpu(), img_after.cpu(), strict=True)


def _pair(
    pairs: evaluation.PairedImages, row: int, kinds: tuple[str, ...], feature: str, img_before: torch.Tensor, img_after: torch.Tensor, side: int
) -> Pair:
    scores: list[float | None] = [None, None]
    if feature in pairs.attributes:
        column = pairs.attributes.index(feature)
        scores = [round(float(logits[row, column]), 3) for logits in (pairs.logits_before, pairs.logits_after)]
    shown = [(pairs.logits_before[row] > 0).tolist(), (pairs.logits_after[row] > 0).tolist()]
    sides = [{name for name, shows in zip(pairs.attributes, each, strict=True) if shows and name != feature} for each in shown]
    difference = (img_after - img_before).abs().mean(0, keepdim=True) * AMPLIFIED - 1  # 0 => black
    return Pair(
        int(pairs.seeds[row]), kinds, scores[0], scores[1], round(float(pairs.l1[row]), 5),
        tuple(sorted(sides[1] - sides[0])), tuple(sorted(sides[0] - sides[1])),
        thumbnail(img_before, side), thumbnail(img_after, side), thumbnail(difference, side, _MAP_QUALITY), min(side, img_before.shape[-1]),
    )  # fmt: skip


def thumbnail(img: torch.Tensor, side: int, quality: int = _QUALITY) -> str:
    """img [C, H, W] in [-1, 1] as a data URI: WebP where Pillow has it, else JPEG; without loss if it is small enough to be shown as it is."""
    picture = to_grid(img[None], 1)
    small = max(picture.size) <= side // 2
    picture.thumbnail((side, side), Image.Resampling.BOX if quality == _MAP_QUALITY else Image.Resampling.LANCZOS)
    kind = "webp" if features.check("webp") else "jpeg"
    how: dict[str, Any] = {"lossless": small} if kind == "webp" else {}
    data = io.BytesIO()
    picture.save(data, format=kind, quality=quality, **how)
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode('ascii')}"
