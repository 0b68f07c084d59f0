# SPDX-License-Identifier: Apache-2.0
"""Where in a picture an edit does its work: the pixels whose change the detector's logit answers to.

A network that learns to lower a logit moves whole pictures: the beard goes, and the background changes its colour. What did not lower the
logit is to be as it was.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

Logit = Callable[[torch.Tensor], torch.Tensor]
"""img [n, C, H, W] -> [n], differentiable."""

POINTS = (0.2, 0.8)
"""Where on the straight way between the two pictures the gradient is taken."""
SHARE = 0.1
"""A pixel is wanted whole from this share of the largest contribution on."""
REACH = 16
"""Contributions are smeared over an image side's 16th to either side, twice: what is next to a wanted pixel is mostly wanted."""


def wanted(logit: Logit, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """How much of the change of each pixel is wanted, [n, 1, H, W] in [0, 1]; 1 throughout where nothing lowers the logit.

    Args:
        logit:  Of the feature.
        before: [n, C, H, W], shows it.
        after:  [n, C, H, W], shows it less. Neither gets a gradient.

    Source: integrated gradients (Sundararajan et al. 2017, arXiv 1703.01365, equation 1) with two points; its use as a mask is ours.
    """
    change = (after - before).detach()
    slope = torch.zeros_like(change)
    with torch.enable_grad():
        for point in POINTS:
            between = (before.detach() + point * change).requires_grad_(True)
            slope += torch.autograd.grad(logit(between).sum(), between)[0]
    lowered = (-slope * change).sum(dim=1, keepdim=True).clamp(min=0)  # [n, 1, H, W]
    radius = max(before.shape[-1] // REACH, 1)
    for dim in (2, 3, 2, 3):
        lowered = smeared(lowered, radius, dim)
    most = lowered.amax(dim=[1, 2, 3], keepdim=True)
    return torch.where(most > 0, (lowered / (SHARE * most).clamp(min=1e-30)).clamp(max=1), torch.ones_like(lowered))


def smeared(x: torch.Tensor, radius: int, dim: int) -> torch.Tensor:
    """Means of x, which has no negative values, of those within the radius to either side along an axis: of sums up to there, whatever the radius."""
    size = x.shape[dim]
    sums = torch.cat([torch.zeros_like(x.narrow(dim, 0, 1), dtype=torch.float64), x.cumsum(dim, dtype=torch.float64)], dim)
    at = torch.arange(size, device=x.device)
    first, last = (at - radius).clamp(min=0), (at + radius + 1).clamp(max=size)
    shape = [-1 if axis == dim else 1 for axis in range(x.ndim)]
    return ((sums.index_select(dim, last) - sums.index_select(dim, first)) / (last - first).view(shape)).to(x.dtype)
