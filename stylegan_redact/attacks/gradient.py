# SPDX-License-Identifier: Apache-2.0
"""Gradient ascent on the attacker's logit, from images without the feature, within the shell that holds 99 % of the prior."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import softplus

from stylegan_redact.attacks._curve import Curve, budgets_up_to
from stylegan_redact.attacks._scene import Scene, Victim
from stylegan_redact.attacks._space import PRIOR_SEEDS, SPACES, Space
from stylegan_redact.network import sample_w
from stylegan_redact.plugins import option
from stylegan_redact.types import Progress
from stylegan_redact.wspace.prior import prior_of


@dataclass(frozen=True)
class Gradient:
    """White-box search of a latent whose image shows the feature."""

    space: str = option("w_plus", "where to search", choices=SPACES)
    steps: int = option(20, "gradient steps", low=1, high=10000)
    step_size: float = option(0.1, "Adam's, in standard deviations of the prior", low=0.0, high=10.0)
    penalty: float = option(
        0.01, "weight of the mean square of a row's coordinates, summed over rows and layers: stay near the prior", low=0.0, high=100.0
    )

    def attack(self, victim: Victim, scene: Scene, seed: int, progress: Progress | None = None) -> Curve:
        """Success by gradient steps. Nothing is random: `seed` is not used."""
        G = victim.frozen()
        prior_seeds = scene.fresh[:PRIOR_SEEDS]
        prior = prior_of(sample_w(G, prior_seeds, c=scene.labels_of(prior_seeds)))
        hits = []
        for begin in range(0, len(scene.starts), scene.batch):
            some = scene.starts[begin : begin + scene.batch]
            hits.append(self._search(Space(self.space, G, prior, some, scene.labels_of(some)), scene))
            if progress is not None:
                progress(f"attack {victim.name}", (begin + len(some)) / len(scene.starts), {})
        return Curve.of_first_hits(torch.cat(hits), budgets_up_to(self.steps), "gradient steps")

    def _search(self, space: Space, scene: Scene) -> torch.Tensor:
        """[n]: steps until the witnesses saw the feature, inf for never."""
        parts = [start.clone().requires_grad_(True) for start in space.start]
        optimizer = torch.optim.Adam(parts, lr=self.step_size)
        hit = torch.full([len(parts[0])], math.inf)
        for step in range(self.steps + 1):
            img = space.draw(parts)
            hit = torch.where(scene.seen(img) & hit.isinf(), torch.tensor(float(step)), hit)
            if step == self.steps or not bool(hit.isinf().any()):
                break
            loss = softplus(-scene.wish(img)).sum() + self.penalty * torch.stack([u.square().mean(dim=-1).sum() for u in parts]).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            space.draw_back(parts)
        return hit
