# SPDX-License-Identifier: Apache-2.0
"""Theorems on affine edits of W and their fold, each with a counter-check that it says something."""

import math

import pytest
import torch

from stylegan_redact.types import RedactError, Subspace
from stylegan_redact.wspace.affine import AffineEdit, fold_into_affine, move_to_quantile, natural_shift, orthogonal_to, projection_quantile

DIMENSIONS = 16
EXACT = 1e-12  # float64: some ten operations on numbers of size 1 to 10


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def edit_of(seed: int) -> AffineEdit:
    return AffineEdit(draw(DIMENSIONS, DIMENSIONS, seed=seed) / 4, draw(DIMENSIONS, seed=seed + 1))


def covariance_of(seed: int) -> torch.Tensor:
    root = draw(DIMENSIONS, DIMENSIONS, seed=seed)
    return root @ root.T / DIMENSIONS + 0.1 * torch.eye(DIMENSIONS, dtype=torch.float64)


def subspace_of(rank: int, seed: int = 5) -> Subspace:
    basis = torch.linalg.qr(draw(DIMENSIONS, rank, seed=seed)).Q.T
    return Subspace(basis, torch.zeros(rank, dtype=torch.float64), 1.0)


def assert_same(left: torch.Tensor, right: torch.Tensor) -> None:
    torch.testing.assert_close(left, right, atol=EXACT, rtol=EXACT)


def assert_differs(left: torch.Tensor, right: torch.Tensor) -> None:
    assert float((left - right).abs().max()) > 1e-2


def layer(weight: torch.Tensor, bias: torch.Tensor, w: torch.Tensor, weight_gain: float, bias_gain: float) -> torch.Tensor:
    return w @ (weight * weight_gain).T + bias * bias_gain


def test_an_edit_is_m_w_plus_t() -> None:
    edit, w = edit_of(1), draw(3, DIMENSIONS, seed=9)
    for row, moved in zip(w, edit(w), strict=True):
        assert_same(moved, edit.matrix @ row + edit.offset)
    ws = w[:, None].expand(3, 5, DIMENSIONS)
    assert_same(edit(ws), edit(w)[:, None].expand(3, 5, DIMENSIONS))
    assert edit(w.float()).dtype == torch.float32


@pytest.mark.parametrize(("weight_gain", "bias_gain"), [(1 / math.sqrt(DIMENSIONS), 1.0), (0.01, 0.01), (2.5, -0.7)])
def test_folded_layer_is_the_layer_after_the_edit(weight_gain: float, bias_gain: float) -> None:
    weight, bias, w, edit = draw(7, DIMENSIONS, seed=1), draw(7, seed=2), draw(50, DIMENSIONS, seed=3), edit_of(20)
    weight_before, bias_before = weight.clone(), bias.clone()
    folded_weight, folded_bias = fold_into_affine(weight, bias, edit, weight_gain=weight_gain, bias_gain=bias_gain)
    assert_same(layer(folded_weight, folded_bias, w, weight_gain, bias_gain), layer(weight, bias, edit(w), weight_gain, bias_gain))
    assert_differs(layer(weight, bias, w, weight_gain, bias_gain), layer(weight, bias, edit(w), weight_gain, bias_gain))
    assert torch.equal(weight, weight_before) and torch.equal(bias, bias_before)


def test_gains_matter_to_the_fold() -> None:
    """The counter-check: folded with the wrong gains the layer is another."""
    weight, bias, w, edit = draw(7, DIMENSIONS, seed=1), draw(7, seed=2), draw(5, DIMENSIONS, seed=3), edit_of(20)
    wrong = fold_into_affine(weight, bias, edit, weight_gain=1.0, bias_gain=1.0)
    assert_differs(layer(*wrong, w, 0.25, 1.0), layer(weight, bias, edit(w), 0.25, 1.0))


def test_fold_keeps_float32_and_its_accuracy() -> None:
    weight, bias, w, edit = draw(7, DIMENSIONS, seed=1).float(), draw(7, seed=2).float(), draw(5, DIMENSIONS, seed=3), edit_of(20)
    folded_weight, folded_bias = fold_into_affine(weight, bias, edit, weight_gain=0.25, bias_gain=1.0)
    assert folded_weight.dtype == folded_bias.dtype == torch.float32
    after = layer(folded_weight.double(), folded_bias.double(), w, 0.25, 1.0)
    torch.testing.assert_close(after, layer(weight.double(), bias.double(), edit(w), 0.25, 1.0), atol=1e-5, rtol=0)


