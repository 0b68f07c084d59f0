# SPDX-License-Identifier: Apache-2.0
"""Kernel distance of two sets of features: unbiased whatever their number, on disjoint blocks, whose spread is the interval."""

from __future__ import annotations

import math

import torch

from stylegan_redact.estimates import mean_interval
from stylegan_redact.types import Estimate, RedactError

LEAST_BLOCKS = 10
LARGEST_BLOCK = 1000
"""Rows of one side in a block, as NVIDIA and Binkowski et al. have it."""


def kernel_distance(reference: torch.Tensor, generated: torch.Tensor, confidence: float = 0.95) -> Estimate:
    """Squared maximum mean discrepancy with the kernel (x.y / d + 1)^3: KID if the features are Inception's.

    Its expectation is that of two infinite sets, so numbers of different n compare; it may be negative where the sets are alike.

    Args:
        reference:  [n, d], finite, n >= 20, rows independent.
        generated:  [m, d], finite, m >= 20, rows independent of each other and of the reference.
        confidence: Two-sided, in (0, 1).

    Returns:
        The mean over 10 or more disjoint blocks with Student's t interval; n is m. A block's value is skewed, the more so the heavier the features'
        tails: in simulation with normal features of 8 numbers and more, the interval holds in 92 to 96 %.

    Raises:
        RedactError: too few rows, other shapes, or a number that is not finite.

    Source: Binkowski et al. 2018, "Demystifying MMD GANs", arXiv 1801.01401 (kernel, unbiased estimate); Zaremba, Gretton and Blaschko 2013,
    "B-tests: low variance kernel two-sample tests", arXiv 1307.1954 (mean over blocks).
    """
    x, y = checked_features(reference, generated, least=2 * LEAST_BLOCKS)
    blocks = max(LEAST_BLOCKS, math.ceil(max(len(x), len(y)) / LARGEST_BLOCK))
    if min(len(x), len(y)) < 2 * blocks:
        raise RedactError(
            f"a kernel distance was asked - {len(x):,} and {len(y):,} rows do not share out to {blocks} blocks of two - give sets of similar size"
        )
    values = torch.stack([_unbiased(x[block::blocks], y[block::blocks]) for block in range(blocks)])
    mean = mean_interval(values, confidence)
    return Estimate(mean.value, mean.low, mean.high, len(y), "", confidence)


def checked_features(reference: torch.Tensor, generated: torch.Tensor, *, least: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Both sets in float64 on the CPU.

    Raises:
        RedactError: fewer than `least` rows, other shapes than [n, d] and [m, d], or a number that is not finite.
    """
    shapes = f"{list(reference.shape)} and {list(generated.shape)}"
    if reference.ndim != 2 or generated.ndim != 2 or reference.shape[1] != generated.shape[1] or reference.shape[1] == 0:
        raise RedactError(f"two sets of features were to be compared - they are {shapes} - give [n, d] and [m, d]")
    if min(len(reference), len(generated)) < least:
        raise RedactError(f"two sets of features were to be compared - they are {shapes} - give {least} rows or more of each")
    sides = [side.detach().cpu().double() for side in (reference, generated)]
    if not all(bool(torch.isfinite(side).all()) for side in sides):
        raise RedactError("two sets of features were to be compared - a number is not finite - check the network and the extractor")
    return sides[0], sides[1]


def _kernel(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _unbiased(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Scalar: means over the pairs within each side, no row with itself, less twice the mean over the pairs across."""

    def within(side: torch.Tensor) -> torch.Tensor:
        similar = _kernel(side, side)
        return (similar.sum() - similar.trace()) / (len(side) * (len(side) - 1))

    return within(x) + within(y) - 2 * _kernel(x, y).mean()
