# SPDX-License-Identifier: Apache-2.0
"""LEACE: the affine edit of least change after which no linear reader of w tells the labels apart.

With W = C^(-1/2) the whitening of w and Q an orthonormal basis of the columns of W Cov(w, z), z the labels, the edit is
w -> w - W^-1 Q Q' W (w - mean): an oblique projection. Afterwards Cov(w, z) is 0, and for labels that are 0 or 1 this says that the means with
and without the label are equal.

Source: Belrose et al. 2023, "LEACE: Perfect linear concept erasure in closed form", arXiv 2306.03819, theorem 4.2; the covariance is shrunk
(Chen et al. 2010, arXiv 0907.4698), which leaves the guarantee as it is and makes the edit, from few latents, a little longer than the shortest. The
directions to keep are ours.
"""

from __future__ import annotations

import torch

from stylegan_redact.types import RedactError
from stylegan_redact.wspace.affine import AffineEdit
from stylegan_redact.wspace.subspace import shrunk_covariance

NEGLIGIBLE = 1e-9
"""Directions of the whitened cross-covariance with less than this share of the largest one's length are rounding."""


def erase(w: torch.Tensor, labels: torch.Tensor, protected: torch.Tensor | None = None) -> AffineEdit:
    """The edit of least change in the mean square with which the labels are uncorrelated with w; doing it twice changes nothing.

    Args:
        w:         [n, w_dim].
        labels:    [n] or [n, k], each column 0 or 1, or any number. Columns that say the same as others do no harm.
        protected: [m, w_dim] directions p that are read as before: p . w' = p . w for every w. What the labels share with them stays.

    Raises:
        RedactError: shapes that do not fit, a label that is the same for all latents, or nothing of the labels apart from the protected directions.
    """
    latents, z = w.detach().double(), labels.detach().to(w.device).double().reshape(len(labels), -1)
    if latents.ndim != 2 or len(z) != len(latents) or not latents.isfinite().all():
        raise RedactError(f"labels {list(labels.shape)} of w {list(w.shape)} were to be erased - they are [n, k] and [n, w_dim], finite - check them")
    if bool((z == z[:1]).all(dim=0).any()):
        raise RedactError(f"a label was to be erased that all {len(z)} latents share - nothing tells it from the rest - label more")
    mean = latents.mean(dim=0)
    whiten, colour = _roots(shrunk_covariance(latents - mean))
    found = whiten @ ((latents - mean).T @ (z - z.mean(dim=0)) / len(z))  # [w_dim, k], whitened cross-covariance
    most = found.norm()
    if protected is not None:
        kept = torch.linalg.qr((protected.double() @ colour).T).Q  # p . w reads the whitened latent along W^-1 p
        found = found - kept @ (kept.T @ found)
    directions, lengths, _ = torch.linalg.svd(found, full_matrices=False)
    basis = directions[:, lengths > NEGLIGIBLE * most]  # [w_dim, r]
    if basis.shape[1] == 0:
        raise RedactError("labels were to be erased apart from the keep-list - they are what the keep-list says - keep less")
    removed = colour @ basis @ (basis.T @ whiten)
    return AffineEdit(torch.eye(len(mean), dtype=torch.float64, device=w.device) - removed, removed @ mean)


def _roots(covariance: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """C^(-1/2) and C^(1/2), symmetric, of a positive definite C."""
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors / values.sqrt()) @ vectors.T, (vectors * values.sqrt()) @ vectors.T
