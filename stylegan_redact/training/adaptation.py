# SPDX-License-Identifier: Apache-2.0
"""Adaptation of a generator to what is to go, so that others may move away from it: negative adaptation."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import logsigmoid

from stylegan_redact.losses.redaction import RedactionLoss
from stylegan_redact.losses.repulsion import elastic
from stylegan_redact.network import copy_network
from stylegan_redact.training.adversarial import Rules, Streams, fine_tune, trainable_copy, trained_parameters
from stylegan_redact.training.guide import verdict
from stylegan_redact.training.schedule import Schedule
from stylegan_redact.training.streams import Stream
from stylegan_redact.types import Network, Progress

FISHER_SAMPLES = 32


def adapted_weights(
    network: Network, shown: Stream, c: torch.Tensor | None, strength: float, rules: Rules, schedule: Schedule, progress: Progress | None = None
) -> list[torch.Tensor]:
    """The weights of G, in the order of `trained_parameters`, fine-tuned on pictures that show the feature.

    Args:
        network:  As it was.
        shown:    Pictures with the feature.
        c:        [k, c_dim] labels to draw from, of a conditional network.
        strength: Of elastic weight consolidation.
        rules, schedule, progress: Of the training.

    Source: Tiwary et al. 2023, arXiv 2309.14054, stage 1.
    """
    student = copy_network(network)
    weights = trained_parameters(student.G)
    original = [each.detach().clone() for each in weights]
    fisher = fisher_information(student.G, network.D, c, torch.Generator().manual_seed(schedule.seed))

    penalty = None if strength == 0 else (lambda: strength * elastic(weights, original, fisher))
    fine_tune(network, student, Streams(shown, penalty=penalty), RedactionLoss(), rules, schedule, progress, stage="adapt")
    return [each.detach() for each in weights]


def fisher_information(G: Any, D: Any, c: torch.Tensor | None, generator: torch.Generator, samples: int = FISHER_SAMPLES) -> list[torch.Tensor]:
    """Of each of `trained_parameters`, the mean squared slope of log D at single pictures: the diagonal, scaled to a mean of 1.

    Args:
        G: Left without gradients.
        D: Its discriminator; it stays.
        c: [k, c_dim] labels to draw from.
        generator: Of the latents.
        samples: Pictures.
    """
    critic = trainable_copy(D).requires_grad_(False)
    weights = trained_parameters(G)
    for each in weights:
        each.requires_grad_(True)
    total = [torch.zeros_like(each) for each in weights]
    for _ in range(samples):
        z = torch.randn([1, G.z_dim], generator=generator).to(weights[0].device)
        label = None if c is None else c[torch.randint(len(c), [1], generator=generator).to(c.device)]
        img = G.synthesis(G.mapping(z, label), noise_mode="const", force_fp32=True)
        slopes = torch.autograd.grad(logsigmoid(verdict(critic, img, label)).sum(), weights, allow_unused=True)
        for mine, slope in zip(total, slopes, strict=True):
            if slope is not None:
                mine += slope.square()
    for each in weights:
        each.requires_grad_(False)
    mean = sum(float(each.sum()) for each in total) / sum(each.numel() for each in total)
    return [each / max(mean, 1e-30) for each in total]
