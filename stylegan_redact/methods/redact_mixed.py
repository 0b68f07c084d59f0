# SPDX-License-Identifier: Apache-2.0
"""Several redaction sets at once, each described in its own way: by pictures, by functions that say what is valid, and by the detector.

Kong & Chaudhuri 2022, "Data Redaction from Pre-trained GANs", arXiv 2206.14389, treat each description by itself and say that sets add up. This
implements their three objectives in one (losses/redaction.py): negatives are, in equal shares, pictures of each folder and what the present generator
draws invalidly by each function; the detector, if it is to, guides the discriminator. Settings are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from stylegan_redact.losses.redaction import RedactionLoss
from stylegan_redact.methods._adversarial import OnCleanPictures, copied, example_stream, guidance, real_stream, scored, split_paths
from stylegan_redact.plugins import option
from stylegan_redact.training.adversarial import Streams
from stylegan_redact.training.guide import BARELY
from stylegan_redact.training.images import check_images
from stylegan_redact.training.invalid import InvalidPictures
from stylegan_redact.training.streams import Stream, Wanted, mixed
from stylegan_redact.types import Feature, Network, Progress, RedactError
from stylegan_redact.validity import Validity, check_validity, load_validity


@dataclass(frozen=True)
class RedactMixed(OnCleanPictures):
    """Kong & Chaudhuri's objective with redaction sets of several descriptions."""

    examples: str | None = option(None, "folders or zips of images to redact, separated by commas, a set each", path=True)
    validity: str | None = option(
        None, "file.py:function, separated by commas, a set each: uint8 image [H, W, C] -> True if valid; run with your rights", path=True
    )
    guided: bool = option(True, "the detector's feature is a set, too; no: only the others are")
    label_real: float = option(0.95, "alpha+, the discriminator's label of real pictures", low=0.5, high=1.0)
    label_fake: float = option(0.05, "alpha-, its label of fakes", low=0.0, high=0.49)
    share_generated: float = option(0.8, "lambda: share of generated pictures among the fakes, the rest are to be redacted", low=0.01, high=0.99)
    threshold: float = option(0.5, "tau: a picture allowed with less than this probability is forbidden", low=0.01, high=0.99)
    softness: float = option(4.0, "divides the detector's logit: a detector that is too sure has no slope", low=0.1, high=100.0)

    passes: ClassVar[Mapping[str, float]] = {**OnCleanPictures.passes, "draw": OnCleanPictures.passes["draw"] + 1, "detect": 3}

    def __post_init__(self) -> None:
        super().__post_init__()
        for path in split_paths(self.examples or ""):
            check_images(path, f"examples={path!r}")
        for text in split_paths(self.validity or ""):
            check_validity(text)
        if not self.guided and not split_paths(self.examples or "") and not split_paths(self.validity or ""):
            raise RedactError("redact_mixed was asked with guided=no and nothing else - there is nothing to redact - give --examples or --validity")

    def redact(self, network: Network, feature: Feature, keep: tuple[str, ...], seed: int, progress: Progress | None = None) -> Network:
        """A network whose generator was told by its discriminator what each set forbids. G_ema is a short average of G."""
        after = copied(network, feature, "redact_mixed", gradients=self.guided)
        assert feature.latents is not None
        functions = [load_validity(text) for text in split_paths(self.validity or "")]
        negatives: list[Stream] = [InvalidPictures(after.G, function, feature.latents.c) for function in functions]
        if self.examples is not None and split_paths(self.examples):
            negatives += [example_stream(network, path, feature.latents.w.device) for path in split_paths(self.examples)]
        streams = Streams(
            real_stream(network, feature, self.data, self._clean(feature, functions)),
            mixed(negatives) if negatives else None,
            guidance(feature, self.softness) if self.guided else None,
        )
        loss = RedactionLoss(self.label_real, self.label_fake, self.share_generated if negatives else 1.0, self.threshold)
        return self.tuned(network, after, streams, loss, seed, progress)

    def _clean(self, feature: Feature, functions: list[Validity]) -> Wanted | None:
        """Which pictures are in none of the sets, by functions and, if it is to guide, the detector; None: the detector alone says so."""
        if self.guided and not functions:
            return None
        score = scored(feature)

        def clean(img: torch.Tensor) -> torch.Tensor:
            said = [function(img) for function in functions] + ([(score(img) <= BARELY).cpu()] if self.guided else [])
            return torch.stack([torch.ones(len(img), dtype=torch.bool), *said]).all(dim=0)

        return clean
