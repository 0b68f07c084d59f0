# SPDX-License-Identifier: Apache-2.0
"""The cross-entropy method in z: a black-box search that asks the attacker's classifier for scores only.

Source: Rubinstein 1999, "The cross-entropy method for combinatorial and continuous optimization".
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from stylegan_redact.attacks._curve import Curve, budgets_up_to
from stylegan_redact.attacks._scene import Scene, Victim
from stylegan_redact.network import sample_z
from stylegan_redact.plugins import option
from stylegan_redact.types import Progress


@dataclass(frozen=True)
class CEM:
    """A Gaussian in z that moves to where the attacker's logit is high; drawn back to the shell of the prior."""

    population: int = option(32, "images of a generation", low=4, high=4096)
    elite: int = option(8, "of them, those that the next generation is like", low=2, high=4096)
    generations: int = option(10, "generations", low=1, high=10000)
    searches: int = option(24, "searches, each from a starting seed", low=1, high=100000)
    smallest: float = option(0.2, "standard deviation that is kept up", low=0.0, high=1.0)

    def attack(self, victim: Victim, scene: Scene, seed: int, progress: Progress | None = None) -> Curve:
        """Success by images drawn."""
        generator = torch.Generator().manual_seed(seed)
        starts = scene.starts[: self.searches]
        hits = torch.full([len(starts)], math.inf)
        for index, start in enumerate(starts):
            hits[index] = self._search(victim, scene, start, generator)
            if progress is not None:
                progress(f"attack {victim.name}", (index + 1) / len(starts), {})
        return Curve.of_first_hits(hits, budgets_up_to(self.population * self.generations), "images drawn")

    @torch.no_grad()
    def _search(self, victim: Victim, scene: Scene, start: int, generator: torch.Generator) -> float:
        G = victim.G
        mean, deviation = sample_z([start], G.z_dim)[0], torch.ones([G.z_dim])
        radius = math.sqrt(G.z_dim)
        device = next(G.parameters()).device
        c = scene.labels_of([start] * self.population)
        for generation in range(self.generations):
            z = mean + deviation * torch.randn([self.population, G.z_dim], generator=generator)
            z = z * (radius / z.norm(dim=1, keepdim=True))
            ws = G.mapping(z.to(device), None if c is None else c.to(device))
            img = G.synthesis(ws, noise_mode="const", force_fp32=True)
            shown = scene.seen(img)
            if bool(shown.any()):
                return float(generation * self.population + int(shown.int().argmax()) + 1)
            best = z[scene.wish(img).cpu().topk(min(self.elite, self.population)).indices]
            mean, deviation = best.mean(dim=0), best.std(dim=0).clamp(min=self.smallest)
        return math.inf
