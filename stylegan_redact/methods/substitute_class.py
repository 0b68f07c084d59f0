# SPDX-License-Identifier: Apache-2.0
"""Closed form: a whole class of a conditional network is drawn as another one, by its column of the label embedding.

The mapping network reads the label c through one linear layer, `embed`: a class is a column of its weight. With the column of another class in
its place, c = N gives exactly what that class gives; with the mean of the other columns, what c with equal shares of all others gives. Nothing
else changes: every other class stays bit for bit, and so does the synthesis network. Whoever kept a w of the class still draws it.

Source: Kong & Chaudhuri 2023, "Data Redaction from Conditional Generative Models", arXiv 2305.11351 (a redacted conditional is mapped to a
reference one); that it is a column in StyleGAN is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from stylegan_redact.network import c_dim_of, check_finite, copy_network
from stylegan_redact.plugins import option
from stylegan_redact.types import Feature, Network, Progress, RedactError

_NOTHING = 1e-4
"""An embedding this small against those that it is the mean of is rounding: the network, which scales it up again, would amplify noise."""


@dataclass(frozen=True)
class SubstituteClass:
    """One column of the label embedding, replaced in G and G_ema."""

    replacement: int | None = option(None, "class that takes its place; None: the mean of all others", low=0, high=1_000_000)

    needs: ClassVar[tuple[str, ...]] = ("label",)
    several: ClassVar[bool] = False

    def redact(self, network: Network, feature: Feature, keep: tuple[str, ...], seed: int, progress: Progress | None = None) -> Network:
        """A network to which the class means another. `seed` has no effect: nothing is random."""
        label, c_dim = feature.label, c_dim_of(network.G_ema)
        if label is None:
            raise RedactError(f"{feature.name} was to be substituted - it has no label and is no whole class - give --feature=class:N")
        if label >= c_dim:
            raise RedactError(f"class {label} was to be substituted - the network has {c_dim} classes - give one of 0 to {c_dim - 1}")
        if c_dim == 1:
            raise RedactError(f"class {label} was to be substituted - the network has no other class - there is nothing to put in its place")
        if self.replacement is not None and (self.replacement >= c_dim or self.replacement == label):
            raise RedactError(
                f"replacement={self.replacement} was asked for class {label} - the network has classes 0 to {c_dim - 1} - give another one of them"
            )
        after = copy_network(network)
        for done, G in enumerate((after.G, after.G_ema), start=1):
            weight = G.mapping.embed.weight
            weight.data[:, label] = self.column(G.mapping.embed, label)
            if progress is not None:
                progress("substitute", done / 2, {})
        check_finite(after)
        return after

    def column(self, embed: Any, label: int) -> torch.Tensor:
        """[embed_features]: what stands in the weight [embed_features, c_dim] for the class from now on."""
        weight = embed.weight.detach()
        if self.replacement is not None:
            return weight[:, self.replacement].clone()
        others = torch.cat([weight[:, :label], weight[:, label + 1 :]], dim=1)
        # In double precision, so that the mean of equal columns is that column.
        mean = others.double().mean(dim=1)
        embedded = [columns.double() * embed.weight_gain + embed.bias.double()[:, None] * embed.bias_gain for columns in (mean[:, None], others)]
        size, usual = (float(each.square().mean().sqrt()) for each in embedded)
        if size <= _NOTHING * usual:
            raise RedactError(f"the mean of all classes but {label} was to take its place - their embeddings cancel out - give --replacement=N")
        return mean.to(weight)
