# SPDX-License-Identifier: Apache-2.0
"""One of the directions that the style layers amplify most (SeFa), read off the weights: look along it to see what it is, then give it a name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stylegan_redact.features._pointing import pointed
from stylegan_redact.labels import Labels
from stylegan_redact.network import style_layers
from stylegan_redact.plugins import option
from stylegan_redact.types import Feature, Network, Progress, RedactError
from stylegan_redact.wspace.sefa import amplified_directions


@dataclass(frozen=True)
class Sefa:
    """The feature that lies along direction `index`."""

    index: int = option(0, "Which direction, from 0, the most amplified one", low=0)
    name: str | None = option(None, "Of the feature; None: sefa and the index")
    flip: bool = option(False, "Take its other end; labels, where there are some, decide by themselves")
    quantile: float = option(0.8, "Without labels: the share of latents that lie below where the feature begins", low=0.01, high=0.99)
    known: Feature | None = None
    """What a classifier or a person says of latents of the network; its latents set sign and threshold."""
    labels: Labels | None = None
    """Classes to draw from, of a conditional network."""

    @property
    def feature(self) -> str:
        """Its name."""
        return self.name or f"sefa{self.index}"

    def gather(self, network: Network, seeds: Sequence[int], *, batch: int = 32, progress: Progress | None = None) -> Feature:
        """Latents with their position along the direction as score, or as labelled if that is known, and the subspace; nothing is drawn.

        Args:
            network:  Its G_ema's style layers are read.
            seeds:    NVIDIA's, of the latents; not used where labelled ones are known.
            batch:    Unused: no image is drawn.
            progress: Told (stage, share done, figures).

        Raises:
            RedactError: no style layers, no such direction, or too few labels of one kind.
        """
        unit = self.direction(network.G_ema)
        feature = pointed(-unit if self.flip else unit, self.feature, network, seeds, quantile=self.quantile, known=self.known, labels=self.labels)
        if progress is not None and feature.latents is not None:
            progress("label", 1.0, {"rate": float((feature.latents.score > 0).float().mean())})
        return feature

    def direction(self, G: Any) -> torch.Tensor:
        """[w_dim] float64, of length 1."""
        if not 0 <= self.index < G.w_dim:
            raise RedactError(f"direction {self.index} of the weights was asked - there are {G.w_dim} - give 0 to {G.w_dim - 1}")
        layers: list[Any] = [affine for _, affine in style_layers(G).values()]
        return amplified_directions([affine.weight * float(getattr(affine, "weight_gain", 1.0)) for affine in layers])[0][self.index]

    def notes(self, network: Network) -> tuple[str, ...]:
        """Nothing to tell."""
        return ()
