# SPDX-License-Identifier: Apache-2.0
"""Labelled latents -> Subspace: shrinkage LDA in closed form, the threshold at the labelled rate, the accuracy on latents kept aside.

Differs from the vector arithmetic of Moon, Cho and Kim 2024 (arXiv 2303.05699v4) in two points: the difference of the means is whitened, because in
a few hundred dimensions and with correlated coordinates the bare difference is mostly noise; and the threshold declares as many latents to show the
feature as the labels do, where the mean of the projections declares half of them, however rare the feature is.
"""

from __future__ import annotations

import torch

from stylegan_redact.types import LabelledLatents, RedactError, Subspace

FEWEST_OF_A_LABEL = 10
MOST_LATENTS = 100_000
"""Of more, so many are looked at, evenly spaced: a covariance gets no better, and float64 copies of all would take many times their memory."""
FEWEST_LEFT = 1_000
"""Of the rarer label; so that as many are left, more are looked at."""


def thinned(w: torch.Tensor, shows: torch.Tensor | None = None) -> slice:
    """Rows to look at, of w [n, w_dim] with labels shows [n] bool: all, or evenly spaced ones, about MOST_LATENTS, or more if one label is rare."""
    step = -(-len(w) // MOST_LATENTS)
    if step > 1 and shows is not None:
        rarer = int(shows.sum())
        step = min(step, max(min(rarer, len(w) - rarer) // FEWEST_LEFT, 1))
    return slice(None, None, step) if step > 1 else slice(None)


def find_subspace(latents: LabelledLatents, *, rank: int = 1, holdout: float = 0.2, seed: int = 0) -> Subspace:
    """Where the feature lives in W: orthonormal directions and the thresholds past which it shows.

    Direction 1 is the discriminant of the two labels. Each further one is the discriminant of what is left once those before are projected out: it
    matters for a reader of w that no longer sees the first, not for accuracy.

    Args:
        latents: w [n, w_dim] and score [n]; score > 0 means the feature shows. Their share of all latents counts as the feature's rate. Of more than
            MOST_LATENTS some are looked at.
        rank: Number of directions, in [1, w_dim]; 1 gives the usual unit vector.
        holdout: Share of the latents of each label kept aside, in (0, 1), for the thresholds and the accuracy.
        seed: Of the choice of those kept aside.

    Returns:
        basis [rank, w_dim] float64 with orthonormal rows; threshold [rank] float64, past which lie as many held-out latents as carry the label;
        balanced accuracy of direction 1 with its threshold on the held-out latents.

    Raises:
        RedactError: only one label occurs, fewer than 10 latents carry the rarer one, or an argument out of range.

    Source: Fisher 1936 (discriminant); Chen et al. 2010, arXiv 0907.4698 (oracle approximating shrinkage); Ravfogel et al. 2020, arXiv 2004.07667
    (further directions by projecting out and fitting again); Moon et al. 2024, arXiv 2303.05699v4 (target vector and threshold).
    """
    w, shows = _checked(latents)
    if not 1 <= rank <= w.shape[1]:
        raise RedactError(f"rank={rank} was asked - w has {w.shape[1]} dimensions - a rank lies in [1, {w.shape[1]}]")
    if not 0 < holdout < 1:
        raise RedactError(f"holdout={holdout} was asked - it is the share of latents kept aside - give one in (0, 1), usually 0.2")
    aside = _held_out(shows, holdout, seed)

    rows: list[torch.Tensor] = []
    for _ in range(rank):
        free = _complement(rows, w.shape[1], w.device)  # [w_dim, w_dim - len(rows)], orthonormal columns
        direction = free @ discriminant(w[~aside] @ free, shows[~aside])
        rows.append(direction / direction.norm())
    basis = torch.stack(rows)  # [rank, w_dim]

    projected = w[aside] @ basis.T  # [n_aside, rank]
    # Not on the latents of the fit: there the labels lie further apart than anywhere else, and the rate would come out too low.
    threshold = torch.stack([rate_threshold(column, shows[aside]) for column in projected.T])  # [rank]
    past = projected[:, 0] > threshold[0]
    hit_rate, pass_rate = past[shows[aside]].double().mean(), (~past)[~shows[aside]].double().mean()
    return Subspace(basis, threshold, float(hit_rate + pass_rate) / 2)


def discriminant(w: torch.Tensor, shows: torch.Tensor) -> torch.Tensor:
    """The direction that best tells the labels apart, not normalised: C^-1 (mean with the feature - mean without).

    Args:
        w: [n, d] float64.
        shows: [n] bool, both labels occur.

    Returns:
        [d]; its dot product with the difference of the means is positive.

    Raises:
        RedactError: the latents of each label are all the same.
    """
    means = {label: w[shows == label].mean(0) for label in (True, False)}
    within = torch.where(shows[:, None], w - means[True], w - means[False])  # [n, d]
    difference = means[True] - means[False]
    if not (difference != 0).any():
        raise RedactError("A direction for the feature was asked - its latents have the same mean with and without - check the labels")
    return torch.linalg.solve(shrunk_covariance(within), difference)


def shrunk_covariance(centred: torch.Tensor) -> torch.Tensor:
    """Covariance of centred samples, shrunk towards a multiple of the identity by as much as their number calls for.

    Args:
        centred: [n, d] float64 with mean 0.

    Returns:
        [d, d], positive definite also for n < d.

    Raises:
        RedactError: all samples are the same.

    Source: Chen, Wiesel, Eldar and Hero 2010, arXiv 0907.4698, equation 23 (OAS).
    """
    n, d = centred.shape
    sample = centred.T @ centred / n
    trace, trace_of_square = sample.trace(), sample.square().sum()
    if trace <= 0:
        raise RedactError(f"A covariance was asked - all {n} latents are the same - draw latents from different seeds")
    spread = (n + 1 - 2 / d) * (trace_of_square - trace.square() / d)
    wanted = (1 - 2 / d) * trace_of_square + trace.square()
    shrinkage = float(wanted / spread) if spread > wanted else 1.0
    return (1 - shrinkage) * sample + shrinkage * trace / d * torch.eye(d, dtype=sample.dtype, device=sample.device)


def rate_threshold(projected: torch.Tensor, shows: torch.Tensor) -> torch.Tensor:
    """The value past which exactly as many projections lie as latents carry the label (ties aside): halfway between two neighbours.

    Args:
        projected: [n], along a direction.
        shows: [n] bool; only their number counts. Both labels occur.

    Returns:
        [], in the unit of `projected`.
    """
    falling = projected.sort(descending=True).values
    hits = int(shows.sum())
    return (falling[hits - 1] + falling[hits]) / 2


def _checked(latents: LabelledLatents) -> tuple[torch.Tensor, torch.Tensor]:
    w, score = latents.w.detach(), latents.score.detach()
    if w.ndim == 2 and score.shape == w.shape[:1]:
        some = thinned(w, score > 0)
        w, score = w[some], score[some]
    w = w.double()
    if w.ndim != 2 or score.shape != w.shape[:1] or not w.isfinite().all() or score.isnan().any():
        raise RedactError(
            f"A subspace was asked from w {list(w.shape)} and score {list(score.shape)} - they are [n, w_dim] and [n] and finite - check the latents"
        )
    shows = score > 0
    with_feature, without = int(shows.sum()), int((~shows).sum())
    if min(with_feature, without) < FEWEST_OF_A_LABEL:
        raise RedactError(
            f"A subspace was asked - {with_feature} latents show the feature and {without} do not - label more, at least {FEWEST_OF_A_LABEL} of each"
        )
    return w, shows


def _held_out(shows: torch.Tensor, holdout: float, seed: int) -> torch.Tensor:
    """[n] bool: the same share of either label, at least one of each, and at least two of each stay."""
    aside = torch.zeros_like(shows)
    generator = torch.Generator().manual_seed(seed)
    for label in (True, False):
        members = (shows == label).nonzero()[:, 0].cpu()  # [m]
        count = min(max(round(holdout * len(members)), 1), len(members) - 2)
        aside[members[torch.randperm(len(members), generator=generator)[:count]].to(aside.device)] = True
    return aside


def _complement(rows: list[torch.Tensor], dimensions: int, device: torch.device) -> torch.Tensor:
    """[dimensions, dimensions - len(rows)]: orthonormal columns, orthogonal to the orthonormal rows."""
    if not rows:
        return torch.eye(dimensions, dtype=torch.float64, device=device)
    complete = torch.linalg.qr(torch.stack(rows).T, mode="complete").Q
    return complete[:, len(rows) :]
