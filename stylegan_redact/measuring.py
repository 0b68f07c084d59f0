# SPDX-License-Identifier: Apache-2.0
"""What a run measures: which images of which classes are drawn, by which way in, and what is asked of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stylegan_redact import evaluation, keeping
from stylegan_redact.extractors import FeatureExtractor
from stylegan_redact.labels import Labels
from stylegan_redact.proof.pair_store import PairStore
from stylegan_redact.several import joint_name
from stylegan_redact.types import Detector, Estimate, Network, Progress


@dataclass(frozen=True)
class Measurement:
    """A network before and after, and how to look at the two."""

    before: Network
    after: Network
    judge: Detector
    features: tuple[str, ...]
    """That were redacted, one or several; where the feature is a whole class, that one."""
    keep: tuple[str, ...]
    seeds: range
    accesses: tuple[str, ...]
    batch: int
    labels: Labels | None
    """Of the classes that the feature was redacted in; None: the network is unconditional."""
    whole_class: bool
    """The feature is the class that `labels` name."""
    half: bool
    store: PairStore | None = None
    """Where pairs are kept, for a run that is killed to go on from."""

    def answers(self, progress: Progress, stage: str = "measure") -> tuple[dict[str, Estimate], evaluation.PairedImages]:
        """All questions on what a z-sampler meets; what is left of the feature also for those who keep latents, if that was asked.

        Of the classes that were not to be redacted it is asked what became of them. `stage` is what the progress is told.

        Returns:
            The estimates, and what the judge said of every seed drawn from z.
        """
        drawn: list[evaluation.PairedImages] = []
        others = None if self.labels is None else self.labels.others()
        if self.whole_class:

            def draw_class(access: str, itself: bool, seeds: Sequence[int]) -> evaluation.PairedImages:
                pairs = self.draw(access, self.labels if itself else others, seeds, stage if itself else f"{stage} others", progress)
                drawn.extend([pairs] if itself else [])
                return pairs

            return evaluation.whole_class(draw_class, self.features[0], self.seeds, self.accesses), drawn[0]
        if not set(self.features) <= set(self.judge.attributes):
            return self.changes(progress)
        estimates: dict[str, Estimate] = {}
        for access in self.accesses:
            pairs = self.draw(access, self.labels, self.seeds, stage, progress)
            drawn.append(pairs)
            answers = evaluation.ask_several(pairs, self.features, keep=self.keep, questions=None if access == "z" else ["residual_rate"])
            estimates |= answers if access == "z" else {f"{access}_{key}": value for key, value in answers.items()}
        if others is not None:
            pairs = self.draw("z", others, self.seeds[: evaluation.MOST_OF_OTHERS], f"{stage} others", progress)
            estimates |= evaluation.other_classes(evaluation.merged(pairs, self.features), joint_name(self.features), self.keep)
        return estimates, drawn[0]

    def changes(self, progress: Progress) -> tuple[dict[str, Estimate], evaluation.PairedImages]:
        """How far images changed, with the feature and without, where no judge tells them apart; and what the judge knows instead, if anything."""
        found: dict[str, Estimate] = {}
        drawn = []
        for access in self.accesses:
            prefix = "" if access == "z" else f"{access}_"
            drawn.append(pairs := self.draw(access, self.labels, self.seeds, "measure", progress))
            found |= {f"{prefix}{key.replace('others/', 'all/', 1)}": value for key, value in evaluation.everybody_else(pairs).items()}
        return found, drawn[0]

    def draw(
        self, access: str, labels: Labels | None, seeds: Sequence[int], stage: str, progress: Progress, extractor: FeatureExtractor | None = None
    ) -> evaluation.PairedImages:
        """Pairs of images, with their features if there is an extractor, told as a stage of their own."""

        def tell(_stage: str, fraction: float, figures: Mapping[str, Any]) -> None:
            progress(stage if access == "z" else f"{stage} {access}", fraction, dict(figures))
            keeping.check()

        how: dict[str, Any] = dict(before=self.before, after=self.after, judge=self.judge, batch=self.batch)
        how |= dict(access=access, labels=labels, half=self.half, progress=tell)
        if self.store is None:
            return evaluation.measure_pairs(seeds=seeds, extractor=extractor, **how)
        return self.store.measure(seeds, f"{stage} {access}", extractor, len(seeds), **how)
