# SPDX-License-Identifier: Apache-2.0
"""A sentence: CLIP says which generated pictures it goes with better than with its opposite; those between the two are left out.

CLIP's cosines mean nothing by themselves: they differ more from model to model and from sentence to sentence than between pictures. So the difference
of two cosines is taken, to the sentence and to its opposite, and where the feature begins is read off the generated pictures: their differences must
fall into two groups, and a picture counts as soon as it surely belongs to one of these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stylegan_redact.downloads import sha256_of
from stylegan_redact.estimates import clopper_pearson
from stylegan_redact.features._clip import Clip
from stylegan_redact.features._groups import two_groups
from stylegan_redact.features._labelling import feature_of, look_at
from stylegan_redact.labels import Labels
from stylegan_redact.names import slug
from stylegan_redact.plugins import option
from stylegan_redact.types import Estimate, Feature, LabelledLatents, Network, Progress, RedactError

TEMPLATES = ("a photo of {}", "a picture of {}", "a portrait of {}", "a close-up of {}", "an image of {}")
OPPOSITE = "|"
UNDECIDED = "left undecided"
"""Name of the figure."""


@dataclass(frozen=True)
class _Sentences:
    """CLIP, and what it is asked."""

    clip: Clip
    with_it: torch.Tensor
    """[d], of length 1: the mean over the templates."""
    without: torch.Tensor
    """[d], of length 1."""


@dataclass(frozen=True)
class Sentence:
    """The feature that `sentence` tells."""

    sentence: str = option("a beard|no beard", "What shows, and after | what shows instead; without |, SUBJECT with it and SUBJECT without it")
    subject: str = option("a person", "Who has it or has it not, where there is no |")
    model: str = option("ViT-B-32", "As open_clip names it")
    weights: str = option("laion2b_s34b_b79k", "A file, or a tag of open_clip's, which it downloads", path=True)
    sure: float = option(0.9, "Pictures whose share of belonging to either group is below this are left out; 0.5: none is", low=0.5, high=0.999)
    name: str | None = option(None, "Of the feature; None: made of the sentence")
    labels: Labels | None = None
    """Classes to draw from, of a conditional network."""
    half: bool = False
    """Draw in float16 where the network does."""
    asked: _Sentences | None = None
    """CLIP, loaded."""

    @property
    def feature(self) -> str:
        """Its name."""
        return self.name or slug(self.sentence.partition(OPPOSITE)[0])

    def prepared(self, network: Network) -> Sentence:
        """With CLIP, loaded, and downloaded if it has to be.

        Raises:
            RedactError: no sentence, no open_clip, or no weights.
        """
        pair = sides(self.sentence, self.subject)
        clip = Clip(self.model, self.weights, next(network.G_ema.parameters()).device)
        with_it, without = (ensemble(clip, phrases) for phrases in pair)
        return replace(self, asked=_Sentences(clip, with_it, without))

    def look(self, img: torch.Tensor, seeds: list[int]) -> torch.Tensor:
        """[n, 1]: by how much the sentence goes better with each than its opposite does."""
        assert self.asked is not None
        return (self.asked.clip.of_images(img) @ (self.asked.with_it - self.asked.without))[:, None]

    def gather(self, network: Network, seeds: Sequence[int], *, batch: int = 32, progress: Progress | None = None) -> Feature:
        """Latents with log odds as scores, without those that are undecided, and the subspace that separates them.

        Args:
            network:  Its G_ema is drawn, noise "const".
            seeds:    NVIDIA's seeds to label.
            batch:    Images at a time.
            progress: Told (stage, share done, figures).

        Raises:
            RedactError: the pictures do not fall into two groups, or too few into one of them.
        """
        source = self if self.asked is not None else self.prepared(network)
        seen, latents = look_at(network, seeds, source.look, self.labels, batch=batch, half=self.half, progress=progress)
        score = calibrated(self.sentence, seen[:, 0])
        decided = torch.sigmoid(score.abs()) >= self.sure
        left = clopper_pearson(int((~decided).sum()), len(score))
        figures = {UNDECIDED: Estimate(100 * left.value, 100 * left.low, 100 * left.high, left.n, "%")}
        return feature_of(self.feature, _only(replace(latents, score=score.float().to(latents.w.device)), decided), figures, progress)

    def hashes(self) -> Mapping[str, Any]:
        """For records: which weights, if they are a file."""
        return {"weights_sha256": sha256_of(self.weights)} if Path(self.weights).is_file() else {}

    def notes(self, network: Network) -> tuple[str, ...]:
        """What CLIP is asked."""
        one, other = sides(self.sentence, self.subject)
        return (f"CLIP {self.model} tells {' / '.join(map(repr, one))} from {' / '.join(map(repr, other))}",)


def sides(sentence: str, subject: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The phrases for the feature and those against it.

    Raises:
        RedactError: either side says nothing.
    """
    parts = [part.strip() for part in sentence.split(OPPOSITE)]
    if len(parts) > 2 or not all(parts):
        raise RedactError(f"the sentence {sentence!r} was asked - it is no WITH or WITH{OPPOSITE}WITHOUT - write 'a bearded man|a shaven man'")
    if len(parts) == 2:
        return (parts[0],), (parts[1],)
    return (f"{subject} with {parts[0]}",), (f"{subject} without {parts[0]}", subject)


def ensemble(clip: Clip, phrases: Sequence[str]) -> torch.Tensor:
    """[d] of length 1: the mean of what CLIP makes of the phrases in every template.

    Source: Radford et al. 2021, section 3.1.4, ensembles over embeddings.
    """
    found = clip.of_texts([template.format(phrase) for phrase in phrases for template in TEMPLATES])
    return torch.nn.functional.normalize(found.mean(0), dim=0)


def calibrated(sentence: str, difference: torch.Tensor) -> torch.Tensor:
    """[n] log odds of showing the feature, from differences of cosines [n].

    Raises:
        RedactError: they make one group and not two.
    """
    groups = two_groups(difference)
    if not groups.distinct:
        raise RedactError(
            f"{sentence!r} was asked of {len(difference)} pictures - CLIP's answers make one group, not two ({groups}): it cannot tell here - say "
            f"what shows instead after {OPPOSITE}, try another :model=NAME, or label by hand with redact.py label"
        )
    return groups.log_odds(difference.double())


def _only(latents: LabelledLatents, chosen: torch.Tensor) -> LabelledLatents:
    rows = chosen.to(latents.w.device)
    assert latents.seeds is not None
    return replace(
        latents, w=latents.w[rows], score=latents.score[rows], seeds=latents.seeds[chosen.cpu()], c=None if latents.c is None else latents.c[rows]
    )
