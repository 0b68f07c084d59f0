# SPDX-License-Identifier: Apache-2.0
"""Hinge edits of W: move back to a target only what is past it. Not affine, so learned by a network rather than folded into one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from stylegan_redact.types import RedactError, Subspace


class Gate(Protocol):
    """A hinge along one direction or several."""

    def __call__(self, w: torch.Tensor) -> torch.Tensor:
        """w [..., w_dim], edited."""
        ...

    def moves(self, w: torch.Tensor) -> torch.Tensor:
        """[...] bool: whether the edit changes this w."""
        ...


@dataclass(frozen=True)
class HingeEdit:
    """w -> w - strength relu(u . w - target) v, for one direction u with u . v = 1."""

    normal: torch.Tensor
    """u [w_dim]: reads how far the feature shows."""
    shift: torch.Tensor
    """v [w_dim]: the way that w moves."""
    target: float
    """Where u . w may at most be, in units of w."""
    strength: float = 1.0
    """Share of the way that is gone."""

    def __call__(self, w: torch.Tensor) -> torch.Tensor:
        return w - self.step(w)

    def step(self, w: torch.Tensor) -> torch.Tensor:
        """[..., w_dim]: what the edit takes from w."""
        past = (w @ self.normal.to(w) - self.target).clamp(min=0) * self.strength  # [...]
        return past.unsqueeze(-1) * self.shift.to(w)

    def moves(self, w: torch.Tensor) -> torch.Tensor:
        """[...] bool: whether the edit changes this w."""
        return w @ self.normal.to(w) > self.target


@dataclass(frozen=True)
class JointHinge:
    """Several hinges at once, each of which moves along no other's direction (u_i . v_j = 0): every u_i . w is clamped at its own target.

    All steps are those of the unedited w, so that their order does not matter, and a w past one target alone is moved for that one alone.
    """

    hinges: tuple[HingeEdit, ...]

    def __call__(self, w: torch.Tensor) -> torch.Tensor:
        return w - torch.stack([hinge.step(w) for hinge in self.hinges]).sum(dim=0)

    def moves(self, w: torch.Tensor) -> torch.Tensor:
        """[...] bool: whether the edit changes this w."""
        return torch.stack([hinge.moves(w) for hinge in self.hinges]).any(dim=0)


def hinge_at(subspace: Subspace, target: torch.Tensor, shift: torch.Tensor, strength: float = 1.0) -> HingeEdit:
    """The hinge along the first direction of a subspace.

    Args:
        subspace: Its first row is u.
        target:   [k]; the first is used.
        shift:    [k, w_dim] with u . v = 1, usually `affine.natural_shift`.
        strength: Share of the way to go, in [0, 1].
    """
    u, v = subspace.basis[0].double(), shift[0].double()
    if not torch.isclose(u @ v, torch.ones([], dtype=torch.float64), atol=1e-6):
        raise RedactError("a hinge was asked whose shift does not move w by 1 along its normal - it would miss its target - take natural_shift(...)")
    return HingeEdit(u, v, float(target[0]), strength)
