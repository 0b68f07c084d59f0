# SPDX-License-Identifier: Apache-2.0
"""What became of a person who was redacted, and of everybody else.

A similarity says little by itself: features of two faces are never at right angles. So each stands beside the share of strangers, people that the
network drew before, who are more similar to the photographs: 0 % is the person, 50 % is anybody. What is similar is for the embedder to say; the
discriminator's features are no face recognition. The strangers are a sample too: of 256, none nearer still leaves 1.4 %.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from stylegan_redact.estimates import clopper_pearson, mean_interval, paired_rate_change
from stylegan_redact.evaluation._paired import PairedImages, rate
from stylegan_redact.extractors import FeatureExtractor
from stylegan_redact.inversion import STARTS, Describe, Search, invert
from stylegan_redact.network import generate
from stylegan_redact.types import Estimate, Network, Progress
from stylegan_redact.wspace.place import place_of
from stylegan_redact.wspace.prior import prior_of

NEIGHBOURS = 64
"""Codes near the person's that are looked at."""
STRANGERS = 256
NEAR, OTHERS = 0.3, 0.001
"""Neighbours lie within this share of the distance within which this share of typical people lies, whatever the method's shells were."""
VISIBLE = 0.05
"""Mean absolute change, images in [-1, 1], past which a picture counts as visibly changed: about 6 of 255 levels."""
_SEED = 1
_RANGES: Mapping[str, tuple[Any, ...]] = {"similarity": (-1.0, 1.0), "l1": (0.0, 2.0), "strangers_nearer": (0.0, 100.0, "%")}
"""Figure -> what it can be, and its unit."""


@dataclass(frozen=True)
class Sitter:
    """Who was redacted."""

    photos: torch.Tensor
    """[k, C, H, W] that the redaction knew."""
    codes: torch.Tensor
    """[k, num_ws, w_dim] of these."""
    held_out: torch.Tensor
    """[h, C, H, W] that it did not know, h >= 0."""
    typical: torch.Tensor
    """[m, w_dim], w of many people, which tell how far is near."""
    search: Search = Search()
    """Of inversions: the budget."""
    describe: Describe | None = None

    @property
    def all_photos(self) -> torch.Tensor:
        """[k + h, C, H, W]."""
        return torch.cat([self.photos, self.held_out])


def neighbours(sitter: Sitter, seed: int = _SEED) -> torch.Tensor:
    """ws [k + NEIGHBOURS, num_ws, w_dim]: the photographs' codes, and codes near them."""
    prior = prior_of(sitter.typical)
    typical = prior.to_u(sitter.typical)
    place = place_of(prior.to_u(sitter.codes), typical, inner=NEAR, others=OTHERS)
    return torch.cat([sitter.codes, prior.to_w(place.around(NEIGHBOURS, 0.0, place.inner, typical, torch.Generator().manual_seed(seed)))])


def person(
    before: Network, after: Network, sitter: Sitter, embed: FeatureExtractor, strangers: torch.Tensor, *, batch: int, progress: Progress | None = None
) -> dict[str, Estimate]:
    """How much of the person the networks draw, before and after.

    Args:
        before, after: Of one architecture.
        sitter:        The person.
        embed:         Says what is similar.
        strangers:     [m, w_dim], w of seeds that nothing was fitted to; STRANGERS will do.
        batch:         Images at a time.
        progress:      Told (stage, share done, figures).

    Returns:
        person/...: of the codes that photographs were found at before, and of codes near them, which somebody may have kept.
        refound/...: of codes sought anew in either network, with one budget, for the photographs that the redaction knew.
        held_out/...: the same for photographs of the person that it did not know, if there are any.
        .../similarity_before, _after: cosine of the embedder's features of picture and photograph, the most similar one for person/...
        .../l1_before, _after:         mean |picture - photograph|, images in [-1, 1], of the nearest photograph for person/...
        .../strangers_nearer_before, _after: share of strangers who are more similar, percent, on average; the interval is of codes and strangers.
    """
    gallery = _cat(before.G_ema, strangers, batch)
    ruler = _Ruler(embed, gallery, sitter.all_photos)
    kept = neighbours(sitter)
    answers = ruler.sided("person", [ruler.any_photo(_cat(net.G_ema, kept, batch)) for net in (before, after)])
    prior, found = prior_of(sitter.typical), []
    for name, net in (("before", before), ("after", after)):

        def tell(_stage: str, fraction: float, figures: dict[str, float], name: str = name) -> None:
            if progress is not None:
                progress(f"seek {name}", fraction, figures)

        ws = invert(
            net.G_ema, prior, sitter.all_photos, sitter.search, starts=sitter.typical[:STARTS], describe=sitter.describe, batch=batch, progress=tell
        )  # fmt: skip
        found.append(ruler.own_photo(_cat(net.G_ema, ws, batch)))
    known = len(sitter.photos)
    answers |= ruler.sided("refound", [{name: each[:known] for name, each in side.items()} for side in found])
    if len(sitter.held_out):
        answers |= ruler.sided("held_out", [{name: each[known:] for name, each in side.items()} for side in found])
    return answers


