# SPDX-License-Identifier: Apache-2.0
"""Classifier-based redaction: the discriminator's verdict on what is drawn falls with a classifier's, whose slope reaches the generator.

After Kong & Chaudhuri 2022, "Data Redaction from Pre-trained GANs", arXiv 2206.14389. The exact form of their guided discriminator was not
known to us; ours is D_f = a- + (1 - a-) f D where f < tau (losses/redaction.py). f is the probability of being *allowed*: of the detector's logit l
it is sigmoid(-l / softness). Ours, too: f looks through random views, since what one bare classifier leads a generator to is a picture that fools
it; and its softness, since a picture that shows the feature for certain would have no slope to leave by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from stylegan_redact.losses.redaction import RedactionLoss
from stylegan_redact.methods._adversarial import OnCleanPictures, copied, guidance, real_stream
from stylegan_redact.plugins import option
from stylegan_redact.training.adversarial import Streams
from stylegan_redact.types import Feature, Network, Progress


@dataclass(frozen=True)
class RedactClassifier(OnCleanPictures):
    """A discriminator guided by the detector."""

    label_real: float = option(0.95, "alpha+, the discriminator's label of real pictures", low=0.5, high=1.0)
    label_fake: float = option(0.05, "alpha-, its label of fakes", low=0.0, high=0.49)
    threshold: float = option(0.5, "tau: a picture allowed with less than this probability is forbidden", low=0.01, high=0.99)
    softness: float = option(4.0, "divides the detector's logit: a detector that is too sure has no slope", low=0.1, high=100.0)

    gradients: ClassVar[bool] = True
    passes: ClassVar[Mapping[str, float]] = {**OnCleanPictures.passes, "detect": 3}

    def redact(self, network: Network, feature: Feature, keep: tuple[str, ...], seed: int, progress: Progress | None = None) -> Network:
        """A network whose generator was led by the discriminator and the detector together. G_ema is a short average of G."""
        after = copied(network, feature, "redact_classifier", gradients=True)
        streams = Streams(real_stream(network, feature, self.data), allowed=guidance(feature, self.softness))
        return self.tuned(network, after, streams, RedactionLoss(self.label_real, self.label_fake, threshold=self.threshold), seed, progress)
