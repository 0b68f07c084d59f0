# SPDX-License-Identifier: Apache-2.0
"""Images seen through affine maps, with gradients that are the same each time on a GPU, too.

torch's gradient of `grid_sample` adds up on a GPU in whatever order its threads come, and the last digits of floating point numbers follow the
order. Here it is added up in whole numbers of 64 bits, whose sum does not.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import affine_grid, grid_sample

_ROOM = 2.0**62
"""What a sum may grow to, as a whole number."""


def resample(img: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    """Each image as its map says, bilinear, edges continued; differentiable once in `img`.

    Args:
        img:   [n, C, H, W].
        theta: [n, 2, 3]: where of the image a place of the result is read, as `affine_grid` takes it.
    """
    grid = affine_grid(theta, list(img.shape), align_corners=False)
    return _Resampled.apply(img, grid) if img.is_cuda else _read(img, grid)


def _read(img: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return grid_sample(img, grid, padding_mode="border", align_corners=False)


class _Resampled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, img: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = img.shape
        return _read(img, grid)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (grid,) = ctx.saved_tensors
        return added_up(grad[0], grid, ctx.shape), None


def added_up(grad: torch.Tensor, grid: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """What `grid_sample` with edges continued hands on: each pixel gets the gradients of the places that read it, by their weights.

    Args:
        grad:  [n, C, h, w], of the result.
        grid:  [n, h, w, 2] in [-1, 1]: x and y of what was read.
        shape: (n, C, H, W) of what was read.

    Returns:
        Of `shape` and grad's dtype, exact but for steps of 2^-40 or so of the largest gradient; not finite where any gradient is not.
    """
    n, channels, height, width = shape
    places = [((grid[..., axis].double() + 1) * size - 1).div(2).clamp(0, size - 1) for axis, size in ((0, width), (1, height))]
    corners = [(place.floor(), place - place.floor(), size) for place, size in zip(places, (width, height), strict=True)]
    largest = grad.abs().amax().double()
    scale = _ROOM / (largest.clamp(min=torch.finfo(torch.float32).tiny) * grad[0, 0].numel())
    scaled = grad.double() * scale
    total = torch.zeros([n, channels, height * width], dtype=torch.int64, device=grad.device)
    for right in (False, True):
        for below in (False, True):
            (column, along), (row, down) = (
                ((at + 1).clamp(max=size - 1) if beyond else at, part if beyond else 1 - part)
                for (at, part, size), beyond in zip(corners, (right, below), strict=True)
            )
            index = (row * width + column).long().flatten(1).unsqueeze(1).expand(-1, channels, -1)
            total.scatter_add_(2, index, (scaled * (along * down).unsqueeze(1)).round().long().flatten(2))
    return ((total.double() / scale) + largest * 0).to(grad.dtype).reshape(shape)
