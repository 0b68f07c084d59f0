# SPDX-License-Identifier: Apache-2.0
"""Do the images still look like the original's, as far as these never had the feature?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from stylegan_redact.evaluation._frechet import LEAST_ROWS, frechet_distance
from stylegan_redact.evaluation._kernel import kernel_distance
from stylegan_redact.evaluation._manifold import precision_and_recall
from stylegan_redact.evaluation._paired import PairedImages
from stylegan_redact.extractors import INCEPTION
from stylegan_redact.types import Estimate


@dataclass(frozen=True)
class Quality:
    """Distances between sets of images, measured to the feature-free part of the original's, so that success is not punished."""

    place: ClassVar[int] = 5
    """Of its section in the table; the smallest comes first."""

    def answer(self, pairs: PairedImages, feature: str, keep: tuple[str, ...] = ()) -> dict[str, Estimate]:
        """How far three sets of images are from the reference: images *before* of the even rows that do not show the feature, by the judge.

        _before: images *before* of the odd rows, with and without the feature: what the original as it was gets.
        _after:  images *after* of the same rows. No farther than _floor: the redacted network draws what the original drew without the feature.
        _floor:  images *before* of the odd rows that do not show the feature: what a perfect redaction gets.

        Rows are split since the image after of a seed resembles the one before: a seed in both sets would bring them closer than two samples of one
        network are. All three sets are cut to the size of the smallest, _floor, since plain distances and recall depend on it.

        Returns:
            fd-NAME, fd-NAME_unbiased: Fréchet distance, plain and less its bias (`_frechet.py`).
            kid-NAME: kernel distance (`_kernel.py`).
            pr-NAME_precision, pr-NAME_recall: improved precision and recall, percent, intervals conditional on the other set's manifold
                (`_manifold.py`).
            NAME is that of the extractor; for NVIDIA's Inception the figures are fid, fid_unbiased, kid, precision and recall.
            nan where the reference or the other sets have fewer than 40 images. Nothing if the pairs have no features.

        Source: Heusel et al. 2017 (Fréchet); Binkowski et al. 2018 (kernel); Kynkäänniemi et al. 2019 (precision and recall).
        """
        pairs.others(feature, keep)  # refuses unknown names
        before, after = pairs.features_before, pairs.features_after
        if before is None or after is None:
            return {}
        free = ~pairs.shows_before(feature)[: len(before)]
        odd = torch.arange(len(free)) % 2 == 1
        reference = before[free & ~odd]
        sets = {"before": before[odd], "after": after[odd], "floor": before[free & odd]}
        size = min(len(rows) for rows in sets.values())
        names = _names(pairs.extractor)
        found = {name: _figures(reference, rows[:size]) for name, rows in sets.items()}
        return {f"{figure}_{name}": found[name][k] for k, figure in enumerate(names) for name in sets}


def _names(extractor: str) -> tuple[str, ...]:
    """Of the figures, in the order of `_figures`."""
    if extractor == INCEPTION:
        return "fid", "fid_unbiased", "kid", "precision", "recall"
    return f"fd-{extractor}", f"fd-{extractor}_unbiased", f"kid-{extractor}", f"pr-{extractor}_precision", f"pr-{extractor}_recall"


def _figures(reference: torch.Tensor, generated: torch.Tensor) -> tuple[Estimate, ...]:
    if min(len(reference), len(generated)) < LEAST_ROWS:
        nothing = Estimate(math.nan, -math.inf, math.inf, len(generated))
        share = Estimate(math.nan, 0.0, 100.0, len(generated), "%")
        return nothing, nothing, nothing, share, share
    return *frechet_distance(reference, generated), kernel_distance(reference, generated), *precision_and_recall(reference, generated)
