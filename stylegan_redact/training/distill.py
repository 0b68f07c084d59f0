# SPDX-License-Identifier: Apache-2.0
"""Teaches a synthesis network to draw, for every w, what it drew for the edited w: an edit of latents baked into the weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from stylegan_redact.losses.unlearn import UnlearnLoss
from stylegan_redact.training.regress import Progress

Pairs = Callable[[int, torch.Generator], tuple[torch.Tensor, torch.Tensor]]
"""(n, generator) -> ws [n, num_ws, w_dim] as callers feed it, and the ws whose picture shall come out."""


def distill_synthesis(
    student: torch.nn.Module, teacher: torch.nn.Module, pairs: Pairs, loss: UnlearnLoss, *, steps: int, batch: int, lr: float, seed: int,
    micro_batch: int | None = None, progress: Progress | None = None,
) -> None:  # fmt: skip
    """Trains the synthesis network `student` in place towards `teacher` at the edited latents.

    Args:
        student:     Synthesis network, starts as a copy of the teacher.
        teacher:     Frozen synthesis network.
        pairs:       What to feed and what to aim at; rows that are equal are to be reconstructed.
        loss:        L1 + MS-SSIM where the two differ, L1 where not.
        steps:       Optimiser steps of `batch` images each.
        lr:          Adam's, falling to zero by a cosine.
        seed:        Of the latents.
        micro_batch: Images at a time, to save memory; gradients add up.
    """
    generator = torch.Generator().manual_seed(seed)
    student.requires_grad_(True)
    optimizer = torch.optim.Adam(student.parameters(), lr=lr, betas=(0.0, 0.99))
    micro = batch if micro_batch is None else min(micro_batch, batch)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min(1.0, (step + 1) / 10) * 0.5 * (1 + math.cos(math.pi * step / steps))
        ws, aim = pairs(batch, generator)
        figures: dict[str, float] = {}
        optimizer.zero_grad(set_to_none=True)
        for part, goal in zip(ws.split(micro), aim.split(micro), strict=True):
            moved = (part != goal).flatten(1).any(dim=1)
            with torch.no_grad():
                target = teacher(goal, noise_mode="const", force_fp32=True)
            terms = loss(student(part, noise_mode="const", force_fp32=True), target, target, moved)
            (terms.total * (len(part) / batch)).backward()
            for name, value in terms._asdict().items():
                figures[name] = figures.get(name, 0.0) + float(value.detach()) * len(part) / batch
        optimizer.step()
        if progress is not None and (step % 10 == 0 or step + 1 == steps):
            progress("distil", (step + 1) / steps, figures)
    student.requires_grad_(False)
