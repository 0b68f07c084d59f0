# SPDX-License-Identifier: Apache-2.0
"""find_subspace on planted Gaussians: direction, threshold, accuracy, rank, and what is refused."""

import pytest
import torch

from stylegan_redact.types import LabelledLatents, RedactError
from stylegan_redact.wspace import subspace
from stylegan_redact.wspace.subspace import discriminant, find_subspace, rate_threshold, shrunk_covariance

DIMENSIONS = 24
EXACT = 1e-12  # float64, a handful of operations


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def mixing(seed: int = 0) -> torch.Tensor:
    """[d, d] such that z @ mixing has correlated coordinates of different spread, as W has."""
    basis = torch.linalg.qr(torch.randn(DIMENSIONS, DIMENSIONS, generator=generator(seed), dtype=torch.float64)).Q
    return torch.diag(torch.logspace(0, -1, DIMENSIONS, dtype=torch.float64)) @ basis


def planted(n: int, *, rate: float, seed: int, noise: float = 0.2) -> tuple[LabelledLatents, torch.Tensor]:
    """Correlated Gaussian w whose feature shows where u . w is large (with label noise), at the given rate; and u, of unit length."""
    truth = torch.randn(DIMENSIONS, generator=generator(99), dtype=torch.float64)
    truth = truth / truth.norm()
    w = torch.randn(n, DIMENSIONS, generator=generator(seed), dtype=torch.float64) @ mixing()
    along = w @ truth
    score = along / (mixing() @ truth).norm() + noise * torch.randn(n, generator=generator(seed + 1), dtype=torch.float64)
    normal = torch.distributions.Normal(0.0, (1 + noise**2) ** 0.5)
    return LabelledLatents(w, score - float(normal.icdf(torch.tensor(1 - rate)))), truth


def mean_difference(latents: LabelledLatents) -> torch.Tensor:
    shows = latents.score > 0
    difference = latents.w[shows].mean(0) - latents.w[~shows].mean(0)
    return difference / difference.norm()


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_finds_the_planted_direction_where_the_mean_difference_does_not(rate: float) -> None:
    latents, truth = planted(4000, rate=rate, seed=1)
    found = find_subspace(latents)
    assert found.basis.shape == (1, DIMENSIONS) and found.basis.dtype == torch.float64
    assert float(found.basis[0] @ truth) > 0.95  # the sign counts: it points to where the feature shows
    assert float(mean_difference(latents) @ truth) < 0.8


def test_threshold_matches_a_rate_of_a_tenth() -> None:
    """On fresh latents, within three standard errors of the held-out 20 % and the fresh ones; the mean projection declares half of all."""
    latents, _ = planted(5000, rate=0.1, seed=2)
    found = find_subspace(latents)
    fresh, _ = planted(20_000, rate=0.1, seed=50)
    past = (fresh.w @ found.basis[0] > found.threshold[0]).double().mean()
    labelled = (latents.score > 0).double().mean()
    assert float(past) == pytest.approx(float(labelled), abs=3 * (0.1 * 0.9 / 1000) ** 0.5)
    assert float((fresh.w @ found.basis[0] > (latents.w @ found.basis[0]).mean()).double().mean()) > 0.4


def test_threshold_is_not_fooled_by_overfitting() -> None:
    """600 latents in 200 dimensions, a tenth shows. Where the fit itself puts a tenth past the threshold, half as many fresh latents are past it."""
    found_rates, fitted_rates = [], []
    for seed in range(8):
        w = torch.randn(600, 200, generator=generator(seed), dtype=torch.float64)
        fresh = torch.randn(5000, 200, generator=generator(1000 + seed), dtype=torch.float64)
        score = w[:, 0] - 1.2816
        found = find_subspace(LabelledLatents(w, score))
        found_rates.append((fresh @ found.basis[0] > found.threshold[0]).double().mean())
        fitted = discriminant(w, score > 0)
        fitted_rates.append((fresh @ fitted > rate_threshold(w @ fitted, score > 0)).double().mean())
    assert float(torch.stack(found_rates).mean()) == pytest.approx(0.1, abs=0.03)  # 3 standard errors of 8 thresholds from 120 latents each
    assert float(torch.stack(fitted_rates).mean()) < 0.065


