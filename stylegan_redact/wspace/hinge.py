# SPDX-License-Identifier: Apache-2.0
"""Hinge edits of W: move back to a target only what is past it. Not affine, so learned by a network rather than folded into one."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stylegan_redact.types import RedactError, Subspace


@dataclass(frozen=True)
class HingeEdit:
    """w -> w - relu(u . w - target) v, for one direction u with u . v = 1."""

    normal: torch.Tensor
    """u [w_dim]: reads how far the feature shows."""
    shift: torch.Tensor
    """v [w_dim]: the way that w moves."""
    target: float
    """Where u . w may at most be, in units of w."""

    def __call__(self, w: torch.Tensor) -> torch.Tensor:
        past = (w @ self.normal.to(w) - self.target).clamp(min=0)  # [...]
        return w - past.unsqueeze(-1) * self.shift.to(w)

    def moves(self, w: torch.Tensor) -> torch.Tensor:
        """[...] bool: whether the edit changes this w."""
        return w @ self.normal.to(w) > self.target


def hinge_at(subspace: Subspace, target: torch.Tensor, shift: torch.Tensor) -> HingeEdit:
    """The hinge along the first direction of a subspace.

    Args:
        subspace: Its first row is u.
        target:   [k]; the first is used.
        shift:    [k, w_dim] with u . v = 1, usually `affine.natural_shift`.
    """
    u, v = subspace.basis[0].double(), shift[0].double()
    if not torch.isclose(u @ v, torch.ones([], dtype=torch.float64), atol=1e-6):
        raise RedactError("a hinge was asked whose shift does not move w by 1 along its normal - it would miss its target - take natural_shift(...)")
    return HingeEdit(u, v, float(target[0]))
