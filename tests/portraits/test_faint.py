# SPDX-License-Identifier: Apache-2.0
"""Drawings that show one attribute in part: reproducible, true by pixel count, and unlike those that show it whole or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from stylegan_redact import detectors
from stylegan_redact.portraits import faint
from stylegan_redact.portraits.draw import draw_portrait, draw_portraits
from stylegan_redact.portraits.portrait import ATTRIBUTES
from stylegan_redact.portraits.train_classifiers import HELD_OUT_SEED, drawings, to_tensor

NUM = 400
SEED = 3


@pytest.fixture(scope="module")
def drawn() -> list[tuple[int, bool, float, float]]:
    """Of each drawing: the partial attribute, whether it is said to show, its share of pixels seen clearly, and of pixels changed at all."""
    images, truth = faint.draw_faint(SEED, NUM)
    rows = []
    for index in range(NUM):
        person, other = faint._pair(np.random.default_rng([SEED, index, 1]))
        without, whole, image = (each.astype(int) for each in (draw_portrait(person), draw_portrait(other), images[index]))
        full, change = np.abs(whole - without).max(axis=2), np.abs(image - without).max(axis=2)
        visible = (full >= faint.VISIBLE).sum()
        assert (change[full == 0] == 0).all()  # nothing but the attribute
        column = int((person.truth != other.truth).argmax())
        assert (np.delete(truth[index], column) == np.delete(person.truth, column)).all()
        seen, touched = (change >= faint.VISIBLE - 1).sum() / visible, (change > faint.UNSEEN).sum() / visible  # rounded to whole levels
        rows.append((column, bool(truth[index, column]), float(seen), float(touched)))
    return rows


def test_the_same_seed_draws_the_same_and_a_part_of_it(drawn) -> None:
    images, truth = faint.draw_faint(SEED, 6)
    again, same = faint.draw_faint(SEED, 3)
    assert (images[:3] == again).all() and (truth[:3] == same).all()
    assert (faint.draw_faint(SEED + 1, 6)[0] != images).any()


def test_truth_is_what_can_be_seen(drawn) -> None:
    for _, shows, seen, touched in drawn:
        assert seen >= faint.SHOWS_FROM - 0.01 if shows else touched <= faint.GONE_BELOW + 0.01


def test_every_attribute_comes_in_parts_that_show_and_in_traces_that_do_not(drawn) -> None:
    for name in faint.PARTIAL:
        of_it = [row for row in drawn if row[0] == ATTRIBUTES.index(name)]
        assert len(of_it) >= NUM / len(faint.PARTIAL) / 3
        assert 0.4 < np.mean([row[1] for row in of_it]) < 0.9
    parts = [row for row in drawn if row[1]]
    assert np.mean([seen < 0.9 for _, _, seen, _ in parts]) > 0.5  # not whole ones under another name


def test_classifiers_are_trained_on_both_kinds_by_halves() -> None:
    images, truth = drawings(SEED, 7)
    assert (images[:4] == draw_portraits(SEED, 4)[0]).all() and (images[4:] == faint.draw_faint(SEED, 3)[0]).all()
    assert len(images) == len(truth) == 7


@pytest.mark.parametrize("role", detectors.BUNDLED_ROLES)
def test_the_bundled_classifiers_see_a_part_of_an_attribute(role: str) -> None:
    classifier = detectors.load_bundled(role)
    images, truth = faint.draw_faint(HELD_OUT_SEED, NUM)
    shows = classifier.logits(to_tensor(images)).detach().numpy() > 0
    columns = [ATTRIBUTES.index(name) for name in faint.PARTIAL]
    right = (shows == truth)[:, columns].mean(axis=0)
    assert right.min() > 0.93, dict(zip(faint.PARTIAL, right.round(3).tolist(), strict=True))
