# SPDX-License-Identifier: Apache-2.0
"""Latents with a feature, another one and a correlated attribute planted in them, for the tests of geometry."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stylegan_redact.types import Feature, LabelledLatents, Subspace
from stylegan_redact.wspace.subspace import find_subspace

DIMENSIONS = 12
NAMES = ("bald", "beard", "hat")
"""Attributes by column; each reads w along a direction of its own, and coordinates of w are correlated."""


def latents(n: int = 4000, seed: int = 0) -> torch.Tensor:
    """[n, DIMENSIONS] float64, correlated, with a mean."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(DIMENSIONS, DIMENSIONS, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    return torch.randn(n, DIMENSIONS, generator=generator, dtype=torch.float64) @ root.T / DIMENSIONS**0.5 + 0.5


def logits(w: torch.Tensor) -> torch.Tensor:
    """[n, 3]: about 16 % of latents show each attribute; beard and bald share much of their directions."""
    rows = torch.randn(len(NAMES), DIMENSIONS, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    rows[0] = 0.5 * rows[0] + 0.5 * rows[1]
    known = latents(seed=1) @ rows.T
    return (w @ rows.T - known.mean(dim=0) - known.std(dim=0)) / known.std(dim=0)


class Knows:
    """A detector by name only."""

    differentiable = False
    attributes = NAMES

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        raise AssertionError("no image was to be looked at")


DETECTOR = Knows()


def feature(name: str, w: torch.Tensor, subspace: Subspace | None = None) -> Feature:
    """As a source gathers it."""
    said = logits(w)
    labelled = LabelledLatents(w, said[:, NAMES.index(name)], None, said)
    return Feature(name, labelled, subspace or find_subspace(labelled), DETECTOR)


def features(names: Sequence[str], w: torch.Tensor) -> list[Feature]:
    """Of the same latents."""
    return [feature(name, w) for name in names]
