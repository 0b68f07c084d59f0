# SPDX-License-Identifier: Apache-2.0
"""Kernel distance: against a double loop, unbiased and covering in simulation, where the true distance is known from moments."""

import math

import numpy as np
import pytest
import torch

from stylegan_redact.evaluation import _kernel
from stylegan_redact.evaluation._kernel import kernel_distance
from stylegan_redact.types import Estimate, RedactError


def similar(x: np.ndarray, y: np.ndarray) -> float:
    return (sum(a * b for a, b in zip(x, y, strict=True)) / len(x) + 1) ** 3


def slow(x: np.ndarray, y: np.ndarray) -> float:
    """Mean over pairs of different rows in each, less twice that across."""
    within = [np.mean([similar(side[i], side[j]) for i in range(len(side)) for j in range(len(side)) if i != j]) for side in (x, y)]
    return float(sum(within) - 2 * np.mean([similar(a, b) for a in x for b in y]))


def distance(x: np.ndarray, y: np.ndarray) -> Estimate:
    return kernel_distance(torch.from_numpy(x), torch.from_numpy(y))


def test_it_is_the_double_loop_on_disjoint_blocks() -> None:
    stream = np.random.RandomState(0)
    x, y = stream.randn(47, 3) + 1, stream.randn(38, 3) * 1.5
    values = [slow(x[block::10], y[block::10]) for block in range(10)]
    found = distance(x, y)
    assert found.value == pytest.approx(np.mean(values), rel=1e-12) and found.n == 38
    half = 2.2621572 * np.std(values, ddof=1) / math.sqrt(10)  # t of 9 degrees of freedom
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), rel=1e-6)


def test_large_sets_have_more_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_kernel, "LARGEST_BLOCK", 4)
    stream = np.random.RandomState(0)
    x, y = stream.randn(50, 2), stream.randn(60, 2)
    assert distance(x, y).value == pytest.approx(np.mean([slow(x[block::15], y[block::15]) for block in range(15)]), rel=1e-12)


def moments(mean: np.ndarray, deviation: np.ndarray) -> tuple[np.ndarray, ...]:
    """E x_i, E x_i x_j and E x_i x_j x_k of independent normal x_i."""
    cov = np.diag(deviation**2)
    mixed = np.einsum("i,jk->ijk", mean, cov)
    third = np.einsum("i,j,k->ijk", mean, mean, mean) + mixed + mixed.transpose(1, 0, 2) + mixed.transpose(1, 2, 0)
    return mean, np.outer(mean, mean) + cov, third


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_it_is_unbiased_and_covers(shift: float) -> None:
    """(x.y / d + 1)^3 = 1 + 3 x.y / d + 3 (x.y)^2 / d^2 + (x.y)^3 / d^3: the distance is that of the tensors of three moments."""
    d, draws, stream = 12, 400, np.random.RandomState(1)
    mean, deviation = np.full(d, shift), np.linspace(1, 2, d)
    gaps = [((ours - theirs) ** 2).sum() for ours, theirs in zip(moments(np.zeros(d), deviation), moments(mean, deviation), strict=True)]
    truth = float(np.array([3 / d, 3 / d**2, 1 / d**3]) @ gaps)
    found = [distance(stream.randn(300, d) * deviation, stream.randn(240, d) * deviation + mean) for _ in range(draws)]
    values = np.array([each.value for each in found])
    noise = values.std() / math.sqrt(draws)
    assert abs(values.mean() - truth) < 3 * noise
    assert abs(np.mean([each.low <= truth <= each.high for each in found]) - 0.95) < 0.02 + 2 * math.sqrt(0.95 * 0.05 / draws)
    itself = np.mean([((stream.randn(24, d) * deviation) ** 2).sum(1) / d + 1]) ** 3 / 24  # a row with itself, in a block of 24 rows
    assert itself > 20 * noise  # would have been seen


def test_torch_fidelity_agrees() -> None:
    metric = pytest.importorskip("torch_fidelity.metric_kid")
    stream = np.random.RandomState(0)
    x, y = stream.randn(200, 5), stream.randn(200, 5) + 0.3
    theirs = [metric.kernel_mmd(x[block::10], y[block::10]) for block in range(10)]
    assert distance(x, y).value == pytest.approx(np.mean(theirs), rel=1e-9)


@pytest.mark.parametrize(("n", "m", "told"), [(19, 50, "20 rows or more"), (50, 19, "20 rows or more"), (30, 20_000, "similar size")])
def test_too_few_rows_are_refused(n: int, m: int, told: str) -> None:
    with pytest.raises(RedactError, match=told):
        kernel_distance(torch.zeros(n, 2), torch.zeros(m, 2))
