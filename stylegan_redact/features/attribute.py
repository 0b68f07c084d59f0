# SPDX-License-Identifier: Apache-2.0
"""An attribute that a classifier knows, or several: images of fresh latents are drawn and the classifier labels them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from stylegan_redact import rows
from stylegan_redact.detectors import column
from stylegan_redact.features._labelling import check_rate, logits_of
from stylegan_redact.labels import Labels
from stylegan_redact.network import sample_w
from stylegan_redact.several import joint_name, together
from stylegan_redact.types import Bystanders, Detector, Feature, LabelledLatents, Network, Progress
from stylegan_redact.wspace.subspace import find_subspace


@dataclass(frozen=True)
class Attribute:
    """The attribute `value` as `detector` sees it, or several at once."""

    value: str | tuple[str, ...]
    detector: Detector
    labels: Labels | None = None
    """Classes to look at, of a conditional network. Where they leave classes out, these become bystanders."""
    half: bool = False
    """Draw in float16 where the network does, which `precision.self_test` has found to be safe."""

    def gather(self, network: Network, seeds: Sequence[int], *, batch: int = 32, progress: Progress | None = None) -> Feature:
        """Labelled latents, the subspace that separates them, and the detector; of several attributes, each as a part of one feature.

        Args:
            network:  Its G_ema is sampled without truncation, noise "const".
            seeds:    NVIDIA's seeds to label.
            batch:    Images at a time.
            progress: Told (stage, share done, figures).

        Raises:
            RedactError: the detector does not know the attribute, or the generator hardly shows it, or nearly always; or labels are missing.
        """
        names = (self.value,) if isinstance(self.value, str) else self.value
        columns = [column(self.detector, name) for name in names]
        c = None if self.labels is None else self.labels(seeds)
        w = sample_w(network.G_ema, seeds, c=c)

        counted = [0, 0]  # Latents, and those that show it: counting all again after each batch would take the longer the more there are.

        def tell(so_far: torch.Tensor) -> None:
            counted[1] += int((so_far[counted[0] :, columns] > 0).any(dim=1).sum())
            counted[0] = len(so_far)
            if progress is not None:
                progress("label", counted[0] / len(w), {"rate": counted[1] / counted[0]})

        logits = logits_of(network.G_ema, w, self.detector, batch=batch, half=self.half, tell=tell)
        known = LabelledLatents(w, w[:, 0], rows.numbers(seeds), logits, None if c is None else c.to(w.device))
        bystanders = self.bystanders(network, seeds)
        parts = []
        for name, index in zip(names, columns, strict=True):
            latents = replace(known, score=logits[:, index])
            check_rate(name, latents.score)
            parts.append(Feature(name, latents, find_subspace(latents), self.detector, bystanders=bystanders))
        feature = together(parts)
        if feature.parts and feature.latents is not None:
            check_rate(joint_name(names), feature.latents.score)
        return feature

    def bystanders(self, network: Network, seeds: Sequence[int]) -> Bystanders | None:
        """Latents of the same seeds in the classes that are left out, or None if there are none."""
        others = None if self.labels is None else self.labels.others()
        if others is None:
            return None
        c = others(seeds)
        w = sample_w(network.G_ema, seeds, c=c)
        return Bystanders(w, c.to(w.device))
