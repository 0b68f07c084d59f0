# SPDX-License-Identifier: Apache-2.0
"""The gradient of a view, added up in whole numbers: torch's own, whatever the order."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import affine_grid, grid_sample

from stylegan_redact.training import resample


def case(shape: tuple[int, int, int, int], seed: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """An image, maps that turn, mirror, shrink and shift it past its edges, and a gradient."""
    generator = torch.Generator().manual_seed(seed)
    img, grad = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    theta = torch.eye(2, 3, dtype=dtype).repeat(shape[0], 1, 1) + 0.4 * torch.randn([shape[0], 2, 3], generator=generator, dtype=dtype)
    return img.requires_grad_(True), theta, grad


@pytest.mark.parametrize("shape", [(3, 3, 8, 8), (2, 1, 5, 9), (1, 4, 16, 2), (2, 2, 1, 1)])
@pytest.mark.parametrize("size", [1.0, 1e-20, 1e12])
def test_it_is_the_gradient_of_grid_sample(shape: tuple[int, int, int, int], size: float) -> None:
    img, theta, grad = case(shape, 0)
    grid = affine_grid(theta, list(shape), align_corners=False)
    (wanted,) = torch.autograd.grad(grid_sample(img, grid, padding_mode="border", align_corners=False), img, grad * size)
    found = resample.added_up(grad * size, grid, img.shape)
    assert found.shape == wanted.shape and float((found - wanted).abs().max()) <= 1e-11 * size * float(grad.abs().max()) * grad[0, 0].numel()
    through = resample._Resampled.apply(img, grid)
    assert torch.equal(through, resample.resample(img, theta)) and torch.equal(torch.autograd.grad(through, img, grad * size)[0], found)


def test_no_order_changes_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The places of the result in another order are the same sums; in floating point they would not be."""
    img, theta, grad = case((2, 3, 16, 16), 1, torch.float32)
    grid = affine_grid(theta * 0.2, [2, 3, 16, 16], align_corners=False)  # Many read the same pixels.
    order = torch.randperm(256, generator=torch.Generator().manual_seed(2))
    turned = grid.flatten(1, 2)[:, order].reshape(grid.shape), grad.flatten(2)[:, :, order].reshape(grad.shape)
    assert torch.equal(resample.added_up(grad, grid, img.shape), resample.added_up(turned[1], turned[0], img.shape))
    sums = [
        torch.autograd.grad(grid_sample(img, at, padding_mode="border", align_corners=False), img, each)[0] for at, each in ((grid, grad), turned)
    ]
    assert not torch.equal(*sums)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_handed_on(value: float) -> None:
    img, theta, grad = case((1, 1, 4, 4), 3)
    grad[0, 0, 1, 1] = value
    found = resample.added_up(grad, affine_grid(theta, [1, 1, 4, 4], align_corners=False), img.shape)
    assert not bool(torch.isfinite(found).any())


def test_no_gradient_is_none() -> None:
    img, theta, grad = case((1, 1, 4, 4), 4)
    assert not bool(resample.added_up(grad * 0, affine_grid(theta, [1, 1, 4, 4], align_corners=False), img.shape).any())
