# SPDX-License-Identifier: Apache-2.0
"""The objective of the guided edit, term by term, on images whose feature is the brightness of a corner."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

from stylegan_redact.losses.ms_ssim import ms_ssim
from stylegan_redact.methods.edit import mixed_codes
from stylegan_redact.network import synthesize
from stylegan_redact.training.augment import draw_views
from stylegan_redact.training.guide import BARELY, Guide
from stylegan_redact.training.guided import Batch, GuidedLoss
from stylegan_redact.types import LabelledLatents

SIDE = 32


class Corner:
    """One logit: how bright the upper left corner is."""

    differentiable = True
    attributes = ("glow",)

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        return 20 * img[:, :, :8, :8].mean([1, 2, 3])[:, None]


INSIDE = 0.1


def loss(**weights: Any) -> GuidedLoss:
    return GuidedLoss(Guide(Corner(), (0,), 4.0), **{"inside": INSIDE, **weights})


def pictures(level: float) -> torch.Tensor:
    """[2, 3, 32, 32], the first with a bright corner; the rest is noise."""
    img = 0.3 * torch.randn([2, 3, SIDE, SIDE], generator=torch.Generator().manual_seed(0))
    img[0, :, :8, :8], img[1, :, :8, :8] = level, -0.5
    return img


def batch(held: tuple[bool, bool] = (False, False)) -> Batch:
    return Batch(torch.zeros([2, 1, 1]), torch.tensor(held))


def terms(img: torch.Tensor, before: torch.Tensor, held: tuple[bool, bool] = (False, False), **weights: float) -> dict[str, float]:
    views = draw_views(img.shape, torch.Generator().manual_seed(1))
    return {name: float(value) for name, value in loss(**weights).terms(img, before, batch(held), views).items()}


def test_nothing_changed_costs_only_what_is_left_of_the_feature() -> None:
    before = pictures(0.5)
    found = terms(before.clone(), before)
    assert found["feature"] > 0.015 * (10 + 4) / 2  # softplus(logit + margin) of the bare image, by two images, and what the view adds
    assert found["others"] == found["change"] == 0 and found["structure"] == pytest.approx(0, abs=1e-6)


def test_what_is_left_counts_for_images_that_showed_the_feature_or_have_come_to_show_it() -> None:
    gone = pictures(-0.5)
    assert terms(gone.clone(), gone)["feature"] == 0
    found = terms(pictures(0.5), gone)
    assert found["feature"] > 0.015 * (10 + 4) / 2
    assert found["change"] == pytest.approx((8 * 8) / SIDE**2 / 2, rel=1e-4), "what has come is held to what was there, everywhere"
    assert terms(pictures(0.5), gone, held=(True, True))["feature"] == 0


def test_what_an_attacker_found_counts_as_much_as_it_is_told_to() -> None:
    img = pictures(0.5)
    img[1, :, :8, :8] = 0.5  # Both show it, and are alike to the detector.

    def left(sought: float, *which: bool) -> float:
        found = batch()._replace(sought=torch.tensor(which))
        return float(loss(sought=sought).terms(img, img, found, draw_views(img.shape, torch.Generator().manual_seed(1)))["feature"])

    alone, first, second = left(1.0, False, False), left(1.0, True, False), left(1.0, False, True)
    assert alone == first == second > 0
    assert left(3.0, True, True) == pytest.approx(3 * alone) and left(3.0, False, False) == alone
    assert left(3.0, True, False) + left(3.0, False, True) == pytest.approx(4 * alone), "each once by 3, once by 1"
    assert left(0.0, True, True) == 0


def test_a_marked_image_may_change_where_the_feature_lies_and_nowhere_else() -> None:
    before = pictures(0.5)
    inside, outside = before.clone(), before.clone()
    inside[0, :, :8, :8] = -0.5
    outside[0, :, :8, :8] = -0.5
    outside[0, :, 24:, 24:] += 1.0
    alone = terms(inside, before)["change"]
    assert alone == pytest.approx(terms(inside, before, elsewhere=3.0)["change"], rel=1e-4)
    assert alone == pytest.approx(INSIDE * (8 * 8) / SIDE**2 / 2, rel=1e-4)
    for elsewhere in (1.0, 3.0):
        change = terms(outside, before, elsewhere=elsewhere)["change"]
        assert change - alone == pytest.approx(elsewhere * (8 * 8) / SIDE**2 / 2, rel=1e-4)


def test_an_unmarked_image_is_held_everywhere() -> None:
    before = pictures(0.5)
    img = before.clone()
    img[1, :, :8, :8] -= 0.5
    found = terms(img, before)
    assert terms(img, before, elsewhere=3.0)["change"] == pytest.approx(3 * found["change"])
    assert found["change"] == pytest.approx(0.5 * (8 * 8) / SIDE**2 / 2, rel=1e-4)
    assert found["structure"] == pytest.approx(0.3 * float(1 - ms_ssim(img[1:], before[1:])) / 2, rel=1e-3)


def test_what_is_to_be_held_is_held_whatever_it_shows() -> None:
    before = pictures(0.5)
    img = before.clone()
    img[0, :, :8, :8] = -0.5
    found = terms(img, before, held=(True, False))
    assert found["feature"] == 0 and found["change"] == pytest.approx((8 * 8) / SIDE**2 / 2, rel=1e-4)


class Asked(torch.nn.Module):
    """A discriminator that is undecided and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[torch.Tensor] = []

    def forward(self, img: torch.Tensor, c: None, force_fp32: bool) -> torch.Tensor:
        self.images.append(img)
        return torch.zeros([len(img), 1])


