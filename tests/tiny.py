# SPDX-License-Identifier: Apache-2.0
"""A small network with a planted feature: about one image in seven is bright in its upper left corner, and a detector reads that."""

from __future__ import annotations

import torch
from tiny_run import RESOLUTION, BrightRegion, generator

from stylegan_redact.features.attribute import Attribute
from stylegan_redact.network import sample_w, synthesize
from stylegan_redact.networks.stylegan2 import Discriminator
from stylegan_redact.types import Feature, Network

SHARE = 0.15
"""Of random seeds' images that show the feature."""
FEATURE, OTHER = "glow", "shine"
LABELS = None
"""Unconditional."""
LABELLED = range(1500)
MEASURED = range(1_000_000, 1_000_400)


class Corners:
    """Two logits: how bright the upper left corner is, the planted feature, and how bright the whole image is, another attribute."""

    differentiable = True
    attributes = (OTHER, FEATURE)  # The feature is not in column 0, where nobody would have to look for it.

    def __init__(self, G: torch.nn.Module) -> None:
        img = images(G, range(500_000, 500_400))
        self.regions = []
        for size in (RESOLUTION, RESOLUTION // 2):
            bright = img[:, :, :size, :size].mean([1, 2, 3])
            self.regions.append(BrightRegion(size, float(bright.quantile(1 - SHARE))))

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        return torch.stack([region(img) for region in self.regions], 1)


def images(G: torch.nn.Module, seeds: range) -> torch.Tensor:
    """[n, 3, 16, 16] of these seeds."""
    with torch.no_grad():
        return synthesize(G, sample_w(G, seeds))


def network() -> Network:
    """G and G_ema differ, as after training."""
    G, G_ema = generator(0), generator(0)
    G.synthesis.b4.const += 0.01
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        D = Discriminator(c_dim=0, img_resolution=RESOLUTION, img_channels=3, channel_base=128, channel_max=8)
    return Network(G, D.eval().requires_grad_(False), G_ema)


def feature(net: Network) -> Feature:
    """The planted feature, gathered as the command gathers it."""
    return Attribute(FEATURE, Corners(net.G_ema)).gather(net, LABELLED, batch=250)


def rate(G: torch.nn.Module, known: Feature, seeds: range = MEASURED) -> float:
    """The share of images that show the feature."""
    assert known.detector is not None
    column = known.detector.attributes.index(known.name)
    with torch.no_grad():
        return float((known.detector.logits(images(G, seeds))[:, column] > 0).float().mean())
