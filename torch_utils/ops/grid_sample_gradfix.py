# SPDX-License-Identifier: Apache-2.0
"""Bilinear sampling of an image at given positions, differentiable to any order by torch itself.

The name is NVIDIA's: it once worked around a missing second derivative in torch. `enabled` is kept because training scripts assign it.
"""

from __future__ import annotations

import torch

enabled = False


def grid_sample(input: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """The image read at the grid positions: bilinear, zero outside, pixel edges (not centres) at -1 and 1.

    Args:
        input: Images [n, C, H, W].
        grid:  Positions [n, h, w, 2] as (x, y); the image spans [-1, 1].

    Returns:
        Samples [n, C, h, w].
    """
    return torch.nn.functional.grid_sample(input, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
