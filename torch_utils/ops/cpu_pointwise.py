# SPDX-License-Identifier: Apache-2.0
"""Convolution with 1x1 kernels on a CPU by `cpu_pointwise.cpp`: which calls it is for, and derivatives of any order.

Products of matrices, which torch leaves to a library that takes twice as long on some processors. Values do not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from torch_utils.ops import cpu_kernels

LEAST_CHANNELS = 16
"""In and out: with fewer, most of the time goes into memory, whoever multiplies."""
PRODUCTS_OF_A_SAMPLE = 4
"""So many products of a pixel and two channels weigh as much as a sample of `cpu_kernels.LEAST_SAMPLES`."""


def suits(x: torch.Tensor, w: torch.Tensor, stride: Any, padding: Any, dilation: Any, groups: int) -> bool:
    """Whether `convolve` takes this convolution and is faster; compiles it if need be.

    Args: as of `torch.nn.functional.conv2d`.
    """
    if x.device.type != "cpu" or not x.dtype == w.dtype == torch.float32 or x.ndim != 4 or w.ndim != 4 or w.shape[2:] != (1, 1):
        return False
    plain = all(size in (usual, (usual,), (usual, usual), [usual], [usual, usual]) for size, usual in ((stride, 1), (padding, 0), (dilation, 1)))
    if not plain or groups != 1 or x.shape[1] != w.shape[1] or min(w.shape[:2]) < LEAST_CHANNELS or torch.is_autocast_enabled("cpu"):
        return False
    if not x.is_contiguous() or not cpu_kernels.plain(w):
        return False
    return cpu_kernels.usable(x, x.shape[0] * x.shape[2] * x.shape[3] * w.shape[0] * w.shape[1] // PRODUCTS_OF_A_SAMPLE)


def convolve(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """Images [n, O, h, w] of images x [n, C, h, w] and w [O, C, 1, 1]."""
    return _product(x, w[:, :, 0, 0])


def _product(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """`_Product`; torch's, if gradients that come back are not plain tensors."""
    return _Product.apply(x, w) if cpu_kernels.plain(x, w) else F.conv2d(x, w.unsqueeze(2).unsqueeze(3))


def _correlation(x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
    """`_Correlation`, likewise."""
    return _Correlation.apply(x, dy) if cpu_kernels.plain(x, dy) else F.conv2d(dy.transpose(0, 1), x.transpose(0, 1)).squeeze(3).squeeze(2)


class _Product(torch.autograd.Function):
    """Of a matrix w [O, C] and the pixels of images x [n, C, h, w]: bilinear."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, w if ctx.needs_input_grad[0] else None)
        assert x.dtype == w.dtype == torch.float32 and x.ndim == 4 and w.ndim == 2 and x.shape[1] == w.shape[1]  # The compiled code trusts them.
        return cpu_kernels._plugin().pointwise(x.contiguous(), w.contiguous())

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, w = ctx.saved_tensors
        dx = _product(dy, w.t()) if ctx.needs_input_grad[0] else None
        return dx, _correlation(x, dy) if ctx.needs_input_grad[1] else None


class _Correlation(torch.autograd.Function):
    """The gradient [O, C] by w of `_Product`, of its images x and gradients dy by its results: bilinear."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dy: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x, dy)
        assert x.dtype == dy.dtype == torch.float32 and x.shape[0] == dy.shape[0] and x.shape[2:] == dy.shape[2:]
        return cpu_kernels._plugin().pointwise_kernels(x.contiguous(), dy.contiguous())

    @staticmethod
    def backward(ctx: Any, dw: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, dy = ctx.saved_tensors
        dx = _product(dy, dw.t()) if ctx.needs_input_grad[0] else None
        return dx, _product(x, dw) if ctx.needs_input_grad[1] else None
