# SPDX-License-Identifier: Apache-2.0
"""Several features in one guided edit: each picture loses what it shows, and keeps the rest, the other features included."""

from __future__ import annotations

import dataclasses

import pytest
import tiny
import torch
from torch.nn.functional import softplus

from stylegan_redact import api
from stylegan_redact.methods.edit import Edit
from stylegan_redact.several import together
from stylegan_redact.training.augment import draw_views
from stylegan_redact.training.guide import Comparison, Guide
from stylegan_redact.training.guided import Batch, GuidedLoss
from stylegan_redact.training.locate import wanted
from stylegan_redact.types import Feature

SIDE = 32
SEEN = range(1_000_000, 1_000_200)
QUARTERS = {"beard": (slice(0, 8), slice(0, 8)), "hat": (slice(24, 32), slice(0, 8)), "smile": (slice(0, 8), slice(24, 32))}


class Quarters:
    """Three logits, how bright three corners are: nothing that a random view does to a picture matters, as it leaves out what is in between."""

    differentiable = True

    def __init__(self, names: tuple[str, ...] = tuple(QUARTERS)) -> None:
        self.attributes = names

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        return torch.stack([10 * img[:, :, QUARTERS[name][0], QUARTERS[name][1]].mean([1, 2, 3]) for name in self.attributes], dim=1)


def pictures(*shown: str) -> torch.Tensor:
    """[n, 3, 32, 32], each of which shows the named attributes and no others; beard+hat is two."""
    img = 0.1 * torch.randn([len(shown), 3, SIDE, SIDE], generator=torch.Generator().manual_seed(0))
    for row, names in enumerate(shown):
        for name, (rows, columns) in QUARTERS.items():
            img[row, :, rows, columns] = 0.8 if name in names.split("+") else -0.8
    return img


def without(img: torch.Tensor, row: int, name: str) -> torch.Tensor:
    img = img.clone()
    img[row, :, QUARTERS[name][0], QUARTERS[name][1]] = -0.8
    return img


def compare(img: torch.Tensor, before: torch.Tensor, columns: tuple[int, ...], names: tuple[str, ...] = tuple(QUARTERS)) -> Comparison:
    held = torch.zeros(len(img), dtype=torch.bool)
    return Guide(Quarters(names), columns, 3.0).compare(img, before, held, draw_views(img.shape, torch.Generator().manual_seed(1)))


def test_each_picture_is_to_lose_what_it_shows() -> None:
    before = pictures("beard", "hat", "beard+hat", "smile")
    found = compare(before, before, (0, 1))
    assert found.shown.tolist() == [[True, False], [False, True], [True, True], [False, False]]
    assert found.marked.tolist() == [True, True, True, False]
    alone = [compare(before, before, (column,)).left for column in (0, 1)]
    torch.testing.assert_close(found.left, alone[0] + alone[1])
    assert float(found.left[3]) == 0 and float(found.left[0]) > float(softplus(torch.tensor(8.0 + 3.0)))


@pytest.mark.parametrize("names", [("beard", "hat", "smile"), ("beard", "hat")])
def test_the_feature_that_a_marked_picture_does_not_show_is_held_in_it(names: tuple[str, ...]) -> None:
    """Also where the detector knows nothing but the features."""
    before = pictures("beard", "beard+hat", "smile")
    hats = before.clone()
    hats[:, :, QUARTERS["hat"][0], QUARTERS["hat"][1]] += 0.5
    base = float(compare(before, before, (0, 1), names).change)
    assert base == 0
    for row, held in ((0, True), (1, False), (2, False)):
        img = before.clone()
        img[row] = hats[row]
        changed = float(compare(img, before, (0, 1), names).change)
        assert (changed > 0.02) == held, row


def test_a_held_feature_counts_as_much_as_any_other_logit() -> None:
    before = pictures("beard", "beard")
    changes = []
    for name, columns in (("hat", (0, 1)), ("smile", (0, 1))):
        img = before.clone()
        img[:, :, QUARTERS[name][0], QUARTERS[name][1]] += 0.8
        changes.append(float(compare(img, before, columns).change))
    assert changes[0] == pytest.approx(changes[1], rel=0.5) and min(changes) > 0.1


def test_one_feature_has_the_terms_that_it_always_had() -> None:
    """The formulas of one column, written out, to the last bit."""
    before = pictures("beard", "hat", "beard+hat", "smile")
    img = 0.7 * before
    found = compare(img, before, (1,))
    bare = Quarters().logits(img)[:, 1]
    assert torch.equal(found.marked, found.shown[:, 0]) and found.marked.tolist() == [False, True, True, False]
    assert bool((found.left[found.marked] >= softplus(bare + 3.0)[found.marked]).all())
    shown = found.shown[found.marked]
    mask = Guide(Quarters(), (1,), 3.0).wanted(before[found.marked], img[found.marked], shown)
    assert torch.equal(mask, wanted(lambda each: Quarters().logits(each)[:, 1], before[found.marked], img[found.marked]))


def test_only_pixels_of_what_goes_may_change() -> None:
    """A picture with two features may change at either; one with a beard may not change where hats are."""
    before = pictures("beard", "beard+hat")
    after = without(without(without(before, 0, "beard"), 1, "beard"), 1, "hat")
    after[0, :, QUARTERS["hat"][0], QUARTERS["hat"][1]] -= 0.3
    guide = Guide(Quarters(), (0, 1), 3.0)
    mask = guide.wanted(before, after, torch.tensor([[True, False], [True, True]]))
    at = {name: mask[:, 0, rows, columns].mean(dim=[1, 2]).tolist() for name, (rows, columns) in QUARTERS.items()}
    assert at["beard"] == [1, 1] and at["hat"] == [0, 1] and at["smile"] == [0, 0]


def test_the_objective_takes_several() -> None:
    before = pictures("beard", "hat", "beard+hat", "smile")
    batch = Batch(torch.zeros([4, 1, 1]), torch.zeros(4, dtype=torch.bool))
    loss = GuidedLoss(Guide(Quarters(), (0, 1), 3.0))
    gone = without(without(without(without(before, 0, "beard"), 1, "hat"), 2, "beard"), 2, "hat")
    now, then = (loss.terms(img, before, batch, draw_views(before.shape, torch.Generator().manual_seed(2))) for img in (gone, before))
    assert float(now["feature"]) < 0.3 * float(then["feature"])
    assert float(now["change"]) < 0.1 * float(
        loss.terms(before - 0.5, before, batch, draw_views(before.shape, torch.Generator().manual_seed(2)))["change"]
    )


@pytest.fixture(scope="module")
def two() -> tuple[Feature, Feature]:
    """Both of the tiny network's attributes, of the same latents."""
    net = tiny.network()
    known = tiny.feature(net)
    assert known.latents is not None and known.latents.logits is not None and known.detector is not None
    column = known.detector.attributes.index(tiny.OTHER)
    other = dataclasses.replace(known, name=tiny.OTHER, latents=dataclasses.replace(known.latents, score=known.latents.logits[:, column]))
    return known, other


def test_an_edit_takes_away_both_and_the_order_does_not_matter(two: tuple[Feature, Feature]) -> None:
    net, method = tiny.network(), Edit(kimg=0.256, batch=16, guidance=0.2, lr=0.003)
    one, other = (api.redact(net, order, method, seed=3) for order in (two, two[::-1]))
    assert all(torch.equal(tensor, other.G_ema.state_dict()[name]) for name, tensor in one.G_ema.state_dict().items())
    for part in together(two).each:
        assert tiny.rate(one.G_ema, part, SEEN) < 0.7 * tiny.rate(net.G_ema, part, SEEN)
