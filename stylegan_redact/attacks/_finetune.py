# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning as an attacker, or an honest user, would do it: adversarially on images, or towards pictures of known latents."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import softplus

from stylegan_redact.losses.ms_ssim import ms_ssim
from stylegan_redact.network import trainable
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


def adversarially(
    G: Any, D: Any, img: torch.Tensor, c: torch.Tensor | None, *, lr: float, batch: int, generator: torch.Generator, r1_gamma: float = 1.0
) -> Iterator[Any]:
    """A copy of G that trains on img [k, C, H, W] against a copy of D, as any StyleGAN is trained; yielded after each step. G and D stay.

    Non-saturating logistic loss with R1 at every eighth step (Mescheder et al. 2018, arXiv 1801.04406; Karras et al. 2020, arXiv 1912.04958,
    appendix B). c: [k, c_dim] labels of the images, if the networks are conditional.

    Raises:
        RedactError: there is no discriminator.
    """
    if D is None:
        raise RedactError("fine-tuning against the discriminator was asked - the file has none that is known here - leave out this attack")
    student, critic = copy.deepcopy(G), copy.deepcopy(D).requires_grad_(True)
    device = img.device
    student.requires_grad_(True)
    optimizers = [torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=lr, betas=(0.0, 0.99)) for net in (student, critic)]
    step = 0
    while True:
        rows = torch.randint(len(img), [batch], generator=generator).to(device)
        real, label = img[rows], None if c is None else c[rows]
        fake = _fake(student, batch, label, generator, device)
        critic.requires_grad_(False)
        _take(optimizers[0], softplus(-critic(fake, label, force_fp32=True)).mean())
        critic.requires_grad_(True)
        loss = softplus(critic(fake.detach(), label, force_fp32=True)).mean() + softplus(-critic(real, label, force_fp32=True)).mean()
        if step % 8 == 0:
            some = real.detach().requires_grad_(True)
            slope = torch.autograd.grad(critic(some, label, force_fp32=True).sum(), some, create_graph=True)[0]
            loss = loss + 8 * r1_gamma / 2 * slope.square().sum(dim=[1, 2, 3]).mean()
        _take(optimizers[1], loss)
        step += 1
        yield student


def _fake(G: Any, n: int, c: torch.Tensor | None, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    z = torch.randn([n, G.z_dim], generator=generator).to(device)
    img: torch.Tensor = G.synthesis(G.mapping(z, c), noise_mode="const", force_fp32=True)
    return img


def _take(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
