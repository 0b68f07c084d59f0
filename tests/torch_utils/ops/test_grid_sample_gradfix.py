# SPDX-License-Identifier: Apache-2.0
"""torch_utils.ops.grid_sample_gradfix."""

import pytest
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


@pytest.mark.parametrize("torch_knows_second_derivatives", [None, False])
def test_first_and_second_derivatives(torch_knows_second_derivatives, monkeypatch):
    """As this torch does it, and as a torch without second derivatives is helped."""
    if torch_knows_second_derivatives is not None:
        monkeypatch.setattr(grid_sample_gradfix, "_torch_knows_second_derivatives", lambda: torch_knows_second_derivatives)
    image = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    grid = torch.tensor([[[[-0.61, 0.13], [0.07, -0.47]]]], dtype=torch.float64, requires_grad=True)
    assert gradcheck(grid_sample, [image, grid])
    assert gradgradcheck(grid_sample, [image, grid])


def test_where_torch_has_no_second_derivatives_values_and_slopes_are_still_torchs(monkeypatch):
    image = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    grid = (2.6 * torch.rand(2, 4, 6, 2, dtype=torch.float64) - 1.3).requires_grad_()
    results = []
    for sample in (lambda: grid_sample(image, grid), lambda: grid_sample_gradfix.sample_by_gather(image, grid)):
        monkeypatch.setattr(grid_sample_gradfix, "_torch_knows_second_derivatives", lambda: False)
        results.append([sample(), *torch.autograd.grad(sample().pow(3).sum(), [image, grid])])
    plain = torch.nn.functional.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    expected = [plain, *torch.autograd.grad(plain.pow(3).sum(), [image, grid])]
    for found in results:
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-12)


def test_images_without_gradient_are_sampled_alike(monkeypatch):
    """As an augmentation of real pictures samples them: only one of the two inputs asks for a derivative, or none."""
    monkeypatch.setattr(grid_sample_gradfix, "_torch_knows_second_derivatives", lambda: False)
    image, grid = torch.randn(1, 2, 3, 4), torch.rand(1, 2, 2, 2)
    assert not grid_sample(image, grid).requires_grad
    (slope,) = torch.autograd.grad(grid_sample(image.requires_grad_(), grid).square().sum(), image, create_graph=True)
    (second,) = torch.autograd.grad(slope.square().sum(), image)
    assert torch.isfinite(second).all() and second.abs().sum() > 0


def test_the_switch_that_training_scripts_use():
    assert grid_sample_gradfix.enabled is False