def test_fold_covers_truncation() -> None:
    """The edit acts on what the layer reads, so on w_avg + psi (w - w_avg) for every psi."""
    weight, bias, w, edit = draw(7, DIMENSIONS, seed=1), draw(7, seed=2), draw(5, DIMENSIONS, seed=3), edit_of(20)
    average = draw(DIMENSIONS, seed=4)
    folded = fold_into_affine(weight, bias, edit, weight_gain=0.25, bias_gain=1.0)
    for psi in (0.0, 0.5, 1.3):
        truncated = average + psi * (w - average)
        assert_same(layer(*folded, truncated, 0.25, 1.0), layer(weight, bias, edit(truncated), 0.25, 1.0))


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("natural", [False, True])
def test_moved_latents_are_at_the_target(rank: int, natural: bool) -> None:
    subspace, target, w = subspace_of(rank), draw(rank, seed=6), draw(40, DIMENSIONS, seed=7)
    shift = natural_shift(subspace.basis, covariance_of(8)) if natural else None
    edit = move_to_quantile(subspace, target, shift=shift)
    assert_same(edit(w) @ subspace.basis.T, target.expand(40, rank))
    assert_differs(w @ subspace.basis.T, target.expand(40, rank))
    assert_same(edit(edit(w)), edit(w))
    assert int(torch.linalg.matrix_rank(edit.matrix - torch.eye(DIMENSIONS, dtype=torch.float64), atol=1e-10)) == rank


def test_without_a_shift_the_way_is_the_shortest() -> None:
    subspace, w = subspace_of(2), draw(40, DIMENSIONS, seed=7)
    target = torch.tensor([-1.0, 0.5], dtype=torch.float64)
    shortest = move_to_quantile(subspace, target)(w) - w
    natural = move_to_quantile(subspace, target, shift=natural_shift(subspace.basis, covariance_of(8)))(w) - w
    assert (shortest.norm(dim=1) < natural.norm(dim=1)).all()
    assert_same(shortest, shortest @ subspace.basis.T @ subspace.basis)


def test_natural_shift_moves_conditional_means_onto_each_other() -> None:
    """Gaussian w with mean m, covariance C: E[w | u.w = s] = m + C u (s - u.m) / (u'Cu). Moved to t it is E[w | u.w = t]; the short way misses."""
    subspace, covariance, mean = subspace_of(1), covariance_of(8), draw(DIMENSIONS, seed=9)
    u = subspace.basis[0]

    def conditional_mean(place: float) -> torch.Tensor:
        return mean + covariance @ u * (place - u @ mean) / (u @ covariance @ u)

    target = torch.tensor([-0.7], dtype=torch.float64)
    natural = move_to_quantile(subspace, target, shift=natural_shift(subspace.basis, covariance))
    assert_same(natural(conditional_mean(2.0)), conditional_mean(-0.7))
    assert_differs(move_to_quantile(subspace, target)(conditional_mean(2.0)), conditional_mean(-0.7))


def test_natural_shift_of_the_discriminant_leaves_no_linear_trace() -> None:
    """LEACE's theorem: with u = C^-1 (difference of means) the class means coincide afterwards, so no linear reader tells the labels apart."""
    covariance, with_feature, without = covariance_of(8), draw(DIMENSIONS, seed=9), draw(DIMENSIONS, seed=10)
    u = torch.linalg.solve(covariance, with_feature - without)
    subspace = Subspace((u / u.norm())[None], torch.zeros(1, dtype=torch.float64), 1.0)
    target = torch.zeros(1, dtype=torch.float64)
    natural = move_to_quantile(subspace, target, shift=natural_shift(subspace.basis, covariance))
    torch.testing.assert_close(natural(with_feature), natural(without), atol=1e-10, rtol=0)  # the solve loses two digits
    shortest = move_to_quantile(subspace, target)
    assert_differs(shortest(with_feature), shortest(without))


def test_protected_directions_are_left_alone_and_the_target_still_reached() -> None:
    subspace, covariance, protected, w = subspace_of(2), covariance_of(8), draw(3, DIMENSIONS, seed=11), draw(40, DIMENSIONS, seed=7)
    target = torch.tensor([-1.0, 0.5], dtype=torch.float64)
    careful = move_to_quantile(subspace, target, shift=natural_shift(subspace.basis, covariance, protected))
    assert_same(careful(w) @ protected.T, w @ protected.T)
    assert_same(careful(w) @ subspace.basis.T, target.expand(40, 2))
    careless = move_to_quantile(subspace, target, shift=natural_shift(subspace.basis, covariance))
    assert_differs(careless(w) @ protected.T, w @ protected.T)