def test_the_discriminator_is_asked_about_marked_images_only() -> None:
    D = Asked()
    before = pictures(0.5)
    found = loss(D=D, real=1.0).terms(before.clone(), before, batch(), draw_views(before.shape, torch.Generator().manual_seed(1)))
    assert len(D.images) == 1 and torch.equal(D.images[0], before[:1])
    assert float(found["realism"]) == pytest.approx(torch.log(torch.tensor(2.0)) / 2)  # softplus(0), for one of two images
    gone = pictures(-0.5)
    assert (
        "realism" not in loss(D=D).terms(gone.clone(), gone, batch(), draw_views(before.shape, torch.Generator().manual_seed(1)))
        and len(D.images) == 1
    )


def test_codes_hold_both_kinds_and_mixes_of_them() -> None:
    net = tiny.network()
    known = tiny.feature(net)
    assert known.latents is not None and known.detector is not None
    drawn = mixed_codes(net.G_ema, known.latents)(64, torch.Generator().manual_seed(0))
    ws = drawn.ws
    assert drawn.c is None and not drawn.held.any() and [len(part.ws) for part in drawn.split(48)] == [48, 16]
    assert ws.shape == (64, net.G_ema.num_ws, net.G_ema.w_dim)
    assert (ws[:48] == ws[:48, :1]).all() and (ws[48:] != ws[48:, :1]).any(dim=2).any(dim=1).all()
    with torch.no_grad():
        shows = known.detector.logits(synthesize(net.G_ema, ws))[:, known.detector.attributes.index(known.name)] > BARELY
    assert shows[:24].all() and not shows[24:48].any()
    nearly = float(known.latents.score[known.latents.score <= BARELY].quantile(0.5))  # Half of those that do not show it count as if they did.
    first = mixed_codes(net.G_ema, known.latents, barely=nearly)(64, torch.Generator().manual_seed(0)).ws[:24, 0]
    scores = known.latents.score[(first[:, None] == known.latents.w[None]).all(dim=2).float().argmax(dim=1)]
    assert bool((scores > nearly).all()) and bool((scores <= BARELY).any())


def test_a_feature_that_all_codes_show_is_refused() -> None:
    net = tiny.network()
    with pytest.raises(ValueError, match="choose a rarer feature"):
        mixed_codes(net.G_ema, LabelledLatents(torch.zeros(5, net.G_ema.w_dim), torch.ones(5)))


def test_where_it_may_change_anywhere_a_marked_picture_is_let_off_by_that_share() -> None:
    """Its corner is bright and goes; half of the rest changes by 0.2, and so does the other picture, which is never let off."""
    before = pictures(0.5)
    gone = before.clone()
    gone[0, :, :8, :8] = -0.5
    other = gone.clone()
    other[0, :, 16:] += 0.2
    costs = [terms(other, before, anywhere=share)["change"] - terms(gone, before, anywhere=share)["change"] for share in (0.0, 0.75, 1.0)]
    assert costs[0] == pytest.approx(0.2 / 2 / 2, rel=1e-3)
    assert costs[1] == pytest.approx(0.25 * costs[0] + 0.75 * costs[2], rel=1e-3) and costs[2] == pytest.approx(INSIDE * costs[0], rel=1e-3)
    moved = before.clone()
    moved[1] += 0.2
    assert terms(moved, before, anywhere=1.0)["change"] == terms(moved, before)["change"] == pytest.approx(0.2 / 2, rel=1e-3)
