# SPDX-License-Identifier: Apache-2.0
"""An affine edit of W, folded into every style layer of G and G_ema: what the methods in closed form share."""

from __future__ import annotations

from typing import Any

import torch

from stylegan_redact import labels
from stylegan_redact.foreign import gains
from stylegan_redact.network import c_dim_of, check_finite, copy_network, is_foreign, style_layers, synthesize
from stylegan_redact.types import Network, Progress, RedactError
from stylegan_redact.wspace.affine import AffineEdit, fold_into_affine


def folded(network: Network, edit: AffineEdit, stage: str, progress: Progress | None) -> Network:
    """A network that draws for every w, W+ code and truncation what the given one draws for the edited w.

    Args:
        network:  Stays as it is.
        edit:     Of W.
        stage:    Its name, for `progress`.
        progress: Told (stage, share done, figures).

    Raises:
        RedactError: something else than style layers reads w.
    """
    after = copy_network(network)
    layers: list[Any] = [affine for G in (after.G, after.G_ema) for _, affine in style_layers(G).values()]
    for done, affine in enumerate(layers, start=1):
        weight_gain, bias_gain = gains(affine)
        weight, bias = fold_into_affine(affine.weight, affine.bias, edit, weight_gain=weight_gain, bias_gain=bias_gain)
        affine.weight.data.copy_(weight)
        affine.bias.data.copy_(bias)
        if progress is not None:
            progress(stage, done / len(layers), {})
    check_finite(after)
    for G_before, G_after in ((network.G, after.G), (network.G_ema, after.G_ema)):
        if is_foreign(G_before):
            check_fold(G_before, G_after, edit)
    return after


def check_fold(before: Any, after: Any, edit: AffineEdit) -> None:
    """Raises RedactError unless the folded network draws for w what the network before draws for the edited w: then something else reads w too."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn([4, before.z_dim], generator=generator).to(next(before.parameters()).device)
    c = labels.all_of(c_dim_of(before))(range(len(z))).to(z.device) if c_dim_of(before) else None
    with torch.no_grad():
        w = before.mapping(z, c)[:, 0]
        unedited, wanted, got = synthesize(before, w), synthesize(before, edit(w)), synthesize(after, w)
    if float((got - wanted).abs().mean()) > 1e-3 * float((wanted - unedited).abs().mean()) + 1e-5:
        raise RedactError("a fold was asked - not only layers named affine read w in this network, so it is not exact - take another method")
