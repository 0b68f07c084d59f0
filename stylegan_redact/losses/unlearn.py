# SPDX-License-Identifier: Apache-2.0
"""Feature unlearning by self-distillation: the objective of Moon, Cho and Kim 2024 (AAAI; arXiv 2303.05699v4), with their target.

A trainable copy g of the generator f learns to draw f(z_hat), z_hat being z moved to where the feature stops, for every z past the threshold, and
f(z) for all others. Where the published target has two traps, this module takes the safe side and says how to get the published behaviour:

1. Published, z_hat = z - (proj(z) - t) z_e with z_e not normalised overshoots by the factor |z_e|, since proj is per unit length.
   `moved_latent` normalises and lands on t; step=|z_e| gives the published target.
2. Published, t is the mean projection, so half of all latents or so are moved, however rare the feature is (with unbalanced labels).
   `mean_threshold` is the published one; a method moves as many as the labels say (wspace/subspace.py).

`published_target` puts the published parts together, traps included.

Strength, learning rate and number of steps of the paper are not known to us: ours are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from stylegan_redact.losses.ms_ssim import ms_ssim
from stylegan_redact.types import RedactError


class UnlearnTerms(NamedTuple):
    """The terms of the objective, each a scalar: the mean over the batch, samples that a term does not concern counting 0."""

    reconstruction: torch.Tensor
    """L1 to the image before, where the feature does not show."""
    unlearn: torch.Tensor
    """L1 to the target image, where it shows."""
    perceptual: torch.Tensor
    """1 - MS-SSIM to the target image, where it shows."""
    total: torch.Tensor
    """strength * (unlearn + perceptual) + reconstruction: what to minimise."""


class UnlearnLoss(torch.nn.Module):
    """The objective as a module without parameters.

    Args:
        strength: alpha, weight of what removes the feature against what keeps the rest, >= 0. 0: plain reconstruction of the unmarked.
    """

    def __init__(self, strength: float = 1.0) -> None:
        super().__init__()
        if not strength >= 0:
            raise RedactError(f"strength={strength} was asked - it weighs the removal against the rest - give a number of 0 or more")
        self.strength = strength

    def forward(self, img_after: torch.Tensor, img_target: torch.Tensor, img_before: torch.Tensor, shows: torch.Tensor) -> UnlearnTerms:
        """The terms for a batch.

        Args:
            img_after: g(z) [n, C, H, W] in [-1, 1], H and W at least 11; carries the gradient.
            img_target: f(z_hat) [n, C, H, W]; its rows where the gate is 0 are not looked at.
            img_before: f(z) [n, C, H, W].
            shows: The gate [n]: bool, or float in [0, 1].

        Returns:
            Four scalars. L1 is the mean over channels and pixels, in units of [-1, 1] images.

        Raises:
            RedactError: shapes that do not fit, or a gate outside [0, 1] (a score is not a gate: score > 0 is).

        Source: Moon et al. 2024, the three losses and their sum.
        """
        marked = _checked_gate(img_after, img_target, img_before, shows)
        reconstruction = (1 - marked) * (img_after - img_before).abs().mean((1, 2, 3))  # [n]
        # Only the marked rows: MS-SSIM is the dear part, and the rest would get weight 0.
        rows = marked > 0
        distance = (img_after[rows] - img_target[rows]).abs().mean((1, 2, 3))  # [m]
        dissimilarity = 1 - ms_ssim(img_after[rows], img_target[rows])  # [m]
        unlearn, perceptual = (marked[rows] * distance).sum() / len(marked), (marked[rows] * dissimilarity).sum() / len(marked)
        kept = reconstruction.mean()
        return UnlearnTerms(kept, unlearn, perceptual, self.strength * (unlearn + perceptual) + kept)


def mean_difference_vector(latent: torch.Tensor, shows: torch.Tensor) -> torch.Tensor:
    """z_e [d], from where the feature does not show to where it does: mean(latent | shows) - mean(latent | does not). Not normalised.

    Args:
        latent: [n, d]: w, or z, or several layers concatenated.
        shows: [n] bool.

    Raises:
        RedactError: only one label occurs.
    """
    if shows.dtype != torch.bool or shows.all() or not shows.any():
        raise RedactError(f"A mean difference was asked - {shows.sum():.0f} of {len(shows)} {shows.dtype} labels are set - both must occur, as bool")
    return latent[shows].mean(0) - latent[~shows].mean(0)


def projection(latent: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """proj(z) [n]: position along the direction [d], in units of the latent [n, d], whatever the direction's length."""
    return latent @ (direction / direction.norm())


def mean_threshold(latent: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """t [] as published: the mean projection of the latents [n, d]. Right only if as many show the feature as do not (trap 2)."""
    return projection(latent, direction).mean()


def gate(latent: torch.Tensor, direction: torch.Tensor, threshold: torch.Tensor | float) -> torch.Tensor:
    """sim(z) [n] bool: does the latent [n, d] lie at the threshold or past it, so that the feature counts as shown."""
    return projection(latent, direction) >= threshold


def moved_latent(latent: torch.Tensor, direction: torch.Tensor, threshold: torch.Tensor | float, *, step: float = 1.0) -> torch.Tensor:
    """z_hat [n, d]: the latent moved along the direction, also where the gate is shut (the loss does not look there).

    Args:
        latent: [n, d].
        direction: [d], of any length: only where it points counts (trap 1).
        threshold: t, in units of the latent.
        step: How far: 1 lands on t, more overshoots to the side without the feature. |z_e| is the published target.
    """
    excess = projection(latent, direction) - threshold  # [n]
    return latent - step * excess[:, None] * (direction / direction.norm())


@dataclass(frozen=True)
class PublishedTarget:
    """Moon et al.'s gate and target to the letter: what lies at the threshold or past it moves by (proj(z) - t) z_e, which is |z_e| times too far."""

    direction: torch.Tensor
    """z_e [d], not normalised."""
    threshold: float
    """t, the mean projection."""

    def moves(self, latent: torch.Tensor) -> torch.Tensor:
        """sim(z) [n] bool of latents [n, d]."""
        return gate(latent, self.direction, self.threshold)

    def __call__(self, latent: torch.Tensor) -> torch.Tensor:
        """[n, d]: z_hat where the gate is open, z elsewhere."""
        moved = moved_latent(latent, self.direction, self.threshold, step=float(self.direction.norm()))
        return torch.where(self.moves(latent)[:, None], moved, latent)


def published_target(latent: torch.Tensor, shows: torch.Tensor) -> PublishedTarget:
    """The target by labelled latents [n, d], shows [n] bool. Raises RedactError: only one label occurs."""
    direction = mean_difference_vector(latent, shows)
    return PublishedTarget(direction, float(mean_threshold(latent, direction)))


def _checked_gate(img_after: torch.Tensor, img_target: torch.Tensor, img_before: torch.Tensor, shows: torch.Tensor) -> torch.Tensor:
    shapes = [list(img.shape) for img in (img_after, img_target, img_before)]
    if img_after.ndim != 4 or shapes[1:] != shapes[:1] * 2 or list(shows.shape) != shapes[0][:1]:
        raise RedactError(f"The unlearning loss of {shapes} with gate {list(shows.shape)} was asked - give [n, C, H, W] alike, gate [n]")
    marked = shows.to(img_after.dtype)
    if not ((marked >= 0) & (marked <= 1)).all():
        raise RedactError("The unlearning loss was asked with a gate outside [0, 1] - a score is not a gate - give score > 0")
    return marked
