# SPDX-License-Identifier: Apache-2.0
"""What every method needs of labelled latents: the direction of the feature, the way w moves along it, and where to move it to."""

from __future__ import annotations

import torch

from stylegan_redact.types import LabelledLatents, Subspace
from stylegan_redact.wspace.affine import natural_shift, projection_quantile
from stylegan_redact.wspace.hinge import HingeEdit, hinge_at
from stylegan_redact.wspace.subspace import shrunk_covariance


def shift_along(latents: LabelledLatents, subspace: Subspace) -> torch.Tensor:
    """[k, w_dim]: the natural way to move along the subspace, by the covariance of the labelled latents."""
    w = latents.w.double()
    return natural_shift(subspace.basis, shrunk_covariance(w - w.mean(dim=0)))


def target_at(latents: LabelledLatents, subspace: Subspace, quantile: float) -> torch.Tensor:
    """[k]: where the given share of the latents without the feature lies below, along the subspace."""
    return projection_quantile(subspace, latents.w[latents.score <= 0], quantile)


def hinge_for(latents: LabelledLatents, subspace: Subspace, quantile: float) -> HingeEdit:
    """The hinge that moves back, to that quantile of the latents without the feature, whatever is past it."""
    return hinge_at(subspace, target_at(latents, subspace, quantile), shift_along(latents, subspace))
