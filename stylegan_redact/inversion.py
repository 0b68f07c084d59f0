# SPDX-License-Identifier: Apache-2.0
"""Pictures -> W+ codes whose pictures by a network are as near to them as it gets, without going farther from the prior than that takes.

Used by who redacts a person (features/person.py), by who measures that (evaluation/_person.py) and by who attacks (attacks/inversion.py), at one
budget. A code far from the prior draws nearly any picture and says little: so the squared distance to the mean and the spread of a code's rows about
their own mean are both charged for.

Source: W+ is of Abdal, Qin & Wonka 2019, "Image2StyleGAN", arXiv 1904.03189. That codes near W can be edited and codes far from it cannot, and the
charge on the spread of the rows: Tov et al. 2021, arXiv 2102.02766. The coordinates, in which the prior is round, and all settings are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from stylegan_redact.losses.likeness import difference
from stylegan_redact.network import broadcast_w, synthesize
from stylegan_redact.types import Progress
from stylegan_redact.wspace.prior import Prior

STARTS = 256
"""Latents whose pictures are looked at for where to begin."""

Describe = Callable[[torch.Tensor], torch.Tensor]
"""img [n, C, H, W] -> features [n, d], differentiable."""


@dataclass(frozen=True)
class Search:
    """How long and by what a code is sought."""

    steps: int = 100
    """Of Adam."""
    step_size: float = 0.1
    """Adam's, in standard deviations of the prior."""
    structure: float = 0.3
    """Weight of 1 - MS-SSIM against L1."""
    perceptual: float = 0.1
    """Weight of 1 - cosine of the features, where some are given."""
    near: float = 0.02
    """Charge on the mean square of the code's coordinates: a typical code has 1."""
    together: float = 0.02
    """Charge on the mean square of what the rows' coordinates differ by from their mean."""


class Step(NamedTuple):
    """Where a search stands."""

    drawn: torch.Tensor
    """[n, C, H, W] of the codes, with gradient."""
    error: torch.Tensor
    """[n], L1 to the pictures, with gradient."""
    u: torch.Tensor
    """[n, num_ws, w_dim]: the codes in coordinates of the prior, without."""


def walk(
    G: Any, prior: Prior, img: torch.Tensor, search: Search, describe: Describe | None = None, start: torch.Tensor | None = None
) -> Iterator[Step]:
    """A search step by step: search.steps + 1 of them, the first at the start. Nothing is random.

    Args:
        G:        Generator; it is not changed.
        prior:    Of its w.
        img:      [n, C, H, W] the pictures.
        search:   Settings.
        describe: Features for the perceptual term; None: without it.
        start:    [n, w_dim] w to start at; None: the mean.
    """
    u = torch.zeros([len(img), G.num_ws, len(prior.mean)], device=img.device)
    u = (u if start is None else u + prior.to_u(start)[:, None]).requires_grad_(True)
    optimizer = torch.optim.Adam([u], lr=search.step_size)
    wanted = None
    if describe is not None and search.perceptual > 0:
        with torch.no_grad():
            wanted = describe(img)
    for step in range(search.steps + 1):
        drawn = G.synthesis(prior.to_w(u), noise_mode="const", force_fp32=True)
        error = (drawn - img).abs().mean(dim=[1, 2, 3])
        yield Step(drawn, error, u.detach())
        if step == search.steps:
            return
        loss = difference(drawn, img, search.structure).sum()
        if wanted is not None and describe is not None:
            loss = loss + search.perceptual * (1 - torch.cosine_similarity(describe(drawn), wanted, dim=1)).sum()
        if search.near > 0:
            loss = loss + search.near * u.square().mean(dim=(1, 2)).sum()
        if search.together > 0:
            loss = loss + search.together * (u - u.mean(dim=1, keepdim=True)).square().mean(dim=(1, 2)).sum()
        (u.grad,) = torch.autograd.grad(loss, u)  # Nobody else's.
        optimizer.step()


def invert(
    G: Any,
    prior: Prior,
    img: torch.Tensor,
    search: Search,
    *,
    starts: torch.Tensor,
    describe: Describe | None = None,
    batch: int = 16,
    progress: Progress | None = None,
) -> torch.Tensor:
    """Codes ws [n, num_ws, w_dim] of pictures, each sought from the one of the `starts` whose picture is nearest.

    Args:
        G:        Generator; it is not changed.
        prior:    Of its w.
        img:      [n, C, H, W] in [-1, 1], on G's device.
        search:   Settings.
        starts:   [m, w_dim] w to begin at, such as some of the labelled ones.
        describe: Features for the perceptual term; None: without it.
        batch:    Pictures at a time.
        progress: Told (stage, share done, figures).
    """
    begin = _nearest(G, img, starts, search.structure, batch)
    found: list[torch.Tensor] = []
    for some, start in zip(img.split(batch), begin.split(batch), strict=True):
        for step, at in enumerate(walk(G, prior, some, search, describe, start)):
            u = at.u
            if progress is not None:
                done = (batch * len(found) + len(some) * step / max(search.steps, 1)) / len(img)
                progress("invert", min(done, 1.0), {"error": float(at.error.detach().mean())})
        found.append(prior.to_w(u).clone())
    return torch.cat(found)


@torch.no_grad()
def _nearest(G: Any, img: torch.Tensor, starts: torch.Tensor, structure: float, batch: int) -> torch.Tensor:
    """[n, w_dim]: for each picture the start whose own picture is nearest."""
    apart = []
    for w in starts.split(batch):
        drawn = synthesize(G, broadcast_w(G, w))
        apart.append(torch.stack([difference(drawn, one.expand_as(drawn), structure) for one in img.split(1)]))
    return starts[torch.cat(apart, dim=1).argmin(dim=1)]
