# SPDX-License-Identifier: Apache-2.0
"""The baseline of data deletion: fine-tuned adversarially, for as long as the others, on pictures without the feature, and told nothing else.

What "train on without the data" does. Kong & Chaudhuri 2022 (arXiv 2206.14389) compare redaction with deletion; at the optimum both end at the same
generator, so that what redaction adds is speed.
"""

from __future__ import annotations

from dataclasses import dataclass

from stylegan_redact.losses.redaction import RedactionLoss
from stylegan_redact.methods._adversarial import OnCleanPictures, copied, real_stream
from stylegan_redact.training.adversarial import Streams
from stylegan_redact.types import Feature, Network, Progress


@dataclass(frozen=True)
class CleanFinetune(OnCleanPictures):
    """Fine-tuning on clean pictures alone: a baseline."""

    def redact(self, network: Network, feature: Feature, keep: tuple[str, ...], seed: int, progress: Progress | None = None) -> Network:
        """A network that was trained on without the feature. G_ema is a short average of G."""
        after = copied(network, feature, "clean_finetune")
        return self.tuned(network, after, Streams(real_stream(network, feature, self.data)), RedactionLoss(), seed, progress)
