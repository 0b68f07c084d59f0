# SPDX-License-Identifier: Apache-2.0
"""What holds the other attributes while a feature goes: the distance of logits, the choice of codes, groups of the discriminator."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import replace

import pytest
import tiny
import torch

from stylegan_redact import keeping, ranks
from stylegan_redact.methods.edit import CLASSES, TRAITS, Edit
from stylegan_redact.training.augment import draw_views
from stylegan_redact.training.guide import (
    BARELY,
    LEAST_BARELY,
    MARKED_RANGE,
    UNMARKED_RANGE,
    Guide,
    apart,
    barely_of_class,
    classes_of_one,
    same_mirrored,
    whole_groups,
)
from stylegan_redact.training.pool import FEWEST, Pool, rare_weights
from stylegan_redact.types import LabelledLatents


def slope(now: float, then: float, limit: float = 5.0) -> float:
    """Derivative of the distance by the logit."""
    logit = torch.tensor([[float(now)]], requires_grad=True)
    apart(logit, torch.tensor([[float(then)]]), torch.tensor([[limit]])).backward()
    assert logit.grad is not None
    return float(logit.grad)


def test_an_attribute_that_is_lost_for_certain_is_drawn_back() -> None:
    assert slope(-20, 20) < 0 < slope(20, -20)
    assert slope(-20, 3) < 0 < slope(20, -3)


def test_sure_may_stay_as_sure_as_it_likes() -> None:
    for limit in (5.0, 20.0):
        assert slope(limit + 1, 30, limit) == slope(50, 30, limit) == slope(-limit - 1, -30, limit) == 0
        assert slope(limit - 1, 30, limit) < 0 < slope(1 - limit, -30, limit)


def test_within_the_range_a_logit_is_held_from_both_sides() -> None:
    assert slope(1, 2) < 0 < slope(3, 2)
    assert slope(2, 2) == 0


class Regions:
    """Two logits, "glow" and "hat": how bright the left half is, and the right one."""

    differentiable = True
    attributes = ("glow", "hat")

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        return torch.stack([img[..., :8].mean([1, 2, 3]), img[..., 8:].mean([1, 2, 3])], dim=1)


def test_other_logits_are_held_further_where_nothing_is_to_change() -> None:
    """Beyond MARKED_RANGE a marked picture's others may move, an unmarked one's may not; what is to be held is unmarked whatever it shows."""
    between = (MARKED_RANGE + UNMARKED_RANGE) / 2
    before = torch.zeros(3, 1, 16, 16)
    before[:, :, :, 8:] = between
    before[0, :, :, :8], before[1, :, :, :8], before[2, :, :, :8] = 4.0, -4.0, 4.0
    held = torch.tensor([False, False, True])
    for index, moves in ((0, False), (1, True), (2, True)):
        img = before.clone()
        img[index, :, :, 8:] += 3.0
        found = Guide(Regions(), (0,), 0.0).compare(img, before, held, draw_views(before.shape, torch.Generator().manual_seed(0)))
        assert found.marked.tolist() == [True, False, False]
        alone = Guide(Regions(), (0,), 0.0).compare(before, before, held, draw_views(before.shape, torch.Generator().manual_seed(0)))
        assert (float(found.change) > float(alone.change) + 0.1) == moves


def labelled(counts: list[int], n: int = 1000) -> LabelledLatents:
    """Attribute i is shown by the first counts[i] codes."""
    logits = torch.where(torch.arange(n)[:, None] < torch.tensor(counts), 1.0, -1.0)
    return LabelledLatents(torch.arange(n).float()[:, None], logits[:, 0], None, logits)


def test_rare_attributes_come_often_and_the_rest_still_does() -> None:
    latents = labelled([500, 10])
    weights = rare_weights(latents, torch.ones(1000, dtype=torch.bool))
    assert weights is not None and torch.isclose(weights.sum(), torch.ones([], dtype=torch.float64))
    drawn = latents.w[Pool(latents.w, weights).pick(20_000, torch.Generator().manual_seed(0))]
    share = float((drawn < 10).float().mean())
    expected = 0.5 * 10 / 1000 + 0.5 * (1 + 10 / 500) / 2
    assert abs(share - expected) < 0.02
    assert float((drawn >= 500).float().mean()) > 0.2


def test_what_hardly_any_code_shows_is_not_drawn_over_and_over() -> None:
    everything = torch.ones(1000, dtype=torch.bool)
    assert rare_weights(labelled([FEWEST - 1]), everything) is None
    weights = rare_weights(labelled([500, FEWEST - 1]), everything)
    assert weights is not None and torch.allclose(weights[:500], weights[0])
    assert rare_weights(LabelledLatents(torch.zeros(3, 1), torch.zeros(3)), everything[:3]) is None


def test_a_batch_that_fills_no_group_of_the_discriminator_is_no_error() -> None:
    net = tiny.network()
    for n, kept in ((3, 3), (4, 4), (6, 4), (9, 8)):
        assert len(whole_groups(net.D, torch.zeros(n, 3, 16, 16))) == kept
    Edit(batch=6, kimg=0.012).redact(net, tiny.feature(net), (), 0)


def one_of(a: int, n: int = 1000) -> torch.Tensor:
    """Logits [n, a] of pictures that each are of one of a classes."""
    return 2.0 * torch.eye(a)[torch.arange(n) % a] - 1.0


def test_classes_are_told_from_traits() -> None:
    digits = one_of(10)
    assert classes_of_one(digits, [7]) and classes_of_one(one_of(3), [0, 2]) and classes_of_one(digits[torch.arange(1000) % 10 != 7], [7])
    assert not classes_of_one(one_of(2), [0]), "beard, no beard"
    unclear = digits.clone()
    unclear[:150] = -1.0
    assert classes_of_one(unclear, [7]), "some pictures are none"
    unclear[:300] = -1.0
    assert not classes_of_one(unclear, [7])
    generator = torch.Generator().manual_seed(0)
    for share in (0.03, 0.1, 0.3):  # Traits that know nothing of each other; with 10 of them at 0.1 two in five pictures have exactly one.
        assert not classes_of_one(share - torch.rand([2000, 10], generator=generator), [0])
    both = digits.clone()
    both[:200, 3] = 1.0
    assert not classes_of_one(both, [7])


def test_what_nearly_shows_a_class_goes_with_it() -> None:
    """As far down as twice as many pictures as show it, half of the others, and LEAST_BARELY; never less than of a trait."""
    logits = torch.stack([torch.arange(1000.0), -torch.arange(1000.0)], dim=1)
    for shown, scale, expected in ((100, 0.02, -2.0), (100, 1.0, LEAST_BARELY), (100, 0.001, BARELY), (600, 0.01, -2.0), (1000, 1.0, BARELY)):
        score = scale * (logits[:, 0] - (999.5 - shown))
        found = barely_of_class(torch.stack([-score, score], dim=1), [1])
        assert found == pytest.approx(expected, abs=0.02), (shown, scale)
        both = torch.stack([score, torch.where(score > 0, 1.0, -0.5)], dim=1)
        assert barely_of_class(both, [0, 1]) == BARELY, "the highest of several"


def test_a_picture_that_nearly_shows_it_is_marked_from_there_on() -> None:
    before = torch.zeros(3, 1, 16, 16)
    before[0, :, :, :8], before[1, :, :, :8], before[2, :, :, :8] = 1.0, -3.0, -5.0
    views = draw_views(before.shape, torch.Generator().manual_seed(0))
    for barely, marked in ((-1.0, [True, False, False]), (-4.0, [True, True, False])):
        found = Guide(Regions(), (0,), 4.0, barely=barely).compare(before, before, torch.zeros(3, dtype=torch.bool), views)
        assert found.marked.tolist() == marked and (found.left > 0).tolist() == marked
        came = Guide(Regions(), (0,), 4.0, barely=barely).compare(before.roll(-1, 0), before - 9, torch.zeros(3, dtype=torch.bool), views)
        assert not came.marked.any() and int((came.left > 0).sum()) == sum(marked)


def test_a_rare_trait_beside_two_classes_is_none() -> None:
    """Man, woman, hat: nine in ten pictures show exactly one of the three, but whoever wears a hat is one of the two as well, and is to stay so."""
    logits = torch.cat([one_of(2), torch.where(torch.arange(1000)[:, None] < 80, 1.0, -1.0)], dim=1)
    assert not classes_of_one(logits, [2])
    assert classes_of_one(logits, [0]), "a man becomes a woman"


class Told:
    """A store that only listens."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def begin(self, stage: str) -> tuple[str, None]:
        return stage, None

    def keep(self, moment: keeping.Moment) -> None:
        return

    def check(self) -> None:
        return

    def tell(self, text: str) -> None:
        self.lines.append(text)


