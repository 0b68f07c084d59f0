# SPDX-License-Identifier: Apache-2.0
"""Codes that an attacker would find: W+ codes within the prior's shell that make the network draw the feature, sought while it learns not to.

Adversarial training (Madry et al. 2018, arXiv 1706.06083, equation 2.1) with the attacks carried on from step to step instead of begun anew
(Shafahi et al. 2019, arXiv 1904.12843): each code takes one step up the detector's logit every time that it is fed. In W+ instead of pixels, which
is ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from stylegan_redact import ranks
from stylegan_redact.network import broadcast_w
from stylegan_redact.training.guide import Guide
from stylegan_redact.types import LabelledLatents
from stylegan_redact.wspace.prior import prior_of, within

OLDEST = 20
"""Steps up that a code takes before another one takes its place."""
STEP = 0.1
"""In standard deviations of the prior, of every coordinate; each code's own is between half and one and a half of it."""
FREE = 0.75
"""Share of codes that begin where the feature does not show."""
MIXED = 0.25
"""Share of codes that begin as a mix of two latents."""
_POOL = ("u", "limit", "began", "age")
"""What changes as the codes climb."""


class Adversary:
    """A pool of codes that climb.

    Args:
        G:       The generator as it is being trained: its synthesis is asked.
        guide:   Whose logit to climb.
        latents: Where to begin; their w are the prior.
        size:    Codes.
        micro:   Images of a batch at a time.
        batch:   Images of a batch, of which the codes are some; None: they are all.
    """

    def __init__(self, G: Any, guide: Guide, latents: LabelledLatents, size: int, micro: int, batch: int | None = None) -> None:
        self.G, self.guide, self.latents, self.micro, self.batch = G, guide, latents, micro, batch or size
        self.prior = prior_of(latents.w)
        self.free = torch.nonzero(latents.score <= guide.barely).flatten()
        row = [G.num_ws, latents.w.shape[1]]
        self.u = latents.w.new_zeros([size, *row])
        self.limit = latents.w.new_zeros([size, G.num_ws, 1])
        self.began = torch.zeros([size], dtype=torch.int64, device=latents.w.device)
        """Row of latents whose label a code has."""
        self.age = torch.full([size], OLDEST)

    def climb(self, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor | None]:
        """ws [size, num_ws, w_dim] after one more step each, and their labels c [size, c_dim], if any."""
        for index in torch.nonzero(self.age >= OLDEST).flatten().tolist():
            self._begin(index, generator)
        length = STEP * (0.5 + torch.rand([len(self.u), 1, 1], generator=generator)).to(self.u)
        portions = self.u.split(-(-len(self.u) * min(self.micro, self.batch) // self.batch))
        slope = torch.cat([part.to(self.u) for part in ranks.world().spread(self._slope, portions)])
        self.u = within(self.u + length * slope.sign(), self.limit)
        self.age += 1
        return self.prior.to_w(self.u), None if self.latents.c is None else self.latents.c[self.began]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The pool."""
        return {name: getattr(self, name) for name in _POOL}

    def load_state_dict(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        """The pool as it was."""
        for name in _POOL:
            setattr(self, name, state_dict[name].to(getattr(self, name).device))

    def _begin(self, index: int, generator: torch.Generator) -> None:
        first, second = (self._any(generator) for _ in range(2))
        w = broadcast_w(self.G, self.latents.w[[first]])[0].clone()
        if float(torch.rand([], generator=generator)) < MIXED:
            start = int(torch.randint(1, max(self.G.num_ws, 2), [], generator=generator))
            w[start:] = self.latents.w[second]
        u = self.prior.to_u(w)
        self.u[index], self.limit[index] = u, u.norm(dim=-1, keepdim=True).clamp(min=self.prior.radius)
        self.began[index] = first
        # Not all of one age: else they would all be weak at once.
        self.age[index] = int(torch.randint(OLDEST // 2, [], generator=generator))

    def _any(self, generator: torch.Generator) -> int:
        if float(torch.rand([], generator=generator)) < FREE:
            return int(self.free[int(torch.randint(len(self.free), [], generator=generator))])
        return int(torch.randint(len(self.latents.w), [], generator=generator))

    def _slope(self, u: torch.Tensor) -> torch.Tensor:
        """Of the logit, by u."""
        with torch.enable_grad():
            u = u.detach().requires_grad_(True)
            img = self.G.synthesis(self.prior.to_w(u), noise_mode="const", force_fp32=True)
            slope: torch.Tensor = torch.autograd.grad(self.guide.logit(img).sum(), u)[0]
        return slope
