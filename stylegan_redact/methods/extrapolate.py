# SPDX-License-Identifier: Apache-2.0
"""Extrapolation of weights: adapted to the feature, the way that the weights went is gone backwards.

theta = theta_0 - gamma (theta_N - theta_0), theta_N being G fine-tuned on what the original draws with the feature. The motivation, and a baseline,
of Tiwary et al. 2023, "Adapt then Unlearn", arXiv 2309.14054, who report that it removes the feature and spoils the pictures. Settings are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from stylegan_redact.methods._adversarial import Adversarial, copied, shown_stream
from stylegan_redact.network import check_finite
from stylegan_redact.plugins import option
from stylegan_redact.training.adaptation import adapted_weights
from stylegan_redact.training.adversarial import trained_parameters
from stylegan_redact.types import Feature, Network, Progress

CENTRE_SAMPLES = 4096


@dataclass(frozen=True)
class Extrapolate(Adversarial):
    """Weights moved away from those of a network adapted to the feature."""

    kimg: float = option(3.0, "thousands of images to adapt on", low=0.0, high=100000.0)
    gamma: float = option(1.0, "how far back, of the way to the adapted weights", low=0.0, high=100.0)
    ewc: float = option(10.0, "weight of elastic weight consolidation in the adaptation", low=0.0, high=1e9)

    watched: ClassVar[bool] = False  # What it trains is the network that it goes away from.
    passes: ClassVar[Mapping[str, float]] = Adversarial.passes

    @torch.no_grad()
    def redact(self, network: Network, feature: Feature, keep: tuple[str, ...], seed: int, progress: Progress | None = None) -> Network:
        """A network whose G and G_ema were moved by the same step. It does not look at bystanders."""
        after = copied(network, feature, "extrapolate")
        assert feature.latents is not None
        with torch.enable_grad():
            shown = shown_stream(network, feature)
            adapted = adapted_weights(network, shown, feature.latents.c, self.ewc, self.rules(), self.schedule(seed), progress)
        steps = [-self.gamma * (theirs - mine) for theirs, mine in zip(adapted, trained_parameters(network.G), strict=True)]
        for before, net in ((network.G, after.G), (network.G_ema, after.G_ema)):
            for weight, step in zip(trained_parameters(net), steps, strict=True):
                weight.add_(step)
            follow_centre(before, net, feature.latents.c, torch.Generator().manual_seed(seed))
        check_finite(after)
        return after


def follow_centre(before: Any, after: Any, c: torch.Tensor | None, generator: torch.Generator) -> None:
    """Moves the centre of truncation as far as the mean of the mapping network's output moved."""
    centre = getattr(after.mapping, "w_avg", None)
    if centre is None or centre.ndim != 1:
        return
    z = torch.randn([CENTRE_SAMPLES, after.z_dim], generator=generator).to(centre.device)
    labels = None if c is None else c[torch.randint(len(c), [len(z)], generator=generator).to(c.device)]
    centre.add_((after.mapping(z, labels)[:, 0] - before.mapping(z, labels)[:, 0]).mean(dim=0))