def test_accuracy_is_the_balanced_one_of_the_held_out() -> None:
    """Against labels drawn afresh: accuracy over all would be far higher for a rate of 10 %, where "never" already scores 90 %."""
    latents, _ = planted(10_000, rate=0.1, seed=5)
    found = find_subspace(latents)
    fresh, _ = planted(50_000, rate=0.1, seed=60)
    past, shows = fresh.w @ found.basis[0] > found.threshold[0], fresh.score > 0
    balanced = float(past[shows].double().mean() + (~past[~shows]).double().mean()) / 2
    assert found.accuracy == pytest.approx(balanced, abs=0.04)  # 200 held-out hits: standard error 0.01 to 0.015
    assert balanced < float((past == shows).double().mean()) - 0.05
    coin = find_subspace(LabelledLatents(latents.w, torch.randn(10_000, generator=generator(7)) - 1.28))
    assert coin.accuracy == pytest.approx(0.5, abs=0.04)


def test_further_directions_are_orthonormal_and_read_what_the_first_left() -> None:
    latents, _ = planted(4000, rate=0.3, seed=8)
    one, three = find_subspace(latents), find_subspace(latents, rank=3)
    torch.testing.assert_close(three.basis @ three.basis.T, torch.eye(3, dtype=torch.float64), atol=EXACT, rtol=0)
    torch.testing.assert_close(three.basis[:1], one.basis, atol=1e-10, rtol=0)
    assert three.threshold.shape == (3,) and three.accuracy == pytest.approx(one.accuracy)
    projected, shows = latents.w @ three.basis.T, latents.score > 0
    assert (projected[shows].mean(0) > projected[~shows].mean(0)).all()
    past = (projected > three.threshold).double().mean(0)
    torch.testing.assert_close(past, torch.full((3,), 0.3, dtype=torch.float64), atol=0.05, rtol=0)


def test_shift_and_scale_of_w_carry_over() -> None:
    latents, _ = planted(2000, rate=0.2, seed=9)
    plain = find_subspace(latents)
    moved = find_subspace(LabelledLatents(4 * latents.w + 3, latents.score))
    torch.testing.assert_close(moved.basis, plain.basis, atol=1e-9, rtol=0)
    torch.testing.assert_close(moved.threshold, 4 * plain.threshold + 3 * plain.basis.sum(1), atol=1e-9, rtol=0)


def test_seed_decides() -> None:
    latents, _ = planted(500, rate=0.2, seed=10)
    assert torch.equal(find_subspace(latents, seed=1).basis, find_subspace(latents, seed=1).basis)
    assert not torch.equal(find_subspace(latents, seed=1).basis, find_subspace(latents, seed=2).basis)


def test_few_latents_in_float32_are_enough_to_compute() -> None:
    latents, truth = planted(60, rate=0.4, seed=11)
    found = find_subspace(LabelledLatents(latents.w.float()[:22], torch.arange(22) - 10.5))  # n < d, 11 of either label
    assert found.basis.isfinite().all() and found.threshold.isfinite().all() and 0 <= found.accuracy <= 1


def test_rate_threshold_by_hand() -> None:
    """5, 3, 1, -1 with two that show: halfway between the second and the third, (3 + 1) / 2 = 2."""
    projected, shows = torch.tensor([1.0, 5.0, -1.0, 3.0]), torch.tensor([True, False, False, True])
    assert float(rate_threshold(projected, shows)) == 2.0


def test_shrunk_covariance_by_hand() -> None:
    """(2, 0), (-2, 0), (0, 1), (0, -1): S = diag(2, 0.5), tr S = 2.5, tr S^2 = 4.25, d = 2, n = 4.

    rho = ((1 - 2/2) 4.25 + 6.25) / ((4 + 1 - 1)(4.25 - 3.125)) = 6.25 / 4.5 > 1, so 1: the identity times 1.25.
    Ten copies of them: rho = 6.25 / (40 * 1.125) = 0.1389, so diag(2, 0.5) * 0.8611 + 1.25 * 0.1389 = diag(1.8958, 0.6042).
    """
    samples = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)
    torch.testing.assert_close(shrunk_covariance(samples), 1.25 * torch.eye(2, dtype=torch.float64), atol=EXACT, rtol=0)
    expected = torch.diag(torch.tensor([1.8958, 0.6042], dtype=torch.float64))
    torch.testing.assert_close(shrunk_covariance(samples.repeat(10, 1)), expected, atol=5e-5, rtol=0)


