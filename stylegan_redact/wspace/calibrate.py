# SPDX-License-Identifier: Apache-2.0
"""A direction of W from anywhere -> Subspace: its sign and its threshold by labels where there are some, else the threshold by a quantile."""

from __future__ import annotations

import torch

from stylegan_redact.types import LabelledLatents, RedactError, Subspace
from stylegan_redact.wspace.subspace import FEWEST_OF_A_LABEL, rate_threshold


def by_labels(unit: torch.Tensor, latents: LabelledLatents) -> tuple[Subspace, bool]:
    """The direction turned to where the feature shows, with as many latents past its threshold as carry the label; whether it had to be turned.

    Args:
        unit:    [w_dim], of length 1.
        latents: Labelled; every one is used, since one sign and one threshold fit next to nothing.

    Raises:
        RedactError: fewer than 10 latents of either label.
    """
    shows = latents.score > 0
    with_feature, without = int(shows.sum()), int((~shows).sum())
    if min(with_feature, without) < FEWEST_OF_A_LABEL:
        told = f"{with_feature} labels say that it shows and {without} that it does not"
        raise RedactError(f"a direction's sign and threshold were to be found - {told} - label at least {FEWEST_OF_A_LABEL} of each")
    position = latents.w.double() @ unit.to(latents.w.device).double()
    turned = bool(_auc(position, shows) < 0.5)
    if turned:
        position = -position
    threshold = rate_threshold(position, shows)
    past = position > threshold
    accuracy = float(past[shows].double().mean() + (~past[~shows]).double().mean()) / 2
    basis = (-unit if turned else unit).to(latents.w.device).double()
    return Subspace(basis[None], threshold[None], accuracy), turned


def by_quantile(unit: torch.Tensor, w: torch.Tensor, quantile: float) -> Subspace:
    """The direction as it points, with that share of the latents w [n, w_dim] below its threshold; nobody said what shows: accuracy nan."""
    basis = unit.to(w.device).double()
    return Subspace(basis[None], torch.quantile(w.double() @ basis, quantile)[None], float("nan"))


def _auc(position: torch.Tensor, shows: torch.Tensor) -> float:
    """How often a latent with the feature lies further along than one without; ties count half. Mann and Whitney 1947."""
    from scipy import stats  # It takes as long as torch to import, and the first step does not need it.

    with_feature, without = (position[label].cpu().numpy() for label in (shows, ~shows))
    return float(stats.mannwhitneyu(with_feature, without, method="asymptotic").statistic) / (len(with_feature) * len(without))
