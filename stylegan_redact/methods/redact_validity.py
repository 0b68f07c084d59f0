# SPDX-License-Identifier: Apache-2.0
"""Validity-based redaction: what the generator draws invalidly at the moment is what the discriminator is told to be fake.

Implements the validity-based variant of Kong & Chaudhuri 2022, "Data Redaction from Pre-trained GANs", arXiv 2206.14389 (losses/redaction.py), with
the redaction set renewed at each step (training/invalid.py). A function of the user's says what is valid, or the detector does. Settings are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from stylegan_redact.losses.redaction import RedactionLoss
from stylegan_redact.methods._adversarial import OnCleanPictures, copied, real_stream, scored
from stylegan_redact.plugins import option
from stylegan_redact.training.adversarial import Streams
from stylegan_redact.training.invalid import InvalidPictures, by_detector
from stylegan_redact.types import Feature, Network, Progress
from stylegan_redact.validity import check_validity, load_validity


@dataclass(frozen=True)
class RedactValidity(OnCleanPictures):
    """Kong & Chaudhuri's objective with the generator's own invalid pictures."""

    validity: str | None = option(
        None, "file.py:function, uint8 image [H, W, C] -> True if valid; it is run with your rights. None: the detector says so", path=True
    )
    label_real: float = option(0.95, "alpha+, the discriminator's label of real pictures", low=0.5, high=1.0)
    label_fake: float = option(0.05, "alpha-, its label of fakes", low=0.0, high=0.49)
    share_generated: float = option(0.8, "lambda: share of generated pictures among the fakes, the rest are to be redacted", low=0.01, high=0.99)

    passes: ClassVar[Mapping[str, float]] = {**OnCleanPictures.passes, "draw": OnCleanPictures.passes["draw"] + 1, "detect": 1}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.validity is not None:
            check_validity(self.validity)

    def redact(self, network: Network, feature: Feature, keep: tuple[str, ...], seed: int, progress: Progress | None = None) -> Network:
        """A network whose generator was told by its discriminator what is invalid. G_ema is a short average of G."""
        after = copied(network, feature, "redact_validity")
        assert feature.latents is not None
        of_user = None if self.validity is None else load_validity(self.validity)
        negative = InvalidPictures(after.G, of_user or by_detector(scored(feature)), feature.latents.c)
        streams = Streams(real_stream(network, feature, self.data, of_user), negative)
        return self.tuned(network, after, streams, RedactionLoss(self.label_real, self.label_fake, self.share_generated), seed, progress)
