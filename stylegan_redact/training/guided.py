# SPDX-License-Identifier: Apache-2.0
"""Teaches a synthesis network to draw, wherever its picture shows a feature, the same picture without it, and elsewhere what it drew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.nn.functional import softplus

from stylegan_redact.losses.ms_ssim import ms_ssim
from stylegan_redact.network import trainable
from stylegan_redact.training.adversary import Adversary
from stylegan_redact.training.augment import Views, draw_views
from stylegan_redact.training.checkpoint import Training, Turn, train
from stylegan_redact.training.guide import Guide, verdict
from stylegan_redact.training.portions import descend
from stylegan_redact.training.schedule import Schedule, falling
from stylegan_redact.types import Network, Progress


class Batch(NamedTuple):
    """What to feed."""

    ws: torch.Tensor
    """[n, num_ws, w_dim], as callers feed it."""
    held: torch.Tensor
    """[n] bool: to be left as they are, whatever they show."""
    c: torch.Tensor | None = None
    """[n, c_dim] labels, of a conditional network."""
    sought: torch.Tensor | None = None
    """[n] bool: found by an attacker; None: none is."""

    def split(self, size: int) -> list[Batch]:
        """The same in portions."""
        count = -(-len(self.ws) // size)
        labels, sought = (part.split(size) if part is not None else [None] * count for part in (self.c, self.sought))
        return [Batch(*parts) for parts in zip(self.ws.split(size), self.held.split(size), labels, sought, strict=True)]


Codes = Callable[[int, torch.Generator], Batch]
"""(n, generator) -> n codes."""


@dataclass(frozen=True)
class GuidedLoss:
    """The terms of the objective, with their weights.

    A picture that shows the feature by the detector's word is *marked*; of a marked one only those pixels may change whose change lowers the
    detector's logit (training/locate.py).
    """

    guide: Guide
    D: torch.nn.Module | None = None
    """The discriminator, if it is asked about marked pictures: half a feature looks like nothing that it was trained on."""
    guidance: float = 0.015
    """What is left of the feature in marked pictures, and in those that show it only now."""
    sought: float = 1.0
    """What codes that an attacker found count of that."""
    hold: float = 0.15
    """Distance of the detector's other logits."""
    still: float = 0.3
    """1 - MS-SSIM of unmarked pictures."""
    elsewhere: float = 1.0
    """Mean absolute change of unmarked pictures, and of marked ones where it is not wanted."""
    real: float = 0.025
    inside: float = 0.03
    """Mean absolute change of marked pictures where it is wanted."""
    anywhere: float = 0.0
    """Share of the difference between the two that marked pictures are let off where it is not wanted: who leaves a class changes as a whole."""

    def terms(self, img: torch.Tensor, before: torch.Tensor, batch: Batch, views: Views) -> dict[str, torch.Tensor]:
        """Weighted terms, scalars: means over the batch, pictures that a term does not concern counting 0.

        Args:
            img:    [n, C, H, W] in [-1, 1], with gradient.
            before: [n, C, H, W], of the same codes by the network as it was.
            batch:  The codes.
            views:  Of the pictures.
        """
        left, change, marked, shown = self.guide.compare(img, before, batch.held, views)
        free = img.new_full([len(img), 1, *img.shape[2:]], self.elsewhere)
        if batch.sought is not None:
            left = torch.where(batch.sought, self.sought * left, left)
        terms = {"feature": self.guidance * left.mean(), "others": self.hold * change}
        if bool(marked.any()):
            place = self.guide.wanted(before[marked], img[marked].detach(), shown[marked])
            place = place + self.anywhere * (1 - place) if self.anywhere else place
            free[marked] = self.elsewhere - (self.elsewhere - self.inside) * place
            if self.D is not None:
                found = verdict(self.D, img[marked], None if batch.c is None else batch.c[marked])
                terms["realism"] = self.real * marked.float().mean() * softplus(-found).mean()
        if not bool(marked.all()):
            terms["structure"] = self.still * (1 - ms_ssim(img[~marked], before[~marked])).sum() / len(img)
        return terms | {"change": (free * (img - before).abs()).mean()}


@dataclass(frozen=True)
class Sought:
    """Codes of which the first ones are what an adversary has found, and the rest are drawn."""

    adversary: Adversary
    drawn: Codes

    def __call__(self, n: int, generator: torch.Generator) -> Batch:
        """n codes."""
        ws, c = self.adversary.climb(generator)
        rest = self.drawn(n - len(ws), generator)
        labelled = None if c is None or rest.c is None else torch.cat([c, rest.c])
        first = torch.arange(n, device=ws.device) < len(ws)
        return Batch(torch.cat([ws, rest.ws]), torch.cat([rest.held.new_zeros([len(ws)]), rest.held]), labelled, first)


def guided_synthesis(
    student: torch.nn.Module,
    teacher: torch.nn.Module,
    codes: Codes,
    loss: GuidedLoss,
    schedule: Schedule,
    progress: Progress | None = None,
    *,
    img_shape: Sequence[int],
    so_far: Callable[[], Network] | None = None,
) -> None:
    """Trains the synthesis network `student` in place. What steers the pose stays as it is.

    Args:
        student:   Starts as a copy of the teacher.
        teacher:   Frozen.
        codes:     What to feed.
        loss:      What to minimise.
        schedule:  Steps and sizes.
        progress:  Told (stage, share done, figures).
        img_shape: [C, H, W] of the pictures.
        so_far:    The network that the student is of.
    """
    generator = torch.Generator().manual_seed(schedule.seed)
    student.requires_grad_(False)
    parameters = trainable(student)
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(parameters, lr=schedule.lr, betas=(0.9, 0.99), fused=True)
    batch, steps = schedule.batch, schedule.steps

    def step(turn: Turn) -> dict[str, float]:
        optimizer.param_groups[0]["lr"] = turn.rate * schedule.lr * min(1.0, (turn.step + 1) / 10) * falling(turn.step, steps)
        drawn = codes(batch, generator)
        views = draw_views([batch, *img_shape], generator, mirror=loss.guide.mirror)

        def work(part: tuple[Batch, Views]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            fed, seen = part
            with torch.no_grad():
                before = teacher(fed.ws, noise_mode="const", force_fp32=True)
            terms = loss.terms(student(fed.ws, noise_mode="const", force_fp32=True), before, fed, seen)
            return torch.stack(list(terms.values())).sum(), terms

        portions = [(part, len(part[0].ws) / batch) for part in zip(drawn.split(turn.micro), views.split(turn.micro), strict=True)]
        figures = descend(parameters, portions, work)
        optimizer.step()
        return figures

    parts = {"student": student, "optimizer": optimizer} | ({"sought": codes.adversary} if isinstance(codes, Sought) else {})
    train(Training("edit", steps, batch, step, parts, generator, schedule.micro_batch, so_far=so_far, split=True), progress)
    student.requires_grad_(False)
