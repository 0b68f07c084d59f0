# SPDX-License-Identifier: Apache-2.0
"""2-D convolution fused with up- or down-sampling by an FIR filter."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from torch_utils.ops import conv2d_gradfix, cpu_pointwise, cpu_winograd, upfirdn2d
from torch_utils.ops.modulated_layer import (
    modulated_layer as modulated_layer,
)  # Networks look for it here, since every StyleGAN code has this module.
from torch_utils.ops.upfirdn2d import Pair, Taps, _get_filter_size, _parse_padding

LARGEST_BY_PIXEL = 64 * 64
"""Pixels of an image up to which a CPU convolves it faster with a pixel's channels side by side (`benchmarks/layout.py`)."""


def conv2d_resample(
    x: torch.Tensor,
    w: torch.Tensor,
    f: Taps = None,
    up: int = 1,
    down: int = 1,
    padding: Pair = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> torch.Tensor:
    """Images after: up-sampling with f, convolution with w, down-sampling with f.

    Args:
        x:           Images [n, I, H, W].
        w:           Weight [O, I/groups, kh, kw], same dtype as x.
        f:           float32 taps of `upfirdn2d.setup_filter`, or None; unused if up = down = 1.
        up, down:    Integer factors.
        padding:     Zeros around the up-sampled image, once, at the start; as in `upfirdn2d`.
        groups:      Number of channel groups of the convolution.
        flip_weight: True: correlation with w, as `torch.nn.functional.conv2d` does. False: convolution.
        flip_filter: As in `upfirdn2d`.

    Returns:
        Images [n, O, h, w].
    """
    assert isinstance(x, torch.Tensor) and x.ndim == 4
    assert isinstance(w, torch.Tensor) and w.ndim == 4 and w.dtype == x.dtype
    assert f is None or (isinstance(f, torch.Tensor) and f.ndim in (1, 2) and f.dtype == torch.float32)
    assert isinstance(up, int) and up >= 1 and isinstance(down, int) and down >= 1 and isinstance(groups, int) and groups >= 1
    kh, kw = w.shape[2:]
    pads = _effective_pads(f, up, down, padding)
    if up > 1:
        x = _up_conv(x, w, f, up=up, pads=pads, groups=groups, flip_weight=flip_weight, flip_filter=flip_filter)
        return x if down == 1 else upfirdn2d.upfirdn2d(x, f, down=down, flip_filter=flip_filter)
    if not flip_weight and kh * kw > 1:
        w = w.flip([2, 3])  # => correlation
    if down > 1 and kh == kw == 1:  # a 1x1 kernel commutes with resampling: convolve the smaller image
        x = upfirdn2d.upfirdn2d(x, f, down=down, padding=pads, flip_filter=flip_filter)
        return _conv2d(x, w, groups=groups)
    if down > 1:  # two filters commute: blur first, then never convolve what is dropped
        x = upfirdn2d.upfirdn2d(x, f, padding=pads, flip_filter=flip_filter)
        return _conv2d(x, w, stride=down, groups=groups)
    x0, x1, y0, y1 = pads
    if x0 == x1 >= 0 and y0 == y1 >= 0:  # the convolution pads by itself
        return _conv2d(x, w, padding=[y0, x0], groups=groups)
    return _conv2d(F.pad(x, pads), w, groups=groups)


def _conv2d(x: torch.Tensor, w: torch.Tensor, stride: int = 1, padding: list[int] | int = 0, groups: int = 1) -> torch.Tensor:
    compiled = any(operation.suits(x, w, stride, padding, 1, groups) for operation in (cpu_winograd, cpu_pointwise))
    return conv2d_gradfix.conv2d(x if compiled else _laid_out(x, w, groups), w, stride=stride, padding=padding, groups=groups)


def _conv_transpose2d(x: torch.Tensor, w: torch.Tensor, stride: int, groups: int) -> torch.Tensor:
    compiled = cpu_winograd.suits_transposed(x, w, stride, 0, 0, groups, 1)
    return conv2d_gradfix.conv_transpose2d(x if compiled else _laid_out(x, w, groups), w, stride=stride, groups=groups)


def _laid_out(x: torch.Tensor, w: torch.Tensor, groups: int) -> torch.Tensor:
    """Images as torch's convolution on a CPU is fastest with them."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or groups != 1:
        return x
    small = x.shape[2] * x.shape[3] <= LARGEST_BY_PIXEL
    return x.contiguous(memory_format=torch.channels_last if small else torch.contiguous_format)


def _effective_pads(f: Taps, up: int, down: int, padding: Pair) -> tuple[int, int, int, int]:
    """The asked padding plus what keeps the resampled image centred, as (x0, x1, y0, y1)."""
    x0, x1, y0, y1 = _parse_padding(padding)
    fw, fh = _get_filter_size(f)
    if up > 1:
        x0, x1 = x0 + (fw + up - 1) // 2, x1 + (fw - up) // 2
        y0, y1 = y0 + (fh + up - 1) // 2, y1 + (fh - up) // 2
    if down > 1:
        x0, x1 = x0 + (fw - down + 1) // 2, x1 + (fw - down) // 2
        y0, y1 = y0 + (fh - down + 1) // 2, y1 + (fh - down) // 2
    return x0, x1, y0, y1


def _up_conv(
    x: torch.Tensor,
    w: torch.Tensor,
    f: Taps,
    *,
    up: int,
    pads: tuple[int, int, int, int],
    groups: int,
    flip_weight: bool,
    flip_filter: bool,
) -> torch.Tensor:
    """Up-sampling with f, then convolution with w; `pads` are the effective ones."""
    kh, kw = w.shape[2:]
    if kh == kw == 1:  # a 1x1 kernel commutes with resampling: convolve the smaller image
        x = _conv2d(x, w, groups=groups)
        return upfirdn2d.upfirdn2d(x, f, up=up, padding=pads, flip_filter=flip_filter, gain=up**2)
    # two filters commute, and a transposed convolution skips the inserted zeros; it flips by itself
    w = _swap_channels(w.flip([2, 3]) if flip_weight else w, groups)
    x = _conv_transpose2d(x, w, stride=up, groups=groups)
    x0, x1, y0, y1 = pads
    rest = [x0 - (kw - 1), x1 - (kw - up), y0 - (kh - 1), y1 - (kh - up)]  # less what the transposed convolution has padded
    return upfirdn2d.upfirdn2d(x, f, padding=rest, flip_filter=flip_filter, gain=up**2)


def _swap_channels(w: torch.Tensor, groups: int) -> torch.Tensor:
    """[O, I/groups, kh, kw] => [I, O/groups, kh, kw], as a transposed convolution expects it."""
    if groups == 1:
        return w.transpose(0, 1)
    per_group = w.unflatten(0, (groups, -1)).transpose(1, 2)  # [groups, I/groups, O/groups, kh, kw]
    return per_group.flatten(0, 1)
