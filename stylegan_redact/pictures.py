# SPDX-License-Identifier: Apache-2.0
"""Pictures of the same seeds before and after, and of what changed, as NVIDIA's tools would draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from stylegan_redact.network import generate, sample_w
from stylegan_redact.run_dir import whole_file
from stylegan_redact.types import LabelledLatents, Network, RedactError

AMPLIFIED = 4
"""diff.png shows this times the difference: 0.5 on the [-1, 1] scale becomes white."""
_SIDE = 2048
"""Pixels across at most, until four images stand side by side."""


@dataclass(frozen=True)
class Layout:
    """Which seeds stand where: the upper half of the grid showed the feature, the lower half did not."""

    columns: int
    with_feature: tuple[int, ...]
    without_feature: tuple[int, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """All, from top left to bottom right."""
        return self.with_feature + self.without_feature


def choose(latents: LabelledLatents, img_resolution: int) -> Layout:
    """The first seeds that show the feature and as many that do not; fewer rows where there are too few.

    Args:
        latents:        With seeds.
        img_resolution: Pixels of one image.

    Raises:
        RedactError: no seeds are known, or none shows the feature, or all do.
    """
    columns = min(12, max(4, _SIDE // img_resolution))
    if latents.seeds is None:
        raise RedactError("pictures of the same seeds were asked - these latents have no seeds - label latents that were drawn by seed")
    shows = latents.score > 0
    found, rest = latents.seeds[shows.cpu()].tolist(), latents.seeds[~shows.cpu()].tolist()
    if not found or not rest:
        raise RedactError(f"pictures with and without the feature were asked - there are {len(found)} and {len(rest)} - label more seeds")
    columns = min(columns, len(found), len(rest))
    rows = max(1, min(max(1, columns // 4), len(found) // columns, len(rest) // columns))
    return Layout(columns, tuple(found[: rows * columns]), tuple(rest[: rows * columns]))


def labels_of(latents: LabelledLatents, seeds: Sequence[int]) -> torch.Tensor | None:
    """c [n, c_dim] that these seeds were labelled with; None for an unconditional network."""
    if latents.c is None or latents.seeds is None:
        return None
    rows = {seed: row for row, seed in enumerate(latents.seeds.tolist())}
    return latents.c[[rows[seed] for seed in seeds]]


def draw(before: Network, after: Network, seeds: Sequence[int], *, batch: int, c: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """img [n, C, H, W] of G_ema before and after, without truncation, with constant noise.

    Args:
        seeds: As NVIDIA's tools count them: seed 85 is the same picture in both.
        batch: Images at a time.
        c:     [n, c_dim] labels, if the network is conditional.
    """
    images = [torch.cat([part.cpu() for part in generate(net.G_ema, sample_w(net.G_ema, seeds, c=c), batch=batch)]) for net in (before, after)]
    return images[0], images[1]


def save(img_before: torch.Tensor, img_after: torch.Tensor, columns: int, run_dir: Path) -> None:
    """before.png, after.png and diff.png: the absolute difference, AMPLIFIED times, black where nothing changed."""
    difference = (img_after - img_before).abs() * AMPLIFIED - 1  # 0 => black
    for name, img in (("before.png", img_before), ("after.png", img_after), ("diff.png", difference)):
        with whole_file(run_dir / name) as temporary:
            to_grid(img, columns).save(temporary, format="png")


def save_one(network: Network, path: Path, *, layout: Layout, batch: int, c: torch.Tensor | None = None) -> None:
    """One grid of what G_ema draws for the seeds of the layout."""
    img = torch.cat([part.cpu() for part in generate(network.G_ema, sample_w(network.G_ema, layout.seeds, c=c), batch=batch)])
    with whole_file(path) as temporary:
        to_grid(img, layout.columns).save(temporary, format="png")


def to_grid(img: torch.Tensor, columns: int) -> Image.Image:
    """One picture of img [n, C, H, W] in [-1, 1]; n must fill the rows.

    Source: NVIDIA's generate.py: uint8 = (img * 127.5 + 128) clamped to 0...255, cut down.
    """
    n, channels, height, width = img.shape
    assert n % columns == 0, f"{n} images do not fill rows of {columns}"
    shown = img[:, :3] if channels >= 3 else img[:, :1]
    pixels = (shown.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)  # [-1, 1] => uint8
    pixels = pixels.reshape(n // columns, columns, -1, height, width).permute(0, 3, 1, 4, 2)  # [rows, H, columns, W, C]
    array = pixels.reshape(n // columns * height, columns * width, -1).cpu().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)
