# SPDX-License-Identifier: Apache-2.0
"""Teaches a synthesis network to draw, for every w, what it drew for the edited w: an edit of latents baked into the weights."""

from __future__ import annotations

from collections.abc import Callable

import torch

from stylegan_redact.network import check_finite, copy_network, trainable
from stylegan_redact.training.checkpoint import Training, Turn, train
from stylegan_redact.training.portions import descend
from stylegan_redact.training.schedule import Schedule, falling
from stylegan_redact.types import Network, Progress

Pairs = Callable[[int, torch.Generator], tuple[torch.Tensor, torch.Tensor]]
"""(n, generator) -> ws [n, num_ws, w_dim] as callers feed it, and the ws whose picture shall come out."""


def distilled(network: Network, pairs: Pairs, loss: torch.nn.Module, schedule: Schedule, progress: Progress | None = None) -> Network:
    """A copy of the network whose synthesis was taught by that of its G_ema; G's synthesis becomes G_ema's. Arguments as below.

    Raises:
        RedactError: a tensor is no longer finite.
    """
    after = copy_network(network)

    def so_far() -> Network:
        after.G.synthesis.load_state_dict(after.G_ema.synthesis.state_dict())
        return after

    distill_synthesis(after.G_ema.synthesis, network.G_ema.synthesis, pairs, loss, schedule, progress=progress, so_far=so_far)
    check_finite(so_far())
    return after


def distill_synthesis(
    student: torch.nn.Module,
    teacher: torch.nn.Module,
    pairs: Pairs,
    loss: torch.nn.Module,
    schedule: Schedule,
    *,
    progress: Progress | None = None,
    so_far: Callable[[], Network] | None = None,
) -> None:
    """Trains the synthesis network `student` in place towards `teacher` at the edited latents. What steers the pose stays as it is.

    Args:
        student:  Synthesis network, starts as a copy of the teacher.
        teacher:  Frozen synthesis network.
        pairs:    What to feed and what to aim at; rows that are equal are to be reconstructed.
        loss:     Of (picture, target, target, which rows differ), such as UnlearnLoss or LikenessLoss: a NamedTuple with `total`.
        schedule: Steps and sizes.
        progress: Told (stage, share done, figures).
        so_far:   The network that the student is of.
    """
    generator = torch.Generator().manual_seed(schedule.seed)
    student.requires_grad_(False)
    parameters = trainable(student)
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(parameters, lr=schedule.lr, betas=(0.0, 0.99), fused=True)
    batch, steps = schedule.batch, schedule.steps

    def step(turn: Turn) -> dict[str, float]:
        optimizer.param_groups[0]["lr"] = turn.rate * schedule.lr * min(1.0, (turn.step + 1) / 10) * falling(turn.step, steps)
        ws, aim = pairs(batch, generator)

        def work(part: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            fed, goal = part
            moved = (fed != goal).flatten(1).any(dim=1)
            with torch.no_grad():
                target = teacher(goal, noise_mode="const", force_fp32=True)
            terms = loss(student(fed, noise_mode="const", force_fp32=True), target, target, moved)._asdict()
            return terms["total"], terms

        portions = [(part, len(part[0]) / batch) for part in zip(ws.split(turn.micro), aim.split(turn.micro), strict=True)]
        figures = descend(parameters, portions, work)
        optimizer.step()
        return figures

    parts = {"student": student, "optimizer": optimizer}
    train(Training("distil", steps, batch, step, parts, generator, schedule.micro_batch, so_far=so_far, split=True), progress)
    student.requires_grad_(False)
