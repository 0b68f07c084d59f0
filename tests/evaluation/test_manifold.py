# SPDX-License-Identifier: Apache-2.0
"""Precision and recall: against a double loop, not swapped, and with the interval of a share."""

import numpy as np
import pytest
import torch

from stylegan_redact import estimates
from stylegan_redact.evaluation import _manifold
from stylegan_redact.evaluation._manifold import precision_and_recall
from stylegan_redact.types import Estimate, RedactError


def slow_share(queries: np.ndarray, points: np.ndarray) -> float:
    """Percent of the queries that lie in the ball of a point, which reaches to its third nearest other point."""
    radii = [sorted(np.linalg.norm(p - q) for j, q in enumerate(points) if j != i)[2] for i, p in enumerate(points)]
    return 100 * float(np.mean([any(np.linalg.norm(q - p) <= r for p, r in zip(points, radii, strict=True)) for q in queries]))


def measure(x: np.ndarray, y: np.ndarray) -> tuple[Estimate, Estimate]:
    return precision_and_recall(torch.from_numpy(x), torch.from_numpy(y))


@pytest.mark.parametrize("block", [7, 2048])
def test_it_is_the_double_loop_in_blocks_of_any_size(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_manifold, "BLOCK", block)
    stream = np.random.RandomState(0)
    x, y = stream.randn(60, 2) + 1e8, stream.randn(45, 2) + 1e8 + 1  # far from the origin, where digits are lost
    precision, recall = measure(x, y)
    assert precision.value == pytest.approx(slow_share(y, x)) and 50 < precision.value < 100
    assert recall.value == pytest.approx(slow_share(x, y)) and 30 < recall.value < 90
    assert (precision.n, recall.n, precision.unit) == (45, 60, "%")


def test_precision_and_recall_are_not_swapped() -> None:
    """Generated images in a small part of what the reference covers: each looks right, and most of the reference is missing."""
    stream = np.random.RandomState(0)
    wide, tight = stream.randn(400, 2), 0.1 * stream.randn(300, 2)
    precision, recall = measure(wide, tight)
    assert precision.value > 95 and recall.value < 10
    precision, recall = measure(tight, wide)
    assert precision.value < 10 and recall.value > 95


def test_the_interval_is_that_of_a_share() -> None:
    stream = np.random.RandomState(0)
    precision, _ = measure(stream.randn(50, 2), stream.randn(80, 2) * 2)
    share = estimates.clopper_pearson(round(precision.value * 80 / 100), 80)
    assert (precision.value, precision.low, precision.high) == pytest.approx((100 * share.value, 100 * share.low, 100 * share.high))


def test_a_point_is_not_its_own_neighbour_but_its_copies_are() -> None:
    x = np.array([[0.0], [1.0], [3.0], [6.0]])  # the third neighbour of each is the farthest: radii 6, 5, 3, 6
    assert measure(x, np.array([[11.9], [12.1], [-6.1], [-5.9]]))[0].value == 50
    copies = np.array([[0.0]] * 4 + [[9.0]] * 4)  # radii 0
    assert measure(copies, np.array([[0.1], [8.9], [4.0], [0.0]]))[0].value == 25
    assert [each.value for each in measure(x, x)] == [100, 100]


def test_torch_fidelity_agrees() -> None:
    """It takes the generated ones first."""
    metric = pytest.importorskip("torch_fidelity.metric_prc")
    stream = np.random.RandomState(0)
    x, y = (torch.from_numpy(stream.randn(200, 3) * scale) for scale in (1, 1.2))
    theirs = metric.calculate_precision_recall_full(y, x, 3, 100)
    assert [each.value for each in precision_and_recall(x, y)] == pytest.approx([100 * float(share) for share in theirs])


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(RedactError, match="4 rows or more"):
        precision_and_recall(torch.zeros(9, 2), torch.zeros(3, 2))
