# SPDX-License-Identifier: Apache-2.0
"""What a detector wants of a picture: features gone however one looks at it, and all else that it knows as it was."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn.functional import smooth_l1_loss, softplus

from stylegan_redact import keeping, ranks
from stylegan_redact.training.augment import Views
from stylegan_redact.training.locate import wanted
from stylegan_redact.types import Detector

BARELY = -1.0
"""A logit above this counts as showing the feature: what barely shows is edited too."""
LEAST_BARELY, NEARLY = -3.0, 2
"""Where the feature is a class this goes down so far at most (`barely_of_class`)."""
MARKED_RANGE = 5.0
UNMARKED_RANGE = 20.0
"""Beyond this a logit says no more than "surely", and need not be copied. What comes to light under a hat may have any hair, but surely is not bald;
where there was no hat, nothing is to change. (With 5 for all, which is sure enough by a classifier's own word, people slowly get bushy eyebrows.)"""
SURELY = 4.0
"""A picture that is to become of another class is to have a logit above this."""
FEWEST_CLASSES = 3
ONE_CLASS, SEVERAL_CLASSES = 0.75, 0.1
"""Attributes count as classes where at least this share of pictures is of exactly one, and at most that of several."""
FEATURED_ALONE = 0.5
"""And where at least this share of the pictures that show the feature shows it alone."""
SAME_MIRRORED = 0.8
"""Share of pictures that must show a feature when mirrored, too, for left and right to count as alike."""


@dataclass(frozen=True)
class Guide:
    """The detector's wish, as losses: the features' logits under -margin, the other logits as they were.

    Of several features a picture is to lose those that it shows; the others among them are held in it like any attribute.
    """

    detector: Detector
    columns: tuple[int, ...]
    """Of the features among the detector's logits."""
    margin: float = 4.0
    mirror: bool = True
    """Views are mirrored too; `draw_views` is told."""
    classes: bool = False
    """The attributes exclude each other: in a picture that is to leave one, the others cannot be held, and are held in all other pictures alone."""
    barely: float = BARELY
    """A logit above it counts as showing the feature."""
    become: float = 0.0
    """What it counts, beside that a picture leaves its class, that it comes to be of another, whichever is nearest: what is of none looks like
    nothing that the network drew, and whoever else looks may take it for what it was."""

    def logit(self, img: torch.Tensor) -> torch.Tensor:
        """[n], differentiable: of the feature; of several, of the one that shows most."""
        return self.detector.logits(img)[:, list(self.columns)].amax(dim=1)

    def wanted(self, before: torch.Tensor, after: torch.Tensor, shown: torch.Tensor) -> torch.Tensor:
        """How much of the change of each pixel is wanted, [n, 1, H, W] in [0, 1]: for any of the features that a picture is to lose.

        Args:
            before: [n, C, H, W], each shows a feature.
            after:  [n, C, H, W], shows it less.
            shown:  [n, k] bool, as `compare` gives it: which ones are to go.
        """
        place = before.new_zeros([len(before), 1, *before.shape[2:]])
        for column, of in zip(self.columns, shown.unbind(dim=1), strict=True):
            if bool(of.any()):
                found = wanted(lambda img, column=column: self.detector.logits(img)[:, column], before[of], after[of])  # type: ignore[misc]
                place[of] = torch.maximum(place[of], found)
        return place

    def compare(self, img: torch.Tensor, before: torch.Tensor, held: torch.Tensor, views: Views) -> Comparison:
        """What is left of the features in img, and how far its other logits are from those of `before`, as they are and through random views.

        Through the same random view for both: a logit that is held on the bare image alone is held for this detector alone.

        Args:
            img:    [n, C, H, W] in [-1, 1].
            before: The same shape.
            held:   [n] bool: not to be marked, whatever they show.
            views:  Of the n images.
        """
        n = len(img)
        now = self.detector.logits(torch.cat([img, views(img)]))  # [2 n, attributes]
        rest = [index for index in range(now.shape[1]) if index not in self.columns]
        with torch.no_grad():
            seen = torch.cat([before, views(before)]) if rest or len(self.columns) > 1 else before  # Else nothing is to be held.
            then = self.detector.logits(seen)
        shown = torch.stack([then[:n, column] > self.barely for column in self.columns], dim=1) & ~held[:, None]  # [n, k]
        marked = shown.any(dim=1)
        left, change = now.new_zeros([n]), now.new_zeros([])
        limit = torch.where(marked, MARKED_RANGE, UNMARKED_RANGE).repeat(2)[:, None]
        if rest:
            some = (~marked).repeat(2) if self.classes else slice(None)
            if len(now[some]):
                change = len(now[some]) / len(now) * apart(now[some][:, rest], then[some][:, rest], limit[some])
        if self.become and rest:
            left = left + self.become * softplus(SURELY - now[:, rest].amax(dim=1)).view(2, n).sum(dim=0) * marked
        came = (now[:n].detach() > self.barely) & ~held[:, None]  # Shows it now, whatever it showed.
        for column, of in zip(self.columns, shown.unbind(dim=1), strict=True):
            left = left + softplus(now[:, column] + self.margin).view(2, n).sum(dim=0) * (of | came[:, column])
            spared = (marked & ~of).repeat(2)  # Marked for another feature alone: there are none where there is one feature.
            if bool(spared.any()):
                share = float(spared.float().mean()) / max(len(rest), 1)  # Each logit counts as one of the others does.
                change = change + share * apart(now[spared][:, [column]], then[spared][:, [column]], limit[spared])
        return Comparison(left, change, marked, shown)


class Comparison(NamedTuple):
    """Of images with what they were."""

    left: torch.Tensor
    """[n]: how far the logits of the features that are to go are from below -margin, bare and through a view, and how far marked pictures are from
    another class; 0 where none shows, nor did."""
    change: torch.Tensor
    """Scalar: distance of the other logits."""
    marked: torch.Tensor
    """[n] bool: showed a feature, and is to lose it."""
    shown: torch.Tensor
    """[n, k] bool: which one, in the order of the guide's columns."""


def apart(now: torch.Tensor, then: torch.Tensor, limit: torch.Tensor) -> torch.Tensor:
    """Scalar: how far logits now [n, a] are from what they were, where what was beyond `limit` [n, 1] has only to be beyond it again.

    Only what they were is cut off. With both cut off, an attribute that is lost for certain would have no gradient to come back by.
    """
    sure = then.abs() >= limit
    low = torch.where(sure, torch.where(then > 0, limit, -math.inf), then)
    high = torch.where(sure, torch.where(then > 0, math.inf, -limit), then)
    return smooth_l1_loss(now, now.detach().clamp(low, high))


def classes_of_one(logits: torch.Tensor, columns: Sequence[int]) -> bool:
    """Whether the attributes are classes, of which each picture shows one, as digits are and traits of a face are not; if so, it is told.

    Beside man and woman, of which each picture shows one, a rare hat is no class: whoever wears it is one of the two as well.

    Args:
        logits:  [n, a] of generated pictures.
        columns: Of the features among the attributes.
    """
    shows = logits > 0
    count = shows.sum(dim=1)
    featured = count[shows[:, list(columns)].any(dim=1)]
    one, several = float((count == 1).float().mean()), float((count > 1).float().mean())
    alone = int((featured == 1).sum()) >= FEATURED_ALONE * len(featured)
    classes = logits.shape[1] >= FEWEST_CLASSES and one >= ONE_CLASS and several <= SEVERAL_CLASSES and alone
    if classes:
        keeping.tell(
            f"The classifier's {logits.shape[1]} attributes exclude each other ({one:.0%} of pictures show one alone): they are taken for classes"
        )
    return classes


def barely_of_class(logits: torch.Tensor, columns: Sequence[int]) -> float:
    """A logit above which a picture counts as of a class, or nearly: lower than that of a trait.

    Whoever else looks takes some pictures for one of that class that this detector takes for one of another: held as they are, they would stay.
    How far down that goes is a matter of how sure a detector puts things: at most NEARLY times as many as show it, and half of the others.

    Args:
        logits:  [n, a] of generated pictures.
        columns: Of the features among the attributes; of several the highest is taken.
    """
    found = []
    for score in logits[:, list(columns)].unbind(dim=1):
        shows = int((score > 0).sum())
        last = min(NEARLY * shows, (shows + len(score)) // 2, len(score) - 1)
        found.append(min(max(float(score.sort(descending=True).values[last]), LEAST_BARELY), BARELY))
    return max(found)


def same_mirrored(logit: Callable[[torch.Tensor], torch.Tensor], images: Iterable[torch.Tensor]) -> bool:
    """Whether pictures that show a feature show it with left and right changed, too; True if none shows it. It is told if they do not.

    Args:
        logit:  img [n, C, H, W] -> [n], > 0: it shows.
        images: Batches [n, C, H, W].
    """
    alike, shown = 0, 0
    for img in images:  # One batch after the other: all pictures of a large network would take much memory.
        with torch.no_grad():
            some = img[logit(img) > 0]
            alike += int((logit(some.flip(3)) > 0).sum()) if len(some) else 0
        shown += len(some)
    # On GPUs the last digits of each rank's differ, and all are to look at the same views.
    alike, shown = ranks.world().from_first([alike, shown])
    same = alike >= SAME_MIRRORED * shown
    if not same:
        keeping.tell(f"Of {shown} pictures that show the feature {alike} show it to the classifier when mirrored, too: it sees none mirrored")
    return same


def whole_groups(D: torch.nn.Module, img: torch.Tensor) -> torch.Tensor:
    """The first images, as many as fill groups of the discriminator's minibatch statistics, which refuse others."""
    size = next((getattr(layer, "group_size") for layer in D.modules() if hasattr(layer, "group_size")), None)  # noqa: B009 - Module's type
    return img if size is None or len(img) <= size else img[: len(img) // size * size]


def verdict(D: torch.nn.Module, img: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
    """[m, 1]: how real the discriminator finds the first images, as many as fill groups, each as one of its label; float32 throughout."""
    some = whole_groups(D, img)
    takes = inspect.signature(D.forward).parameters.values()  # One that runs its own source may know of no float16.
    full = {"force_fp32": True} if any(each.name == "force_fp32" or each.kind is each.VAR_KEYWORD for each in takes) else {}
    return D(some, None if c is None else c[: len(some)], **full)
