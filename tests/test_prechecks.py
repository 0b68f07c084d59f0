# SPDX-License-Identifier: Apache-2.0
"""Checks before the training see what was planted: a rate, two who disagree, a classifier out of its domain, attributes that go together."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch

from stylegan_redact import prechecks
from stylegan_redact.network import sample_w
from stylegan_redact.types import Feature, LabelledLatents, Subspace

pytestmark = pytest.mark.usefixtures("one_thread")


def logits(n: int = 400) -> torch.Tensor:
    """[n, 6]: column 1 follows column 0, column 2 is its opposite nine times of ten, the rest is chance."""
    noise = torch.randn([n, 6], generator=torch.Generator().manual_seed(2)) * 5
    noise[:, 1] = noise[:, 0] + 0.5
    noise[:, 2] = torch.where(torch.arange(n) % 10 < 9, -noise[:, 0], noise[:, 0])
    return noise


NAMES = ("beard", "mustache", "hat", "a", "b", "c")


def test_prevalence_and_what_goes_with_the_feature() -> None:
    found = logits()
    latents = LabelledLatents(torch.zeros(400, 2), found[:, 0], logits=found)
    rate = prechecks.prevalence("beard", latents)["beard/prevalence"]
    assert rate.value == pytest.approx(100 * float((found[:, 0] > 0).float().mean())) and rate.low < rate.value < rate.high and rate.n == 400
    goes = prechecks.confounders("beard", latents, NAMES)
    assert list(goes)[:2] == ["beard/goes with mustache (phi)", "beard/goes with hat (phi)"]
    assert goes["beard/goes with mustache (phi)"].low > 0.8 and goes["beard/goes with hat (phi)"].high < -0.7
    assert goes["beard/beside it mustache/prevalence"].n == 400


def test_a_classifier_out_of_its_domain_is_told() -> None:
    good = logits()
    assert prechecks.domain("beard", good, NAMES) == []
    one_sided = good.clone()
    one_sided[:, 1:] = -one_sided[:, 1:].abs() - 0.1
    (told,) = prechecks.domain("beard", one_sided, NAMES)
    assert "gives 5 of its 6 attributes one and the same answer on all 400 images" in told
    assert any("hardly varies" in text for text in prechecks.domain("beard", 3 + 0.001 * good, NAMES))
    assert any("is unsure of beard" in text for text in prechecks.domain("beard", 0.01 * good, NAMES))


def test_detector_and_judge_on_the_same_images() -> None:
    net = tiny.network()
    corners = tiny.Corners(net.G_ema)
    w = sample_w(net.G_ema, range(200))
    score = corners.logits(tiny.images(net.G_ema, range(200)).clamp(-1, 1))
    feature = Feature("glow", LabelledLatents(w, score[:, 1], torch.arange(200), score), detector=corners)
    found = prechecks.look(net, feature, corners, batch=100)
    kappa = found.figures["glow/labels and judge agree (kappa)"]
    assert kappa.value == 1 and kappa.n == 200 and 0.8 < kappa.low < 1 and found.warnings == ()
    blind = SimpleNamespace(attributes=("glow",), logits=lambda img: (img[:, 0, -1, -1] * 1e4).sin()[:, None], differentiable=True)
    found = prechecks.look(net, feature, blind, batch=100)
    assert any("agree hardly more than by chance" in text for text in found.warnings)
    assert any(line.startswith("glow/prevalence: ") and "n = 200" in line for line in found.lines)
    assert prechecks.record(found)["figures"]["glow/prevalence"]["n"] == 200
    deaf = SimpleNamespace(attributes=(), logits=lambda img: img.new_zeros([len(img), 0]), differentiable=False)
    assert "glow/labels and judge agree (kappa)" not in prechecks.look(net, feature, deaf, batch=100).figures


def test_the_judge_is_asked_about_clamped_pictures_and_much_clamping_is_told() -> None:
    net = tiny.network()
    net.G_ema.synthesis.b16.torgb.bias += 3  # Everything is far too bright; clamped, all is white.
    corners = tiny.Corners(net.G_ema)
    w = sample_w(net.G_ema, range(100))
    score = corners.logits(tiny.images(net.G_ema, range(100)))
    feature = Feature("glow", LabelledLatents(w, score[:, 1], torch.arange(100), score), detector=corners)
    kappa, turned = prechecks.agreement(net, feature, corners, batch=50)
    assert kappa.high < prechecks.MEANS_LITTLE or not kappa.value > 0  # Labels of what nobody will see agree with nothing.
    assert 0.05 < turned < 1 and prechecks.out_of_range(0.05) is None
    assert any("far outside [-1, 1]" in text for text in prechecks.look(net, feature, corners, batch=50).warnings)


def test_a_share_that_a_quantile_made_is_no_rate() -> None:
    latents = LabelledLatents(torch.zeros(50, 2), torch.arange(50) - 39.5)
    subspace = Subspace(torch.eye(2)[:1], torch.zeros(1), float("nan"))
    found = prechecks.look(tiny.network(), Feature("tilt", latents, subspace), SimpleNamespace(attributes=()), batch=50)
    assert not found.figures and "nobody said which pictures show tilt: the 20 % of the latents" in found.warnings[0]
    found = prechecks.look(tiny.network(), Feature("tilt", latents, replace(subspace, accuracy=0.9)), SimpleNamespace(attributes=()), batch=50)
    assert "tilt/prevalence" in found.figures and not found.warnings
