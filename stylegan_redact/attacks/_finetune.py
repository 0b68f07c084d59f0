# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning as an attacker, or an honest user, would do it: adversarially on images, or towards pictures of known latents."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch

from stylegan_redact.losses.ms_ssim import ms_ssim
from stylegan_redact.losses.redaction import RedactionLoss
from stylegan_redact.network import trainable
from stylegan_redact.training.adversarial import Game, Rules, Streams
from stylegan_redact.training.schedule import Schedule
from stylegan_redact.training.streams import Stream
from stylegan_redact.types import RedactError


def towards_pictures(G: Any, ws: torch.Tensor, img: torch.Tensor, *, lr: float, batch: int, generator: torch.Generator) -> Iterator[Any]:
    """A copy of G whose synthesis network learns to draw img [k, C, H, W] for ws [k, num_ws, w_dim]; yielded after each step. G stays."""
    student = copy.deepcopy(G)
    parameters = [parameter.requires_grad_(True) for parameter in trainable(student.synthesis)]
    optimizer = torch.optim.Adam(parameters, lr=lr, betas=(0.0, 0.99))
    while True:
        rows = torch.randint(len(ws), [min(batch, len(ws))], generator=generator) if len(ws) > batch else torch.arange(len(ws))
        drawn = student.synthesis(ws[rows], noise_mode="const", force_fp32=True)
        loss = (drawn - img[rows]).abs().mean() + 0.3 * (1 - ms_ssim(drawn, img[rows])).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield student


def adversarially(G: Any, D: Any, real: Stream, *, lr: float, batch: int, generator: torch.Generator, r1_gamma: float = 1.0) -> Iterator[Any]:
    """A copy of G that trains on real pictures against a copy of D, as any StyleGAN is trained; yielded after each step. G and D stay.

    Non-saturating logistic loss with R1 at every eighth step. The stream has labels, if the networks are conditional.

    Raises:
        RedactError: there is no discriminator.
    """
    if D is None:
        raise RedactError("fine-tuning against the discriminator was asked - the file has none that is known here - leave out this attack")
    rules = Rules(r1=r1_gamma, r1_interval=8, paths=0.0)
    schedule = Schedule(steps=0, batch=batch, lr=lr, seed=0)  # As many steps as are asked for, with randomness of the caller.
    game = Game(copy.deepcopy(G), copy.deepcopy(D), Streams(real), RedactionLoss(), rules, schedule, generator)
    while True:
        game.step()
        yield game.G
