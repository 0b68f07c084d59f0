# SPDX-License-Identifier: Apache-2.0
"""How far did the images change, those that never had the feature above all?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from stylegan_redact.estimates import mean_interval
from stylegan_redact.evaluation._paired import PairedImages
from stylegan_redact.types import Estimate


@dataclass(frozen=True)
class ImageChange:
    """Mean change of an image, apart for the seeds that the judge says never had the feature and for those that did."""

    place: ClassVar[int] = 3
    """Of its section in the table; the smallest comes first."""

    def answer(self, pairs: PairedImages, feature: str, keep: tuple[str, ...] = ()) -> dict[str, Estimate]:
        """Mean change over the seeds whose image before did not show the feature (feature_free), and over those whose did (had_feature).

        Returns:
            l1_feature_free, l1_had_feature: mean of |after - before|, images in [-1, 1].
            dissimilarity_feature_free, dissimilarity_had_feature: 1 - MS-SSIM, if it was measured.
            feature_distance_feature_free, feature_distance_had_feature: 1 - cosine of the extractor's features of before and after, 0 where they
                agree; of the images that have features, and only if there are any.
            nan within -inf to inf where there are fewer than two such seeds.

        Source: Student 1908 (intervals); Wang, Simoncelli and Bovik 2003 (MS-SSIM). The feature distance is none of the literature's; that features
        tell how alike two images look is from Zhang et al. 2018, arXiv 1801.03924.
        """
        pairs.others(feature, keep)  # refuses unknown names
        had = pairs.shows_before(feature)
        changes = {"l1": pairs.l1}
        if not bool(pairs.dissimilarity.isnan().all()):
            changes["dissimilarity"] = pairs.dissimilarity
        if pairs.features_before is not None and pairs.features_after is not None:
            similarity = torch.cosine_similarity(pairs.features_before.double(), pairs.features_after.double(), dim=1)
            changes["feature_distance"] = (1 - similarity).clamp(min=0)  # Rounding leaves a trace below 0.
        return {
            f"{figure}_{group}": _mean(change[chosen[: len(change)]])
            for group, chosen in (("feature_free", ~had), ("had_feature", had))
            for figure, change in changes.items()
        }


def _mean(samples: torch.Tensor) -> Estimate:
    return mean_interval(samples) if len(samples) > 1 else Estimate(math.nan, -math.inf, math.inf, len(samples))
