# SPDX-License-Identifier: Apache-2.0
"""What attacks share: the networks attacked, who leads an attack, who says that it succeeded, and where it starts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stylegan_redact.labels import Labels
from stylegan_redact.network import generate, sample_w
from stylegan_redact.types import Detector, Network, RedactError


@dataclass(frozen=True)
class Victim:
    """A network that is attacked, or a control."""

    name: str
    """after: the redacted one. before, clean (before, fine-tuned on images without the feature): the controls."""
    network: Network

    @property
    def G(self) -> Any:
        """The generator that tools sample from."""
        return self.network.G_ema

    def frozen(self) -> Any:
        """A copy of G whose parameters take no gradients; the victim's own stays as it was."""
        return copy.deepcopy(self.G).requires_grad_(False)


@dataclass(frozen=True)
class Scene:
    """One feature, and all that attacks on different victims have in common, so that they can be compared."""

    feature: str
    attacker: Detector
    """Whose logit leads: the attacker's own."""
    witnesses: tuple[Detector, ...]
    """All of them have to see the feature: an image that fools one classifier does not show it."""
    original: Network
    """What attackers may know of from before: its latents, its images."""
    labels: Labels | None
    """Which c goes with which seed, of a conditional network."""
    starts: tuple[int, ...]
    """Seeds whose image shows the feature in no victim."""
    fresh: range
    """Seeds that nothing else looks at, for rates."""
    batch: int
    pictures: torch.Tensor | None = None
    """[n, C, H, W] that show the feature, which no network here was trained on or drew; None: there are none."""

    def wish(self, img: torch.Tensor) -> torch.Tensor:
        """The attacker's logit [n] of the feature, differentiable."""
        return self.attacker.logits(img)[:, self.attacker.attributes.index(self.feature)]

    @torch.no_grad()
    def seen(self, img: torch.Tensor) -> torch.Tensor:
        """[n] bool on the CPU: do all witnesses see the feature in what a viewer would see?"""
        shown = [each.logits(img.clamp(-1, 1))[:, each.attributes.index(self.feature)] > 0 for each in self.witnesses]
        return torch.stack(shown).all(dim=0).cpu()

    def seen_rate(self, G: Any, seeds: Sequence[int]) -> torch.Tensor:
        """[n] bool: which of the seeds' images show it."""
        w = sample_w(G, seeds, c=self.labels_of(seeds))
        return torch.cat([self.seen(img) for img in generate(G, w, batch=self.batch)])

    def labels_of(self, seeds: Sequence[int]) -> torch.Tensor | None:
        """c [n, c_dim] of the seeds; None for an unconditional network."""
        return None if self.labels is None else self.labels(seeds)


@torch.no_grad()
def feature_free_in_all(scene: Scene, victims: Sequence[Victim], seeds: range, wanted: int) -> tuple[int, ...]:
    """The first `wanted` of the seeds whose image shows the feature to no witness in no victim.

    Raises:
        RedactError: there are too few.
    """
    found: list[int] = []
    for start in range(0, len(seeds), scene.batch):
        some = seeds[start : start + scene.batch]
        c = scene.labels_of(some)
        shown = torch.zeros([len(some)], dtype=torch.bool)
        for victim in victims:
            for img in generate(victim.G, sample_w(victim.G, some, c=c), batch=scene.batch):
                for witness in scene.witnesses:
                    shown |= (witness.logits(img.clamp(-1, 1))[:, witness.attributes.index(scene.feature)] > 0).cpu()
        found += [seed for seed, shows in zip(some, shown.tolist(), strict=True) if not shows]
        if len(found) >= wanted:
            return tuple(found[:wanted])
    raise RedactError(f"{wanted} images without {scene.feature} were to be attacked - {len(found)} of {len(seeds)} are - ask for fewer")
