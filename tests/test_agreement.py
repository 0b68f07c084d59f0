# SPDX-License-Identifier: Apache-2.0
"""kappa and phi: worked by hand, at their limits, and that their intervals cover."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from stylegan_redact.agreement import cohen_kappa, phi
from stylegan_redact.types import Estimate, RedactError


def answers(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    one = np.repeat([True, True, False, False], [both, first, second, neither])
    other = np.repeat([True, False, True, False], [both, first, second, neither])
    return one, other


def test_kappa_by_hand() -> None:
    """a = 35/50, e = .5 * .6 + .5 * .4 = .5: kappa = .4; the error is sum(p_ij g_ij^2) - (..)^2 of Fleiss, Cohen and Everitt, their equation 13."""
    found = cohen_kappa(*answers(20, 5, 10, 15))
    p = {(1, 1): 0.4, (1, 0): 0.1, (0, 1): 0.2, (0, 0): 0.3}
    rows, columns, k, e = {1: 0.5, 0: 0.5}, {1: 0.6, 0: 0.4}, 0.4, 0.5
    diagonal = sum(p[i, i] * (1 - (rows[i] + columns[i]) * (1 - k)) ** 2 for i in (0, 1))
    off = (1 - k) ** 2 * sum(p[i, j] * (columns[i] + rows[j]) ** 2 for i, j in ((0, 1), (1, 0)))
    error = math.sqrt((diagonal + off - (k - e * (1 - k)) ** 2) / 50) / (1 - e)
    assert found.value == pytest.approx(0.4) and found.n == 50
    assert found.high - found.value == pytest.approx(1.959964 * error, rel=1e-5)


def test_phi_by_hand() -> None:
    """(20 * 15 - 5 * 10) / sqrt(25 * 25 * 30 * 20) = .40825"""
    assert phi(*answers(20, 5, 10, 15)).value == pytest.approx(250 / math.sqrt(25 * 25 * 30 * 20))


@pytest.mark.parametrize("figure", [cohen_kappa, phi])
def test_limits(figure) -> None:
    one, _ = answers(10, 0, 0, 30)
    same, opposite, none = figure(one, one), figure(one, ~one), figure(np.zeros(40, bool), np.zeros(40, bool))
    assert same.value == same.high == 1 and 0 < same.low < 1
    assert opposite.value < 0 and opposite.low >= -1
    assert math.isnan(none.value) and (none.low, none.high) == (-1, 1)
    with pytest.raises(RedactError, match="bool"):
        figure(one, one[:3])


@pytest.mark.parametrize("figure", [cohen_kappa, phi])
def test_intervals_cover(figure) -> None:
    """A table of shares with a rare feature: of 400 samples of 500 images, about 95 % cover what the shares themselves give."""
    shares = np.array([0.08, 0.03, 0.05, 0.84])
    truth = figure(*answers(*(shares * 100_000).round().astype(int))).value
    tables = np.random.default_rng(3).multinomial(500, shares, size=400)
    found: list[Estimate] = [figure(*answers(*table)) for table in tables]
    covered = sum(each.low <= truth <= each.high for each in found)
    assert stats.binom.cdf(covered, 400, 0.95) > 1e-3 and covered < 400
