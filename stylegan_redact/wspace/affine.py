# SPDX-License-Identifier: Apache-2.0
"""Affine edits of W, w -> M w + t, and their exact fold into a style layer.

An affine edit acts on every latent: "only past the threshold" is a hinge, which no fold can express.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stylegan_redact.types import RedactError, Subspace


@dataclass(frozen=True)
class AffineEdit:
    """w -> M w + t. Call it on w [..., w_dim]; the answer has the dtype of w."""

    matrix: torch.Tensor
    """[w_dim, w_dim] float64."""
    offset: torch.Tensor
    """[w_dim] float64."""

    def __call__(self, w: torch.Tensor) -> torch.Tensor:
        moved = w.to(self.matrix) @ self.matrix.T + self.offset
        return moved.to(w)


def move_to_quantile(subspace: Subspace, target: torch.Tensor, *, shift: torch.Tensor | None = None) -> AffineEdit:
    """The edit that gives every w the same position along the feature: U w' = target, w' = w - V^T (U w - target).

    Args:
        subspace: Its basis is U [k, w_dim].
        target: [k], in units of w; usually `projection_quantile` of latents without the feature.
        shift: V [k, w_dim] with U V^T = 1, along which w moves: `natural_shift`. None: U itself, the shortest way, which takes the latents off their
            distribution where coordinates are correlated.

    Returns:
        An oblique projection onto U w = target: doing it twice changes nothing, and M - 1 has rank k.

    Raises:
        RedactError: shapes that do not fit, or U V^T is not 1.

    Source: Belrose et al. 2023, arXiv 2306.03819 (LEACE, the case of V natural and target the mean).
    """
    basis = subspace.basis.double()
    along = basis if shift is None else shift.double()
    goal = target.double()
    if along.shape != basis.shape or goal.shape != basis.shape[:1]:
        raise RedactError(
            f"An edit along {list(along.shape)} to {list(goal.shape)} was asked - the basis is {list(basis.shape)} - they are its [k, w_dim], [k]"
        )
    identity = torch.eye(basis.shape[1], dtype=torch.float64, device=basis.device)
    if not torch.allclose(basis @ along.T, identity[: len(basis), : len(basis)], atol=1e-6):  # as far as float32 input can hold it
        raise RedactError("A shift was given with which U V^T is not 1 - the edit would miss its target - take natural_shift(...)")
    return AffineEdit(identity - along.T @ basis, along.T @ goal)


def projection_quantile(subspace: Subspace, w: torch.Tensor, quantile: float) -> torch.Tensor:
    """Where the given share of the latents lies below, along each direction: a target for `move_to_quantile`.

    Args:
        subspace: Of k directions.
        w: [n, w_dim], usually those that do not show the feature.
        quantile: In [0, 1]; 0.5 is the median, smaller moves further away from the feature.

    Returns:
        [k] float64, in units of w.

    Raises:
        RedactError: quantile out of range.
    """
    if not 0 <= quantile <= 1:
        raise RedactError(f"quantile={quantile} was asked - a quantile lies in [0, 1] - 0.5 is the median, 0.1 moves further")
    projected = (w.double() @ subspace.basis.double().T).sort(dim=0).values  # [n, k]
    place = quantile * (len(projected) - 1)
    below, share = int(place), place - int(place)  # sorted, since torch.quantile refuses more than 16 million values
    return torch.lerp(projected[below], projected[min(below + 1, len(projected) - 1)], share)


def natural_shift(basis: torch.Tensor, covariance: torch.Tensor, protected: torch.Tensor | None = None) -> torch.Tensor:
    """The way that w itself moves when its position along the basis changes: the V [k, w_dim] with U V^T = 1 that is shortest in units of its spread.

    For k = 1 it is v = C u / (u' C u). Whatever is uncorrelated with U w stays, and Gaussian latents keep the conditional mean of all the rest.

    Args:
        basis: U [k, w_dim], independent rows.
        covariance: C [w_dim, w_dim] of w, positive definite.
        protected: [m, w_dim] directions p that the edit must not touch: p . w' = p . w for every w.

    Returns:
        [k, w_dim] float64.

    Raises:
        RedactError: the rows of basis and protected are linearly dependent.

    Source: minimum of tr(V C^-1 V^T) under U V^T = 1, P V^T = 0 by Lagrange; for k = 1 and no keep-list LEACE's direction (arXiv 2306.03819).
    """
    rows = basis.double() if protected is None else torch.cat([basis.double(), protected.double()])  # [k + m, w_dim]
    spread = covariance.double() @ rows.T  # [w_dim, k + m]
    gram = rows @ spread
    if torch.linalg.matrix_rank(gram, hermitian=True) < len(rows):
        if protected is None:
            raise RedactError("A way to move along each of several directions was asked - one lies within the others - take fewer features")
        raise RedactError("A way to move was asked that leaves the keep-list alone - the feature lies within the keep-list - keep less")
    return torch.linalg.solve(gram, spread.T)[: len(basis)]


def orthogonal_to(direction: torch.Tensor, protected: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """The part of a direction whose reading of w is uncorrelated with the protected readings, as a unit vector.

    Args:
        direction: u [w_dim].
        protected: [m, w_dim], independent rows p.
        covariance: C [w_dim, w_dim] of w, positive definite.

    Returns:
        [w_dim] float64 with u' C p = 0 for every p: pinning it along its natural shift leaves p . w as it was, at the price of what the feature
        shares with the keep-list. `natural_shift(..., protected)` erases all of u and pays by a longer way instead.

    Raises:
        RedactError: nothing of the direction is left.
    """
    u, rows, metric = direction.double(), protected.double(), covariance.double()
    spread = rows @ metric  # [m, w_dim]
    rest = u - rows.T @ torch.linalg.solve(spread @ rows.T, spread @ u)
    if rest @ metric @ rest <= 1e-12 * (u @ metric @ u):
        raise RedactError("A direction apart from the keep-list was asked - the feature lies within the keep-list - keep less")
    return rest / rest.norm()


def partly(edit: AffineEdit, strength: float) -> AffineEdit:
    """The edit that goes `strength` of the way of the given one: w -> (1 - strength) w + strength (M w + t); at 1 it is the given one."""
    if strength == 1:
        return edit
    identity = torch.eye(len(edit.offset), dtype=edit.matrix.dtype, device=edit.matrix.device)
    return AffineEdit(torch.lerp(identity, edit.matrix, strength), strength * edit.offset)


def fold_into_affine(
    weight: torch.Tensor, bias: torch.Tensor, edit: AffineEdit, *, weight_gain: float, bias_gain: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Parameters of a layer that does on w what it did on the edited w: exact for every w, W+ and truncated codes included.

    Args:
        weight: [out, w_dim] as stored; the layer computes (weight * weight_gain) w + bias * bias_gain.
        bias: [out] as stored.
        edit: w -> M w + t.
        weight_gain: Not 0; StyleGAN's is 1 / sqrt(w_dim).
        bias_gain: Not 0; StyleGAN's is 1.

    Returns:
        weight [out, w_dim] = A M and bias [out] = b + A t in stored units, dtypes as given. Computed in float64, new tensors.

    Raises:
        RedactError: shapes that do not fit, a gain of 0, or a result that is not finite.
    """
    dimensions = len(edit.offset)
    if weight.ndim != 2 or weight.shape[1] != dimensions or bias.shape != weight.shape[:1]:
        raise RedactError(
            f"An edit of {dimensions} dimensions was asked of a layer with weight {list(weight.shape)} and bias {list(bias.shape)} - it needs "
            f"[out, {dimensions}] and [out] - take an edit made for this network"
        )
    if weight_gain == 0 or bias_gain == 0:
        raise RedactError(f"A fold was asked with weight_gain={weight_gain}, bias_gain={bias_gain} - 0 cannot be undone - give the layer's own")
    stored = weight.double()
    folded_weight = (stored @ edit.matrix.to(stored)).to(weight)  # the gain stands on both sides
    folded_bias = (bias.double() + weight_gain / bias_gain * (stored @ edit.offset.to(stored))).to(bias)
    if not (folded_weight.isfinite().all() and folded_bias.isfinite().all()):
        raise RedactError("A fold was asked - the folded layer is not finite - check the edit's target and the layer's parameters")
    return folded_weight, folded_bias
