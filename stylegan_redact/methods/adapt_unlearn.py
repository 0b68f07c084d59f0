# SPDX-License-Identifier: Apache-2.0
"""Adapt, then unlearn: trained on without the feature, and repelled from the weights that a network adapted to it has.

Implements the objective of Tiwary, Guha, Panda & Prathosh 2023, "Adapt then Unlearn: Exploring Parameter Space Semantics for Unlearning in Generative
Adversarial Networks", arXiv 2309.14054, with one adapted network instead of several (losses/repulsion.py). Settings and units are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from stylegan_redact.losses.redaction import RedactionLoss
from stylegan_redact.losses.repulsion import KINDS, repulsion
from stylegan_redact.methods._adversarial import OnCleanPictures, copied, real_stream, shown_stream
from stylegan_redact.plugins import option
from stylegan_redact.training.adaptation import adapted_weights
from stylegan_redact.training.adversarial import Streams, trained_parameters
from stylegan_redact.training.schedule import Schedule
from stylegan_redact.types import Feature, Network, Progress


@dataclass(frozen=True)
class AdaptUnlearn(OnCleanPictures):
    """Tiwary et al.'s two stages."""

    kimg: float = option(2.5, "thousands of images of the second stage", low=0.0, high=100000.0)
    adapt_kimg: float = option(1.5, "thousands of images to adapt to the feature on", low=0.0, high=100000.0)
    ewc: float = option(10.0, "weight of elastic weight consolidation in the adaptation", low=0.0, high=1e9)
    repulsion: str = option("EL2", "from the adapted weights, d away: exp(-gamma d), gamma / d or -gamma d", choices=KINDS)
    gamma: float = option(1.0, "of the repulsion; d is 1 at the original weights", low=0.0, high=1000.0)
    strength: float = option(1.0, "weight of the repulsion", low=0.0, high=1e6)

    passes: ClassVar[Mapping[str, float]] = OnCleanPictures.passes

    def redact(self, network: Network, feature: Feature, keep: tuple[str, ...], seed: int, progress: Progress | None = None) -> Network:
        """A network trained on without the feature, away from one that has it. G_ema is a short average of G."""
        after = copied(network, feature, "adapt_unlearn")
        assert feature.latents is not None
        first = Schedule(max(round(self.adapt_kimg * 1000 / self.batch), 1), self.batch, self.lr, seed, self.batch_gpu)
        adapted = adapted_weights(network, shown_stream(network, feature), feature.latents.c, self.ewc, self.rules(), first, progress)
        weights = trained_parameters(after.G)
        original = [each.detach().clone() for each in weights]

        def penalty() -> torch.Tensor:
            return self.strength * repulsion(self.repulsion, weights, adapted, original, gamma=self.gamma)

        streams = Streams(real_stream(network, feature, self.data), penalty=penalty if self.strength > 0 else None)
        return self.tuned(network, after, streams, RedactionLoss(), seed, progress)