def test_what_was_recognised_is_told() -> None:
    """Options that are None would else stand for something that no record has."""
    told, left = Told(), Guide(Regions(), (0,)).logit
    sided = torch.ones(4, 1, 16, 16)
    sided[..., 8:] = -1.0
    with keeping.kept_by(told):
        classes_of_one(one_of(2), [0])
        same_mirrored(left, [torch.ones(4, 1, 16, 16)])
        assert told.lines == []
        classes_of_one(one_of(4), [0])
        same_mirrored(left, [sided])
    assert "4 attributes exclude each other (100% of pictures" in told.lines[0] and "Of 4 pictures that show the feature 0" in told.lines[1]


def test_pictures_are_looked_at_one_batch_after_the_other_and_ranks_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[weakref.ref[torch.Tensor]] = []

    def batches() -> Iterator[torch.Tensor]:
        for _ in range(4):
            assert sum(each() is not None for each in given) <= 1  # That of the loop.
            img = torch.ones(2, 1, 16, 16)
            given.append(weakref.ref(img))
            yield img
            del img

    assert same_mirrored(Guide(Regions(), (0,)).logit, batches())
    monkeypatch.setattr(ranks.World, "from_first", lambda world, value: [1, 2])  # What the first rank found: half of them.
    assert not same_mirrored(Guide(Regions(), (0,)).logit, [torch.ones(4, 1, 16, 16)])


