# SPDX-License-Identifier: Apache-2.0
"""Random views of images, differentiable: what a detector must see through before it may steer an edit.

An edit that is guided by one bare detector fools that detector and leaves the feature visible to everyone else; seen through random
rotations, scales, shifts, colours, blur and noise, it has to remove the feature (Athalye et al. 2018, arXiv 1707.07397, the same idea
turned round).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import avg_pool2d

from stylegan_redact.training.resample import resample


@dataclass(frozen=True)
class Views:
    """How each of n images [C, H, W] is looked at; on the CPU, so that views of a whole batch can be drawn before its portions."""

    theta: torch.Tensor
    """[n, 2, 3]: rotated, scaled, shifted, mirrored."""
    contrast: torch.Tensor
    """[n, 1, 1, 1]"""
    tint: torch.Tensor
    """[n, C, 1, 1]"""
    blur: torch.Tensor
    """[n, 1, 1, 1] in [0, 1]"""
    noise: torch.Tensor
    """[n, C, H, W]"""

    def __call__(self, img: torch.Tensor) -> torch.Tensor:
        """The images [n, C, H, W] in [-1, 1] as they are seen: the same shape, differentiable."""
        theta, contrast, tint, blur, noise = (part.to(img) for part in self._parts)
        img = resample(img, theta)
        middle = img.mean(dim=[1, 2, 3], keepdim=True)
        img = middle + (img - middle) * contrast + tint
        img = img.lerp(avg_pool2d(img, 3, stride=1, padding=1, count_include_pad=False), blur)
        return img + noise

    def split(self, size: int) -> list[Views]:
        """The same in portions."""
        return [Views(*parts) for parts in zip(*(part.split(size) for part in self._parts), strict=True)]

    @property
    def _parts(self) -> tuple[torch.Tensor, ...]:
        return self.theta, self.contrast, self.tint, self.blur, self.noise


def draw_views(shape: Sequence[int], generator: torch.Generator, *, mirror: bool = True) -> Views:
    """Random views of images of this shape [n, C, H, W].

    Args:
        shape:     Of the images.
        generator: Of the randomness; on the CPU.
        mirror:    Half of the images change left and right.
    """
    n, channels = shape[:2]

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator)

    def uniform(*size: int) -> torch.Tensor:
        return torch.rand(size, generator=generator)

    angle, scale = 0.06 * normal(n), torch.exp(0.04 * normal(n))
    side = torch.where(uniform(n) < (0.5 if mirror else 0.0), -1.0, 1.0)
    matrix = torch.stack([scale * angle.cos() * side, -scale * angle.sin(), scale * angle.sin() * side, scale * angle.cos()], dim=1)
    theta = torch.cat([matrix.reshape(n, 2, 2), 0.03 * normal(n, 2, 1)], dim=2)
    contrast, tint, blur = torch.exp(0.1 + 0.35 * normal(n, 1, 1, 1)), 0.05 * normal(n, channels, 1, 1), uniform(n, 1, 1, 1)
    return Views(theta, contrast, tint, blur, 0.12 * uniform(n, 1, 1, 1) * normal(*shape))


def random_view(img: torch.Tensor, generator: torch.Generator, *, mirror: bool = True) -> torch.Tensor:
    """Each image rotated, scaled, shifted, mirrored, tinted, blurred and made noisy at random; arguments as those of `draw_views` and `Views`."""
    return draw_views(img.shape, generator, mirror=mirror)(img)


def viewed(img: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """The pictures, each with probability `share` through a random view; [n, C, H, W], differentiable."""
    if share <= 0:
        return img
    seen = (torch.rand([len(img), 1, 1, 1], generator=generator) < share).to(img.device)
    return torch.where(seen, random_view(img, generator), img)
