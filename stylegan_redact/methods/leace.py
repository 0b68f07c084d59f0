# SPDX-License-Identifier: Apache-2.0
"""LEACE in W: the least affine change after which no linear reader of w tells who has the feature, folded exactly into every style layer.

Implements the closed form of Belrose et al. 2023, arXiv 2306.03819 (wspace/erasure.py), on the latents and labels of the detector; settings are ours,
and so is the fold into StyleGAN's affine layers. All latents of both labels go to the mean along the erased direction. `fold` moves along nearly the
same direction, but to where the feature is absent: the mean is what a reader needs to be blind, not what a picture needs to be without the feature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from stylegan_redact.methods._folding import folded
from stylegan_redact.plugins import option
from stylegan_redact.types import Feature, Network, Progress, RedactError
from stylegan_redact.wspace.affine import partly
from stylegan_redact.wspace.erasure import erase
from stylegan_redact.wspace.geometry import kept_directions


@dataclass(frozen=True)
class Leace:
    """Least-squares concept erasure, folded into the affine layers of G and G_ema."""

    strength: float = option(1.0, "share of the way to the mean that w is moved; below 1 a linear reader is not blind", low=0.0, high=1.0)

    needs: ClassVar[tuple[str, ...]] = ("latents",)
    several: ClassVar[bool] = True

    def redact(self, network: Network, feature: Feature, keep: tuple[str, ...], seed: int, progress: Progress | None = None) -> Network:
        """A network whose style layers cannot tell, linearly, who had the feature. `seed` has no effect: nothing is random."""
        labelled = [part.latents for part in feature.each if part.latents is not None]
        if len(labelled) < len(feature.each):
            raise RedactError(f"{feature.name} was to be redacted by leace - there are no labelled latents of it - gather it from a classifier")
        shows = torch.stack([latents.score > 0 for latents in labelled], dim=1)
        edit = erase(labelled[0].w, shows, kept_directions(feature, labelled[0], keep))
        return folded(network, partly(edit, self.strength), "leace", progress)
