# SPDX-License-Identifier: Apache-2.0
"""The published feature unlearning to the letter, its two traps included, to be set beside `unlearn`.

Implements the objective of Moon, Cho & Kim 2024, "Feature Unlearning for Pre-trained GANs and VAEs", arXiv 2303.05699v4:

    z_e = mean(z | shows) - mean(z | does not)         not normalised
    proj(z) = z_e . z / |z_e|,  t = mean of proj(z) over all that were labelled,  sim(z) = 1 if proj(z) >= t else 0
    z_hat = z - (proj(z) - t) z_e
    L = alpha sim(z) (|g(z) - f(z_hat)|_1 + 1 - MS-SSIM(g(z), f(z_hat))) + (1 - sim(z)) |g(z) - f(z)|_1,  z from the prior at each step

alpha, learning rate, batch and number of steps are ours, since the paper's are not known to us. Which latent of a StyleGAN is z is not known to us
either: `space`. Whatever the space, the mapping network stays as it is, and what learns is the synthesis network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from stylegan_redact import labels
from stylegan_redact.losses.unlearn import PublishedTarget, UnlearnLoss, published_target
from stylegan_redact.network import broadcast_w, c_dim_of, sample_z, with_pose_of
from stylegan_redact.plugins import option
from stylegan_redact.training.distill import Pairs, distilled
from stylegan_redact.training.schedule import Schedule, steps_of
from stylegan_redact.types import Feature, LabelledLatents, Network, Progress, RedactError


@dataclass(frozen=True)
class Moon:
    """Moon et al.'s objective with their target: mean difference, not normalised, and the mean projection for a threshold."""

    space: str = option("z", "where the target lies: z, or w, the mapping network's output", choices=("z", "w"))
    marks: int | None = option(None, "labelled latents to use, the first ones; None: all. Their user study had 500", low=2, high=10_000_000)
    strength: float = option(2.0, "alpha: weight of the removal against the reconstruction", low=0.0, high=1000.0)
    kimg: float = option(8.0, "thousands of images to train on", low=0.0, high=10000.0)
    batch: int = option(32, "images of a step", low=1, high=4096)
    lr: float = option(0.001, "Adam's step, falling to zero", low=0.0, high=1.0)
    batch_gpu: int | None = option(None, "images at a time, to save memory; None: the whole batch", low=1, high=4096)

    needs: ClassVar[tuple[str, ...]] = ("latents",)
    watched: ClassVar[bool] = True
    passes: ClassVar[Mapping[str, float]] = {"draw": 4, "compare": 3}

    def redact(self, network: Network, feature: Feature, keep: tuple[str, ...], seed: int, progress: Progress | None = None) -> Network:
        """A network whose synthesis draws f(z_hat) past the mean projection and f(z) before it. G's synthesis becomes G_ema's."""
        asked = f"{feature.name} was to be redacted by moon"
        if feature.latents is None:
            raise RedactError(f"{asked} - there are no labelled latents of it - gather it from a classifier")
        G: Any = network.G_ema
        target = self.target(G, feature.latents, asked)
        c = labels.needed(feature.latents.c, c_dim_of(G), asked)
        held = None if feature.bystanders is None else feature.bystanders.c
        schedule = Schedule(steps_of(self.kimg, self.batch), self.batch, self.lr, seed, self.batch_gpu)
        return distilled(network, prior_pairs(G, target, self.space, c, held), UnlearnLoss(self.strength), schedule, progress)

    def target(self, G: Any, latents: LabelledLatents, asked: str) -> PublishedTarget:
        """The gate and the step, by the latents that are used.

        Raises:
            RedactError: z is wanted and the latents have no seeds, or all that are used show the feature, or none.
        """
        if self.space == "z" and latents.seeds is None:
            raise RedactError(f"{asked} in z - its labelled latents have no seeds to draw z again by - use --space=w")
        w, shows = latents.w[: self.marks], (latents.score > 0)[: self.marks]
        if bool(shows.all()) or not bool(shows.any()):
            raise RedactError(f"{asked} - {int(shows.sum())} of the {len(shows)} latents used show it - both kinds are needed, use more --marks")
        if self.space == "w" or latents.seeds is None:
            return published_target(w, shows)
        return published_target(sample_z(latents.seeds[: self.marks].tolist(), G.z_dim).to(w.device), shows)


def prior_pairs(G: Any, target: PublishedTarget, space: str, c: torch.Tensor | None, held: torch.Tensor | None) -> Pairs:
    """Draws z from the prior: what the synthesis network is fed, and what it is to draw.

    Args:
        G:      Its mapping network is used as it is.
        target: In `space`.
        space:  z or w.
        c:      [n, c_dim] labels of the latents that were labelled, to draw from; None or c_dim 0: unconditional.
        held:   [m, c_dim] labels of classes that are to stay: half of each batch.
    """
    device = next(G.parameters()).device

    def some(of: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
        return of[torch.randint(len(of), [count], generator=generator).to(of.device)].to(device)

    def pairs(n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        num_held = 0 if held is None else n // 2
        z = torch.randn([n, G.z_dim], generator=generator).to(device)
        parts = [] if c is None or c.shape[1] == 0 else [some(c, n - num_held, generator)]
        parts += [some(held, num_held, generator)] if held is not None else []
        label = torch.cat(parts) if parts else None
        with torch.no_grad():
            w = G.mapping(z, label)[:, 0]
            latent = z if space == "z" else w
            shows = target.moves(latent) & (torch.arange(n, device=device) < n - num_held)
            goal = G.mapping(target(z), label)[:, 0] if space == "z" else target(w)
            ws, aim = (broadcast_w(G, each) for each in (w, torch.where(shows[:, None], goal, w)))
        return ws, with_pose_of(G, ws, aim)

    return pairs
