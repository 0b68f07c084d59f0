# SPDX-License-Identifier: Apache-2.0
"""torch_utils.ops.grid_sample_gradfix."""

import torch
from torch.autograd import gradcheck, gradgradcheck

from torch_utils.ops import grid_sample_gradfix
from torch_utils.ops.grid_sample_gradfix import grid_sample

EXACT = 1e-6  # a handful of single-precision operations on numbers of order 10


def test_pixel_edges_lie_at_plus_and_minus_one():
    """Four pixels along x: centres at -3/4, -1/4, 1/4, 3/4; half-way between two is their mean; one pixel outside is zero."""
    image = torch.tensor([1.0, 2, 4, 8])[None, None, None]  # [1, 1, 1, 4]
    x = torch.tensor([-0.75, -0.5, 0.25, 0.75, 1.0, 1.25])
    grid = torch.stack([x, torch.zeros_like(x)], dim=-1)[None, None]  # [1, 1, 6, 2]
    torch.testing.assert_close(grid_sample(image, grid).flatten(), torch.tensor([1.0, 1.5, 4, 8, 4, 0]), atol=EXACT, rtol=0)


def test_first_and_second_derivatives():
    image = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    grid = torch.tensor([[[[-0.61, 0.13], [0.07, -0.47]]]], dtype=torch.float64, requires_grad=True)
    assert gradcheck(grid_sample, [image, grid])
    assert gradgradcheck(grid_sample, [image, grid])


def test_the_switch_that_training_scripts_use():
    assert grid_sample_gradfix.enabled is False
