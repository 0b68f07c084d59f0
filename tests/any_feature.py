# SPDX-License-Identifier: Apache-2.0
"""A redaction of some network by every method, small enough for a test: what it takes away matters less than that it arrives elsewhere."""

from __future__ import annotations

from typing import Any

import torch

from stylegan_redact import api
from stylegan_redact.methods.edit import Edit
from stylegan_redact.methods.fold import Fold
from stylegan_redact.methods.mapping import Mapping
from stylegan_redact.methods.unlearn import Unlearn
from stylegan_redact.network import sample_w
from stylegan_redact.types import Feature, LabelledLatents, Network, Subspace

METHODS: dict[str, Any] = {
    "fold": Fold(quantile=0.0),
    "mapping": Mapping(steps=30),
    "unlearn": Unlearn(kimg=0.016, batch=4, lr=0.01),
    "edit": Edit(kimg=0.016, batch=4, lr=0.01),
}


class Bright:
    """How bright the middle is."""

    differentiable = True
    attributes = ("beard", "other")

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        return torch.stack([20 * img[:, :, 10:20, 10:20].mean([1, 2, 3]), 20 * img.mean([1, 2, 3])], 1)


def redacted(before: Network, method: str) -> Network:
    """Without the upper side of some direction of W."""
    w = sample_w(before.G_ema, range(100))
    basis = torch.nn.functional.normalize(torch.randn(1, w.shape[1], generator=torch.Generator().manual_seed(8)))
    position = (w @ basis.T).flatten()
    latents = LabelledLatents(w, 9 * (position - position.quantile(0.7)))
    return api.redact(before, Feature("beard", latents, Subspace(basis, position.median()[None], 1.0), Bright()), METHODS[method])
