# SPDX-License-Identifier: Apache-2.0
"""The directions of W that the style layers amplify most, from the weights alone: no image is drawn and nobody labels anything."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stylegan_redact.types import RedactError


def amplified_directions(weights: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Directions of W in the order of how far the styles move with them, and by how much.

    Args:
        weights: Effective weights of style layers (their gains applied), each [styles, w_dim].

    Returns:
        [w_dim, w_dim] float64, orthonormal rows, the largest first, each with its largest coordinate positive (the sign is arbitrary);
        [w_dim]: the length of A n for each unit row n.

    Raises:
        RedactError: there are no weights, or they are of several widths.

    Source: Shen and Zhou 2021, "Closed-form factorization of latent semantics in GANs", arXiv 2007.06600, equations 4 to 6: the eigenvectors of A'A.
    """
    if not weights or len({weight.shape[1] for weight in weights}) > 1:
        raise RedactError(
            f"directions were to be read off {len(weights)} style layers - there must be some, all as wide as w - give those of a StyleGAN"
        )
    A = torch.cat([weight.detach().double() for weight in weights])
    values, vectors = torch.linalg.eigh(A.T @ A)
    rows = vectors.T.flip(0)
    largest = rows.gather(1, rows.abs().argmax(dim=1, keepdim=True))
    return rows * largest.sign(), values.flip(0).clamp(min=0).sqrt()
