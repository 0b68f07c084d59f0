# SPDX-License-Identifier: Apache-2.0
"""W+ inversion of pictures that show the feature: does the network draw them, and how far from its prior does it have to go for that?

An inversion far from the prior reproduces nearly any picture, with any network. So what counts is the distance at which a network gets as close to
the picture as the others do. A distance is known of pictures that a network got so close to; the share of these stands beside its mean, since the
easy ones are among them everywhere, the hard ones only where the network can draw them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from stylegan_redact.attacks._curve import Curve, budgets_up_to, percent
from stylegan_redact.attacks._scene import Scene, Victim
from stylegan_redact.attacks._space import PRIOR_SEEDS
from stylegan_redact.estimates import mean_interval
from stylegan_redact.inversion import Search, walk
from stylegan_redact.network import sample_w
from stylegan_redact.plugins import option
from stylegan_redact.types import Estimate, Progress, RedactError
from stylegan_redact.wspace.prior import Prior, prior_of


@dataclass(frozen=True)
class Inversion:
    """Optimisation of ws until the image is the picture (L1 and MS-SSIM), from the mean w."""

    steps: int = option(100, "gradient steps", low=1, high=100000)
    step_size: float = option(0.1, "Adam's, in standard deviations of the prior", low=0.0, high=10.0)
    error: float = option(0.08, "mean |image - picture| at which distances are compared, images in [-1, 1]", low=0.0, high=2.0)

    def attack(self, victim: Victim, scene: Scene, seed: int, progress: Progress | None = None) -> Curve:
        """Pictures whose inversion shows the feature, by gradient steps. Nothing is random: `seed` is not used."""
        if scene.pictures is None:
            raise RedactError("pictures were to be inverted - none that show the feature are there - give some")
        G = victim.frozen()
        prior_seeds = scene.fresh[:PRIOR_SEEDS]
        prior = prior_of(sample_w(G, prior_seeds, c=scene.labels_of(prior_seeds)))
        found = [self._invert(G, prior, img, scene) for img in scene.pictures.split(scene.batch)]
        hits, errors, distances = (torch.cat(column) for column in zip(*found, strict=True))
        close = distances[distances.isfinite()]
        figures = {
            "error_at_the_end": _mean(errors),
            f"reached_error_{self.error:g}": percent(distances.isfinite()),
            f"distance_at_error_{self.error:g}_where_reached": _mean(close),
        }
        if progress is not None:
            progress(f"attack {victim.name}", 1.0, {})
        curve = Curve.of_first_hits(hits, budgets_up_to(self.steps), "gradient steps", "pictures whose inversion shows it")
        return replace(curve, figures=figures)

    def _invert(self, G: Any, prior: Prior, img: torch.Tensor, scene: Scene) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Per picture: steps until the inversion showed the feature, error at the end, distance to the prior when the error was first small."""
        hit, near = torch.full([len(img)], math.inf), torch.full([len(img)], math.inf)
        for step, at in enumerate(walk(G, prior, img, Search(self.steps, self.step_size, near=0.0, together=0.0))):
            error = at.error.detach().cpu()
            hit = torch.where(scene.seen(at.drawn) & hit.isinf(), torch.tensor(float(step)), hit)
            distance = at.u.square().sum(dim=2).mean(dim=1).sqrt().cpu()
            near = torch.where((error <= self.error) & near.isinf(), distance, near)
        return hit, error, near


def _mean(samples: torch.Tensor) -> Estimate:
    """nan within 0 to inf of fewer than two."""
    return mean_interval(samples) if len(samples) > 1 else Estimate(math.nan, 0.0, math.inf, len(samples))
