# SPDX-License-Identifier: Apache-2.0
"""Before anything is trained: how often the feature shows, whether detector and judge mean the same, know such images at all, what goes with it.

What the checks cannot see: a classifier that is wrong and sure of it on images of another kind than its own, as long as it answers now this and now
that. Against this only a second one helps, hence the agreement; and two that were trained on the same data may agree on the same mistake.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stylegan_redact import evaluation, given, names
from stylegan_redact.agreement import cohen_kappa, phi
from stylegan_redact.estimates import clopper_pearson
from stylegan_redact.network import generate
from stylegan_redact.progress import Progress
from stylegan_redact.types import Detector, Estimate, Feature, LabelledLatents, Network

MOST_IMAGES = 600
"""Labelled images that are drawn again for the judge."""
TOP = 3
"""Attributes that go with the feature most, to be told."""
MEANS_LITTLE = 0.2
"""Two whose kappa is surely below this agree hardly more than by chance. Landis and Koch 1977 call it slight."""
ONE_SIDED, FEWEST_ATTRIBUTES = 0.8, 5
"""A classifier of at least so many attributes that gives this share of them one and the same answer for all images does not know such images."""
UNSURE = 0.9
"""Bits: a logit whose answers carry more doubt than this on average is hardly better than a coin."""
MOST_BEYOND = 0.05
"""Of the pictures, on which the judge may answer otherwise once they are clamped to [-1, 1]. Trained networks draw little outside of it."""
STILL = 0.02
"""A logit that varies by less than this share of its size says the same of every image."""


@dataclass(frozen=True)
class Prechecks:
    """What is known before the training."""

    figures: Mapping[str, Estimate]
    warnings: tuple[str, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """To be told to a person."""
        return (*(f"{key}: {_told(value)}" for key, value in self.figures.items()), *(f"Warning: {text}" for text in self.warnings))


def look(network: Network, feature: Feature, judge: Detector, *, batch: int, half: bool = False) -> Prechecks:
    """All checks of one feature, or of each of several.

    Args:
        network: That the latents are of; some are drawn once more, for the judge.
        feature: As gathered.
        judge:   Who will measure; one that does not know the feature is not asked.
        batch:   Images at a time.
        half:    Draw in float16 where the network does.
    """
    figures: dict[str, Estimate] = {}
    warnings: list[str] = []
    for part in feature.each:
        if part.latents is None:
            continue
        if part.subspace is not None and math.isnan(part.subspace.accuracy):
            warnings.append(nobody_said(part.name, part.latents))
        else:
            figures |= prevalence(part.name, part.latents)
        figures |= {f"{part.name}/{key}": value for key, value in part.figures.items()}
        if part.detector is not None and part.latents.logits is not None:
            figures |= confounders(part.name, part.latents, part.detector.attributes)
            warnings += domain(part.name, part.latents.logits, part.detector.attributes)
        if part.name in judge.attributes:
            kappa, turned = agreement(network, part, judge, batch=batch, half=half)
            figures[f"{part.name}/labels and judge agree (kappa)"] = kappa
            warnings += filter(None, [disagreement(part.name, kappa), out_of_range(turned)])
    return Prechecks(figures, tuple(warnings))


def prevalence(name: str, latents: LabelledLatents) -> dict[str, Estimate]:
    """The share of the labelled latents that show the feature, in percent: of the network's images, if they were drawn by seed and not chosen."""
    share = clopper_pearson(int((latents.score > 0).sum()), len(latents.score))
    return {f"{name}/prevalence": Estimate(100 * share.value, 100 * share.low, 100 * share.high, share.n, "%")}


def nobody_said(name: str, latents: LabelledLatents) -> str:
    """What to tell in place of a rate where a quantile along a direction decided what counts as showing the feature."""
    share = 100 * float((latents.score > 0).float().mean())
    return (
        f"nobody said which pictures show {name}: the {share:.0f} % of the latents that lie furthest along the direction are taken to, which is no "
        "rate of the network's; --labels or --classifier would tell"
    )


def confounders(name: str, latents: LabelledLatents, attributes: tuple[str, ...]) -> dict[str, Estimate]:
    """phi of the attributes that go with the feature most, by the detector's answers, strongest first; then of those to be reported beside it."""
    assert latents.logits is not None
    shows = latents.score > 0
    found = {other: phi(shows, latents.logits[:, column] > 0) for column, other in enumerate(attributes) if other != name}
    ranked = sorted((other for other, value in found.items() if not math.isnan(value.value)), key=lambda other: -abs(found[other].value))
    chosen = dict.fromkeys([*ranked[:TOP], *names.beside(name, attributes)])
    figures = {f"{name}/goes with {other} (phi)": found[other] for other in chosen if other in found}
    for other in names.beside(name, attributes):
        if other != name:
            figures |= prevalence(f"{name}/beside it {other}", LabelledLatents(latents.w, latents.logits[:, attributes.index(other)]))
    return figures


