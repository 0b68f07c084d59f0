# SPDX-License-Identifier: Apache-2.0
"""Bilinear sampling of an image at given positions, twice differentiable.

The name is NVIDIA's: torch had no second derivative then, and got one only lately. Where it lacks one, torch's own kernels still give values and
first derivatives, and the second ones come from the same sampling written out (`sample_by_gather`). `enabled` is kept because training scripts
assign it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch.autograd.function import once_differentiable

enabled = False


def grid_sample(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """The image read at the grid positions: bilinear, zero outside, pixel edges (not centres) at -1 and 1.

    Args:
        input: Images [n, C, H, W].
        grid:  Positions [n, h, w, 2] as (x, y); the image spans [-1, 1].

    Returns:
        Samples [n, C, h, w].
    """
    return _by_torch(input, grid) if _torch_knows_second_derivatives() else _Sample.apply(input, grid)


def sample_by_gather(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """The same as `grid_sample`, written out as four weighted reads: differentiable to any order, and slower."""
    height, width = input.shape[2:]
    x = ((grid[..., 0] + 1) * width - 1) / 2  # [n, h, w], in pixels from the centre of the first
    y = ((grid[..., 1] + 1) * height - 1) / 2
    left, top = x.detach().floor(), y.detach().floor()
    samples = input.new_zeros([])
    for column, across in ((left, 1 - (x - left)), (left + 1, x - left)):
        for row, down in ((top, 1 - (y - top)), (top + 1, y - top)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            at = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()  # [n, h, w]
            pixels = input.flatten(2).gather(2, at.flatten(1).unsqueeze(1).expand(-1, input.shape[1], -1))  # [n, C, h w]
            samples = samples + pixels.unflatten(2, at.shape[1:]) * (across * down * inside).unsqueeze(1)
    return samples


def _by_torch(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.grid_sample(input, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


@cache
def _torch_knows_second_derivatives() -> bool:
    image = torch.zeros([1, 1, 2, 2], requires_grad=True)
    grid = torch.zeros([1, 1, 1, 2], requires_grad=True)
    try:
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(_by_torch(image, grid).sum(), grid, create_graph=True)
            torch.autograd.grad(slope.sum(), image)
    except RuntimeError:  # "derivative for aten::grid_sampler_2d_backward is not implemented"
        return False
    return True


class _Sample(torch.autograd.Function):
    """torch's values and first derivatives."""

    @staticmethod
    def forward(ctx: Any, input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(input, grid)
        return _by_torch(input, grid)

    @staticmethod
    def backward(ctx: Any, wanted: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        input, grid = ctx.saved_tensors
        slopes = _Slope.apply(wanted, input, grid)
        return tuple(slope if needed else None for slope, needed in zip(slopes, ctx.needs_input_grad, strict=True))


class _Slope(torch.autograd.Function):
    """Derivatives of sum(wanted * samples) by the image and by the grid; their own derivatives come from the sampling written out."""

    @staticmethod
    def forward(ctx: Any, wanted: torch.Tensor, input: torch.Tensor, grid: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.save_for_backward(wanted, input, grid)
        bilinear, zeros = 0, 0
        return torch.ops.aten.grid_sampler_2d_backward(wanted, input, grid, bilinear, zeros, False, [True, True])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *wanted_of_slopes: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        with torch.enable_grad():
            wanted, input, grid = inputs = tuple(tensor.detach().requires_grad_() for tensor in ctx.saved_tensors)
            slopes = torch.autograd.grad(sample_by_gather(input, grid), (input, grid), wanted, create_graph=True)
            return torch.autograd.grad(slopes, inputs, wanted_of_slopes, allow_unused=True)