def test_shrinkage_helps_when_latents_are_few() -> None:
    """The reason for it: with 60 latents in 24 dimensions the shrunk estimate is nearer to the truth than the sample covariance."""
    truth = mixing().T @ mixing()
    shrunk_error, sample_error = 0.0, 0.0
    for seed in range(20):
        centred = torch.randn(30, DIMENSIONS, generator=generator(100 + seed), dtype=torch.float64) @ mixing()
        shrunk_error += float((shrunk_covariance(centred) - truth).norm())
        sample_error += float((centred.T @ centred / 30 - truth).norm())
    assert shrunk_error < sample_error


@pytest.mark.parametrize(
    ("hits", "told"),
    [(0, "0 latents show the feature and 40 do not"), (40, "40 latents show"), (9, "9 latents show"), (31, "9 do not")],
)
def test_too_few_of_a_label_is_refused(hits: int, told: str) -> None:
    w = torch.randn(40, 4, generator=generator(12))
    with pytest.raises(RedactError, match=told):
        find_subspace(LabelledLatents(w, torch.where(torch.arange(40) < hits, 1.0, -1.0)))


def test_ten_of_a_label_are_enough() -> None:
    w = torch.randn(40, 4, generator=generator(12))
    find_subspace(LabelledLatents(w, torch.where(torch.arange(40) < 10, 1.0, -1.0)))


def test_a_score_of_zero_does_not_show() -> None:
    w = torch.randn(40, 4, generator=generator(12))
    with pytest.raises(RedactError, match="asked - 0 latents show"):
        find_subspace(LabelledLatents(w, torch.zeros(40)))


@pytest.mark.parametrize("options", [{"rank": 0}, {"rank": 25}, {"holdout": 0.0}, {"holdout": 1.0}])
def test_arguments_out_of_range_are_refused(options: dict) -> None:
    latents, _ = planted(200, rate=0.5, seed=13)
    with pytest.raises(RedactError, match=next(iter(options))):
        find_subspace(latents, **options)


@pytest.mark.parametrize(
    ("w", "score"), [(torch.ones(40, 4, 2), torch.ones(40)), (torch.ones(40, 4), torch.ones(39)), (torch.full((40, 4), torch.nan), torch.ones(40))]
)
def test_latents_that_are_none_are_refused(w: torch.Tensor, score: torch.Tensor) -> None:
    with pytest.raises(RedactError, match="check the latents"):
        find_subspace(LabelledLatents(w, score))


def test_equal_latents_are_refused() -> None:
    with pytest.raises(RedactError, match="same"):
        find_subspace(LabelledLatents(torch.ones(40, 4), torch.arange(40) - 19.5))


def test_of_very_many_latents_some_are_looked_at_and_the_rare_are_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evenly spaced, so that the order of the labels does not matter; more, or all, where too few of a label would be left."""
    monkeypatch.setattr(subspace, "MOST_LATENTS", 2_000)
    monkeypatch.setattr(subspace, "FEWEST_LEFT", 100)
    w = torch.randn([6_000, 4], generator=torch.Generator().manual_seed(0))
    w = w[w[:, 0].argsort()]
    score = w[:, 0] - 1.0
    found = find_subspace(LabelledLatents(w, score))
    thin = find_subspace(LabelledLatents(w[::3], score[::3]))
    assert torch.equal(found.basis, thin.basis) and float(found.basis[0, 0]) > 0.98 and float(found.threshold[0]) == pytest.approx(1.0, abs=0.15)
    rare = torch.where(torch.arange(6_000) >= 5_940, 1.0, -1.0)
    assert subspace.thinned(w, rare > 0) == slice(None) and subspace.thinned(w) == slice(None, None, 3)
    rather = torch.arange(6_000) >= 5_750  # 250: with every second one, 125 are left.
    assert subspace.thinned(w, rather) == subspace.thinned(w, ~rather) == slice(None, None, 2)
