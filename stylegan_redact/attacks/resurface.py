# SPDX-License-Identifier: Apache-2.0
"""Benign fine-tuning: does the feature come back when the network is trained on, on images that do not show it?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from stylegan_redact.attacks._curve import Curve, budgets_up_to, percent
from stylegan_redact.attacks._finetune import adversarially
from stylegan_redact.attacks._scene import Scene, Victim
from stylegan_redact.network import generate, sample_w
from stylegan_redact.plugins import option
from stylegan_redact.training.streams import generated
from stylegan_redact.types import Network, Progress, RedactError

LEARNED_FROM = 1_000
"""Images without the feature."""


@dataclass(frozen=True)
class Resurface:
    """Adversarial training on images of the original without the feature, by somebody who wants nothing bad."""

    steps: int = option(50, "steps of training", low=1, high=1000000)
    lr: float = option(0.001, "Adam's step", low=0.0, high=1.0)
    batch: int = option(16, "images of a step", low=4, high=4096)
    images: int = option(500, "seeds to measure the rate on", low=10, high=1000000)

    def attack(self, victim: Victim, scene: Scene, seed: int, progress: Progress | None = None) -> Curve:
        """The rate of the feature by steps of training; step 0 is the network as it is."""
        if 2 * LEARNED_FROM + self.images > len(scene.fresh):
            told = f"{len(scene.fresh):,} fresh seeds are there, and {2 * LEARNED_FROM:,} are looked at for images without {scene.feature}"
            raise RedactError(f"images={self.images} was asked of resurface - {told} - ask for fewer")
        measured = scene.fresh[-self.images :]
        points = {0: percent(scene.seen_rate(victim.G, measured))}
        for step, student in self.trained(victim.network, scene, seed):
            if step in budgets_up_to(self.steps):
                points[step] = percent(scene.seen_rate(student, measured))
            if progress is not None:
                progress(f"attack {victim.name}", step / self.steps, {})
        return Curve("steps of training", "images that show it", points)

    def trained(self, network: Network, scene: Scene, seed: int) -> Iterator[tuple[int, Any]]:
        """(step, generator after it), of all steps."""
        G, pool = scene.original.G_ema, scene.fresh[: 2 * LEARNED_FROM]
        c = scene.labels_of(pool)
        w = sample_w(G, pool, c=c)
        with torch.no_grad():
            free = torch.cat([scene.wish(img) < 0 for img in generate(G, w, batch=scene.batch)])
        rows = free.nonzero().flatten()[:LEARNED_FROM]
        if not len(rows):
            raise RedactError(
                f"images without {scene.feature} were to be trained on - none of {len(pool)} of the original is - leave out this attack"
            )
        real = generated(G, w[rows], None if c is None else c.to(w.device)[rows])
        generator = torch.Generator().manual_seed(seed)
        students = adversarially(network.G_ema, network.D, real, lr=self.lr, batch=self.batch, generator=generator)
        yield from zip(range(1, self.steps + 1), students, strict=False)
