# SPDX-License-Identifier: Apache-2.0
"""Where the feature is a class: what is nearly of that class goes with it, and what goes becomes of another."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch

from stylegan_redact.features.attribute import Attribute
from stylegan_redact.methods import edit
from stylegan_redact.methods.edit import Edit
from stylegan_redact.training.guide import SURELY, Guide
from stylegan_redact.types import Feature, Network, RedactError

LABELLED, SEEN = range(1500), range(1_000_000, 1_000_300)


class Bands:
    """Three classes of which each picture shows one: how bright it is, in bands. A judge's "bright" begins where this one says "nearly": at -3."""

    differentiable = True
    attributes = ("dark", "middling", "bright")

    def __init__(self, G: torch.nn.Module) -> None:
        x = self._brightness(tiny.images(G, range(500_000, 500_400)))
        self.low, self.judged, self.high = (float(x.quantile(at)) for at in (0.4, 0.75, 0.85))
        self.scale = 3 / (self.high - self.judged)

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        x = self._brightness(img)
        middle = torch.minimum(x - self.low, self.high - x)
        return self.scale * torch.stack([self.low - x, middle, x - self.high], dim=1)

    def judge(self, G: torch.nn.Module) -> float:
        """Share of pictures that are bright to it."""
        return float((self._brightness(tiny.images(G, SEEN)) > self.judged).float().mean())

    def _brightness(self, img: torch.Tensor) -> torch.Tensor:
        return img.mean([1, 2, 3])


def trained_on(net: Network, feature: Feature, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the edit would train on: its codes and objective."""
    seen = SimpleNamespace()

    def listen(student: Any, teacher: Any, codes: Any, loss: Any, schedule: Any, progress: Any, **more: Any) -> None:
        seen.codes, seen.loss = codes, loss

    monkeypatch.setattr(edit, "guided_synthesis", listen)
    Edit().redact(net, feature, (), 0)
    return seen


def test_of_classes_an_edit_takes_what_is_nearly_one(monkeypatch: pytest.MonkeyPatch) -> None:
    net = tiny.network()
    for detector, barely in ((Bands(net.G_ema), -2.9), (tiny.Corners(net.G_ema), -1.0)):
        feature = Attribute(detector.attributes[-1], detector).gather(net, LABELLED, batch=250)
        assert feature.latents is not None
        seen = trained_on(net, feature, monkeypatch)
        assert seen.loss.guide.barely == pytest.approx(barely, abs=0.2)
        free = feature.latents.score[seen.codes.adversary.free]
        assert float(free.max()) <= seen.loss.guide.barely < float(feature.latents.score.max()), "an attacker begins where it surely does not show"
        drawn = seen.codes.drawn(64, torch.Generator().manual_seed(0)).ws[:24, 0]
        rows = (drawn[:, None] == feature.latents.w[None]).all(dim=2).float().argmax(dim=1)
        assert bool((feature.latents.score[rows] <= -1.0).any()) == (barely < -1)


def test_it_redacts_a_class() -> None:
    net = tiny.network()
    bands = Bands(net.G_ema)
    feature = Attribute("bright", bands).gather(net, LABELLED, batch=250)
    after = Edit(kimg=0.6, batch=16, lr=0.003, guidance=0.1, margin=4.0, attacked=0.0).redact(net, feature, (), 0)
    assert bands.judge(after.G_ema) < 0.5 * bands.judge(net.G_ema)


class One:
    """One logit: how bright a picture is."""

    differentiable, attributes = True, ("glow",)

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        return img.mean([1, 2, 3])[:, None]


def test_who_knows_one_class_alone_cannot_ask_for_another() -> None:
    net = tiny.network()
    feature = tiny.feature(net)
    assert feature.latents is not None
    alone = replace(feature, detector=One(), latents=replace(feature.latents, logits=None))
    with pytest.raises(RedactError, match="leave --become out"):
        Edit(become=0.5)._loss(net, alone, alone.latents)
    assert Edit()._loss(net, alone, alone.latents).guide.become == 0


class Three:
    """Logits of three classes: the first channels' means."""

    differentiable, attributes = True, ("a", "b", "c")

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        return img.mean([2, 3])


def test_what_leaves_its_class_is_to_become_of_the_nearest_other() -> None:
    """By hand: logits (2, 1, -3) of one that leaves a, as it is and through views that change no mean."""
    before = torch.tensor([[2.0, 1.0, -3.0], [-2.0, 1.0, -3.0]])[:, :, None, None].expand(2, 3, 16, 16)
    img = before.clone().requires_grad_(True)
    left = [
        Guide(Three(), (0,), 0.0, classes=True, become=weight).compare(img, before, torch.zeros(2, dtype=torch.bool), lambda x: x).left  # type: ignore[arg-type]
        for weight in (0.0, 0.5)
    ]
    assert (left[1][0] - left[0][0]).item() == pytest.approx(0.5 * 2 * math.log(1 + math.exp(SURELY - 1)), rel=1e-6)
    assert left[1][1].item() == left[0][1].item() == 0, "what never was of it may be what it is"
    (slope,) = torch.autograd.grad((left[1] - left[0]).sum(), img)
    assert bool((slope[0, 1] < 0).all()) and not slope[0, 0].any() and not slope[0, 2].any() and not slope[1].any()
