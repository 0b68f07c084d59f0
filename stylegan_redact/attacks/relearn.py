# SPDX-License-Identifier: Apache-2.0
"""Few-shot relearning: how many steps of fine-tuning on a few examples until the feature is back.

The worst case: the attacker has pictures that the original drew, with the latents that it drew them from, and may change every weight of the
synthesis network. No redaction can forbid that; the curve says what it costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stylegan_redact.attacks._curve import Curve, budgets_up_to, percent
from stylegan_redact.attacks._finetune import towards_pictures
from stylegan_redact.attacks._scene import Scene, Victim
from stylegan_redact.network import broadcast_w, generate, sample_w
from stylegan_redact.plugins import option
from stylegan_redact.types import Progress, RedactError


@dataclass(frozen=True)
class Relearn:
    """Fine-tuning on `examples` pictures with the feature."""

    examples: int = option(10, "pictures with the feature", low=1, high=100000)
    steps: int = option(50, "steps of fine-tuning", low=1, high=100000)
    lr: float = option(0.002, "Adam's step", low=0.0, high=1.0)
    batch: int = option(16, "pictures of a step", low=1, high=4096)
    images: int = option(500, "seeds to measure the rate on", low=10, high=1000000)

    def attack(self, victim: Victim, scene: Scene, seed: int, progress: Progress | None = None) -> Curve:
        """The rate of the feature by steps of fine-tuning; step 0 is the network as it is."""
        seeds = self._examples(scene)
        w = sample_w(scene.original.G_ema, seeds, c=scene.labels_of(seeds))
        img = torch.cat(list(generate(scene.original.G_ema, w, batch=scene.batch)))
        measured = scene.fresh[-self.images :]
        points = {0: percent(scene.seen_rate(victim.G, measured))}
        generator = torch.Generator().manual_seed(seed)
        students = towards_pictures(victim.G, broadcast_w(victim.G, w), img, lr=self.lr, batch=self.batch, generator=generator)
        for step, student in zip(range(1, self.steps + 1), students, strict=False):
            if step in budgets_up_to(self.steps):
                points[step] = percent(scene.seen_rate(student, measured))
            if progress is not None:
                progress(f"attack {victim.name}", step / self.steps, {})
        return Curve("steps of fine-tuning", f"images that show it, after {self.examples} examples", points)

    def _examples(self, scene: Scene) -> list[int]:
        found: list[int] = []
        pool = scene.fresh[: -self.images]
        for start in range(0, len(pool), scene.batch):
            some = pool[start : start + scene.batch]
            shown = scene.seen_rate(scene.original.G_ema, some)
            found += [each for each, shows in zip(some, shown.tolist(), strict=True) if shows]
            if len(found) >= self.examples:
                return found[: self.examples]
        raise RedactError(
            f"{self.examples} pictures with {scene.feature} were to be learned from - the original has {len(found)} among {len(pool)} - ask for fewer"
        )
