# SPDX-License-Identifier: Apache-2.0
"""Random views of images, differentiable: what a detector must see through before it may steer an edit.

An edit that is guided by one bare detector fools that detector and leaves the feature visible to everyone else; seen through random
rotations, scales, shifts, colours, blur and noise, it has to remove the feature (Athalye et al. 2018, arXiv 1707.07397, the same idea
turned round).
"""

from __future__ import annotations

import torch
from torch.nn.functional import affine_grid, avg_pool2d, grid_sample


def random_view(img: torch.Tensor, generator: torch.Generator, *, mirror: bool = True) -> torch.Tensor:
    """Each image rotated, scaled, shifted, mirrored, tinted, blurred and made noisy at random.

    Args:
        img:       [n, C, H, W] in [-1, 1].
        generator: Of the randomness; on the CPU.
        mirror:    Half of the images change left and right.

    Returns:
        Same shape, differentiable with respect to `img`.
    """
    n, channels = img.shape[:2]

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(img)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator).to(img)

    angle, scale = 0.06 * normal(n), torch.exp(0.04 * normal(n))
    side = torch.where(uniform(n) < (0.5 if mirror else 0.0), -1.0, 1.0)
    matrix = torch.stack([scale * angle.cos() * side, -scale * angle.sin(), scale * angle.sin() * side, scale * angle.cos()], dim=1)
    theta = torch.cat([matrix.reshape(n, 2, 2), 0.03 * normal(n, 2, 1)], dim=2)  # [n, 2, 3]
    img = grid_sample(img, affine_grid(theta, list(img.shape), align_corners=False), padding_mode="border", align_corners=False)
    middle = img.mean(dim=[1, 2, 3], keepdim=True)
    img = middle + (img - middle) * torch.exp(0.1 + 0.35 * normal(n, 1, 1, 1)) + 0.05 * normal(n, channels, 1, 1)
    img = img.lerp(avg_pool2d(img, 3, stride=1, padding=1, count_include_pad=False), uniform(n, 1, 1, 1))
    return img + 0.12 * uniform(n, 1, 1, 1) * normal(*img.shape)


def viewed(img: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """The pictures, each with probability `share` through a random view; [n, C, H, W], differentiable."""
    if share <= 0:
        return img
    seen = (torch.rand([len(img), 1, 1, 1], generator=generator) < share).to(img.device)
    return torch.where(seen, random_view(img, generator), img)
