# SPDX-License-Identifier: Apache-2.0
"""A whole class of a conditional network: the label says it, no classifier is asked and no image drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from stylegan_redact import rows
from stylegan_redact.labels import PREFIX, Labels
from stylegan_redact.network import c_dim_of, sample_w
from stylegan_redact.types import Feature, LabelledLatents, Network, Progress, RedactError


@dataclass(frozen=True)
class WholeClass:
    """The class of index `value`."""

    value: int

    def gather(self, network: Network, seeds: Sequence[int], *, batch: int = 32, progress: Progress | None = None) -> Feature:
        """The label, and latents: the first half of the seeds drawn as the class (score 1), the others as the other classes (score -1).

        Args:
            network:  Conditional, with this class and another one.
            seeds:    NVIDIA's, two or more.
            batch:    Unused: no image is drawn.
            progress: Told (stage, share done, figures).

        Raises:
            RedactError: there is no such class, or no other one, or a single seed.
        """
        c_dim = c_dim_of(network.G_ema)
        if not 0 <= self.value < c_dim or c_dim < 2:
            raise RedactError(f"class {self.value} was to be told from others - the network has {c_dim} classes - take one of two or more")
        if len(seeds) < 2:
            raise RedactError(f"class {self.value} was to be told from others - with {len(seeds)} seeds - label two or more with --num-latents")
        own = Labels(c_dim, (self.value,))
        others = own.others()
        assert others is not None
        middle = len(seeds) // 2
        c = torch.cat([own(seeds[:middle]), others(seeds[middle:])])
        w = sample_w(network.G_ema, seeds, c=c)
        score = torch.ones(len(seeds), device=w.device)
        score[middle:] = -1
        if progress is not None:
            progress("label", 1.0, {})
        latents = LabelledLatents(w, score, rows.numbers(seeds), None, c.to(w.device))
        return Feature(f"{PREFIX}{self.value}", latents, label=self.value)
