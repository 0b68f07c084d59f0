# SPDX-License-Identifier: Apache-2.0
"""The spaces that a latent can be sought in, each with coordinates in which the prior is round and a shell that 99 % of it lies within."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from stylegan_redact.network import broadcast_w, sample_w, sample_z, style_layers
from stylegan_redact.types import RedactError
from stylegan_redact.wspace.prior import SHELL, Prior, within

SPACES = ("z", "w", "w_plus", "s")
PRIOR_SEEDS = 4_000
"""Latents that the prior of W is estimated from."""


class Space:
    """Coordinates u of one space, to images of one generator.

    z: u is z. w: one u for all rows. w_plus: a u for each row of ws. s: u for each style layer, on top of the styles of the starting w; its shell is
    that of the styles of each layer.

    Args:
        name:  One of SPACES.
        G:     The generator.
        prior: Of its w.
        seeds: Starting points.
        c:     [n, c_dim] their labels, or None.
    """

    def __init__(self, name: str, G: Any, prior: Prior, seeds: tuple[int, ...], c: torch.Tensor | None) -> None:
        if name not in SPACES:
            raise RedactError(f"a search in {name!r} was asked - there is: {', '.join(SPACES)} - take one of them")
        if name == "s" and not style_layers(G):
            raise RedactError("a search in S was asked - no layer of this network is known to read w as a style - take w_plus, w or z")
        self.name, self.G, self.prior, self.c = name, G, prior, c if c is None else c.to(prior.mean.device)
        device = prior.mean.device
        if name == "z":
            self.start: list[torch.Tensor] = [sample_z(seeds, G.z_dim).to(device)]
            from scipy import stats  # It takes as long as torch to import, and the first step does not need it.

            self.radii = [float(stats.chi.ppf(SHELL, G.z_dim))]
            return
        self.w = sample_w(G, seeds, c=c)
        u = prior.to_u(self.w)
        if name == "s":
            self.styles = _styles(G, self.w)
            typical = _styles(G, prior.to_w(_round(PRIOR_SEEDS // 4, len(prior.mean), device)))
            self.centre = [style.mean(dim=0) for style in typical]
            self.scale = [style.std(dim=0).clamp(min=1e-6) for style in typical]
            self.start = [(style - m) / s for style, m, s in zip(self.styles, self.centre, self.scale, strict=True)]
            self.radii = [float(((style - m) / s).norm(dim=1).quantile(SHELL)) for style, m, s in zip(typical, self.centre, self.scale, strict=True)]
        else:
            self.start = [u[:, None].repeat(1, G.num_ws, 1) if name == "w_plus" else u]
            self.radii = [prior.radius]

    def draw(self, parts: list[torch.Tensor]) -> torch.Tensor:
        """img [n, C, H, W] of coordinates, differentiable."""
        if self.name == "z":
            ws = self.G.mapping(parts[0], self.c)
        elif self.name == "s":
            styles = [u * s + m for u, m, s in zip(parts, self.centre, self.scale, strict=True)]
            with _replaced(self.G, styles):
                return self._synthesize(broadcast_w(self.G, self.w))
        else:
            ws = broadcast_w(self.G, self.prior.to_w(parts[0]))
        return self._synthesize(ws)

    def draw_back(self, parts: list[torch.Tensor]) -> None:
        """To the shell, in place, where outside; a start that was outside may stay as far out as it was."""
        with torch.no_grad():
            for u, start, radius in zip(parts, self.start, self.radii, strict=True):
                u.copy_(within(u, start.norm(dim=-1, keepdim=True).clamp(min=radius)))

    def _synthesize(self, ws: torch.Tensor) -> torch.Tensor:
        img: torch.Tensor = self.G.synthesis(ws, noise_mode="const", force_fp32=True)
        return img


def _round(n: int, size: int, device: torch.device) -> torch.Tensor:
    return torch.randn([n, size], generator=torch.Generator().manual_seed(0)).to(device)


def _styles(G: Any, w: torch.Tensor) -> list[torch.Tensor]:
    with torch.no_grad():
        return [layer(w) for _, layer in style_layers(G).values()]


@contextmanager
def _replaced(G: Any, styles: list[torch.Tensor]) -> Iterator[None]:
    """Style layers give these styles, whatever they read."""

    def giving(style: torch.Tensor) -> Any:
        return lambda module, args, output: style

    handles = [layer.register_forward_hook(giving(style)) for (_, layer), style in zip(style_layers(G).values(), styles, strict=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
