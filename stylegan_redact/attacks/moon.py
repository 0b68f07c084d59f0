# SPDX-License-Identifier: Apache-2.0
"""The latent search of Moon, Cho & Kim's attack experiment: a small change of z for which the unlearned network shows the feature again.

Source: "Feature Unlearning for Pre-trained GANs and VAEs", AAAI 2024, arXiv 2303.05699, who report such an attack; space, norm, radius and number of
steps are not known to us. This implements projected gradient ascent (Madry et al. 2018, arXiv 1706.06083) on the attacker's logit; settings are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import softplus

from stylegan_redact.attacks._curve import Curve, budgets_up_to
from stylegan_redact.attacks._scene import Scene, Victim
from stylegan_redact.network import sample_z
from stylegan_redact.plugins import option
from stylegan_redact.types import Progress
from stylegan_redact.wspace.prior import within


@dataclass(frozen=True)
class Moon:
    """Projected gradient ascent in a ball around z."""

    radius: float = option(0.5, "of the ball, as a share of the length of a typical z", low=0.0, high=10.0)
    steps: int = option(20, "gradient steps", low=1, high=10000)

    def attack(self, victim: Victim, scene: Scene, seed: int, progress: Progress | None = None) -> Curve:
        """Success by gradient steps. Nothing is random: `seed` is not used."""
        G = victim.G.requires_grad_(False)
        hits = []
        for begin in range(0, len(scene.starts), scene.batch):
            some = scene.starts[begin : begin + scene.batch]
            hits.append(self._search(G, scene, some))
            if progress is not None:
                progress(f"attack {victim.name}", (begin + len(some)) / len(scene.starts), {})
        return Curve.of_first_hits(torch.cat(hits), budgets_up_to(self.steps), "gradient steps")

    def _search(self, G: Any, scene: Scene, seeds: tuple[int, ...]) -> torch.Tensor:
        device = next(G.parameters()).device
        z = sample_z(seeds, G.z_dim).to(device)
        c = scene.labels_of(seeds)
        largest = self.radius * math.sqrt(z.shape[1])
        step_size = 2.5 * largest / self.steps
        shift = torch.zeros_like(z)
        hit = torch.full([len(z)], math.inf)
        for step in range(self.steps + 1):
            shift.requires_grad_(True)
            ws = G.mapping(z + shift, c if c is None else c.to(device))
            img = G.synthesis(ws, noise_mode="const", force_fp32=True)
            hit = torch.where(scene.seen(img) & hit.isinf(), torch.tensor(float(step)), hit)
            if step == self.steps:
                break
            slope = torch.autograd.grad(softplus(-scene.wish(img)).sum(), shift)[0]
            with torch.no_grad():
                shift = shift - step_size * slope / slope.norm(dim=1, keepdim=True).clamp(min=1e-30)
                shift = within(shift, shift.new_tensor(largest))
        return hit
