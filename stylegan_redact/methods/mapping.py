# SPDX-License-Identifier: Apache-2.0
"""The mapping network learns a hinge: w past the target moves back to it along the feature's direction, every other w stays.

A regression on w, without images: seconds. Whoever samples z meets it; whoever kept a w from before does not.

Source: the gate and target of Moon, Cho & Kim 2024, arXiv 2303.05699v4, in W, with a shrunk discriminant for the direction and a quantile for
the threshold; taught to the mapping network instead of the generator, which is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stylegan_redact import labels
from stylegan_redact.network import c_dim_of, check_finite, copy_network
from stylegan_redact.plugins import option
from stylegan_redact.training.regress import Conditions, regress_mapping
from stylegan_redact.training.schedule import Schedule
from stylegan_redact.types import Feature, Network, Progress, RedactError
from stylegan_redact.wspace.geometry import gate_for


@dataclass(frozen=True)
class Mapping:
    """A hinge along the discriminant direction, learned by the mapping network."""

    quantile: float = option(0.5, "where to move back to: this share of the latents without the feature lies below", low=0.0, high=1.0)
    strength: float = option(1.0, "share of the way to the target that w past it is moved", low=0.0, high=1.0)
    steps: int = option(1500, "optimiser steps", low=1, high=1_000_000)
    batch: int = option(512, "latents of a step", low=1, high=65536)
    lr: float = option(0.001, "Adam's step for effective weights, falling to zero", low=0.0, high=1.0)

    needs: ClassVar[tuple[str, ...]] = ("latents", "subspace")
    several: ClassVar[bool] = True

    def redact(self, network: Network, feature: Feature, keep: tuple[str, ...], seed: int, progress: Progress | None = None) -> Network:
        """A network whose mapping gives no w past the target. G's mapping becomes G_ema's."""
        hinge = gate_for(feature, keep, self.quantile, "mapping", self.strength)
        if not any(True for _ in network.G_ema.mapping.parameters()):
            raise RedactError(f"{feature.name} was to be redacted by mapping - this network has no mapping to teach - use unlearn, moon or edit")
        after = copy_network(network)
        assert feature.latents is not None
        c = labels.needed(feature.latents.c, c_dim_of(network.G_ema), f"{feature.name} was to be redacted by mapping")
        conditions = None if c is None or c.shape[1] == 0 else Conditions(c, None if feature.bystanders is None else feature.bystanders.c)
        schedule = Schedule(self.steps, self.batch, self.lr, seed)

        def so_far() -> Network:
            after.G.mapping.load_state_dict(after.G_ema.mapping.state_dict())
            return after

        regress_mapping(after.G_ema.mapping, hinge, schedule, conditions=conditions, progress=progress, so_far=so_far)
        check_finite(so_far())
        return after
