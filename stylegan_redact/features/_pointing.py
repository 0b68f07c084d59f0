# SPDX-License-Identifier: Apache-2.0
"""What sources that begin with a direction share: latents along it, its sign and its threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from stylegan_redact import rows
from stylegan_redact.labels import Labels
from stylegan_redact.network import sample_w
from stylegan_redact.types import Feature, LabelledLatents, Network
from stylegan_redact.wspace.calibrate import by_labels, by_quantile


def pointed(
    unit: torch.Tensor, name: str, network: Network, seeds: Sequence[int], *, quantile: float, known: Feature | None, labels: Labels | None
) -> Feature:
    """The feature along a direction.

    Args:
        unit:     [w_dim], of length 1.
        name:     Of the feature.
        network:  Its latents are drawn where none are known.
        seeds:    NVIDIA's, of those latents.
        quantile: Without labels: the share of latents below the threshold.
        known:    The feature as labelled, or None.
        labels:   Classes to draw from, of a conditional network.

    Raises:
        RedactError: too few labels of one kind.
    """
    if known is not None and known.latents is not None:
        subspace, _ = by_labels(unit, known.latents)
        return replace(known, subspace=subspace)
    c = None if labels is None else labels(seeds)
    w = sample_w(network.G_ema, seeds, c=c)
    subspace = by_quantile(unit, w, quantile)
    score = (w.double() @ subspace.basis[0] - subspace.threshold[0]).float()
    return Feature(name, LabelledLatents(w, score, rows.numbers(seeds), None, None if c is None else c.to(w.device)), subspace)
