# SPDX-License-Identifier: Apache-2.0
"""Convolution with 3x3 kernels on a CPU by `cpu_winograd.cpp`: which calls it is for, and derivatives of any order.

Values differ from those in float64 by less than 1e-5 of the largest, mostly by 3e-6. They depend neither on the number of threads nor, but for the
choice that `suits` makes, on what else is in the batch.

Source: Lavin & Gray 2015, arXiv 1509.09308.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from torch_utils.ops import cpu_kernels

Pads = tuple[int, int]
"""(y, x), each 0, 1 or 2: then the adjoint's, 2 less that, are too."""
LEAST_CHANNELS = 16
"""In and out: with fewer, transforming costs more than it saves."""
LEAST_SIDE_TO_DOUBLE, LEAST_SIDE_OF_MANY, MANY_CHANNELS = 8, 4, 256
"""A transposed convolution makes 2 h + 1 pixels, with tiles for 8: of small ones half the work is lost, which pays with many channels only."""
PRODUCTS_OF_A_SAMPLE = 4
"""So many products of a pixel and two channels weigh as much as a sample of `cpu_kernels.LEAST_SAMPLES`."""


def suits(x: torch.Tensor, w: torch.Tensor, stride: Any, padding: Any, dilation: Any, groups: int) -> bool:
    """Whether `convolve` or, with a stride of 2, `convolve_halving` takes this convolution and is faster; compiles it if need be.

    Args: as of `torch.nn.functional.conv2d`.
    """
    pads = _pair(padding)
    if not _taken(x, w, w.shape[1], dilation, groups) or not all(isinstance(pad, int) for pad in pads):
        return False
    if _pair(stride) == (2, 2) and pads == (0, 0) and x.shape[2] % 2 == x.shape[3] % 2 == 1:
        return min(x.shape[2:]) >= 3 and _pays(x, w, x.shape[2] // 2, x.shape[3] // 2)
    if _pair(stride) != (1, 1) or min(pads) < 0 or max(pads) > 2:
        return False
    return _pays(x, w, x.shape[2] + 2 * pads[0] - 2, x.shape[3] + 2 * pads[1] - 2)


def suits_transposed(x: torch.Tensor, w: torch.Tensor, stride: Any, padding: Any, output_padding: Any, groups: int, dilation: Any) -> bool:
    """Whether `convolve_doubling` takes this transposed convolution and is faster; compiles it if need be.

    Args: as of `torch.nn.functional.conv_transpose2d`.
    """
    if not _taken(x, w, w.shape[0], dilation, groups) or (_pair(stride), _pair(padding), _pair(output_padding)) != ((2, 2), (0, 0), (0, 0)):
        return False
    least = LEAST_SIDE_OF_MANY if min(w.shape[:2]) >= MANY_CHANNELS else LEAST_SIDE_TO_DOUBLE
    return min(x.shape[2:]) >= least and _pays(x, w, *x.shape[2:])


def _taken(x: torch.Tensor, w: torch.Tensor, channels: int, dilation: Any, groups: int) -> bool:
    """Whether tensors and options are of the kind that the compiled code computes."""
    kind = x.device.type == "cpu" and x.dtype == w.dtype == torch.float32 and x.ndim == 4 and w.ndim == 4
    return (
        kind
        and w.shape[2:] == (3, 3)
        and x.shape[1] == channels
        and groups == 1
        and _pair(dilation) == (1, 1)
        and not torch.is_autocast_enabled("cpu")
        and cpu_kernels.plain(w)
    )


def _pays(x: torch.Tensor, w: torch.Tensor, height: int, width: int) -> bool:
    """Whether it is faster for images of this size, the smaller of those before and after, and there."""
    if min(height, width) < 1 or min(w.shape[:2]) < LEAST_CHANNELS:
        return False
    return cpu_kernels.usable(x, x.shape[0] * height * width * w.shape[0] * w.shape[1] // PRODUCTS_OF_A_SAMPLE)


def convolve(x: torch.Tensor, w: torch.Tensor, pads: Pads) -> torch.Tensor:
    """Images [n, O, h + 2 pads - 2, ...], the correlation of images x [n, C, h, w] with w [O, C, 3, 3]; laid out as x is."""
    return _convolution(x, w, pads, 1, False)


def convolve_halving(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """The same at every other pixel and without padding: images of odd sides 2 h + 1 become images of sides h."""
    return _convolution(x, w, (0, 0), 2, False)


def convolve_doubling(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    """The transposed convolution of a stride of 2 of images x [n, C, h, w] with w [C, O, 3, 3]: sides 2 h + 1."""
    return _convolution(x, w, (0, 0), 2, True)


def _pair(size: Any) -> tuple[Any, ...]:
    return (size, size) if isinstance(size, int) else tuple(size) * (2 if len(size) == 1 else 1)


def _dense(x: torch.Tensor) -> torch.Tensor:
    return x if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last) else x.contiguous()


def _convolution(x: torch.Tensor, w: torch.Tensor, pads: Pads, stride: int, adjoint: bool) -> torch.Tensor:
    """`_Convolution`; torch's, if gradients that come back are not plain tensors."""
    if cpu_kernels.plain(x, w):
        return _Convolution.apply(x, w, pads, stride, adjoint)
    if not adjoint:
        return F.conv2d(x, w, stride=stride, padding=pads)
    return F.conv_transpose2d(x, w, stride=stride, padding=pads if stride == 2 else (2 - pads[0], 2 - pads[1]))


def _kernel_gradient(x: torch.Tensor, dy: torch.Tensor, pads: Pads, stride: int, swapped: bool) -> torch.Tensor:
    """`_KernelGradient`, likewise."""
    if cpu_kernels.plain(x, dy):
        return _KernelGradient.apply(x, dy, pads, stride, swapped)
    return F.conv2d(x.transpose(0, 1), dy.transpose(0, 1), padding=pads, dilation=stride).transpose(0, 1)


class _Convolution(torch.autograd.Function):
    """A convolution, or its adjoint, which takes gradients of its results to those of its images, w as it was: bilinear in x and w."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor, pads: Pads, stride: int, adjoint: bool) -> torch.Tensor:
        ctx.options = pads if stride == 2 else (2 - pads[0], 2 - pads[1]), stride, not adjoint
        ctx.pads, ctx.swapped = ctx.options[0] if adjoint else pads, w.stride(0) < w.stride(1)
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, w if ctx.needs_input_grad[0] else None)
        w = w if w.stride()[2:] == (3, 1) and min(w.stride()[:2]) == 9 else w.contiguous()
        # The compiled code trusts its arguments.
        assert x.dtype == w.dtype == torch.float32 and w.shape[2:] == (3, 3) and x.shape[1] == w.shape[0 if adjoint else 1] and x.ndim == 4
        if stride == 1:
            assert all(0 <= pad <= 2 < size + 2 * pad for pad, size in zip(pads, x.shape[2:], strict=True))
        else:
            assert stride == 2 and pads == (0, 0) and (adjoint or (min(x.shape[2:]) >= 3 and x.shape[2] % 2 == x.shape[3] % 2 == 1))
        return cpu_kernels._plugin().winograd(_dense(x), w, *pads, stride, adjoint)[0]

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, w = ctx.saved_tensors
        pads, stride, adjoint = ctx.options
        dx = _convolution(dy, w, pads, stride, adjoint) if ctx.needs_input_grad[0] else None
        dw = None
        if ctx.needs_input_grad[1]:
            images, gradients = (x, dy) if adjoint else (dy, x)
            dw = _kernel_gradient(images, gradients, ctx.pads, stride, ctx.swapped)
        return dx, dw, None, None, None


class _KernelGradient(torch.autograd.Function):
    """The gradient [O, C, 3, 3] by w of a convolution, of its images x and gradients dy by its results: bilinear in x and dy."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, dy: torch.Tensor, pads: Pads, stride: int, swapped: bool) -> torch.Tensor:
        ctx.options = pads, stride
        ctx.save_for_backward(x, dy)
        return cpu_kernels._plugin().winograd_kernels(_dense(x), _dense(dy), *pads, stride, swapped)

    @staticmethod
    def backward(ctx: Any, dw: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, dy = ctx.saved_tensors
        pads, stride = ctx.options
        opposite = pads if stride == 2 else (2 - pads[0], 2 - pads[1])
        dx = _convolution(dy, dw, opposite, stride, True) if ctx.needs_input_grad[0] else None
        return dx, _convolution(x, dw, pads, stride, False) if ctx.needs_input_grad[1] else None, None, None, None
