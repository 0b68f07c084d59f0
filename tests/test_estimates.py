# SPDX-License-Identifier: Apache-2.0
"""Intervals: published values, exact and simulated coverage, the corners, and which argument is which."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats

from stylegan_redact import estimates
from stylegan_redact.types import Estimate, RedactError

# Complete response before and after therapy (Cavo et al. 2012), the textbook example of Fagerland, Lydersen and Laake, "Statistical Analysis of
# Contingency Tables", chapter 8: both, only first, only second, neither. There the ratio is first / second.
TEXTBOOK = (59, 6, 16, 80)
PRINTED = 6e-5  # the book's values have four decimals


def flags(both: int, lost: int, gained: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    before = np.repeat([True, True, False, False], [both, lost, gained, neither])
    after = np.repeat([True, False, True, False], [both, lost, gained, neither])
    return before, after


def covers(estimate: Estimate, truth: float) -> bool:
    return estimate.low <= truth <= estimate.high


def test_clopper_pearson_of_no_hits() -> None:
    """0 of n: the upper bound u solves (1 - u)^n = 0.025, so for n = 10,000 u = 1 - exp(ln 0.025 / 10,000) = 3.688e-4; 95 % one-sided is 3.0e-4."""
    estimate = estimates.clopper_pearson(0, 10_000)
    assert (estimate.value, estimate.low, estimate.n, estimate.confidence) == (0.0, 0.0, 10_000, 0.95)
    assert estimate.high == pytest.approx(-math.expm1(math.log(0.025) / 10_000), rel=1e-12)
    assert estimate.high == pytest.approx(3.69e-4, rel=1e-3)
    assert estimates.clopper_pearson(0, 10_000, 0.90).high == pytest.approx(3.0e-4, rel=2e-3)


def test_clopper_pearson_is_where_the_binomial_tails_are() -> None:
    for hits, n in [(1, 7), (13, 16), (72, 14_976)]:
        estimate = estimates.clopper_pearson(hits, n, 0.9)
        assert stats.binom.sf(hits - 1, n, estimate.low) == pytest.approx(0.05, rel=1e-9)
        assert stats.binom.cdf(hits, n, estimate.high) == pytest.approx(0.05, rel=1e-9)
        assert estimate.low < estimate.value < estimate.high


def test_clopper_pearson_mirrors() -> None:
    some, rest = estimates.clopper_pearson(3, 10), estimates.clopper_pearson(7, 10)
    assert (some.low, some.high) == pytest.approx((1 - rest.high, 1 - rest.low), rel=1e-12)
    assert estimates.clopper_pearson(10, 10).high == 1.0 and estimates.clopper_pearson(10, 10).low == pytest.approx(0.025**0.1)


@pytest.mark.parametrize("n", [5, 40])
def test_clopper_pearson_covers_every_rate(n: int) -> None:
    """Exact coverage, summed over all outcomes instead of simulated; the normal approximation fails the same test."""
    intervals = [estimates.clopper_pearson(hits, n) for hits in range(n + 1)]
    rates = np.linspace(0.001, 0.999, 333)
    probabilities = stats.binom.pmf(np.arange(n + 1)[:, None], n, rates)  # [n + 1, rates]

    def coverage(bounds: list[tuple[float, float]]) -> float:
        inside = np.array([[low <= rate <= high for rate in rates] for low, high in bounds])
        return float((probabilities * inside).sum(0).min())

    assert coverage([(e.low, e.high) for e in intervals]) >= 0.95
    wald = [(e.value - 1.96 * math.sqrt(e.value * (1 - e.value) / n), e.value + 1.96 * math.sqrt(e.value * (1 - e.value) / n)) for e in intervals]
    assert coverage(wald) < 0.5


def test_mean_interval_known_value() -> None:
    """1, 2, 3, 4: mean 2.5, s = sqrt(5/3), standard error sqrt(5/12) = 0.6455, t(0.975, 3) = 3.1824, half width 2.0543."""
    estimate = estimates.mean_interval(torch.tensor([1.0, 2.0, 3.0, 4.0]), unit="FID")
    assert (estimate.value, estimate.n, estimate.unit) == (2.5, 4, "FID")
    assert (estimate.low, estimate.high) == pytest.approx((2.5 - 2.0543, 2.5 + 2.0543), abs=1e-4)


def test_mean_interval_covers() -> None:
    draws = np.random.default_rng(0).normal(3.0, 2.0, (2000, 5))
    share = np.mean([covers(estimates.mean_interval(row), 3.0) for row in draws])
    assert abs(share - 0.95) < 3 * math.sqrt(0.95 * 0.05 / 2000)  # exact for normal samples: only simulation noise


def test_mean_interval_covers_the_mean_of_skewed_samples_if_they_are_many() -> None:
    """What an image changes by is skewed: most hardly, a few by much."""
    draws = np.random.default_rng(0).exponential(3.0, (2000, 1000))
    share = np.mean([covers(estimates.mean_interval(row), 3.0) for row in draws])
    assert abs(share - 0.95) < 0.005 + 3 * math.sqrt(0.95 * 0.05 / 2000)
    few = np.mean([covers(estimates.mean_interval(row[:5]), 3.0) for row in draws])
    assert few < 0.92  # of five samples it does not


def test_paired_rate_change_textbook() -> None:
    both, gained, lost, neither = TEXTBOOK  # first = after
    estimate = estimates.paired_rate_change(*flags(both, lost, gained, neither))
    assert (estimate.n, estimate.unit) == (161, "points")
    assert [value / 100 for value in (estimate.value, estimate.low, estimate.high)] == pytest.approx([-0.0621, -0.1240, -0.0054], abs=PRINTED)


def test_relative_change_textbook() -> None:
    both, gained, lost, neither = TEXTBOOK
    estimate = estimates.relative_change(*flags(both, lost, gained, neither))
    assert [value + 1 for value in (estimate.value, estimate.low, estimate.high)] == pytest.approx([0.8667, 0.7579, 0.9910], abs=PRINTED)


def test_removed_fraction_textbook() -> None:
    """Independent samples: 7 of 34 against 1 of 34 (Perondi et al. 2004, chapter 4 of the same book): ratio 7.0000, Koopman 1.2209 to 42.5757."""
    estimate = estimates.removed_fraction(1, 7, 34)
    assert [1 - value for value in (estimate.value, estimate.high, estimate.low)] == pytest.approx([7.0, 1.2209, 42.5757], abs=PRINTED)


def test_no_pair_changed_has_the_closed_form_of_the_docstring() -> None:
    z2 = stats.norm.isf(0.025) ** 2
    for both, neither in [(0, 10), (10, 0), (3, 997)]:
        estimate = estimates.paired_rate_change(*flags(both, 0, 0, neither))
        bound = 100 * z2 / (both + neither + z2)
        assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.0, -bound, bound), rel=1e-6)


def test_before_and_after_are_not_swapped() -> None:
    """40 % before, 10 % after: 30 points down, 3/4 gone."""
    before, after = flags(10, 30, 0, 60)
    down = estimates.paired_rate_change(before, after)
    assert down.value == pytest.approx(-30) and down.high < 0
    less = estimates.relative_change(before, after)
    assert less.value == pytest.approx(-0.75) and less.high < 0
    for both_hits in (None, 10):
        removed = estimates.removed_fraction(40, 10, 100, both_hits=both_hits)
        assert removed.value == pytest.approx(0.75) and 0 < removed.low < 0.75 < removed.high < 1
    assert estimates.paired_rate_change(after, before).low > 0 and estimates.relative_change(after, before).low > 0
    assert estimates.removed_fraction(10, 40, 100).high < 0
    assert estimates.removed_fraction(40, 10, 100, n_after=200).value == pytest.approx(1 - 0.05 / 0.4)


def test_swapping_mirrors_the_intervals() -> None:
    before, after = flags(11, 23, 5, 80)
    there, back = estimates.paired_rate_change(before, after), estimates.paired_rate_change(after, before)
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), rel=1e-9)
    up, down = estimates.relative_change(before, after), estimates.relative_change(after, before)
    assert (up.low + 1, up.high + 1) == pytest.approx((1 / (down.high + 1), 1 / (down.low + 1)), rel=1e-9)
    more, less = estimates.removed_fraction(34, 16, 119), estimates.removed_fraction(16, 34, 119)
    assert (1 - more.low, 1 - more.high) == pytest.approx((1 / (1 - less.high), 1 / (1 - less.low)), rel=1e-9)


def test_pairs_narrow_the_interval() -> None:
    paired, independent = estimates.removed_fraction(40, 30, 100, both_hits=30), estimates.removed_fraction(40, 30, 100)
    assert independent.low < paired.low < paired.value < paired.high < independent.high
    relative = estimates.relative_change(*flags(30, 10, 0, 60))
    assert (paired.low, paired.high) == pytest.approx((-relative.high, -relative.low), rel=1e-12)


@pytest.mark.parametrize(
    "table", [(0, 0, 0, 10), (10, 0, 0, 0), (0, 10, 0, 0), (0, 0, 10, 0), (0, 3, 0, 7), (0, 0, 3, 7), (5, 0, 0, 5), (9, 1, 0, 0)]
)
def test_corners_hold_their_value(table: tuple[int, int, int, int]) -> None:
    both, lost, gained, neither = table
    before, after = flags(*table)
    change = estimates.paired_rate_change(before, after)
    assert -100 <= change.low <= change.value <= change.high <= 100 and change.low < change.high
    counts = (both + lost, both + gained, both + lost + gained + neither)
    quotients = [estimates.relative_change(before, after), *(estimates.removed_fraction(*counts, both_hits=hits) for hits in (None, both))]
    for quotient in quotients:
        assert not math.isnan(quotient.low) and not math.isnan(quotient.high) and quotient.low < quotient.high
        if counts[0] == 0:
            assert math.isinf(quotient.low) or math.isinf(quotient.high)
            assert math.isnan(quotient.value) == (counts[1] == 0)
        else:
            assert quotient.low <= quotient.value <= quotient.high
    if counts[0] > 0 and counts[1] == 0:
        assert quotients[0].value == quotients[0].low == -1 and quotients[1].value == quotients[1].high == 1


# Probabilities of (both, lost, gained, neither), and n.
SITUATIONS = [
    ((0.02, 0.03, 0.01, 0.94), 300),
    ((0.001, 0.08, 0.001, 0.918), 1000),  # a redaction
    ((0.05, 0.001, 0.001, 0.948), 1000),  # an attribute left alone
    ((0.3, 0.1, 0.1, 0.5), 100),
]


def test_intervals_of_changes_cover() -> None:
    """Each situation within a point and simulation noise of 95 %, and on average no less than 95 %: what the module promises of approximations."""
    draws, generator = 500, np.random.default_rng(1)
    shares = []
    for probabilities, n in SITUATIONS:
        both, lost, gained, _ = probabilities
        points, ratio = 100 * (gained - lost), (both + gained) / (both + lost)
        hits = np.zeros(3)
        for table in generator.multinomial(n, probabilities, draws):
            before, after = flags(*table)
            counts = (int(before.sum()), int(after.sum()), n)
            hits += [
                covers(estimates.paired_rate_change(before, after), points),
                covers(estimates.relative_change(before, after), ratio - 1),
                covers(estimates.removed_fraction(*counts), 1 - ratio),
            ]
        shares.append(hits / draws)
    noise = math.sqrt(0.95 * 0.05 / draws)
    assert np.min(shares) >= 0.94 - 3 * noise
    assert (np.mean(shares, axis=0) >= 0.95 - 3 * noise / math.sqrt(len(SITUATIONS))).all()


@pytest.mark.parametrize(
    ("probabilities", "n"),
    [
        ((0.0002, 0.2, 0.0003, 0.7995), 10_000),  # a feature of one image in five that is all but gone
        ((0.0005, 0.02, 0.0002, 0.9793), 10_000),  # a rare one
        ((0.15, 0.05, 0.01, 0.79), 1000),  # one that was not removed
    ],
)
def test_removed_fraction_covers_over_pairs_and_independent_samples_are_cautious(probabilities: tuple[float, ...], n: int) -> None:
    both, lost, gained, _ = probabilities
    truth, draws, hits = 1 - (both + gained) / (both + lost), 4000, np.zeros(2)
    tables, times = np.unique(np.random.default_rng(5).multinomial(n, probabilities, draws), axis=0, return_counts=True)
    for (b, lo, g, _), count in zip(tables.tolist(), times, strict=True):
        hits += [count * covers(estimates.removed_fraction(b + lo, b + g, n, both_hits=hit), truth) for hit in (b, None)]
    paired, independent = hits / draws
    noise = 3 * math.sqrt(0.95 * 0.05 / draws)
    assert 0.94 - noise <= paired <= 0.97 + noise and independent >= paired - noise


def test_intervals_of_changes_do_not_cover_everything() -> None:
    """The counter-check: a wrong truth is rejected, so the coverage above is not that of endless intervals."""
    before, after = flags(20, 80, 20, 880)
    assert not covers(estimates.paired_rate_change(before, after), 0.0)
    assert not covers(estimates.relative_change(before, after), 0.0)
    assert not covers(estimates.removed_fraction(100, 40, 1000), 0.0)


def test_more_confidence_is_wider() -> None:
    before, after = flags(5, 20, 4, 71)
    for ask in (estimates.paired_rate_change, estimates.relative_change):
        narrow, wide = ask(before, after, 0.8), ask(before, after, 0.99)
        assert wide.low < narrow.low < narrow.high < wide.high and wide.confidence == 0.99


def test_tensors_lists_and_arrays_agree() -> None:
    before, after = flags(1, 3, 1, 5)
    expected = estimates.relative_change(before, after)
    assert estimates.relative_change(torch.from_numpy(before), torch.from_numpy(after)) == expected
    assert estimates.relative_change(before.tolist(), after.tolist()) == expected


@pytest.mark.parametrize(
    "ask",
    [
        lambda: estimates.clopper_pearson(1, 0),
        lambda: estimates.clopper_pearson(5, 4),
        lambda: estimates.clopper_pearson(-1, 4),
        lambda: estimates.clopper_pearson(1, 4, confidence=95),
        lambda: estimates.mean_interval([1.0]),
        lambda: estimates.mean_interval([1.0, math.nan]),
        lambda: estimates.paired_rate_change([True], [True, False]),
        lambda: estimates.paired_rate_change([], []),
        lambda: estimates.paired_rate_change(torch.tensor([0.3, -2.0]), torch.tensor([1.0, 1.0])),  # scores
        lambda: estimates.removed_fraction(4, 3, 10, both_hits=4),
        lambda: estimates.removed_fraction(9, 9, 10, both_hits=7),
        lambda: estimates.removed_fraction(4, 3, 10, n_after=11, both_hits=2),
        lambda: estimates.removed_fraction(4, 12, 10),
    ],
)
def test_impossible_requests_are_refused(ask: Callable[[], Estimate]) -> None:
    with pytest.raises(RedactError):
        ask()
