# SPDX-License-Identifier: Apache-2.0
"""A small conditional network with a planted feature: about one image in six of each class is bright in its upper left corner."""

from __future__ import annotations

from typing import Any

import torch
from tiny_run import RESOLUTION, BrightRegion, generator

from stylegan_redact.labels import Labels, all_of
from stylegan_redact.network import sample_w, synthesize
from stylegan_redact.networks import stylegan3
from stylegan_redact.networks.stylegan2 import Discriminator
from stylegan_redact.types import Network

C_DIM = 3
SHARE = 0.17
FEATURE, OTHER = "glow", "shine"
SMALL3: dict[str, Any] = dict(channel_base=128, channel_max=8, num_layers=4, margin_size=4, filter_size=4)


def generator3(seed: int = 0, c_dim: int = C_DIM) -> Any:
    """StyleGAN3, configuration T."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        G = stylegan3.Generator(z_dim=8, c_dim=c_dim, w_dim=8, img_resolution=RESOLUTION, img_channels=3, **SMALL3).eval().requires_grad_(False)
    getattr(G.synthesis, G.synthesis.layer_names[-1]).weight.mul_(8)
    return G


def network(architecture: str = "stylegan2", c_dim: int = C_DIM) -> Network:
    """G and G_ema differ, as after training, in their embeddings too."""
    make = {"stylegan2": lambda: generator(0, c_dim), "stylegan3": lambda: generator3(0, c_dim)}[architecture]
    G, G_ema = make(), make()
    G.mapping.embed.weight += 0.01 * torch.arange(c_dim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        D = Discriminator(c_dim=c_dim, img_resolution=RESOLUTION, img_channels=3, channel_base=128, channel_max=8)
    return Network(G, D.eval().requires_grad_(False), G_ema)


def one(index: int, c_dim: int = C_DIM) -> Labels:
    return Labels(c_dim, (index,))


def images(G: Any, seeds: range, labels: Labels) -> torch.Tensor:
    """[n, 3, 16, 16] of these seeds."""
    with torch.no_grad():
        return synthesize(G, sample_w(G, seeds, c=labels(seeds)))


def region(G: Any, size: int, labels: Labels | None = None) -> BrightRegion:
    """A classifier that calls a share of the images of these classes bright."""
    bright = images(G, range(500_000, 500_300), labels or all_of(C_DIM))[:, :, :size, :size].mean([1, 2, 3])
    return BrightRegion(size, float(bright.quantile(1 - SHARE)))


class Corners:
    """Two logits: how bright the whole image is, and how bright the upper left corner is, the planted feature."""

    differentiable = True
    attributes = (OTHER, FEATURE)

    def __init__(self, G: Any, labels: Labels | None = None) -> None:
        self.regions = [region(G, size, labels) for size in (RESOLUTION, RESOLUTION // 2)]

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        return torch.stack([region(img) for region in self.regions], 1)


def rate(G: Any, detector: Any, labels: Labels, seeds: range = range(1_000_000, 1_000_300)) -> float:
    """The share of images of these classes that show the feature."""
    return float((detector.logits(images(G, seeds, labels))[:, 1] > 0).float().mean())