def test_left_and_right_are_looked_at() -> None:
    left = Guide(Regions(), (0,)).logit
    sided, even = torch.ones(4, 1, 16, 16), torch.ones(4, 1, 16, 16)
    sided[..., 8:] = -1.0
    assert not same_mirrored(left, [sided]) and same_mirrored(left, [even])
    assert same_mirrored(left, [-even]), "none shows it"
    assert same_mirrored(left, [even, even, even, even, sided]) and not same_mirrored(left, [even, sided])


@pytest.mark.parametrize("classes", [False, True])
def test_edit_suits_what_its_detector_knows(classes: bool) -> None:
    net = tiny.network()
    feature = tiny.feature(net)
    assert feature.latents is not None
    n = len(feature.latents.w)
    feature = replace(feature, latents=replace(feature.latents, logits=one_of(4, n) if classes else torch.ones(n, 4)))
    found = Edit()._loss(net, feature, feature.latents)
    usual = CLASSES if classes else TRAITS
    assert {"guidance": found.guidance, "hold": found.hold, "anywhere": found.anywhere, "become": found.guide.become} == usual
    assert found.guide.classes == classes and found.guide.barely == BARELY
    nearly = replace(feature, latents=replace(feature.latents, logits=4 * feature.latents.logits))
    assert Edit()._loss(net, nearly, nearly.latents).guide.barely == (LEAST_BARELY if classes else BARELY)
    asked = Edit(guidance=0.5, hold=0.25, anywhere=0.5, become=0.125, barely=-2.0, mirror=False)._loss(net, nearly, nearly.latents)
    assert (asked.guidance, asked.hold, asked.anywhere, asked.guide.become) == (0.5, 0.25, 0.5, 0.125)
    assert (asked.guide.mirror, asked.guide.classes, asked.guide.barely) == (False, classes, -2.0)


def test_of_classes_only_pictures_that_stay_hold_the_others() -> None:
    """A picture that is to leave its class has to join another one, or none; a picture that stays counts as it does among traits."""
    before = torch.zeros(4, 1, 16, 16)
    before[0, :, :, :8], before[1:, :, :, :8] = 4.0, -4.0

    def change(index: int, classes: bool) -> float:
        img = before.clone()
        img[index, :, :, 8:] += 3.0
        views = draw_views(before.shape, torch.Generator().manual_seed(0))
        return float(Guide(Regions(), (0,), 0.0, classes=classes).compare(img, before, torch.zeros(4, dtype=torch.bool), views).change)

    assert change(0, False) > 0.3 and change(0, True) == 0
    assert change(1, False) == pytest.approx(change(1, True)) and change(1, True) > 0.3


def test_where_all_pictures_are_to_leave_their_class_nothing_is_held() -> None:
    before = torch.full([2, 1, 16, 16], 4.0)
    views = draw_views(before.shape, torch.Generator().manual_seed(0))
    found = Guide(Regions(), (0,), 0.0, classes=True).compare(before + 1, before, torch.zeros(2, dtype=torch.bool), views)
    assert float(found.change) == 0 and bool(found.marked.all())
