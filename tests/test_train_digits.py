# SPDX-License-Identifier: Apache-2.0
"""The digits that the benchmark's network and classifiers learn, and who learns which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import train_digits
from stylegan_redact.detectors import load_torchscript, save_torchscript


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return train_digits.load()[0]


def test_each_digit_lies_whole_on_the_canvas_where_the_generator_puts_it(pictures: np.ndarray) -> None:
    placed = train_digits.placed(pictures[:300], np.random.default_rng(0))
    assert placed.shape == (300, 1, 32, 32) and placed.min() == -1 and placed.max() <= 1
    ink = ((placed + 1) * 127.5).sum([1, 2, 3]).numpy()
    np.testing.assert_allclose(ink, pictures[:300].sum((1, 2), dtype=np.int64), rtol=1e-5)  # Nothing is cut off.
    again = train_digits.placed(pictures[:300], np.random.default_rng(0))
    assert torch.equal(placed, again)
    assert not torch.equal(placed, train_digits.placed(pictures[:300], np.random.default_rng(1)))


def test_detector_and_judge_learn_from_other_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[int]] = {}
    pictures, truth = train_digits.load()
    numbered = np.arange(len(pictures))[:, None, None] + np.zeros([1, 28, 28], np.int64)
    blank = torch.zeros(1, 1, 32, 32)
    for role in train_digits.RECIPES:
        rows = seen.setdefault(role, set())
        calls: list[np.ndarray] = []
        monkeypatch.setattr(train_digits, "load", lambda: (numbered, truth))
        monkeypatch.setattr(
            train_digits, "placed", lambda some, picks, calls=calls: (calls.append(some[:, 0, 0]), blank.expand(len(some), -1, -1, -1))[1]
        )
        train_digits.train_classifier(role, steps=40, seed=0)
        *learned, tested = calls
        rows.update(np.concatenate(learned).tolist())
        assert not rows & set(tested.tolist())
    assert not seen["detector"] & seen["judge"] and len(seen["detector"]) > 500


@pytest.mark.parametrize("role", ["detector", "judge"])
def test_a_classifier_tells_digits_that_it_has_not_seen(role: str, tmp_path: Path, pictures: np.ndarray) -> None:
    net, found = train_digits.train_classifier(role, steps=110, seed=0)
    right = [each["accuracy"] for each in found.values()]
    assert (
        list(found) == [f"digit-{digit}" for digit in range(10)] and min(right) > 0.9 and np.mean(right) > 0.95
    )  # 0.9: a tenth is each digit's share.
    assert np.mean([each["found"] for each in found.values()]) > 0.6
    save_torchscript(net, tmp_path / f"{role}.pt", train_digits.ATTRIBUTES)
    loaded = load_torchscript(tmp_path / f"{role}.pt", "digit-7", (1, 32, 32))
    img = train_digits.placed(pictures[:20], np.random.default_rng(0))
    torch.testing.assert_close(loaded.logits(img), net(img))
