# SPDX-License-Identifier: Apache-2.0
"""Closed form: every w loses its component along the feature's direction, folded exactly into every style layer.

w -> w - v (u . w - target) is affine, and a style layer is the only reader of w, so the edit becomes part of the layer's weight and bias: no
training, seconds, exact for z, W and W+ input and under truncation alike. It moves every image, also those that never had the feature:
that is its price. The direction u is a shrunk discriminant (wspace/subspace.py), v the way w moves with it, the target a quantile of
the latents without the feature.

Source: Belrose et al. 2023, arXiv 2306.03819 (LEACE; the target there is the mean); the fold into StyleGAN's affine layers is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from stylegan_redact.foreign import gains
from stylegan_redact.network import check_finite, copy_network, is_foreign, style_layers, synthesize
from stylegan_redact.plugins import option
from stylegan_redact.types import Feature, LabelledLatents, Network, Progress, RedactError, Subspace
from stylegan_redact.wspace.affine import AffineEdit, fold_into_affine, move_to_quantile
from stylegan_redact.wspace.geometry import shift_along, target_at


@dataclass(frozen=True)
class Fold:
    """One affine edit of W, folded into the affine layers of G and G_ema."""

    quantile: float = option(0.1, "where to move every w to: this share of the latents without the feature lies below", low=0.0, high=1.0)

    needs: ClassVar[tuple[str, ...]] = ("latents", "subspace")

    def redact(self, network: Network, feature: Feature, keep: tuple[str, ...], seed: int, progress: Progress | None = None) -> Network:
        """A network whose style layers see no more of the feature than a latent without it shows. `seed` has no effect: nothing is random."""
        latents, subspace = needed(feature)
        edit = move_to_quantile(subspace, target_at(latents, subspace, self.quantile), shift=shift_along(latents, subspace))
        after = copy_network(network)
        layers: list[Any] = [affine for G in (after.G, after.G_ema) for _, affine in style_layers(G).values()]
        for done, affine in enumerate(layers, start=1):
            weight_gain, bias_gain = gains(affine)
            weight, bias = fold_into_affine(affine.weight, affine.bias, edit, weight_gain=weight_gain, bias_gain=bias_gain)
            affine.weight.data.copy_(weight)
            affine.bias.data.copy_(bias)
            if progress is not None:
                progress("fold", done / len(layers), {})
        check_finite(after)
        for G_before, G_after in ((network.G, after.G), (network.G_ema, after.G_ema)):
            if is_foreign(G_before):
                check_fold(G_before, G_after, edit)
        return after


def check_fold(before: Any, after: Any, edit: AffineEdit) -> None:
    """Raises RedactError unless the folded network draws for w what the network before draws for the edited w: then something else reads w too."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn([4, before.z_dim], generator=generator).to(next(before.parameters()).device)
    with torch.no_grad():
        w = before.mapping(z, None)[:, 0]
        unedited, wanted, got = synthesize(before, w), synthesize(before, edit(w)), synthesize(after, w)
    if float((got - wanted).abs().mean()) > 1e-3 * float((wanted - unedited).abs().mean()) + 1e-5:
        raise RedactError("a fold was asked - not only layers named affine read w in this network, so it is not exact - take another method")


def needed(feature: Feature) -> tuple[LabelledLatents, Subspace]:
    """What the fold needs of a feature, or a RedactError."""
    if feature.latents is None or feature.subspace is None:
        raise RedactError(f"{feature.name} was to be folded away - there are no labelled latents of it - gather it from a classifier")
    return feature.latents, feature.subspace
