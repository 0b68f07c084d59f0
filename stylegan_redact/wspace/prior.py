# SPDX-License-Identifier: Apache-2.0
"""Where the latents of a network lie: coordinates in which they are round, and the shell that nearly all of them lie within."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stylegan_redact.wspace.subspace import thinned

SHELL = 0.99
SMALLEST = 1e-4
"""Of the largest variance: directions that the prior hardly moves along count as moving that much."""


@dataclass(frozen=True)
class Prior:
    """The Gaussian of latents."""

    mean: torch.Tensor
    """[w_dim]"""
    spread: torch.Tensor
    """[w_dim, w_dim]: w = mean + spread @ u, with u round."""
    inverse: torch.Tensor
    """Of spread."""
    radius: float
    """SHELL of all u lie within."""

    def to_u(self, w: torch.Tensor) -> torch.Tensor:
        """[..., w_dim] -> [..., w_dim]."""
        return (w - self.mean) @ self.inverse.T

    def to_w(self, u: torch.Tensor) -> torch.Tensor:
        """[..., w_dim] -> [..., w_dim]."""
        return self.mean + u @ self.spread.T


def prior_of(w: torch.Tensor) -> Prior:
    """The Gaussian of w [n, w_dim], in coordinates where it is round; the radius is that of the w themselves, which need not be Gaussian."""
    w = w[thinned(w)].double()
    mean = w.mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.cov((w - mean).T))
    deviation = values.clamp(min=SMALLEST * float(values.max())).sqrt()
    inverse = (vectors / deviation).T
    radius = float(((w - mean) @ inverse.T).norm(dim=1).quantile(SHELL))
    return Prior(mean.float(), (vectors * deviation).float(), inverse.float(), radius)


def within(u: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """u [..., d] drawn back to radius, which broadcasts with [..., 1], where it is farther out."""
    return u * (radius / u.norm(dim=-1, keepdim=True).clamp(min=1e-30)).clamp(max=1)
