# SPDX-License-Identifier: Apache-2.0
"""How far apart two pictures are, and the objective of a network that is to draw other pictures at some codes and the same ones elsewhere."""

from __future__ import annotations

from typing import NamedTuple

import torch

from stylegan_redact.losses.ms_ssim import ms_ssim
from stylegan_redact.types import RedactError


def difference(img: torch.Tensor, reference: torch.Tensor, structure: float) -> torch.Tensor:
    """L1 + structure * (1 - MS-SSIM), [n]: 0 for equal pictures.

    Args:
        img, reference: [n, C, H, W] in [-1, 1], H and W at least 11.
        structure:      Weight of 1 - MS-SSIM, >= 0. 0: plain L1, of pictures of any size.
    """
    apart = (img - reference).abs().mean((1, 2, 3))
    return apart + structure * (1 - ms_ssim(img, reference)) if structure > 0 else apart


class LikenessTerms(NamedTuple):
    """The terms, each a scalar: means over the batch, samples that a term does not concern counting 0."""

    moved: torch.Tensor
    """Difference to the target, where another picture is to come out."""
    held: torch.Tensor
    """Difference to the picture before, where it is to stay."""
    total: torch.Tensor
    """strength * moved + held: what to minimise."""


class LikenessLoss(torch.nn.Module):
    """The objective as a module without parameters.

    Args:
        strength:  Weight of the codes that are to draw something else, >= 0. 0: plain reconstruction of the others.
        structure: Weight of 1 - MS-SSIM against L1, >= 0.
    """

    def __init__(self, strength: float = 1.0, structure: float = 1.0) -> None:
        super().__init__()
        if not (strength >= 0 and structure >= 0):
            raise RedactError(f"weights {strength} and {structure} were asked - they weigh differences - give numbers of 0 or more")
        self.strength, self.structure = strength, structure

    def forward(self, img_after: torch.Tensor, img_target: torch.Tensor, img_before: torch.Tensor, moves: torch.Tensor) -> LikenessTerms:
        """The terms for a batch.

        Args:
            img_after:  [n, C, H, W] in [-1, 1]; carries the gradient.
            img_target: [n, C, H, W]; looked at where `moves`.
            img_before: [n, C, H, W]; looked at where not.
            moves:      [n] bool.
        """
        where = moves.view(-1, 1, 1, 1)
        apart = difference(img_after, torch.where(where, img_target, img_before), self.structure)
        moved, held = (apart * moves).mean(), (apart * ~moves).mean()
        return LikenessTerms(moved, held, self.strength * moved + held)
