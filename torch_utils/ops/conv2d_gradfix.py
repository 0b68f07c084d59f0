# SPDX-License-Identifier: Apache-2.0
"""2-D convolutions under NVIDIA's names, differentiable to any order: torch's, or `cpu_winograd`'s and
`cpu_pointwise`'s where those are faster.

`enabled`, `weight_gradients_disabled` and `no_weight_gradients` are kept because training scripts use them. They are hints
about speed and change no value: torch computes a weight gradient exactly when somebody asks for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from torch_utils.ops import cpu_pointwise, cpu_winograd

enabled = False
weight_gradients_disabled = False

Size = int | tuple[int, ...] | list[int]


@contextlib.contextmanager
def no_weight_gradients(disable: bool = True) -> Iterator[None]:
    """A region in which the caller does not need weight gradients (`weight_gradients_disabled` is True inside)."""
    global weight_gradients_disabled
    before = weight_gradients_disabled
    weight_gradients_disabled = before or disable
    try:
        yield
    finally:
        weight_gradients_disabled = before


def conv2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> torch.Tensor:
    """`torch.nn.functional.conv2d` of images [n, I, H, W] and a weight [O, I/groups, kh, kw]."""
    if bias is None and cpu_pointwise.suits(input, weight, stride, padding, dilation, groups):
        return cpu_pointwise.convolve(input, weight)
    if bias is None and cpu_winograd.suits(input, weight, stride, padding, dilation, groups):
        if stride not in (1, (1,), (1, 1), [1], [1, 1]):
            return cpu_winograd.convolve_halving(input, weight)
        return cpu_winograd.convolve(input, weight, (padding, padding) if isinstance(padding, int) else (padding[0], padding[-1]))
    return torch.nn.functional.conv2d(input, weight, bias, stride, padding, dilation, groups)


def conv_transpose2d(
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> torch.Tensor:
    """`torch.nn.functional.conv_transpose2d` of images [n, I, H, W] and a weight [I, O/groups, kh, kw]."""
    if bias is None and cpu_winograd.suits_transposed(input, weight, stride, padding, output_padding, groups, dilation):
        return cpu_winograd.convolve_doubling(input, weight)
    return torch.nn.functional.conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation)
