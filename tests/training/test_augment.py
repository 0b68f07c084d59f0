# SPDX-License-Identifier: Apache-2.0
"""Random views: what they do to left and right."""

from __future__ import annotations

import torch

from stylegan_redact.training.augment import random_view


def leaning(mirror: bool) -> torch.Tensor:
    """[64] bool: of pictures that are bright on the left, whose view is so too."""
    img = torch.full([64, 3, 16, 16], -1.0)
    img[..., :8] = 1.0
    seen = random_view(img, torch.Generator().manual_seed(0), mirror=mirror)
    return seen[..., :8].mean(dim=[1, 2, 3]) > seen[..., 8:].mean(dim=[1, 2, 3])


def test_left_stays_left_unless_views_are_mirrored() -> None:
    assert bool(leaning(False).all())
    assert 16 < int(leaning(True).sum()) < 48
