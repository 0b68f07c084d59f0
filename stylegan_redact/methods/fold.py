# SPDX-License-Identifier: Apache-2.0
"""Closed form: every w loses its component along the feature's direction, folded exactly into every style layer.

w -> w - v (u . w - target) is affine, and a style layer is the only reader of w, so the edit becomes part of the layer's weight and bias: no
training, seconds, exact for z, W and W+ input and under truncation alike. It moves every image, also those that never had the feature:
that is its price. The direction u is a shrunk discriminant (wspace/subspace.py), v the way w moves with it, the target a quantile of
the latents without the feature.

Source: Belrose et al. 2023, arXiv 2306.03819 (LEACE, which is methods/leace.py; the target there is the mean); the fold into StyleGAN's affine layers
is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from stylegan_redact.methods._folding import folded
from stylegan_redact.plugins import option
from stylegan_redact.types import Feature, Network, Progress
from stylegan_redact.wspace.affine import move_to_quantile, partly
from stylegan_redact.wspace.geometry import move_for


@dataclass(frozen=True)
class Fold:
    """One affine edit of W, folded into the affine layers of G and G_ema."""

    quantile: float = option(0.1, "where to move every w to: this share of the latents without the feature lies below", low=0.0, high=1.0)
    strength: float = option(1.0, "share of the way to the target that w is moved", low=0.0, high=1.0)

    needs: ClassVar[tuple[str, ...]] = ("latents", "subspace")
    several: ClassVar[bool] = True

    def redact(self, network: Network, feature: Feature, keep: tuple[str, ...], seed: int, progress: Progress | None = None) -> Network:
        """A network whose style layers see no more of the feature than a latent without it shows. `seed` has no effect: nothing is random."""
        move = move_for(feature, keep, self.quantile, "fold")
        edit = partly(move_to_quantile(move.subspace, move.target, shift=move.shift), self.strength)
        return folded(network, edit, "fold", progress)
