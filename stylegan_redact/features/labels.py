# SPDX-License-Identifier: Apache-2.0
"""A feature that somebody has labelled, in a `labels.npz`: for methods that need latents and a direction, not a detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from stylegan_redact.latents import load_labels
from stylegan_redact.plugins import option
from stylegan_redact.types import Feature, LabelledLatents, Network, Progress, RedactError
from stylegan_redact.wspace.subspace import find_subspace


@dataclass(frozen=True)
class LabelsFile:
    """The feature that a file of labels is about."""

    path: str = option("labels.npz", "What redact.py label wrote", path=True)

    def gather(self, network: Network, seeds: Sequence[int], *, batch: int = 32, progress: Progress | None = None) -> Feature:
        """Labelled latents and the subspace that separates them; nothing is drawn.

        Args:
            network:  That the labels are of.
            seeds:    Not used: the file has its own.
            batch:    Not used.
            progress: Told when done.

        Raises:
            RedactError: no such file, of another network, or too few of one label.
        """
        found = load_labels(self.path)
        latents, w_dim = found.latents, network.G_ema.w_dim
        if network.sha256 and found.network_sha256 and network.sha256 != found.network_sha256:
            raise RedactError(
                f"the labels in {self.path} were to be used - they are of the network {found.network_sha256[:12]}..., this one is "
                f"{network.sha256[:12]}... - label pictures of this network"
            )
        if latents.w.shape[1] != w_dim:
            raise RedactError(f"the labels in {self.path} were to be used - their w has {latents.w.shape[1]} numbers, this one's {w_dim} - label it")
        device = next(network.G_ema.parameters()).device
        moved = LabelledLatents(latents.w.to(device), latents.score.to(device), latents.seeds, c=None if latents.c is None else latents.c.to(device))
        if progress is not None:
            progress("label", 1.0, {"rate": float((moved.score > 0).float().mean())})
        return Feature(found.feature, moved, find_subspace(moved))
