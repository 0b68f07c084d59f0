# SPDX-License-Identifier: Apache-2.0
"""Codes to draw batches from, so that what is rare is seen often enough to be held."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stylegan_redact.types import LabelledLatents

FEWEST = 5
"""Codes that must show an attribute before they are drawn more often than others."""


@dataclass(frozen=True)
class Pool:
    """Codes to draw from."""

    w: torch.Tensor
    """[n, w_dim]."""
    weights: torch.Tensor | None = None
    """[m], how often each comes, on the CPU; None: alike."""
    of: torch.Tensor | None = None
    """[m] int64, rows of w to draw from: no copy of them is made; None: all."""

    def pick(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """[count] int64: rows of w, with repetitions, on its device."""
        if self.weights is None or count == 0:
            picked = torch.randint(len(self.w) if self.of is None else len(self.of), [count], generator=generator)
        else:
            picked = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        picked = picked.to(self.w.device)
        return picked if self.of is None else self.of[picked]


def rare_weights(latents: LabelledLatents, of: torch.Tensor) -> torch.Tensor | None:
    """How often to draw the codes that `of` [n] bool marks, so that what few images show is seen while it can still be held.

    Half of the draws are uniform. The other half choose one of the attributes that the detector knows and that at least FEWEST codes show, and
    then a code that shows it.
    """
    if latents.logits is None:
        return None
    shows = (latents.logits[of] > 0).double().cpu()  # [m, a]
    counts = shows.sum(dim=0)
    known = counts >= FEWEST
    if not bool(known.any()):
        return None
    return 0.5 / len(shows) + 0.5 * (shows[:, known] / counts[known]).mean(dim=1)
