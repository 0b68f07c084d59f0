# SPDX-License-Identifier: Apache-2.0
"""Which pixels of a change are wanted: those that the logit answers to, and no others."""

from __future__ import annotations

import pytest
import torch

from stylegan_redact.training.locate import smeared, wanted

SIDE = 32
PATCH = (slice(8, 14), slice(8, 14))


def brightness(img: torch.Tensor) -> torch.Tensor:
    """A logit that looks at a patch and nowhere else."""
    return img[:, :, PATCH[0], PATCH[1]].sum([1, 2, 3])


def pair(darker: float) -> tuple[torch.Tensor, torch.Tensor]:
    """A bright image, and one that differs from it everywhere."""
    before = torch.full([2, 3, SIDE, SIDE], 0.5)
    return before, before - darker


def test_where_the_logit_looks_the_change_is_wanted_and_far_away_it_is_not() -> None:
    before, after = pair(0.3)
    mask = wanted(brightness, before, after)
    assert mask.shape == (2, 1, SIDE, SIDE) and mask.min() == 0 and mask.max() == 1
    assert (mask[:, :, PATCH[0], PATCH[1]] == 1).all()
    assert (mask[:, :, 20:, :] == 0).all() and (mask[:, :, :, 20:] == 0).all()


def test_each_image_has_its_own_mask() -> None:
    before, after = pair(0.3)
    after[1, :, 8:11, :] = before[1, :, 8:11, :]  # Nothing changed in the upper half of the patch.
    mask = wanted(brightness, before, after)
    assert mask[1, 0, :, 10].sum() < mask[0, 0, :, 10].sum() and (mask[0] == wanted(brightness, before[:1], after[:1])[0]).all()


def test_a_change_that_raises_the_logit_or_none_leaves_everything_open() -> None:
    for darker in (-0.3, 0.0):
        assert (wanted(brightness, *pair(darker)) == 1).all()


def test_a_slope_that_vanishes_at_one_end_is_found_between_the_ends() -> None:
    before, after = pair(1.0)
    assert (wanted(lambda img: torch.relu(brightness(img)), before, after)[:, :, PATCH[0], PATCH[1]] == 1).all()
    assert torch.autograd.functional.jacobian(lambda img: torch.relu(brightness(img)), after).abs().max() == 0  # a gradient there would say nothing


def test_no_gradient_leaks_and_none_is_needed() -> None:
    before, after = pair(0.3)
    with torch.no_grad():
        mask = wanted(brightness, before, after.requires_grad_(True))
    assert not mask.requires_grad and after.grad is None


@pytest.mark.parametrize("radius", [1, 3, 40])
def test_smearing_is_a_mean_over_a_square_whatever_its_size(radius: int) -> None:
    x = torch.rand(2, 1, 11, 14, generator=torch.Generator().manual_seed(0))
    found = smeared(smeared(x, radius, 2), radius, 3)
    for row, column in (0, 0), (5, 7), (10, 2):
        square = x[..., max(row - radius, 0) : row + radius + 1, max(column - radius, 0) : column + radius + 1]
        assert torch.allclose(found[..., row, column], square.mean(dim=[2, 3]))
    assert found.dtype == x.dtype