def test_natural_shift_is_the_shortest_in_units_of_the_spread() -> None:
    subspace, covariance = subspace_of(1), covariance_of(8)
    shift = natural_shift(subspace.basis, covariance)[0]

    def length(way: torch.Tensor) -> float:
        return float(way @ torch.linalg.solve(covariance, way))

    sideways = draw(20, DIMENSIONS, seed=12)
    sideways -= (sideways @ subspace.basis.T) @ subspace.basis  # keeps u.v = 1
    assert all(length(shift + 0.1 * other) > length(shift) for other in sideways)


def test_orthogonal_to_is_uncorrelated_with_the_protected() -> None:
    direction, protected, covariance = draw(DIMENSIONS, seed=13), draw(3, DIMENSIONS, seed=14), covariance_of(15)
    apart = orthogonal_to(direction, protected, covariance)
    assert_same(apart @ covariance @ protected.T, torch.zeros(3, dtype=torch.float64))
    assert_same(apart.norm(), torch.ones((), dtype=torch.float64))
    assert_differs(apart @ protected.T, torch.zeros(3, dtype=torch.float64))  # in the metric of w, not of the plain dot product
    assert_differs(direction @ covariance @ protected.T, torch.zeros(3, dtype=torch.float64))
    assert float(apart @ covariance @ direction) > 0
    assert_same(orthogonal_to(apart, protected, covariance), apart)


def test_orthogonal_direction_leaves_the_protected_readings() -> None:
    protected, covariance, w = draw(2, DIMENSIONS, seed=14), covariance_of(15), draw(30, DIMENSIONS, seed=16)
    apart = orthogonal_to(draw(DIMENSIONS, seed=13), protected, covariance)[None]
    edit = move_to_quantile(Subspace(apart, torch.zeros(1), 1.0), torch.tensor([-2.0]), shift=natural_shift(apart, covariance))
    assert_same(edit(w) @ protected.T, w @ protected.T)
    assert_differs(edit(w), w)


def test_projection_quantile_by_hand() -> None:
    """Positions 0, 1, 2, 10 along e_1: median (1 + 2) / 2 = 1.5, minimum 0, maximum 10, 10 % quantile 0.3."""
    subspace = Subspace(torch.eye(3)[:1], torch.zeros(1), 1.0)
    w = torch.tensor([[2.0, 5.0, 5.0], [0.0, 5.0, 5.0], [10.0, 5.0, 5.0], [1.0, 5.0, 5.0]])
    answers = [float(projection_quantile(subspace, w, quantile)) for quantile in (0.0, 0.1, 0.5, 1.0)]
    assert answers == pytest.approx([0.0, 0.3, 1.5, 10.0])


def test_fold_refuses_what_does_not_fit() -> None:
    edit = edit_of(1)
    good = {"weight_gain": 1.0, "bias_gain": 1.0}
    with pytest.raises(RedactError, match=r"16 dimensions .* \[7, 8\]"):
        fold_into_affine(draw(7, 8), draw(7), edit, **good)
    with pytest.raises(RedactError, match="bias"):
        fold_into_affine(draw(7, DIMENSIONS), draw(6), edit, **good)
    with pytest.raises(RedactError, match="bias_gain=0"):
        fold_into_affine(draw(7, DIMENSIONS), draw(7), edit, weight_gain=1.0, bias_gain=0)
    with pytest.raises(RedactError, match="finite"):
        fold_into_affine(draw(7, DIMENSIONS), torch.full((7,), torch.inf), edit, **good)


def test_edits_refuse_what_does_not_fit() -> None:
    subspace, covariance = subspace_of(2), covariance_of(8)
    with pytest.raises(RedactError, match="w_dim"):
        move_to_quantile(subspace, torch.zeros(3))
    with pytest.raises(RedactError, match="miss its target"):
        move_to_quantile(subspace, torch.zeros(2), shift=2 * subspace.basis)
    with pytest.raises(RedactError, match="keep less"):
        natural_shift(subspace.basis, covariance, subspace.basis[:1] + 0.0)
    with pytest.raises(RedactError, match="keep less"):
        orthogonal_to(subspace.basis[0] + 2 * subspace.basis[1], subspace.basis, covariance)
    with pytest.raises(RedactError, match="quantile"):
        projection_quantile(subspace, draw(4, DIMENSIONS), 1.1)
