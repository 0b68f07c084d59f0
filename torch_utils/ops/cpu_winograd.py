# SPDX-License-Identifier: Apache-2.0
"""Convolution with 3x3 kernels on a CPU by `cpu_winograd.cpp`: which calls it is for, and derivatives of any order.

Values differ from those in float64 by less than 1e-5 of the largest, mostly by 3e-6. They depend neither on the number of threads nor, but for the
choice that `suits` makes, on what else is in the batch.

Source: Lavin & Gray 2015, arXiv 1509.09308.
"""

from __future__ import annotations

from typing import Any

import torch

from torch_utils.ops import cpu_kernels

Pads = tuple[int, int]
"""(y, x), each 0, 1 or 2: then the adjoint's, 2 less that, are too."""
LEAST_CHANNELS = 16
"""In and out: with fewer, transforming costs more than it saves."""
LEAST_CHANNELS_OF_GRADIENT = 32
"""The same for the gradient by the kernels."""
LEAST_TILES = 16
"""Of 4x4 pixels in the batch: with fewer, transforming the kernels does."""
PRODUCTS_OF_A_SAMPLE = 16
"""So many products of a pixel and two channels weigh as much as a sample of `cpu_kernels.LEAST_SAMPLES`."""


def suits(x: torch.Tensor, w: torch.Tensor, stride: Any, padding: Any, dilation: Any, groups: int) -> bool:
    """Whether this convolution is one for the compiled code, which is faster at it, and is there; compiles it if need be.

    Args: as of `torch.nn.functional.conv2d`.
    """
    if x.device.type != "cpu" or x.dtype != torch.float32 or w.dtype != torch.float32 or groups != 1 or w.shape[2:] != (3, 3):
        return False
    if _pair(stride) != (1, 1) or _pair(dilation) != (1, 1) or x.ndim != 4 or x.shape[1] != w.shape[1] or torch.is_autocast_enabled("cpu"):
        return False
    pads = _pair(padding)
    if not all(isinstance(pad, int) and 0 <= pad <= 2 for pad in pads):
        return False
    height, width = (size + 2 * pad - 2 for size, pad in zip(x.shape[2:], pads, strict=True))
    if min(height, width) < 1 or min(w.shape[:2]) < LEAST_CHANNELS or x.shape[0] * -(-height // 4) * -(-width // 4) < LEAST_TILES:
        return False
    return cpu_kernels.usable(x, x.shape[0] * height * width * w.shape[0] * w.shape[1] // PRODUCTS_OF_A_SAMPLE)


def convolve(x: torch.Tensor, w: torch.Tensor, pads: Pads) -> torch.Tensor:
    """Images [n, O, h + 2 pads - 2, ...], the correlation of images x [n, C, h, w] with w [O, C, 3, 3]; laid out as x is."""
    return _Convolution.apply(x, w, pads, False)


def _pair(size: Any) -> tuple[Any, ...]:
    return (size, size) if isinstance(size, int) else tuple(size) * (2 if len(size) == 1 else 1)


def _dense(x: torch.Tensor) -> torch.Tensor:
    return x if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last) else x.contiguous()


def _opposite(pads: Pads) -> Pads:
    return 2 - pads[0], 2 - pads[1]


class _Convolution(torch.autograd.Function):
    """`convolve`, or its adjoint, which takes gradients of its results to those of its images, w as it was: bilinear in x and w."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor, pads: Pads, adjoint: bool) -> torch.Tensor:
        ctx.options = pads, adjoint
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, w if ctx.needs_input_grad[0] else None)
        # The compiled code trusts its arguments.
        assert x.dtype == w.dtype == torch.float32 and w.shape[2:] == (3, 3) and x.shape[1] == w.shape[0 if adjoint else 1]
        assert all(0 <= pad <= 2 < size + 2 * pad for pad, size in zip(pads, x.shape[2:], strict=True))
        return cpu_kernels._plugin().winograd(_dense(x), w.contiguous(), *pads, adjoint)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, w = ctx.saved_tensors
        pads, adjoint = ctx.options
        dx = _Convolution.apply(dy, w, _opposite(pads), not adjoint) if ctx.needs_input_grad[0] else None
        dw = None
        if ctx.needs_input_grad[1]:
            dw = _KernelGradient.apply(dy, x, _opposite(pads)) if adjoint else _KernelGradient.apply(x, dy, pads)
        return dx, dw, None, None


class _KernelGradient(torch.autograd.Function):
    """The gradient [O, C, 3, 3] by w of `convolve`, of images x and gradients dy by its results: bilinear in x and dy."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dy: torch.Tensor, pads: Pads) -> torch.Tensor:
        ctx.pads = pads
        ctx.save_for_backward(x, dy)
        if min(x.shape[1], dy.shape[1]) < LEAST_CHANNELS_OF_GRADIENT:
            w = x.new_empty([dy.shape[1], x.shape[1], 3, 3])
            options = [1, 1], list(pads), [1, 1], False, [0, 0], 1, [False, True, False]
            return torch.ops.aten.convolution_backward(dy, x, w, None, *options)[1]
        return cpu_kernels._plugin().winograd_kernels(_dense(x), _dense(dy), *pads)

    @staticmethod
    def backward(ctx: Any, dw: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, dy = ctx.saved_tensors
        dx = _Convolution.apply(dy, dw, _opposite(ctx.pads), True) if ctx.needs_input_grad[0] else None
        return dx, _Convolution.apply(x, dw, ctx.pads, False) if ctx.needs_input_grad[1] else None, None
