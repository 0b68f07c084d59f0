# SPDX-License-Identifier: Apache-2.0
"""Draw and look: how many random z it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from stylegan_redact.attacks._curve import Curve, budgets_up_to
from stylegan_redact.attacks._scene import Scene, Victim
from stylegan_redact.plugins import option
from stylegan_redact.types import Progress, RedactError


@dataclass(frozen=True)
class RandomSearch:
    """Sampling z until an image shows the feature."""

    draws: int = option(100, "images that one search may draw", low=1, high=100000)
    searches: int = option(40, "searches, each with z of its own", low=1, high=100000)

    def attack(self, victim: Victim, scene: Scene, seed: int, progress: Progress | None = None) -> Curve:
        """Success by images drawn. The z are those of fresh seeds: `seed` is not used."""
        if self.draws * self.searches > len(scene.fresh):
            asked = f"{self.searches} random searches of {self.draws} images each were asked"
            raise RedactError(f"{asked} - {len(scene.fresh):,} fresh seeds are there - ask for fewer draws or searches")
        hits = torch.full([self.searches], math.inf)
        for search in range(self.searches):
            shown = scene.seen_rate(victim.G, scene.fresh[search * self.draws : (search + 1) * self.draws])
            if bool(shown.any()):
                hits[search] = float(shown.int().argmax()) + 1
            if progress is not None:
                progress(f"attack {victim.name}", (search + 1) / self.searches, {})
        return Curve.of_first_hits(hits, budgets_up_to(self.draws), "images drawn")
