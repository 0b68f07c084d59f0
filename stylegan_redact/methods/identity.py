# SPDX-License-Identifier: Apache-2.0
"""One person, known by photographs, is drawn as somebody else; all others stay who they are.

The task is that of Seo et al. 2024, "Generative Unlearning for Any Identity" (GUIDE), CVPR, arXiv 2405.09879: the synthesis network alone is
fine-tuned to draw, at the person's W+ code and near it, what it drew at a target code. What differs is ours, and so are all settings:

* *The target.* GUIDE goes from the code through the mean and far past it, which leaves the prior, and users report that two people unlearn to nearly
  the same face (GUIDE's issue 2). Here the default is the typical person that lies nearest without being the person: a w that the mapping network
  gives, hence a picture that the network draws well, another one for each person, with as much of skin, hair and light as a neighbour shares.
  `mirror` is the most different one at a typical distance; `extrapolate` is GUIDE's, with its d as `reach`; with a reach of 0 it is the mean.
* *How far it reaches.* Distances are measured where the prior is round. A code u is moved by share(u) (target - person), where share is 1 within the
  inner shell, 0 outside the outer one and linear between: a continuous map of codes, so that nothing has to jump. The outer shell is as wide as
  leaves all but a share `others` of typical people outside.
* *Everybody else.* The same users report that all faces change. More than half of each batch is held to what it drew: people by their w, those most
  like the person above all, W+ codes mixed of two of them or of one and the person, and codes just outside the outer shell, where a spill would show
  first. Holding what lies near a tuned code is the locality regularisation of Roich et al. 2021, "Pivotal Tuning", arXiv 2106.05744.

The mapping network stays: z, w and W+ all meet the redaction in the synthesis network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from stylegan_redact.losses.likeness import LikenessLoss
from stylegan_redact.network import broadcast_w, with_pose_of
from stylegan_redact.plugins import option
from stylegan_redact.training.distill import Pairs, distilled
from stylegan_redact.training.schedule import Schedule
from stylegan_redact.types import Feature, Network, Progress, RedactError
from stylegan_redact.wspace.place import TARGETS, Place, place_of, target_of
from stylegan_redact.wspace.prior import Prior, prior_of

JUST_OUTSIDE = 2.0
"""Codes up to this many times the outer radius are drawn to see a spill."""
LIKE = 0.1
"""Share of people that are most like the person: half of those who are held are of them, since they are the first to change."""


@dataclass(frozen=True)
class Identity:
    """The synthesis network draws somebody else where it drew the person."""

    target: str = option("nearest", "who is drawn instead", choices=TARGETS)
    reach: float = option(30.0, "of target=extrapolate: how far past the mean, in units of w", low=0.0, high=10000.0)
    radius: float = option(0.3, "inner radius, up to which a code is the person, as a share of the outer one", low=0.0, high=0.95)
    others: float = option(0.001, "share of typical people within the outer radius", low=0.0, high=0.5)
    strength: float = option(0.5, "weight of the person against everybody else", low=0.0, high=1000.0)
    structure: float = option(1.0, "weight of 1 - MS-SSIM against L1", low=0.0, high=1000.0)
    kimg: float = option(6.0, "thousands of images to train on", low=0.0, high=10000.0)
    batch: int = option(32, "images of a step", low=8, high=4096)
    lr: float = option(0.001, "Adam's step, falling to zero", low=0.0, high=1.0)
    batch_gpu: int | None = option(None, "images at a time, to save memory; None: the whole batch", low=1, high=4096)

    needs: ClassVar[tuple[str, ...]] = ("latents", "codes")
    watched: ClassVar[bool] = True
    passes: ClassVar[Mapping[str, float]] = {"draw": 4, "compare": 3}

    def redact(self, network: Network, feature: Feature, keep: tuple[str, ...], seed: int, progress: Progress | None = None) -> Network:
        """A network whose synthesis draws somebody else at the feature's codes and near them. G's synthesis becomes G_ema's."""
        if feature.latents is None or feature.codes is None:
            raise RedactError(
                f"{feature.name} was to be redacted by identity - it needs latents and the codes of photographs - give --feature=person:PHOTOS"
            )
        prior = prior_of(feature.latents.w)
        typical = prior.to_u(feature.latents.w)
        place = place_of(prior.to_u(feature.codes), typical, inner=self.radius, others=self.others)
        target = target_of(place, typical, prior, kind=self.target, reach=self.reach)
        held = feature.latents.w if feature.bystanders is None else torch.cat([feature.latents.w, feature.bystanders.w])
        schedule = Schedule(max(round(self.kimg * 1000 / self.batch), 1), self.batch, self.lr, seed, self.batch_gpu)
        pairs = moved_pairs(network.G_ema, prior, place, target, held)
        loss = LikenessLoss(self.strength, self.structure)
        return distilled(network, pairs, loss, schedule, progress)


def moved_pairs(G: Any, prior: Prior, place: Place, target: torch.Tensor, held: torch.Tensor) -> Pairs:
    """Draws codes and where each is to be drawn from: in eighths, three of the person, one between the shells, one just outside, one of mixes, two of
    others.

    Args:
        G:      Generator, for the shape of its codes.
        prior:  That the place is in coordinates of.
        place:  The person's.
        target: [w_dim], u of who is drawn instead.
        held:   [m, w_dim] w of other people.
    """
    other = prior.to_u(held)
    away = place.distance(other[:, None].expand(-1, G.num_ws, -1))
    like = other[away.argsort()[: max(round(LIKE * len(other)), 1)]]
    way = target - place.centre  # [num_ws, w_dim]

    def some(n: int, generator: torch.Generator) -> torch.Tensor:
        """Half of them of those most like the person."""
        parts = [pool[torch.randint(len(pool), [m], generator=generator).to(pool.device)] for pool, m in ((like, n // 2), (other, n - n // 2))]
        return torch.cat(parts)[:, None].expand(-1, G.num_ws, -1)

    def mixed(n: int, generator: torch.Generator) -> torch.Tensor:
        """Rows of one code and then of another; the one is the person's in half of them."""
        one, rest = some(n, generator).clone(), some(n, generator)
        one[: n // 2] = place.u[torch.randint(len(place.u), [n // 2], generator=generator).to(other.device)]
        first = torch.arange(G.num_ws).view(1, -1, 1) < torch.randint(1, G.num_ws, [n, 1, 1], generator=generator)
        flipped = torch.rand([n, 1, 1], generator=generator) < 0.5
        return torch.where((first ^ flipped).to(other.device), one, rest)

    def pairs(n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        eighth = n // 8
        parts = [
            place.around(eighth, 0.0, 0.0, other, generator),
            place.around(2 * eighth, 0.0, place.inner, other, generator),
            place.around(eighth, place.inner, place.outer, other, generator),
            place.around(eighth, place.outer, JUST_OUTSIDE * place.outer, other, generator),
            mixed(eighth, generator),
            some(n - 6 * eighth, generator),
        ]
        u = torch.cat(parts)
        ws, share = broadcast_w(G, prior.to_w(u)), place.share(u)[:, None, None]
        aim = torch.where(share > 0, prior.to_w(u + share * way), ws)
        return ws, with_pose_of(G, ws, aim)

    return pairs
