# SPDX-License-Identifier: Apache-2.0
"""Where one person lies in W+: a few codes with an inner shell, which is the person, and an outer one, past which everybody is somebody else.

All in coordinates u of the prior, in which a step of 1 is one standard deviation whatever the direction; the distance of two codes is the root of the
mean over their rows of the squared distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from stylegan_redact.types import RedactError
from stylegan_redact.wspace.prior import Prior

TARGETS = ("nearest", "mirror", "extrapolate")


@dataclass(frozen=True)
class Place:
    """One person in W+."""

    u: torch.Tensor
    """[k, rows, w_dim]: the codes. The person is also what lies between them and their mean."""
    inner: float
    """Distance up to which a code is the person."""
    outer: float
    """Distance from which on it is not; larger than `inner`."""

    @property
    def centre(self) -> torch.Tensor:
        """[rows, w_dim]: the mean of the codes."""
        return self.u.mean(dim=0)

    def distance(self, u: torch.Tensor) -> torch.Tensor:
        """[n] of u [n, rows, w_dim] to the nearest of the segments between the mean and the codes."""
        arms, away = self.u - self.centre, u - self.centre  # [k, rows, w_dim], [n, rows, w_dim]
        found = []
        for arm in arms:
            along = (away * arm).sum(dim=(1, 2)) / arm.square().sum().clamp(min=1e-30)
            found.append((away - along.clamp(0, 1)[:, None, None] * arm).square().sum(dim=2).mean(dim=1).sqrt())
        return torch.stack(found).amin(dim=0)

    def share(self, u: torch.Tensor) -> torch.Tensor:
        """[n] in [0, 1]: how much of u [n, rows, w_dim] is the person. 1 up to the inner shell, 0 from the outer one on, linear in between."""
        return ((self.outer - self.distance(u)) / (self.outer - self.inner)).clamp(0, 1)

    def around(self, n: int, low: float, high: float, others: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """[n, rows, w_dim]: codes between `low` and `high` away from points of the person; the first half of them towards random ones of `others`.

        Args:
            n:         How many.
            low, high: Distances, drawn uniformly.
            others:    [m, w_dim], typical u.
            generator: Of the randomness; on the CPU.
        """
        k, rows, width = self.u.shape

        def uniform(*shape: int) -> torch.Tensor:
            return torch.rand(shape, generator=generator).to(self.u)

        arm = self.u[torch.randint(k, [n], generator=generator).to(self.u.device)] - self.centre
        start = self.centre + (2 * uniform(n, 1, 1)).clamp(max=1) * arm  # Half of them at a code itself.
        met = n // 2
        towards = others[torch.randint(len(others), [met], generator=generator).to(self.u.device)][:, None] - start[:met]
        loose = torch.randn([n - met, rows, width], generator=generator).to(self.u)
        joint = torch.randn([n - met, 1, width], generator=generator).to(self.u).expand(-1, rows, -1)
        anywhere = torch.where(uniform(n - met, 1, 1) < 0.5, loose, joint)
        way = torch.cat([towards, anywhere])
        way = way / way.square().sum(dim=2).mean(dim=1).sqrt().clamp(min=1e-30)[:, None, None]
        return start + (low + (high - low) * uniform(n, 1, 1)) * way


def place_of(u: torch.Tensor, typical: torch.Tensor, *, inner: float, others: float) -> Place:
    """A person's place with shells by how near typical people come.

    Args:
        u:       [k, rows, w_dim] codes.
        typical: [m, w_dim], of many people.
        inner:   The inner radius as a share of the outer one, in (0, 1).
        others:  Share of the typical u that lies within the outer shell, in [0, 1).
    """
    rows = typical[:, None].expand(-1, u.shape[1], -1)
    outer = float(Place(u, 0.0, 1.0).distance(rows).double().quantile(others))
    if not outer > 0:
        raise RedactError(f"a share of {others} of people was to be in the outer shell - they are the person's own codes - give a larger share")
    return Place(u, inner * outer, outer)


def target_of(place: Place, typical: torch.Tensor, prior: Prior, *, kind: str, reach: float) -> torch.Tensor:
    """[w_dim]: u of who is to be drawn instead.

    Args:
        place:   The person's.
        typical: [m, w_dim], of many people.
        prior:   That u are coordinates of.
        kind:    nearest: the nearest of the typical u outside the outer shell. mirror: the reflection at the mean, as far out as a median person.
                 extrapolate: through the mean and `reach` further, in units of w (UFO of GUIDE; a reach of 0 is the mean itself).
        reach:   See there.

    Raises:
        RedactError: a kind that there is not.

    Source: Seo et al. 2024, "Generative Unlearning for Any Identity", arXiv 2405.09879 (extrapolate); the others are ours.
    """
    if kind == "nearest":
        away = place.distance(typical[:, None].expand(-1, place.u.shape[1], -1))
        return typical[torch.where(away >= place.outer, away, torch.inf).argmin()]
    middle = place.centre.mean(dim=0)
    if kind == "mirror":
        return -middle * (typical.norm(dim=1).median() / middle.norm().clamp(min=1e-30))
    if kind == "extrapolate":
        way = prior.to_w(middle) - prior.mean
        return prior.to_u(prior.mean - reach * way / way.norm().clamp(min=1e-30))
    raise RedactError(f"target={kind} was asked - there is: {', '.join(TARGETS)} - take one of them")
