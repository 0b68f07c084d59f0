# SPDX-License-Identifier: Apache-2.0
"""The objective of a network that draws other pictures at some codes: a value worked by hand, its limits, its gradient."""

import pytest
import torch

from stylegan_redact.losses.likeness import LikenessLoss, difference
from stylegan_redact.losses.ms_ssim import ms_ssim
from stylegan_redact.types import RedactError

SIZE = 12


def flat(*levels: float) -> torch.Tensor:
    """[n, 1, 12, 12], each image of one level."""
    return torch.tensor(levels, dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 1, SIZE, SIZE).clone()


def test_values_by_hand() -> None:
    """After 1 and 0.2, target 0.5 and 9, before 9 and 0.5; the first is to move; structure 2, strength 3.

    First: |1 - 0.5| = 0.5, flat 1 against flat 0.5 has MS-SSIM (6.0004 / 6.2504)^1.0001 = 0.959998: 0.5 + 2 * 0.040002 = 0.580004.
    Second: |0.2 - 0.5| = 0.3, flat 0.2 against 0.5, in [0, 2]: 1.2 and 1.5, (3.6004 / 3.6904)^1.0001 = 0.975610: 0.3 + 2 * 0.024390 = 0.348780.
    moved 0.580004 / 2 = 0.290002, held 0.348780 / 2 = 0.174390, total 3 * 0.290002 + 0.174390 = 1.044396.
    """
    terms = LikenessLoss(3.0, 2.0)(flat(1, 0.2), flat(0.5, 9), flat(9, 0.5), torch.tensor([True, False]))
    assert [float(term) for term in terms] == pytest.approx([0.290002, 0.174390, 1.044396], abs=2e-6)


def test_limits() -> None:
    generator = torch.Generator().manual_seed(0)
    img, target, before = (torch.rand(4, 3, 16, 16, generator=generator) * 2 - 1 for _ in range(3))
    moves = torch.tensor([True, False, True, False])
    assert torch.equal(difference(img, target, 0.0), (img - target).abs().mean((1, 2, 3)))
    assert torch.allclose(difference(img, target, 0.5), (img - target).abs().mean((1, 2, 3)) + 0.5 * (1 - ms_ssim(img, target)))
    assert bool((difference(img, img, 1.0).abs() < 1e-6).all())
    plain = LikenessLoss(0.0)(img, target, before, moves)
    assert float(plain.total) == float(plain.held)  # strength 0: reconstruction alone
    assert float(LikenessLoss()(before, target, before, ~moves & moves).total) == pytest.approx(0, abs=1e-6)
    with pytest.raises(RedactError, match="weights"):
        LikenessLoss(-1.0)


def test_gradient() -> None:
    generator = torch.Generator().manual_seed(1)
    img, target, before = (torch.rand(2, 1, SIZE, SIZE, generator=generator, dtype=torch.float64) for _ in range(3))
    moves, loss = torch.tensor([True, False]), LikenessLoss(2.0, 0.7)
    assert torch.autograd.gradcheck(lambda x: loss(x, target, before, moves).total, img.requires_grad_(True), eps=1e-6, atol=1e-6)
