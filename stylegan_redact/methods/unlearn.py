# SPDX-License-Identifier: Apache-2.0
"""Feature unlearning by self-distillation: the synthesis network learns to draw the moved latent's image where the feature shows.

Implements the objective of Moon, Cho & Kim 2024, "Feature Unlearning for Pre-trained GANs and VAEs", arXiv 2303.05699v4: L1 + MS-SSIM towards
the image of the moved latent past the threshold, L1 reconstruction elsewhere. Settings are ours, the paper's are not known to us. Traps
avoided: the step is in units of the unit-length normal, not of the unnormalised difference vector (which overshoots); the threshold is a
quantile of the latents without the feature, not the mean of all projections (which declares half of all latents to show it). `moon` is the
objective with both of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from stylegan_redact.losses.unlearn import UnlearnLoss
from stylegan_redact.network import broadcast_w, with_pose_of
from stylegan_redact.plugins import option
from stylegan_redact.training.distill import distilled
from stylegan_redact.training.schedule import Schedule, steps_of
from stylegan_redact.types import Feature, Network, Progress, RedactError
from stylegan_redact.wspace.geometry import gate_for


@dataclass(frozen=True)
class Unlearn:
    """Moon et al.'s objective on the synthesis network, with the hinge of W as its target."""

    quantile: float = option(0.5, "where the target lies: this share of the latents without the feature lies below", low=0.0, high=1.0)
    strength: float = option(2.0, "alpha: weight of the removal against the reconstruction", low=0.0, high=1000.0)
    kimg: float = option(8.0, "thousands of images to train on", low=0.0, high=10000.0)
    batch: int = option(32, "images of a step", low=1, high=4096)
    lr: float = option(0.001, "Adam's step, falling to zero", low=0.0, high=1.0)
    batch_gpu: int | None = option(None, "images at a time, to save memory; None: the whole batch", low=1, high=4096)

    needs: ClassVar[tuple[str, ...]] = ("latents", "subspace")
    several: ClassVar[bool] = True
    watched: ClassVar[bool] = True
    passes: ClassVar[Mapping[str, float]] = {"draw": 4, "compare": 3}

    def redact(self, network: Network, feature: Feature, keep: tuple[str, ...], seed: int, progress: Progress | None = None) -> Network:
        """A network whose synthesis draws, for a w past the target, what it drew at the target. G's synthesis becomes G_ema's."""
        hinge = gate_for(feature, keep, self.quantile, "unlearn")
        assert feature.latents is not None
        w = feature.latents.w
        past = hinge.moves(w)
        if not bool(past.any()) or bool(past.all()):
            raise RedactError(f"quantile={self.quantile} was asked - it moves {int(past.sum())} of {len(w)} latents - choose one in between")

        held = w[:0] if feature.bystanders is None else feature.bystanders.w

        def pairs(n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
            num_held = (n - n // 2) // 2 if len(held) else 0
            counts = (n // 2, n - n // 2 - num_held)  # half of them past the target
            parts = zip((w[past], w[~past]), counts, strict=True)
            fed = torch.cat([part[torch.randint(len(part), [count], generator=generator).to(w.device)] for part, count in parts])
            aim = hinge(fed)
            if num_held:
                others = held[torch.randint(len(held), [num_held], generator=generator).to(w.device)]
                fed, aim = torch.cat([fed, others]), torch.cat([aim, others])
            ws, aim = (broadcast_w(network.G_ema, w) for w in (fed, aim))
            return ws, with_pose_of(network.G_ema, ws, aim)

        schedule = Schedule(steps_of(self.kimg, self.batch), self.batch, self.lr, seed, self.batch_gpu)
        return distilled(network, pairs, UnlearnLoss(self.strength), schedule, progress)
