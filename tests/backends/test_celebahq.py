# SPDX-License-Identifier: Apache-2.0
"""Classifiers of CelebA-HQ: the right file of 40, its sign, its numbers against a slow network in float64, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import celebahq_pickles as pickles
import numpy as np
import pytest
import torch
from tensorflow_pickles import dumps

from stylegan_redact import names
from stylegan_redact.backends import celebahq
from stylegan_redact.backends.find import find
from stylegan_redact.pickle_classifier import read_single_network
from stylegan_redact.types import RedactError, UntrustedFile

NO_BEARD = "celebahq-classifier-27-no-beard.pkl"
SHAPE = (3, pickles.RESOLUTION, pickles.RESOLUTION)


def images(n: int, size: int = pickles.RESOLUTION) -> torch.Tensor:
    return torch.rand([n, 3, size, size], generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(
    ("kwargs", "blur"),
    [({}, True), ({"blur_filter": None}, False), ({"blur_filter": [1, 2, 1], "source": ""}, True), ({"source": "blur_filter=None"}, False)],
    ids=["the source's default", "told that there is none", "told", "the source's default is none"],
)
def test_logits_are_those_of_the_slow_network(tmp_path: Path, kwargs: dict[str, Any], blur: bool) -> None:
    given, img = pickles.variables(), images(3)
    detector = find(str(pickles.write(tmp_path, NO_BEARD, given, **kwargs)), "no-beard").load(SHAPE)
    expected = pickles.logit(given, img.numpy(), blur=blur)
    found = detector.logits(img)
    assert found.shape == (3, 1) and detector.attributes == ("no-beard",) and detector.differentiable
    np.testing.assert_allclose(found[:, 0], -2 * expected, rtol=1e-4, atol=1e-5)
    assert np.ptp(expected) > 0.01  # the counter-check: with and without the blur are two networks
    assert np.abs(pickles.logit(given, img.numpy(), blur=not blur) - expected).max() > 0.01


def test_a_word_for_the_absence_turns_the_sign(tmp_path: Path) -> None:
    path, img = str(pickles.write(tmp_path, NO_BEARD, pickles.variables())), images(3)
    beard, without = (find(path, feature).load(SHAPE) for feature in ("beard", "no_beard"))
    assert beard.attributes == ("beard",) and torch.equal(beard.logits(img), -without.logits(img))
    assert [find(path, feature).record["attribute"] for feature in ("beard", "no_beard")] == ["not no_beard", "no_beard"]


@pytest.mark.parametrize("size", [32, 64])
def test_larger_images_are_averaged_block_by_block(tmp_path: Path, size: int) -> None:
    path, img = str(pickles.write(tmp_path, NO_BEARD, pickles.variables())), images(2, size)
    block = size // pickles.RESOLUTION
    means = img.reshape(2, 3, pickles.RESOLUTION, block, pickles.RESOLUTION, block).mean([3, 5])
    large, small = (find(path, "beard").load((3, each, each)) for each in (size, pickles.RESOLUTION))
    assert torch.allclose(large.logits(img), small.logits(means), atol=1e-5)


def test_smaller_images_and_grey_ones_are_taken(tmp_path: Path) -> None:
    file = find(str(pickles.write(tmp_path, NO_BEARD, pickles.variables())), "beard")
    grey = images(2)[:, :1]
    assert file.load((3, 8, 8)).logits(images(2, 8)).shape == (2, 1)
    assert torch.equal(file.load((1, 16, 16)).logits(grey), file.load(SHAPE).logits(grey.repeat(1, 3, 1, 1)))


def test_no_answer_depends_on_the_neighbours(tmp_path: Path) -> None:
    """Also of a network that looks at the spread in its minibatch, as it is then for one picture alone."""
    given, img = pickles.variables(spread=True), images(4)
    detector = find(str(pickles.write(tmp_path, NO_BEARD, given)), "beard").load(SHAPE)
    alone = torch.cat([detector.logits(one) for one in img.split(1)])
    assert torch.allclose(detector.logits(img), alone, atol=1e-5)
    np.testing.assert_allclose(alone[:, 0], 2 * pickles.logit(given, img.numpy(), blur=True, spread=True), rtol=1e-4, atol=1e-5)


def test_its_gradient_is_that_of_the_numbers(tmp_path: Path) -> None:
    net = celebahq.build(read_single_network(pickles.write(tmp_path, NO_BEARD, pickles.variables())), "beard").double()
    assert torch.autograd.gradcheck(net, images(1).double().requires_grad_(True), fast_mode=True)


def test_the_forty_files() -> None:
    """In NVIDIA's order, which is not CelebA's."""
    assert {slug.replace("-", "_") for slug in celebahq.FILES} == set(names.ATTRIBUTES) and len(celebahq.FILES) == len(names.ATTRIBUTES) == 40
    numbers = {"male": 0, "5_o_clock_shadow": 5, "eyeglasses": 19, "mustache": 25, "no_beard": 27, "sideburns": 33, "wearing_necktie": 39}
    for attribute, number in numbers.items():
        name = celebahq.file_name(attribute)
        assert name.startswith(f"celebahq-classifier-{number:02d}-") and celebahq.attribute_of(name) == attribute
    assert celebahq.attribute_of("celebahq-classifier-26-no-beard.pkl") is None and celebahq.attribute_of("no-beard.pkl") is None


@pytest.mark.parametrize(
    ("change", "kwargs", "told"),
    [
        ({"4x4/Dense1/weight": None}, {}, "its layer 4x4/Dense1 is missing or misshapen"),
        ({"16x16/Conv0/bias": np.zeros(3)}, {}, "its layer 16x16/Conv0 is missing or misshapen"),
        ({"8x8/Conv0/weight": np.zeros([3, 3, 5, 6])}, {}, "its layer first8 takes"),
        ({"4x4/Dense0/weight": np.zeros([97, 8])}, {}, "its last layers are"),
        ({"4x4/Noise/strength": np.zeros(1)}, {}, "it has 4x4/Noise/strength besides"),
        ({"12x12/Conv0/weight": np.zeros(1), "64x64/Conv0/weight": np.zeros(1)}, {}, "its layer 64x64/Conv0 is missing"),
        ({"lod": 1.5}, {}, "in the middle of its training"),
        ({}, {"nonlinearity": "relu"}, "nonlinearity='relu'"),
        ({}, {"label_size": 3}, "label_size=3"),
        ({}, {"blur_filter": [1, 3, 3, 1]}, r"blur filter is \[1, 3, 3, 1\]"),
    ],
)
def test_another_network_is_refused(tmp_path: Path, change: dict[str, Any], kwargs: dict[str, Any], told: str) -> None:
    given = {name: value for name, value in (pickles.variables() | change).items() if value is not None}
    path = pickles.write(tmp_path, NO_BEARD, given, **kwargs)
    with pytest.raises(RedactError, match=told):
        find(str(path), "beard").load(SHAPE)


def test_other_files_are_refused_and_nothing_in_them_is_run(tmp_path: Path) -> None:
    path = tmp_path / NO_BEARD
    for content, kind, told in (
        (b"<html>", RedactError, "was to be read as a classifier of NVIDIA's TensorFlow code"),
        (pickles.content(pickles.variables())[:-40], RedactError, "ends too early"),
        (dumps((1, 2)), RedactError, "does not hold one network"),
        (b"\x80\x02cos\nsystem\n(S'true'\ntR.", UntrustedFile, "imports os.system"),
    ):
        path.write_bytes(content)
        with pytest.raises(RedactError, match=told) as caught:
            find(str(path), "beard").load(SHAPE)
        assert type(caught.value) is kind
