# SPDX-License-Identifier: Apache-2.0
"""Leaky ReLU at a higher sampling rate, where what it makes beyond the band of the image can be filtered away (StyleGAN3's non-linearity).

Source: Karras et al. 2021, "Alias-Free Generative Adversarial Networks", arXiv 2106.12423, section 3.2.
"""

from __future__ import annotations

import math

import torch

from torch_utils.ops import bias_act, cpu_kernels, definitions, gpu_ops, upfirdn2d
from torch_utils.ops.upfirdn2d import Pair, Taps, _get_filter_size, _parse_padding


def filtered_lrelu(
    x: torch.Tensor,
    fu: Taps = None,
    fd: Taps = None,
    b: torch.Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Pair = 0,
    gain: float = math.sqrt(2),
    slope: float = 0.2,
    clamp: float | None = None,
    flip_filter: bool = False,
    impl: str = "cuda",
) -> torch.Tensor:
    """Images after: bias, up-sampling with fu, gain, leaky ReLU, clamp, down-sampling with fd. Differentiable to any order, but not by the filters.

    Args:
        x:           Images [n, C, H, W].
        fu:          float32 taps of the up-sampling filter, [t] if separable or [fh, fw]; None: no filter.
        fd:          The same of the down-sampling filter.
        b:           Bias [C] of x's dtype, or None.
        up, down:    Integer factors.
        padding:     Zeros around the up-sampled image: one number, [x, y] or [x0, x1, y0, y1]; negative crops.
        gain:        Factor on the signal amplitude, above 0.
        slope:       Of the leaky ReLU below zero, at least 0; 1: no non-linearity.
        clamp:       Largest magnitude after the leaky ReLU, at least 0; None: no limit.
        flip_filter: False: convolution. True: correlation. Of both filters.
        impl:        'ref': the definition. 'cuda': whatever is fastest for the device of x.

    Returns:
        Images [n, C, h, w] of x's dtype with w = (W * up + x0 + x1 - (fu_w - 1) - (fd_w - 1) + down - 1) // down, h alike.
    """
    assert isinstance(x, torch.Tensor) and x.ndim == 4
    assert impl in ("ref", "cuda"), impl
    assert all(f is None or (isinstance(f, torch.Tensor) and f.ndim in (1, 2) and f.dtype == torch.float32) for f in (fu, fd))
    assert b is None or (isinstance(b, torch.Tensor) and b.dtype == x.dtype and b.shape == x.shape[1:2])
    assert isinstance(up, int) and up >= 1 and isinstance(down, int) and down >= 1
    gain, slope = float(gain), float(slope)
    assert gain > 0 and slope >= 0 and (clamp is None or clamp >= 0), (gain, slope, clamp)
    pads = _parse_padding(padding)
    _check_size(x, fu, fd, up, pads)
    if impl == "cuda" and _pays(x, fu, fd, up, pads):
        plan = _plan(x, fu, fd, up, down, pads, up_gain=up**2 * gain, slope=slope, clamp=math.inf if clamp is None else float(clamp))
        return _compiled(x, b, fu, fd, plan, flip_filter)
    if b is not None:
        x = x + b.reshape(1, -1, 1, 1)
    if impl == "ref":
        x = upfirdn2d.upfirdn2d(x, fu, up=up, padding=pads, gain=up**2, flip_filter=flip_filter, impl="ref")
        x = bias_act.bias_act(x, act="lrelu", alpha=slope, gain=gain, clamp=clamp, impl="ref")
        return upfirdn2d.upfirdn2d(x, fd, down=down, flip_filter=flip_filter, impl="ref")
    if up == 1 and fu is None:  # nothing to filter: spare the pass
        x = definitions.pad_or_crop(x, pads)
    else:  # a gain above 0 commutes with the leaky ReLU: the filter takes it along
        x = upfirdn2d.upfirdn2d(x, fu, up=up, padding=pads, gain=up**2 * gain, flip_filter=flip_filter)
        gain = 1.0
    if slope != 1 or gain != 1 or clamp is not None:
        x = bias_act.bias_act(x, act="lrelu", alpha=slope, gain=gain, clamp=clamp)
    if down == 1 and fd is None:
        return x
    return upfirdn2d.upfirdn2d(x, fd, down=down, flip_filter=flip_filter)


def _check_size(x: torch.Tensor, fu: Taps, fd: Taps, up: int, pads: tuple[int, int, int, int]) -> None:
    """Raises AssertionError if nothing is left of the image."""
    (uw, uh), (dw, dh), (x0, x1, y0, y1) = _get_filter_size(fu), _get_filter_size(fd), pads
    wide_enough, high_enough = x.shape[3] * up + x0 + x1 >= uw + dw - 1, x.shape[2] * up + y0 + y1 >= uh + dh - 1
    assert wide_enough and high_enough, "the up-sampled and padded image is smaller than the filters"


def _pays(x: torch.Tensor, fu: Taps, fd: Taps, up: int, pads: tuple[int, int, int, int]) -> bool:
    """Whether there is something to filter, enough of it, and compiled code to do it."""
    (uw, uh), (x0, x1, y0, y1) = _get_filter_size(fu), pads
    samples = x.shape[0] * x.shape[1] * (x.shape[3] * up + x0 + x1 - uw + 1) * (x.shape[2] * up + y0 + y1 - uh + 1)
    return (fu is not None or fd is not None) and (gpu_ops.usable(x) or cpu_kernels.usable(x, samples))


def _plan(
    x: torch.Tensor, fu: Taps, fd: Taps, up: int, down: int, pads: tuple[int, int, int, int], **scales: float
) -> definitions.Plan:  # Made at once: torch.compile of torch 2.4 cannot follow a named tuple's `_replace`.
    """Sizes and places of what the compiled code is to do, and the scales: `up_gain`, `slope`, `clamp`."""
    (uw, uh), (dw, dh), (x0, x1, y0, y1) = _get_filter_size(fu), _get_filter_size(fd), pads
    start = x.shape[3], x.shape[2]
    middle = start[0] * up + x0 + x1 - uw + 1, start[1] * up + y0 + y1 - uh + 1
    size = (middle[0] - dw) // down + 1, (middle[1] - dh) // down + 1
    return definitions.Plan((up, up), (down, down), (x0, y0), (0, 0), start, middle, size, **scales)


def _compiled(x: torch.Tensor, b: torch.Tensor | None, fu: Taps, fd: Taps, plan: definitions.Plan, flip_filter: bool) -> torch.Tensor:
    """The same as the steps of `filtered_lrelu`, image and result touched once."""
    taps = [torch.ones([1], device=x.device) if f is None else f for f in (fu, fd)]
    taps = taps if flip_filter else [f.flip(list(range(f.ndim))) for f in taps]  # => those of a correlation
    if gpu_ops.usable(x):
        return gpu_ops.filtered_lrelu(x, b, taps[0], taps[1], plan)
    taps = [f.to(x.dtype) for f in taps]
    if not torch.is_grad_enabled():  # Nobody can ask for a gradient, for which signs would be written.
        x, b = x.detach(), None if b is None else b.detach()
    return cpu_kernels.FilteredLrelu.apply(x, b, *taps, plan)
