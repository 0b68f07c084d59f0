# SPDX-License-Identifier: Apache-2.0
"""bias_act and upfirdn2d as kernels of Triton, for GPUs where there is no nvcc; filtered_lrelu is made of them. The functions of `definitions`.

Imported only where it is needed: triton takes a second to import, and need not be there (`AVAILABLE`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch_utils.ops import definitions
from torch_utils.ops.definitions import NO_SIGNS, SELU_ALPHA, SELU_SCALE, STRAIGHT, VALUE, Plan
from torch_utils.ops.gpu_launch import layout_of

try:
    import triton
    import triton.language as tl
    from triton.language import constexpr  # By this name: the interpreter of Triton 3.0 knows no `tl.constexpr` in an annotation.
except ImportError:
    triton = tl = constexpr = None

AVAILABLE = triton is not None
_BLOCK = 1024
_SCALE, _SCALED_ALPHA = (constexpr(value) for value in (SELU_SCALE, SELU_SCALE * SELU_ALPHA)) if AVAILABLE else (None, None)


def _jit(function: Callable) -> Any:
    return triton.jit(function) if AVAILABLE else function


@_jit
def _value(u, alpha, ACT: constexpr):
    """The activation at u. alpha has u's type: Triton 3.0 takes plain numbers, selu's too, for float32 whatever they meet."""
    y = u
    if ACT == "relu":
        y = tl.where(u <= 0, 0.0, u)
    elif ACT == "lrelu":
        y = tl.where(u > 0, u, u * alpha)
    elif ACT == "tanh":
        y = 2 / (1 + tl.exp(-2 * u)) - 1
    elif ACT == "sigmoid":
        y = 1 / (1 + tl.exp(-u))
    elif ACT == "elu":
        y = tl.where(u > 0, u, tl.exp(tl.minimum(u, 0.0)) - 1)
    elif ACT == "selu":
        y = tl.where(u > 0, u * tl.full((), _SCALE, u.dtype), tl.full((), _SCALED_ALPHA, u.dtype) * (tl.exp(tl.minimum(u, 0.0)) - 1))
    elif ACT == "softplus":
        y = tl.maximum(u, 0.0) + tl.log(1 + tl.exp(-tl.abs(u)))
    elif ACT == "swish":
        y = u / (1 + tl.exp(-u))
    return y


@_jit
def _slope(u, alpha, ACT: constexpr):
    """Its derivative at u."""
    s = 1 / (1 + tl.exp(-u))
    d = tl.where(u > 0, 1.0, 1.0).to(u.dtype)
    if ACT == "relu":
        d = tl.where(u > 0, d, 0.0)
    elif ACT == "lrelu":
        d = tl.where(u > 0, d, alpha)
    elif ACT == "tanh":
        t = 2 / (1 + tl.exp(-2 * u)) - 1
        d = 1 - t * t
    elif ACT == "sigmoid":
        d = s * (1 - s)
    elif ACT == "elu":
        d = tl.where(u > 0, d, tl.exp(tl.minimum(u, 0.0)))
    elif ACT == "selu":
        d = tl.where(u > 0, d * tl.full((), _SCALE, u.dtype), tl.full((), _SCALED_ALPHA, u.dtype) * tl.exp(tl.minimum(u, 0.0)))
    elif ACT == "softplus":
        d = s
    elif ACT == "swish":
        d = s + u * s * (1 - s)
    return d


@_jit
def _bend(u, ACT: constexpr):
    """Its second derivative at u."""
    s = 1 / (1 + tl.exp(-u))
    d = u * 0
    if ACT == "tanh":
        t = 2 / (1 + tl.exp(-2 * u)) - 1
        d = -2 * t * (1 - t * t)
    elif ACT == "sigmoid":
        d = s * (1 - s) * (1 - 2 * s)
    elif ACT == "elu":
        d = tl.where(u > 0, 0.0, tl.exp(tl.minimum(u, 0.0)))
    elif ACT == "selu":
        d = tl.where(u > 0, 0.0, tl.full((), _SCALED_ALPHA, u.dtype) * tl.exp(tl.minimum(u, 0.0)))
    elif ACT == "softplus":
        d = s * (1 - s)
    elif ACT == "swish":
        d = s * (1 - s) * (2 + u * (1 - 2 * s))
    return d


@_jit
def _bias_act_kernel(
    x, b, r, h, y, n, stride, channels,
    ALPHA: constexpr, GAIN: constexpr, CLAMP: constexpr, ACT: constexpr, MODE: constexpr, FROM_Y: constexpr,
    BIASED: constexpr, WIDE: constexpr, BLOCK: constexpr,
):  # fmt: skip
    """One block of elements; MODE as in `definitions.bias_act`."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = i < n
    value = tl.load(x + i, mask=there, other=0.0).to(WIDE)
    bias = value * 0
    if BIASED:
        bias = tl.load(b + (i // stride) % channels, mask=there, other=0.0).to(WIDE)
    alpha, gain = tl.full((), ALPHA, WIDE), tl.full((), GAIN, WIDE)
    if MODE == 0:
        result = _value(value + bias, alpha, ACT) * gain
        if CLAMP is not None:
            limit = tl.full((), CLAMP, WIDE)
            result = tl.where(result > limit, limit, tl.where(result < -limit, -limit, result))
    else:
        u = tl.load(r + i, mask=there, other=0.0).to(WIDE)
        if not FROM_Y:
            u += bias
        if MODE == 1:
            result = value * gain * _slope(u, alpha, ACT)
        else:
            result = value * tl.load(h + i, mask=there, other=0.0).to(WIDE) * gain * _bend(u, ACT)
        if CLAMP is not None:
            reached = u
            if not FROM_Y:
                reached = _value(u, alpha, ACT) * gain
            result = tl.where(tl.abs(reached) >= tl.full((), CLAMP, WIDE), 0.0, result)
    tl.store(y + i, result.to(y.dtype.element_ty), mask=there)


@_jit
def _upfirdn2d_kernel(
    x, f, y, n, channels, in_x, in_y, out_x, out_y, xs_n, xs_c, xs_y, xs_x, ys_n, ys_c, ys_y, ys_x,
    PAD_X: constexpr, PAD_Y: constexpr, SHIFT_X: constexpr, SHIFT_Y: constexpr, UP_X: constexpr, UP_Y: constexpr,
    DOWN_X: constexpr, DOWN_Y: constexpr, TAPS_X: constexpr, TAPS_Y: constexpr, GAIN: constexpr, BY_PIXEL: constexpr,
    WIDE: constexpr, BLOCK: constexpr,
):  # fmt: skip
    """One block of samples of the result, counted as they lie in memory. No inserted zero is read."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = i < n
    if BY_PIXEL:
        c, place = i % channels, i // channels
        column, row, image = place % out_x, (place // out_x) % out_y, place // (out_x * out_y)
    else:
        column, row = i % out_x, (i // out_x) % out_y
        c, image = (i // (out_x * out_y)) % channels, i // (out_x * out_y) // channels
    # The first tap that meets a sample, and that sample: remainders of numbers below zero are not to be relied on, so a multiple is added.
    begin_x, begin_y = column * DOWN_X - PAD_X, row * DOWN_Y - PAD_Y
    first_x = ((column * DOWN_X + SHIFT_X) * UP_X - begin_x) % UP_X
    first_y = ((row * DOWN_Y + SHIFT_Y) * UP_Y - begin_y) % UP_Y
    sample_x = (begin_x + first_x + SHIFT_X * UP_X) // UP_X - SHIFT_X
    sample_y = (begin_y + first_y + SHIFT_Y * UP_Y) // UP_Y - SHIFT_Y
    total = (i * 0).to(WIDE)  # not tl.zeros, which cannot be interpreted once triton is imported
    for j in range((TAPS_Y + UP_Y - 1) // UP_Y):
        for k in range((TAPS_X + UP_X - 1) // UP_X):
            tap_x, tap_y, at_x, at_y = first_x + k * UP_X, first_y + j * UP_Y, sample_x + k, sample_y + j
            meets = there & (tap_x < TAPS_X) & (tap_y < TAPS_Y) & (at_x >= 0) & (at_x < in_x) & (at_y >= 0) & (at_y < in_y)
            tap = tl.load(f + tap_y * TAPS_X + tap_x, mask=meets, other=0.0)
            total += tap * tl.load(x + image * xs_n + c * xs_c + at_y * xs_y + at_x * xs_x, mask=meets, other=0.0).to(WIDE)
    tl.store(y + image * ys_n + c * ys_c + row * ys_y + column * ys_x, (total * tl.full((), GAIN, WIDE)).to(y.dtype.element_ty), mask=there)


def _wide(x: torch.Tensor) -> Any:
    return tl.float64 if x.dtype == torch.float64 else tl.float32


def bias_act(
    x: torch.Tensor,
    b: torch.Tensor | None,
    r: torch.Tensor | None,
    h: torch.Tensor | None,
    *,
    mode: int,
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float | None,
) -> torch.Tensor:
    """See `definitions.bias_act`."""
    layout = layout_of(x if r is None else r)
    x, r, h = (other if other is None else other.contiguous(memory_format=layout) for other in (x, r, h))
    assert (r is None) == (mode == VALUE) and (b is None or b.shape == x.shape[dim : dim + 1])
    y = torch.empty_like(x, memory_format=layout)
    if x.numel() == 0:
        return y
    pointers = [x if other is None else other for other in (x, None if b is None else b.contiguous(), r, h, y)]
    constants = {"ALPHA": alpha, "GAIN": gain, "CLAMP": clamp, "ACT": act, "MODE": mode, "FROM_Y": act in STRAIGHT, "BIASED": b is not None}
    grid = (triton.cdiv(x.numel(), _BLOCK),)
    _bias_act_kernel[grid](*pointers, x.numel(), max(y.stride(dim), 1), x.shape[dim], **constants, WIDE=_wide(x), BLOCK=_BLOCK)
    return y


def upfirdn2d(x: torch.Tensor, f: torch.Tensor, up: Sequence[int], down: Sequence[int], pads: Sequence[int], gain: float) -> torch.Tensor:
    """See `definitions.upfirdn2d`. A separable filter is two of them, along x and along y."""
    if f.ndim == 1:
        x = upfirdn2d(x, f[None, :], (up[0], 1), (down[0], 1), (pads[0], pads[1], 0, 0), gain)
        return upfirdn2d(x, f[:, None], (1, up[1]), (1, down[1]), (0, 0, pads[2], pads[3]), 1.0)
    f = f.to(torch.float64 if x.dtype == torch.float64 else torch.float32).contiguous()
    width, height = ((x.shape[3 - i] * up[i] + pads[2 * i] + pads[2 * i + 1] - f.shape[1 - i]) // down[i] + 1 for i in (0, 1))
    layout = layout_of(x)
    y = torch.empty([x.shape[0], x.shape[1], height, width], dtype=x.dtype, device=x.device, memory_format=layout)
    if x.numel() == 0:
        return y.zero_()
    numbers = [y.numel(), x.shape[1], x.shape[3], x.shape[2], width, height, *x.stride(), *y.stride()]
    constants = {"PAD_X": pads[0], "PAD_Y": pads[2], "UP_X": up[0], "UP_Y": up[1], "DOWN_X": down[0], "DOWN_Y": down[1]}
    constants |= {"SHIFT_X": abs(pads[0]), "SHIFT_Y": abs(pads[2])}
    constants |= {"TAPS_X": f.shape[1], "TAPS_Y": f.shape[0], "GAIN": float(gain), "BY_PIXEL": layout is torch.channels_last}
    _upfirdn2d_kernel[(triton.cdiv(y.numel(), _BLOCK),)](x, f, y, *numbers, **constants, WIDE=_wide(x), BLOCK=_BLOCK)
    return y


def filtered(
    x: torch.Tensor,
    b: torch.Tensor | None,
    fu: torch.Tensor,
    fd: torch.Tensor,
    plan: Plan,
    mode: int = NO_SIGNS,
    signs: torch.Tensor | None = None,
) -> torch.Tensor:
    """See `definitions.filtered`: its steps, the resampling by Triton."""
    return definitions.filtered(x, b, fu, fd, plan, mode, signs, upfirdn2d)
