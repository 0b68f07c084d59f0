# SPDX-License-Identifier: Apache-2.0
"""Resampling of images with an FIR filter: insert zeros, pad or crop, filter, keep every n-th sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from torch_utils.ops import cpu_kernels, definitions, gpu_ops

Taps = torch.Tensor | None
Pair = int | Sequence[int]


def _parse_scaling(scaling: Pair) -> tuple[int, int]:
    """(x, y) factors from one int or an [x, y] pair, each at least 1."""
    pair = [*scaling] if isinstance(scaling, Sequence) else [scaling, scaling]
    assert len(pair) == 2 and all(isinstance(factor, int) and factor >= 1 for factor in pair), scaling
    return pair[0], pair[1]


def _parse_padding(padding: Pair) -> tuple[int, int, int, int]:
    """(x0, x1, y0, y1) from one int, an [x, y] pair, or all four."""
    pads = [*padding] if isinstance(padding, Sequence) else [padding, padding]
    assert len(pads) in (2, 4) and all(isinstance(pad, int) for pad in pads), padding
    if len(pads) == 2:
        pads = [pads[0], pads[0], pads[1], pads[1]]
    return pads[0], pads[1], pads[2], pads[3]


def _get_filter_size(f: Taps) -> tuple[int, int]:
    """(width, height) of a filter; (1, 1) for None."""
    if f is None:
        return 1, 1
    assert isinstance(f, torch.Tensor) and f.ndim in (1, 2) and f.numel() > 0
    return int(f.shape[-1]), int(f.shape[0])


def setup_filter(
    f: torch.Tensor | np.ndarray | Sequence | float | None,
    device: torch.device | str = "cpu",
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> torch.Tensor:
    """The float32 filter that the functions of this module take: 2-D taps [fh, fw], or 1-D taps [t] if separable.

    Args:
        f:           1-D or 2-D taps; None or a number gives the single tap 1 (or that number, normalised).
        device:      Where the result lives.
        normalize:   Divide by the sum, so that a constant image keeps its value.
        flip_filter: Reverse the taps along every axis.
        gain:        Factor on the signal amplitude.
        separable:   Keep 1-D taps, to be applied along x and then y; None: if there are at least 8 of them.
    """
    taps = torch.as_tensor(1 if f is None else f, dtype=torch.float32).detach().clone()
    assert taps.ndim in (0, 1, 2) and taps.numel() > 0
    if taps.ndim == 0:
        taps = taps[None]
    if separable is None:
        separable = taps.ndim == 1 and taps.numel() >= 8
    assert not (separable and taps.ndim == 2), "a 2-D filter cannot be made separable"
    if taps.ndim == 1 and not separable:
        taps = torch.outer(taps, taps)  # [t, t]
    if normalize:
        taps = taps / taps.sum()
    if flip_filter:
        taps = taps.flip(list(range(taps.ndim)))
    return (taps * gain ** (taps.ndim / 2)).to(device)


def upfirdn2d(
    x: torch.Tensor,
    f: Taps,
    up: Pair = 1,
    down: Pair = 1,
    padding: Pair = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> torch.Tensor:
    """Images after: `up`-1 zeros behind every sample, padding, filtering ("valid"), every `down`-th sample.

    Args:
        x:           Images [n, C, H, W].
        f:           float32 taps of `setup_filter`, or None for no filter. No gradient flows to it.
        up:          Up-sampling factor, or [x, y].
        down:        Down-sampling factor, or [x, y].
        padding:     Zeros around the up-sampled image: one number, [x, y] or [x0, x1, y0, y1]; negative crops.
        flip_filter: False: convolution. True: correlation.
        gain:        Factor on the signal amplitude.
        impl:        'ref': the definition. 'cuda': whatever is fastest for the device of x.

    Returns:
        Images [n, C, h, w] with w = (W * up + x0 + x1 - fw) // down + 1, h alike.
    """
    assert isinstance(x, torch.Tensor) and x.ndim == 4
    assert impl in ("ref", "cuda"), impl
    if f is None:
        f = torch.ones([1, 1], dtype=torch.float32, device=x.device)
    assert isinstance(f, torch.Tensor) and f.ndim in (1, 2) and f.dtype == torch.float32 and not f.requires_grad
    plan = _plan(x, f, up, down, padding, flip_filter)
    if impl == "cuda" and gpu_ops.usable(x):
        return gpu_ops.upfirdn2d(x, f if plan.flip_filter else f.flip(list(range(f.ndim))), plan.up, plan.down, plan.pads, gain)
    if impl == "ref" or x.device.type != "cpu" or torch.jit.is_tracing():  # a trace must consist of torch's own operations
        return _definition(x, f, plan, gain)
    f = f.to(x.dtype)
    if _compiled_can(x, f, plan):
        return _compiled(x, f, plan, gain)
    if f.ndim == 2:
        return _Depthwise.apply(x, f * gain, plan)
    along_x, along_y = plan.split()
    return _Depthwise.apply(_Depthwise.apply(x, f[None, :] * gain, along_x), f[:, None], along_y)


class _Plan(NamedTuple):
    """How one `upfirdn2d` resamples: factors (x, y), pads (x0, x1, y0, y1), and whether the filter is flipped."""

    up: tuple[int, int]
    down: tuple[int, int]
    pads: tuple[int, int, int, int]
    flip_filter: bool

    def split(self) -> tuple[_Plan, _Plan]:
        """The same along x only, and along y only."""
        (upx, upy), (downx, downy), (x0, x1, y0, y1) = self.up, self.down, self.pads
        along_x = _Plan((upx, 1), (downx, 1), (x0, x1, 0, 0), self.flip_filter)
        return along_x, _Plan((1, upy), (1, downy), (0, 0, y0, y1), self.flip_filter)

    def adjoint(self, size: torch.Size, out_size: torch.Size, f: torch.Tensor) -> _Plan:
        """The plan that carries a gradient of the result (`out_size`) back to the images (`size`)."""
        (upx, upy), (downx, downy), (x0, _, y0, _) = self.up, self.down, self.pads
        fw, fh = _get_filter_size(f)
        x1 = size[3] * upx - out_size[3] * downx + x0 - upx + 1
        y1 = size[2] * upy - out_size[2] * downy + y0 - upy + 1
        return _Plan(self.down, self.up, (fw - 1 - x0, x1, fh - 1 - y0, y1), not self.flip_filter)


def _plan(x: torch.Tensor, f: torch.Tensor, up: Pair, down: Pair, padding: Pair, flip_filter: bool) -> _Plan:
    """The checked arguments of `upfirdn2d`."""
    plan = _Plan(_parse_scaling(up), _parse_scaling(down), _parse_padding(padding), bool(flip_filter))
    (fw, fh), (x0, x1, y0, y1) = _get_filter_size(f), plan.pads
    wide_enough, high_enough = x.shape[3] * plan.up[0] + x0 + x1 >= fw, x.shape[2] * plan.up[1] + y0 + y1 >= fh
    assert wide_enough and high_enough, "the up-sampled and padded image is smaller than the filter"
    return plan


def _sizes(x: torch.Tensor, f: torch.Tensor, plan: _Plan) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size of the filtered image before any of it is dropped, and of the result; (x, y)."""
    (fw, fh), (x0, x1, y0, y1) = _get_filter_size(f), plan.pads
    width, height = x.shape[3] * plan.up[0] + x0 + x1 - fw + 1, x.shape[2] * plan.up[1] + y0 + y1 - fh + 1
    return (width, height), ((width - 1) // plan.down[0] + 1, (height - 1) // plan.down[1] + 1)


def _compiled_can(x: torch.Tensor, f: torch.Tensor, plan: _Plan) -> bool:
    """Whether compiled code is there that makes no sample in vain, and the image is worth it."""
    (width, height), _ = _sizes(x, f, plan)
    if f.numel() == 1 or (plan.up != (1, 1) and plan.down != (1, 1)):
        return False
    return cpu_kernels.usable(x, x.shape[0] * x.shape[1] * width * height) and cpu_kernels.takes_layout(x)


def _compiled(x: torch.Tensor, f: torch.Tensor, plan: _Plan, gain: float) -> torch.Tensor:
    """The same as the steps of `upfirdn2d`, image and result touched once: one of the two stages of a `definitions.Plan`."""
    f = f if plan.flip_filter else f.flip(list(range(f.ndim)))  # => taps of a correlation
    one, none, offset = torch.ones([1], dtype=x.dtype, device=x.device), (0, 0), (plan.pads[0], plan.pads[2])
    start, (middle, size) = (x.shape[3], x.shape[2]), _sizes(x, f, plan)
    if plan.up == (1, 1):
        return cpu_kernels.Resample.apply(x, one, f, definitions.Plan(plan.up, plan.down, none, offset, start, start, size, down_gain=gain), None)
    return cpu_kernels.Resample.apply(x, f, one, definitions.Plan(plan.up, plan.down, offset, none, start, middle, size, up_gain=gain), None)


def _definition(x: torch.Tensor, f: torch.Tensor, plan: _Plan, gain: float) -> torch.Tensor:
    """The steps of `upfirdn2d` one after the other."""
    f = f if plan.flip_filter else f.flip(list(range(f.ndim)))
    return definitions.upfirdn2d(x, f, plan.up, plan.down, plan.pads, gain)


class _Depthwise(torch.autograd.Function):
    """`upfirdn2d` on a CPU with 2-D taps, as one depthwise convolution that never touches the inserted zeros or the dropped samples.

    The gradient is the adjoint resampling, so any order of derivative works and nothing but the taps is kept for it.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, f: torch.Tensor, plan: _Plan) -> torch.Tensor:
        n, c = x.shape[:2]
        # torch correlates, and when it transposes (up-sampling) it convolves
        as_it_is = plan.flip_filter if plan.up == (1, 1) else not plan.flip_filter  # torch.compile cannot compare comparisons
        kernel = (f if as_it_is else f.flip([0, 1])).to(x.dtype)
        if x.is_contiguous() and n > 0:  # all planes side by side in one image: far faster than n images of c planes
            x = x.reshape(1, n * c, *x.shape[2:])
        kernel = kernel.expand(x.shape[1], 1, *kernel.shape)
        x = _down_filter(x, kernel, plan) if plan.up == (1, 1) else _up_filter(x, kernel, plan)
        return x.reshape(n, c, *x.shape[2:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
        x, f, plan = inputs
        ctx.save_for_backward(f)
        ctx.save_for_forward(f)
        ctx.plan, ctx.adjoint = plan, plan.adjoint(x.shape, output.shape, f)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple:
        (f,) = ctx.saved_tensors
        return _Depthwise.apply(dy, f, ctx.adjoint), None, None

    @staticmethod
    def jvp(ctx: Any, dx: torch.Tensor, *_: None) -> torch.Tensor:
        (f,) = ctx.saved_tensors
        return _Depthwise.apply(dx, f, ctx.plan)


def _down_filter(x: torch.Tensor, kernel: torch.Tensor, plan: _Plan) -> torch.Tensor:
    """Padding, filtering and skipping in one strided convolution."""
    x0, x1, y0, y1 = plan.pads
    px, py = max(min(x0, x1), 0), max(min(y0, y1), 0)  # what the convolution can pad by itself
    rest = [x0 - px, x1 - px, y0 - py, y1 - py]
    x = definitions.pad_or_crop(x, rest)
    return F.conv2d(x, kernel, stride=plan.down[::-1], padding=(py, px), groups=x.shape[1])


def _up_filter(x: torch.Tensor, kernel: torch.Tensor, plan: _Plan) -> torch.Tensor:
    """Zero insertion and filtering in one transposed convolution, then the rest of the padding, then skipping."""
    (upx, upy), (x0, x1, y0, y1) = plan.up, plan.pads
    kh, kw = kernel.shape[2:]
    cut = [kw - 1 - x0, kw - upx - x1, kh - 1 - y0, kh - upy - y1]  # the transposed convolution pads by kw - 1 and kw - up
    px, py = max(min(cut[:2]), 0), max(min(cut[2:]), 0)  # what it can cut by itself
    x = F.conv_transpose2d(x, kernel, stride=(upy, upx), padding=(py, px), groups=x.shape[1])
    rest = [px - cut[0], px - cut[1], py - cut[2], py - cut[3]]
    x = definitions.pad_or_crop(x, rest)
    return definitions.every(x, plan.down)


def filter2d(x: torch.Tensor, f: Taps, padding: Pair = 0, flip_filter: bool = False, gain: float = 1, impl: str = "cuda") -> torch.Tensor:
    """Images filtered at the same size; `padding` adds to what keeps the size. Arguments as in `upfirdn2d`."""
    (x0, x1, y0, y1), (fw, fh) = _parse_padding(padding), _get_filter_size(f)
    pads = [x0 + fw // 2, x1 + (fw - 1) // 2, y0 + fh // 2, y1 + (fh - 1) // 2]
    return upfirdn2d(x, f, padding=pads, flip_filter=flip_filter, gain=gain, impl=impl)


def upsample2d(
    x: torch.Tensor, f: Taps, up: Pair = 2, padding: Pair = 0, flip_filter: bool = False, gain: float = 1, impl: str = "cuda"
) -> torch.Tensor:
    """Images `up` times as large, of the same brightness. Arguments as in `upfirdn2d`."""
    (upx, upy), (fw, fh), (x0, x1, y0, y1) = _parse_scaling(up), _get_filter_size(f), _parse_padding(padding)
    pads = [x0 + (fw + upx - 1) // 2, x1 + (fw - upx) // 2, y0 + (fh + upy - 1) // 2, y1 + (fh - upy) // 2]
    return upfirdn2d(x, f, up=up, padding=pads, flip_filter=flip_filter, gain=gain * upx * upy, impl=impl)


def downsample2d(
    x: torch.Tensor, f: Taps, down: Pair = 2, padding: Pair = 0, flip_filter: bool = False, gain: float = 1, impl: str = "cuda"
) -> torch.Tensor:
    """Images 1 / `down` times as large. Arguments as in `upfirdn2d`."""
    (downx, downy), (fw, fh), (x0, x1, y0, y1) = _parse_scaling(down), _get_filter_size(f), _parse_padding(padding)
    pads = [x0 + (fw - downx + 1) // 2, x1 + (fw - downx) // 2, y0 + (fh - downy + 1) // 2, y1 + (fh - downy) // 2]
    return upfirdn2d(x, f, down=down, padding=pads, flip_filter=flip_filter, gain=gain, impl=impl)
