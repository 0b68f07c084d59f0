# SPDX-License-Identifier: Apache-2.0
"""A small conditional network whose class 1 is a feature, with a detector that tells it from the others; functions as in tiny.py."""

from __future__ import annotations

from typing import Any

import tiny_conditional
import torch
from tiny_run import generator as unconditional

from stylegan_redact.features.whole_class import WholeClass
from stylegan_redact.labels import Labels
from stylegan_redact.types import Feature, Network

C_DIM, CLASS = 4, 1
FEATURE, OTHER = "class:1", "others"
MEASURED = range(1_000_000, 1_000_400)
LABELS = Labels(C_DIM, (CLASS,))


class Nearer:
    """Two logits: is the image of another class, is it of the class? By the difference of the two means."""

    differentiable = True
    attributes = (OTHER, FEATURE)

    def __init__(self, G: Any) -> None:
        others = LABELS.others()
        assert others is not None
        own, rest = (images(G, range(500_000, 500_400), labels).flatten(1) for labels in (LABELS, others))
        self.way = (own.mean(0) - rest.mean(0)) / own.var(0).add(rest.var(0))
        self.middle = (own.mean(0) + rest.mean(0)) @ self.way / 2

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        logit = img.flatten(1) @ self.way - self.middle
        return torch.stack([-logit, logit], 1)


def network() -> Network:
    return tiny_conditional.network(c_dim=C_DIM)


def generator(seed: int = 0) -> Any:
    return unconditional(seed, C_DIM)


def feature(net: Network) -> Feature:
    """As the command gathers it, and a detector, to see what became of it."""
    found = WholeClass(CLASS).gather(net, range(300))
    return Feature(found.name, found.latents, detector=Nearer(net.G_ema), label=found.label)


def images(G: Any, seeds: range, labels: Labels = LABELS) -> torch.Tensor:
    return tiny_conditional.images(G, seeds, labels)


def rate(G: Any, known: Feature, seeds: range = MEASURED) -> float:
    """The share of the class's images that the detector takes for the class."""
    assert known.detector is not None
    return float((known.detector.logits(images(G, seeds))[:, 1] > 0).float().mean())
