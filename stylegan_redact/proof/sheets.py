# SPDX-License-Identifier: Apache-2.0
"""For a human eye: the images after that most look as if they showed the feature, and where images changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image

from stylegan_redact import evaluation, run_dir
from stylegan_redact.labels import Labels
from stylegan_redact.network import generate, sample_w
from stylegan_redact.pictures import to_grid
from stylegan_redact.types import Network

HIGHEST = 100
COLUMNS = 10
MAPPED = 256
"""Seeds of either kind that a map of change is the mean of."""
AMPLIFIED = 10
"""A map of change shows this times the change: 0.2 on the [-1, 1] scale is white."""


def save(  # noqa: PLR0913 - keyword-only, and each says how the images were drawn
    before: Network, after: Network, pairs: evaluation.PairedImages, feature: str, folder: Path, *, batch: int, labels: Labels | None, psi: float
) -> None:
    """highest.png: the images after with the judge's highest scores, highest first, with highest.json; change_map.png: mean absolute change.

    The map: left of seeds that had the feature, right of those that never did.
    """
    scores = pairs.logits_after[:, pairs.attributes.index(feature)]
    order = scores.argsort(descending=True, stable=True)[:HIGHEST]
    order = order[: max(len(order) // COLUMNS * COLUMNS, min(len(order), COLUMNS))]
    seeds = pairs.seeds[order].tolist()
    images = torch.cat(list(_draw(after, seeds, batch, labels, psi)))
    _save(to_grid(images.clamp(-1, 1), min(COLUMNS, len(seeds))), folder / "highest.png")
    rows = [{"seed": seed, "score": round(float(scores[index]), 4)} for seed, index in zip(seeds, order.tolist(), strict=True)]
    run_dir.write_json(folder / "highest.json", {"feature": feature, "of": len(scores), "images": rows})
    had = pairs.shows_before(feature)
    maps = [_mean_change(before, after, pairs.seeds[group][:MAPPED].tolist(), batch, labels, psi) for group in (had, ~had)]
    _save(to_grid(torch.cat(maps) * AMPLIFIED - 1, 2), folder / "change_map.png")


def _draw(network: Network, seeds: Sequence[int], batch: int, labels: Labels | None, psi: float) -> list[torch.Tensor]:
    w = sample_w(network.G_ema, seeds, c=None if labels is None else labels(seeds), truncation_psi=psi)
    return [part.cpu() for part in generate(network.G_ema, w, batch=batch)]


def _mean_change(before: Network, after: Network, seeds: Sequence[int], batch: int, labels: Labels | None, psi: float) -> torch.Tensor:
    """[1, 1, H, W]: mean |after - before| over seeds and channels; 0 where there are no seeds."""
    side = before.G_ema.img_resolution
    total = torch.zeros([1, 1, side, side])
    for start in range(0, len(seeds), batch):
        some = seeds[start : start + batch]
        one, other = (torch.cat(_draw(network, some, batch, labels, psi)).clamp(-1, 1) for network in (before, after))
        total += (one - other).abs().mean(1, keepdim=True).sum(0, keepdim=True)
    return total / max(len(seeds), 1)


def _save(picture: Image.Image, path: Path) -> None:
    with run_dir.whole_file(path) as temporary:
        picture.save(temporary, format="png")