def everybody_else(pairs: PairedImages) -> dict[str, Estimate]:
    """How far fresh seeds changed, which are other people.

    Returns:
        others/l1, /dissimilarity (1 - MS-SSIM), and /feature_distance (1 - cosine) if the pairs have features.
        others/visibly_changed: share of images with an L1 above VISIBLE, percent.
        others/ATTRIBUTE/rate_before, /rate_after, /change: of what the judge knows, if it knows anything.
    """
    answers = {"others/l1": _mean(pairs.l1, 0.0, 2.0), "others/dissimilarity": _mean(pairs.dissimilarity, 0.0, 1.0)}
    if pairs.features_before is not None and pairs.features_after is not None:
        alike = torch.cosine_similarity(pairs.features_before.double(), pairs.features_after.double(), dim=1)
        answers["others/feature_distance"] = _mean((1 - alike).clamp(min=0), 0.0, 2.0)  # Rounding leaves a trace below 0.
    answers["others/visibly_changed"] = rate(pairs.l1 > VISIBLE)
    for name in pairs.attributes:
        shown = pairs.shows_before(name), pairs.shows_after(name)
        answers[f"others/{name}/rate_before"], answers[f"others/{name}/rate_after"] = rate(shown[0]), rate(shown[1])
        answers[f"others/{name}/change"] = paired_rate_change(*shown)
    return answers


class _Ruler:
    """Measures pictures against the photographs, and those against strangers."""

    def __init__(self, embed: FeatureExtractor, strangers: torch.Tensor, photos: torch.Tensor) -> None:
        self.embed, self.photos = embed, photos
        self.wanted = self._unit(photos)
        self.gallery = self._unit(strangers) @ self.wanted.T  # [m, k + h]

    def own_photo(self, img: torch.Tensor) -> dict[str, torch.Tensor]:
        """Of img [k + h, C, H, W], each against the photograph of the same place."""
        alike = (self._unit(img) * self.wanted).sum(dim=1)
        nearer = (self.gallery > alike).double().mean(dim=0)
        return {"similarity": alike, "l1": (img - self.photos).abs().mean((1, 2, 3)), "strangers_nearer": 100 * nearer}

    def any_photo(self, img: torch.Tensor) -> dict[str, torch.Tensor]:
        """Of img [n, C, H, W], each against whichever photograph fits best; strangers may choose too."""
        alike = (self._unit(img) @ self.wanted.T).amax(dim=1)
        nearer = (self.gallery.amax(dim=1) > alike[:, None]).double().mean(dim=1)
        apart = torch.stack([(img - photo).abs().mean((1, 2, 3)) for photo in self.photos]).amin(dim=0)
        return {"similarity": alike, "l1": apart, "strangers_nearer": 100 * nearer}

    def sided(self, section: str, sides: list[dict[str, torch.Tensor]]) -> dict[str, Estimate]:
        """section/FIGURE_before and _after, of what was measured on either side."""
        found = {}
        for name in sides[0]:
            for side, samples in zip(("before", "after"), sides, strict=True):
                mean = _mean(samples[name], *_RANGES[name])
                found[f"{section}/{name}_{side}"] = of_sample(mean, len(self.gallery)) if name == "strangers_nearer" else mean
        return found

    def _unit(self, img: torch.Tensor) -> torch.Tensor:
        features = torch.cat([self.embed.features(some) for some in img.split(64)]).double()
        return torch.nn.functional.normalize(features, dim=1)


def of_sample(share: Estimate, m: int) -> Estimate:
    """A mean share of m strangers, whose interval says what other codes would give, widened by what other strangers would.

    Args:
        share: Percent.
        m:     Strangers, one sample for all codes.

    Source: the two errors are independent, their squares add on each side (Zou & Donner 2008, "Construction of confidence limits about effect
    measures: a general approach"); that of the strangers is Clopper and Pearson's, which is cautious: it takes the codes for one.
    """
    hits = round(share.value / 100 * m, 6)
    low, high = (100 * each for each in (clopper_pearson(math.floor(hits), m).low, clopper_pearson(math.ceil(hits), m).high))
    down, up = math.hypot(share.value - share.low, share.value - low), math.hypot(share.high - share.value, high - share.value)
    return dataclasses.replace(share, low=max(share.value - down, 0.0), high=min(share.value + up, 100.0))


def _cat(G: Any, w: torch.Tensor, batch: int) -> torch.Tensor:
    return torch.cat([img.clamp(-1, 1) for img in generate(G, w, batch=batch)])


def _mean(samples: torch.Tensor, least: float, most: float, unit: str = "") -> Estimate:
    """Of samples in [least, most]. One photograph leaves anything possible."""
    if len(samples) < 2:
        return Estimate(float(samples.mean()), least, most, len(samples), unit)
    found = mean_interval(samples, unit=unit)
    return dataclasses.replace(found, low=max(found.low, least), high=min(found.high, most))
