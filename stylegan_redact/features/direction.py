# SPDX-License-Identifier: Apache-2.0
"""A direction of W that you have, from a file of another tool: for methods that need latents and a direction, not a detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stylegan_redact.features._direction_file import read_direction
from stylegan_redact.features._pointing import pointed
from stylegan_redact.labels import Labels
from stylegan_redact.plugins import option
from stylegan_redact.types import Feature, Network, Progress


@dataclass(frozen=True)
class Direction:
    """The feature that lies along the direction in `path`."""

    path: str = option("direction.npy", "The file: .npy, .npz, .pt or .json", path=True)
    name: str | None = option(None, "Of the feature; None: the file's name")
    space: str | None = option(None, "What the file is about; None: by its shape", choices=(None, "w", "w_plus", "s"))
    index: int | None = option(None, "Which one, where the file holds several", low=0)
    flip: bool = option(False, "It points away from the feature; labels, where there are some, decide by themselves")
    quantile: float = option(0.8, "Without labels: the share of latents that lie below where the feature begins", low=0.01, high=0.99)
    known: Feature | None = None
    """What a classifier or a person says of latents of the network; its latents set sign and threshold."""
    labels: Labels | None = None
    """Classes to draw from, of a conditional network."""

    @property
    def feature(self) -> str:
        """Its name."""
        return self.name or Path(self.path).stem

    def gather(self, network: Network, seeds: Sequence[int], *, batch: int = 32, progress: Progress | None = None) -> Feature:
        """Latents with their position along the direction as score, or as labelled if that is known, and the subspace; nothing is drawn.

        Args:
            network:  That the direction is of.
            seeds:    NVIDIA's, of the latents; not used where labelled ones are known.
            batch:    Unused: no image is drawn.
            progress: Told (stage, share done, figures).

        Raises:
            RedactError: a file that cannot be read or used here, or too few labels of one kind.
        """
        found = read_direction(Path(self.path), network.G_ema, network.sha256, space=self.space, index=self.index)
        unit = -found.unit if self.flip else found.unit
        feature = pointed(unit, self.feature, network, seeds, quantile=self.quantile, known=self.known, labels=self.labels)
        if progress is not None and feature.latents is not None:
            progress("label", 1.0, {"rate": float((feature.latents.score > 0).float().mean())})
        return replace(feature, name=self.feature)

    def notes(self, network: Network) -> tuple[str, ...]:
        """What to tell of the file: that it is of another network, what was made of it."""
        return read_direction(Path(self.path), network.G_ema, network.sha256, space=self.space, index=self.index).notes
