# SPDX-License-Identifier: Apache-2.0
"""The drawn portraits: reproducible, distributed and correlated as promised, and true to their attributes pixel by pixel."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest

from stylegan_redact.portraits import draw
from stylegan_redact.portraits.draw import ATTRIBUTES, Portrait, draw_portrait, draw_portraits, sample_portrait, with_attribute
from stylegan_redact.types import RedactError

NUM_PEOPLE = 8000
NUM_SWITCHED = 40
VISIBLE = 24  # levels of 255 by which a pixel must differ to count as changed for the eye

BOTH = {"male": True, "beard": True, "mustache": True}

# attribute: (lowest, highest) share of all portraits; the interval is wider than 4 standard errors at NUM_PEOPLE.
RATES = {
    "male": (0.47, 0.53),
    "beard": (0.13, 0.17),
    "mustache": (0.045, 0.08),
    "eyeglasses": (0.125, 0.175),
    "hat": (0.085, 0.12),
    "smile": (0.42, 0.48),
    "bald": (0.025, 0.05),
    "grey_hair": (0.035, 0.065),
    "blond_hair": (0.12, 0.18),
    "long_hair": (0.32, 0.40),
    "lipstick": (0.22, 0.28),
    "earrings": (0.10, 0.14),
    "bushy_eyebrows": (0.175, 0.225),
    "dark_skin": (0.22, 0.28),
}

# attribute: (left, top, right, bottom) outside of which switching it changes nothing, and how many pixels change visibly at least.
REGIONS = {
    "male": ((0, 2, 64, 64), 250),
    "beard": ((16, 34, 48, 52), 120),
    "mustache": ((22, 35, 42, 44), 20),
    "eyeglasses": ((15, 24, 49, 37), 60),
    "hat": ((8, 2, 56, 24), 300),
    "smile": ((24, 37, 40, 49), 15),
    "bald": ((13, 8, 51, 34), 80),
    "grey_hair": ((11, 7, 53, 61), 60),
    "blond_hair": ((11, 7, 53, 61), 60),
    "long_hair": ((11, 7, 53, 61), 250),
    "lipstick": ((24, 37, 40, 49), 12),
    "earrings": ((13, 34, 51, 45), 30),
    "bushy_eyebrows": ((20, 20, 44, 28), 15),
    "dark_skin": ((13, 7, 51, 63), 350),
}


@pytest.fixture(scope="module")
def people() -> list[Portrait]:
    rng = np.random.default_rng(5)
    return [sample_portrait(rng) for _ in range(NUM_PEOPLE)]


@pytest.fixture(scope="module")
def truth(people: list[Portrait]) -> dict[str, np.ndarray]:
    return dict(zip(ATTRIBUTES, np.stack([person.truth for person in people], axis=1), strict=True))


def switched_pairs(name: str) -> list[tuple[Portrait, Portrait]]:
    """People without and with an attribute that differ in this attribute alone."""
    pairs: list[tuple[Portrait, Portrait]] = []
    for index in itertools.count():
        person = sample_portrait(np.random.default_rng([ATTRIBUTES.index(name), index]))
        try:
            pairs.append((dataclasses.replace(person, **{name: False}), dataclasses.replace(person, **{name: True})))
        except RedactError:
            continue  # this person's other attributes exclude the switch
        if len(pairs) == NUM_SWITCHED:
            return pairs


def difference(first: Portrait, second: Portrait) -> np.ndarray:
    """Largest change over the colours, [64, 64]."""
    return np.abs(draw_portrait(first).astype(int) - draw_portrait(second).astype(int)).max(axis=2)


def test_shapes_and_dtypes() -> None:
    images, truth = draw_portraits(seed=1, num=3)
    assert images.shape == (3, 64, 64, 3) and images.dtype == np.uint8
    assert truth.shape == (3, len(ATTRIBUTES)) and truth.dtype == bool
    assert draw_portrait(Portrait(), size=128).shape == (128, 128, 3)
    empty, none = draw_portraits(seed=1, num=0)
    assert empty.shape == (0, 64, 64, 3) and none.shape == (0, len(ATTRIBUTES))


def test_each_portrait_depends_on_seed_and_index_alone() -> None:
    images, truth = draw_portraits(seed=3, num=12)
    first, first_truth = draw_portraits(seed=3, num=5)
    np.testing.assert_array_equal(images[:5], first)
    np.testing.assert_array_equal(truth[:5], first_truth)
    other, _ = draw_portraits(seed=4, num=12)
    assert all(np.any(a != b) for a, b in zip(images, other, strict=True))
    assert len({image.tobytes() for image in images}) == 12


def test_truth_is_that_of_the_drawn_person() -> None:
    images, truth = draw_portraits(seed=8, num=20)
    for index in range(20):
        person = sample_portrait(np.random.default_rng([8, index]))
        np.testing.assert_array_equal(images[index], draw_portrait(person))
        assert {name: bool(value) for name, value in zip(ATTRIBUTES, truth[index], strict=True)} == {n: getattr(person, n) for n in ATTRIBUTES}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_rates_are_as_promised(truth: dict[str, np.ndarray], name: str) -> None:
    lowest, highest = RATES[name]
    assert lowest < truth[name].mean() < highest


def test_correlations_are_as_promised(truth: dict[str, np.ndarray]) -> None:
    male, bald = truth["male"], truth["bald"]
    assert not truth["beard"][~male].any() and not truth["mustache"][~male].any()
    assert 0.25 < truth["beard"][male].mean() < 0.35
    assert bald[male].mean() > 15 * bald[~male].mean()
    assert truth["grey_hair"][bald].mean() > 3 * truth["grey_hair"][~bald].mean()
    assert truth["eyeglasses"][truth["grey_hair"]].mean() > truth["eyeglasses"].mean() + 0.05
    assert truth["blond_hair"][~truth["dark_skin"]].mean() > 3 * truth["blond_hair"][truth["dark_skin"]].mean()
    for name, factor in (("long_hair", 5), ("lipstick", 10), ("earrings", 3)):
        assert truth[name][~male].mean() > factor * truth[name][male].mean(), name
    assert truth["bushy_eyebrows"][male].mean() > 2 * truth["bushy_eyebrows"][~male].mean()


def test_undecidable_combinations_are_neither_sampled_nor_accepted(truth: dict[str, np.ndarray]) -> None:
    assert not (truth["bald"] & (truth["hat"] | truth["long_hair"])).any()
    assert not (truth["grey_hair"] & truth["blond_hair"]).any()
    assert not (truth["mustache"] & truth["beard"]).any()
    for fields in ({"beard": True}, {"mustache": True}, {"bald": True, "hat": True}, {"bald": True, "long_hair": True}, BOTH):
        with pytest.raises(RedactError, match="exclude each other"):
            Portrait(**fields)
    with pytest.raises(RedactError, match="exclude each other"):
        dataclasses.replace(Portrait(grey_hair=True), blond_hair=True)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_switching_an_attribute_changes_its_region_and_nothing_else(name: str) -> None:
    (left, top, right, bottom), fewest = REGIONS[name]
    for without, with_it in switched_pairs(name):
        change = difference(without, with_it)
        assert (change >= VISIBLE).sum() >= fewest, (without, (change >= VISIBLE).sum())
        change[top:bottom, left:right] = 0
        assert not change.any(), (without, np.argwhere(change)[:4])


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_switching_on_and_off_leaves_no_trace(name: str) -> None:
    for without, _ in switched_pairs(name)[:5]:
        again = with_attribute(with_attribute(without, name, True), name, False)
        assert again == without
        np.testing.assert_array_equal(draw_portrait(again), draw_portrait(without))


@pytest.mark.parametrize(
    ("name", "part"),
    [("beard", "_draw_beard"), ("hat", "_draw_hat"), ("eyeglasses", "_draw_eyeglasses"), ("earrings", "_draw_earrings")],
)
def test_absent_parts_are_not_drawn_at_all(monkeypatch: pytest.MonkeyPatch, name: str, part: str) -> None:
    pairs = switched_pairs(name)[:10]
    full = [(draw_portrait(without), draw_portrait(with_it)) for without, with_it in pairs]
    monkeypatch.setattr(draw, part, lambda *_: None)
    for (without, with_it), (image_without, image_with) in zip(pairs, full, strict=True):
        np.testing.assert_array_equal(draw_portrait(without), image_without)
        np.testing.assert_array_equal(draw_portrait(with_it), image_without)
        assert np.any(image_with != image_without)


def test_marker_colours_occur_with_their_attribute_only() -> None:
    for index in range(300):
        person = sample_portrait(np.random.default_rng([21, index]))
        red, green, blue = draw_portrait(person).astype(int).transpose(2, 0, 1)
        lips = (slice(37, 49), slice(24, 40))
        crimson = ((red - green > 120) & (red - blue > 100))[lips].sum()
        turquoise = ((green - red > 120) & (blue - red > 120))[34:45, 13:51].sum()
        assert (crimson >= 5) == person.lipstick and (person.lipstick or crimson == 0)
        assert (turquoise >= 20) == person.earrings and (person.earrings or turquoise == 0)


def test_with_attribute_repairs_only_what_excludes_it() -> None:
    bald = Portrait(male=True, bald=True, smile=True, skin_tone=0.2)
    assert with_attribute(bald, "hat", True) == dataclasses.replace(bald, hat=True, bald=False)
    bearded = Portrait(male=True, beard=True)
    assert with_attribute(bearded, "male", False) == Portrait()
    assert with_attribute(bearded, "mustache", True) == Portrait(male=True, mustache=True)
    assert with_attribute(bearded, "beard", False) == Portrait(male=True)
    assert with_attribute(Portrait(smile=True), "beard", True) == Portrait(male=True, beard=True, smile=True)
    assert with_attribute(Portrait(blond_hair=True), "grey_hair", True) == Portrait(grey_hair=True)
    assert bearded.beard
    with pytest.raises(RedactError, match="moustache.*mustache"):
        with_attribute(bald, "moustache", True)


def test_continuous_parameters_vary_the_picture_without_touching_the_truth() -> None:
    numbers = [field.name for field in dataclasses.fields(Portrait) if field.type == "float"]
    assert len(numbers) == 13
    for name in numbers:
        base = Portrait(male=True, hat=name == "hat_hue")  # a hat hides the parting
        varied = dataclasses.replace(base, **{name: 0.95})
        assert (difference(base, varied) > 4).sum() >= 8, name
        np.testing.assert_array_equal(base.truth, varied.truth)
