# SPDX-License-Identifier: Apache-2.0
"""Data-based redaction: generator and discriminator are fine-tuned on clean pictures, and pictures to be redacted count as fakes.

Implements the data-based objective of Kong & Chaudhuri 2022, "Data Redaction from Pre-trained GANs", arXiv 2206.14389 (losses/redaction.py), on
StyleGAN's loss. Settings are ours, the paper's are not known to us. Where there is no data set, the original generator stands in for it: what it
draws without the feature for the real pictures, what it draws with it for the redaction set.
"""

from __future__ import annotations

from dataclasses import dataclass

from stylegan_redact.losses.redaction import RedactionLoss
from stylegan_redact.methods._adversarial import OnCleanPictures, copied, example_stream, real_stream, shown_stream, split_paths
from stylegan_redact.plugins import option
from stylegan_redact.training.adversarial import Streams
from stylegan_redact.training.images import check_images
from stylegan_redact.types import Feature, Network, Progress, RedactError


@dataclass(frozen=True)
class RedactData(OnCleanPictures):
    """Kong & Chaudhuri's objective with a redaction set of pictures."""

    examples: str | None = option(
        None, "folders or zips of images to redact, separated by commas; None: what the network draws with the feature", path=True
    )
    label_real: float = option(0.95, "alpha+, the discriminator's label of real pictures", low=0.5, high=1.0)
    label_fake: float = option(0.05, "alpha-, its label of fakes", low=0.0, high=0.49)
    share_generated: float = option(0.8, "lambda: share of generated pictures among the fakes, the rest are to be redacted", low=0.01, high=0.99)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.examples is not None:
            if not split_paths(self.examples):
                raise RedactError(f"examples={self.examples!r} was asked - it names no folder or zip - give some, separated by commas")
            for path in split_paths(self.examples):
                check_images(path, f"examples={path!r}")

    def redact(self, network: Network, feature: Feature, keep: tuple[str, ...], seed: int, progress: Progress | None = None) -> Network:
        """A network whose generator was told by its discriminator that the feature is fake. G_ema is a short average of G."""
        after = copied(network, feature, "redact_data")
        assert feature.latents is not None
        real = real_stream(network, feature, self.data)
        negative = shown_stream(network, feature) if self.examples is None else example_stream(network, self.examples, feature.latents.w.device)
        loss = RedactionLoss(self.label_real, self.label_fake, self.share_generated)
        return self.tuned(network, after, Streams(real, negative), loss, seed, progress)
