# SPDX-License-Identifier: Apache-2.0
"""Fréchet distance: against matrix roots of SciPy and singular values, the jackknife redone row by row, and coverage in simulation."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg, stats

from stylegan_redact.evaluation._frechet import GROUPS, _within_span, frechet_distance
from stylegan_redact.types import Estimate, RedactError


def of_moments(mean1: np.ndarray, cov1: np.ndarray, mean2: np.ndarray, cov2: np.ndarray) -> float:
    root = linalg.sqrtm(cov1 @ cov2)
    return float(((mean1 - mean2) ** 2).sum() + np.trace(cov1 + cov2 - 2 * root.real))


def by_scipy(x: np.ndarray, y: np.ndarray) -> float:
    return of_moments(x.mean(0), np.cov(x.T, ddof=0), y.mean(0), np.cov(y.T, ddof=0))


def by_singular_values(x: np.ndarray, y: np.ndarray) -> float:
    """The root of C1 C2 has the singular values of Y X^T, rows less their mean, which needs no covariance to be regular."""
    p, q = (x - x.mean(0)) / math.sqrt(len(x)), (y - y.mean(0)) / math.sqrt(len(y))
    return float(((x.mean(0) - y.mean(0)) ** 2).sum() + (p**2).sum() + (q**2).sum() - 2 * np.linalg.svd(q @ p.T, compute_uv=False).sum())


def draw(n: int, d: int, seed: int, shift: float = 0.0) -> np.ndarray:
    stream = np.random.RandomState(seed)
    return stream.randn(n, d) @ (np.eye(d) + (0.2 + shift) * np.random.RandomState(99).randn(d, d)) + shift + 3


def both(x: np.ndarray, y: np.ndarray, confidence: float = 0.95) -> tuple[Estimate, Estimate]:
    return frechet_distance(torch.from_numpy(x), torch.from_numpy(y), confidence)


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 6), (90, 120, 30)])
def test_the_plain_value_is_that_of_matrix_roots(n: int, m: int, d: int) -> None:
    x, y = draw(n, d, 0), draw(m, d, 1, 0.4)
    plain = both(x, y)[0]
    assert plain.value == pytest.approx(by_scipy(x, y), rel=1e-9) and plain.n == m


@pytest.mark.parametrize(("n", "m", "d"), [(50, 44, 200), (50, 60, 80), (200, 150, 12)])
def test_singular_covariances_do_not_harm(n: int, m: int, d: int) -> None:
    """Fewer rows than numbers, in both ways of getting there, and numbers that are copies of others."""
    x, y = draw(n, d, 0), draw(m, d, 1, 0.4)
    x[:, -2:], y[:, -2:] = x[:, :2], y[:, :2]
    assert both(x, y)[0].value == pytest.approx(by_singular_values(x, y), rel=1e-6)


def test_few_rows_are_compared_within_their_span() -> None:
    """Where matrices as large as the features would take minutes."""
    shapes = [side.shape for side in _within_span(torch.rand(50, 2048), torch.rand(44, 2048))]
    assert shapes == [(50, 94), (44, 94)]


def test_where_the_features_lie_does_not_matter() -> None:
    x, y = draw(200, 5, 0), draw(150, 5, 1, 0.4)
    near, far = both(x, y), both(x + 1e7, y + 1e7)
    assert [each.value for each in far] == pytest.approx([each.value for each in near], rel=1e-5)


def test_a_shift_is_its_square() -> None:
    x = draw(100, 5, 0)
    assert both(x, x + np.array([1.0, 0, 2, 0, 0]))[0].value == pytest.approx(5, abs=1e-6)
    alike = both(x, x)[0]
    assert 0 <= alike.value < 1e-6 and alike.low == 0


def test_the_intervals_are_those_of_groups_left_out() -> None:
    x, y = draw(103, 4, 0), draw(87, 4, 1, 0.3)
    whole = by_scipy(x, y)
    pseudo = []
    for g in range(GROUPS):
        few = [np.array([row for i, row in enumerate(side) if i % GROUPS != g]) for side in (x, y)]
        pseudo.append(GROUPS * whole - (GROUPS - 1) * by_scipy(*few))
    half = stats.t.isf(0.05, GROUPS - 1) * np.std(pseudo, ddof=1) / math.sqrt(GROUPS)
    plain, unbiased = both(x, y, 0.9)
    np.testing.assert_allclose([unbiased.value, unbiased.low, unbiased.high], np.mean(pseudo) + np.array([0, -half, half]), rtol=1e-7)
    np.testing.assert_allclose([plain.low, plain.high], [whole - half, whole + half], rtol=1e-7)
    assert (plain.confidence, unbiased.confidence) == (0.9, 0.9)


SITUATIONS = [  # d, n, m, shift, skewed
    (6, 150, 150, 0.0, False),
    (6, 150, 100, 0.5, False),
    (6, 150, 150, 0.5, True),
    (24, 120, 100, 0.0, False),
    (24, 120, 100, 0.3, False),
]


@pytest.mark.parametrize(("d", "n", "m", "shift", "skewed"), SITUATIONS)
def test_coverage(d: int, n: int, m: int, shift: float, skewed: bool) -> None:
    """The unbiased interval holds the distance of the distributions, the plain one the mean of the plain value, and neither holds everything."""
    draws, stream = 300, np.random.RandomState(d + n)
    mix1, mix2 = (np.eye(d) + size * np.random.RandomState(3).randn(d, d) for size in (0.2, 0.2 + shift))
    truth = of_moments(np.zeros(d), mix1.T @ mix1, np.full(d, shift), mix2.T @ mix2)

    def sample(k: int) -> np.ndarray:
        return stream.standard_exponential((k, d)) - 1 if skewed else stream.randn(k, d)

    found = [both(sample(n) @ mix1, sample(m) @ mix2 + shift) for _ in range(draws)]
    plain, unbiased = (np.array([[pair[k].value, pair[k].low, pair[k].high] for pair in found]) for k in (0, 1))
    expected = plain[:, 0].mean()
    noise = math.sqrt(0.95 * 0.05 / draws)
    assert np.mean((unbiased[:, 1] <= truth) & (truth <= unbiased[:, 2])) >= 0.95 - 3 * noise
    assert np.mean((plain[:, 1] <= expected) & (expected <= plain[:, 2])) >= 0.95 - 3 * noise
    spread = unbiased[:, 0].std() / math.sqrt(draws)
    assert abs(unbiased[:, 0].mean() - truth) < 3 * spread + 0.03 * (expected - truth)  # the jackknife may leave a thirtieth of the bias
    assert expected - truth > 4 * spread  # there was one
    assert np.median(unbiased[:, 2] - unbiased[:, 1]) < 2 * 3.2 * unbiased[:, 0].std()  # known and normal, the spread would be taken 1.96 times


def test_torch_fidelity_agrees() -> None:
    """Its covariances are divided by n - 1."""
    metric = pytest.importorskip("torch_fidelity.metric_fid")
    x, y = draw(500, 8, 0), draw(500, 8, 1, 0.4)
    theirs = metric.fid_statistics_to_metric(*(metric.fid_features_to_statistics(torch.from_numpy(side)) for side in (x, y)), verbose=False)
    gap = ((x.mean(0) - y.mean(0)) ** 2).sum()
    assert gap + (both(x, y)[0].value - gap) * 500 / 499 == pytest.approx(theirs[metric.KEY_METRIC_FID], rel=1e-7)


@pytest.mark.parametrize(
    ("x", "y", "told"),
    [
        (torch.zeros(39, 3), torch.zeros(50, 3), "give 40 rows or more"),
        (torch.zeros(50, 3), torch.zeros(50, 4), r"\[50, 3\] and \[50, 4\]"),
        (torch.zeros(50, 3), torch.full((50, 3), torch.nan), "not finite"),
        (torch.zeros(50), torch.zeros(50), r"give \[n, d\]"),
    ],
)
def test_what_cannot_be_compared_is_refused(x: torch.Tensor, y: torch.Tensor, told: str) -> None:
    with pytest.raises(RedactError, match=told):
        frechet_distance(x, y)
