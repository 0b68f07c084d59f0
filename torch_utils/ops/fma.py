# SPDX-License-Identifier: Apache-2.0
"""Multiply-add with broadcasting: `fma(a, b, c) = a * b + c`."""

from __future__ import annotations

import torch


def fma(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """`a * b + c`, in one pass over memory; shapes broadcast in the value and in every gradient.

    Args:
        a: First factor, any shape.
        b: Second factor, broadcastable with `a`.
        c: Summand, broadcastable with `a * b`.

    Returns:
        Tensor of the common broadcast shape.
    """
    return torch.addcmul(c, a, b)
