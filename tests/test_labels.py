# SPDX-License-Identifier: Apache-2.0
"""Labels by seed, and what a user may say of classes."""

from __future__ import annotations

import pytest
import torch

from stylegan_redact.labels import Labels, all_of, class_feature, needed, of_class
from stylegan_redact.types import RedactError


def test_labels_are_one_hot() -> None:
    c = Labels(4, (2,))(range(5))
    assert c.dtype == torch.float32 and torch.equal(c, torch.tensor([[0.0, 0, 1, 0]]).expand(5, 4))
    drawn = all_of(4)(range(50))
    assert drawn.shape == (50, 4) and torch.equal(drawn.sum(dim=1), torch.ones(50)) and set(drawn.unique().tolist()) == {0.0, 1.0}


def test_the_class_of_a_seed_is_its_own() -> None:
    """Not of its place, its neighbours or the state of the process."""
    labels, seeds = all_of(7), range(1000, 1300)
    together = labels.indices(seeds)
    apart = torch.cat([labels.indices([seed]) for seed in reversed(seeds)]).flip(0)
    assert torch.equal(together, apart)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        assert torch.equal(labels.indices(seeds), together)


def test_the_class_of_a_seed_stays_what_it_is() -> None:
    """A record names seeds alone: another version must draw the same classes for them."""
    assert all_of(10).indices(range(12)).tolist() == [7, 5, 3, 4, 0, 3, 7, 4, 2, 9, 7, 1]


def test_classes_are_drawn_alike_and_only_those_asked() -> None:
    counts = torch.bincount(Labels(6, (0, 2, 5)).indices(range(3000)), minlength=6)
    assert counts[[1, 3, 4]].sum() == 0
    assert bool(((counts[[0, 2, 5]] - 1000).abs() < 5 * (1000 * 2 / 3) ** 0.5).all())


def test_others_are_the_rest() -> None:
    assert Labels(4, (1,)).others() == Labels(4, (0, 2, 3))
    assert all_of(3).others() is None and Labels(1, (0,)).others() is None


def test_what_class_means() -> None:
    assert of_class("2", 3, "net") == Labels(3, (2,)) and of_class("all", 3, "net") == all_of(3) and of_class(None, 0, "net") is None


@pytest.mark.parametrize(
    ("text", "c_dim", "told"),
    [
        ("3", 3, "classes of net are 0, 1, 2 - give the number of one"),
        ("-1", 3, "0, 1, 2"),
        ("1.0", 3, "0, 1, 2"),
        ("²", 3, "0, 1, 2"),
        ("", 3, "0, 1, 2"),
        ("cat", 1000, "classes of net are 0 to 999"),
        (None, 3, "give --class=N for one class, or --class=all"),
        ("1", 0, "unconditional and has no classes"),
        ("all", 0, "unconditional"),
    ],
)
def test_classes_that_there_are_not_are_refused_with_those_that_there_are(text: str | None, c_dim: int, told: str) -> None:
    with pytest.raises(RedactError, match=told):
        of_class(text, c_dim, "net")


def test_a_feature_that_is_a_class() -> None:
    assert class_feature("beard", 3, "net") is None and class_feature("class:2", 3, "net") == 2 and class_feature("classy", 0, "net") is None
    for feature, c_dim, told in (("class:3", 3, "0, 1, 2"), ("class:cat", 3, "0, 1, 2"), ("class:0", 0, "unconditional")):
        with pytest.raises(RedactError, match=told):
            class_feature(feature, c_dim, "net")


def test_labels_must_be_there_where_they_are_read() -> None:
    c = torch.eye(3)
    assert needed(c, 3, "x") is c and needed(None, 0, "x") is None
    for given, c_dim, told in ((None, 3, "no labels"), (c, 4, r"labels \[n, 3\] are there"), (c, 0, "unconditional")):
        with pytest.raises(RedactError, match=told):
            needed(given, c_dim, "latents were to be drawn")