def agreement(network: Network, feature: Feature, judge: Detector, *, batch: int, half: bool = False) -> tuple[Estimate, float]:
    """Cohen's kappa of the labels and the judge on the first labelled images, clamped as when it measures; on how many that turns its answer."""
    latents = feature.latents
    assert latents is not None
    said, w = (latents.score[:MOST_IMAGES] > 0).cpu(), latents.w[:MOST_IMAGES]
    column = judge.attributes.index(feature.name)
    judged, as_drawn = [], []
    with torch.no_grad():
        for img in generate(network.G_ema, w, batch=batch, half=half):
            judged.append(judge.logits(img.clamp(-1, 1))[:, column].cpu() > 0)
            as_drawn.append(judge.logits(img)[:, column].cpu() > 0)
    seen = torch.cat(judged)
    return cohen_kappa(said, seen), float((seen != torch.cat(as_drawn)).float().mean())


def disagreement(name: str, kappa: Estimate) -> str | None:
    """What to tell of two who do not mean the same, or None."""
    if not kappa.high < MEANS_LITTLE:
        return None
    return (
        f"the judge and the labels of {name} agree hardly more than by chance (kappa {_told(kappa)}): one of the two does not know such images, or "
        "they mean different things"
    )


def out_of_range(share: float) -> str | None:
    """What to tell where the judge answers otherwise on this share of the pictures once they are clamped to [-1, 1], or None."""
    if share <= MOST_BEYOND:
        return None
    return (
        f"the network draws so far outside [-1, 1] that the judge answers otherwise on {100 * share:.0f} % of its pictures once they are "
        "clamped, as they are when they are measured or saved; what labels and steers sees them as they are: have that classifier clamp them"
    )


def domain(name: str, logits: torch.Tensor, attributes: tuple[str, ...]) -> list[str]:
    """Signs that a classifier does not know such images, from its logits [n, a] alone; what they miss stands at the top of this file."""
    own = logits[:, attributes.index(name)].double()
    told = []
    one_sided = [attribute for column, attribute in enumerate(attributes) if bool((logits[:, column] > 0).all() | (logits[:, column] <= 0).all())]
    if len(attributes) >= FEWEST_ATTRIBUTES and len(one_sided) >= ONE_SIDED * len(attributes):
        told.append(
            f"the classifier gives {len(one_sided)} of its {len(attributes)} attributes one and the same answer on all {len(own)} images: they do "
            f"not look like what it was trained on, and its answer on {name} is worth little"
        )
    if float(own.std()) < STILL * float(own.abs().mean()):
        told.append(f"the classifier's logit of {name} hardly varies ({own.mean():.3g}, standard deviation {own.std():.2g}): it says nothing")
    share = torch.sigmoid(own)
    doubt = float((torch.special.entr(share) + torch.special.entr(1 - share)).mean()) / math.log(2)
    if doubt > UNSURE:
        told.append(f"the classifier is unsure of {name} on most images ({doubt:.2f} bits of 1, if its logits are log-odds): look at its pictures")
    return told


def record(found: Prechecks) -> dict[str, Any]:
    """For redaction.json."""
    return {"figures": evaluation.as_json(found.figures), "warnings": list(found.warnings)}


def _told(value: Estimate) -> str:
    return f"{evaluation.format_estimate(value)}, n = {value.n}"


def first_look(plan: Any, feature: Feature, folder: Path, progress: Progress) -> dict[str, Any] | None:
    """What is known before anything is trained: told, and for the record; leaves the labels in the folder."""
    if plan.sitting is not None:  # Nobody labelled anything, and whom the photographs show concerns no one.
        return None
    given.save_label_files(feature, plan.brought, plan.classifiers, plan.file.snapshot.sha256, folder)
    if plan.class_index is not None:
        return None
    found = look(plan.network, feature, plan.judge, batch=plan.batch, half=plan.precision.half)
    found = replace(found, warnings=(*found.warnings, *(text for part in feature.each for text in given.doubts(part))))
    for line in found.lines:
        progress.tell(line)
    return record(found)
