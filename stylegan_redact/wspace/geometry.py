# SPDX-License-Identifier: Apache-2.0
"""What every method needs of labelled latents: the direction of each feature, the way w moves along it, and where to move it to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from stylegan_redact.types import Feature, LabelledLatents, RedactError, Subspace
from stylegan_redact.wspace.affine import natural_shift, orthogonal_to, projection_quantile
from stylegan_redact.wspace.hinge import Gate, HingeEdit, JointHinge, hinge_at
from stylegan_redact.wspace.subspace import FEWEST_OF_A_LABEL, find_subspace, shrunk_covariance, thinned


@dataclass(frozen=True)
class Move:
    """Where latents go and by which way, for k directions: those of one feature, or of several."""

    subspace: Subspace
    """Its rows are independent unit vectors; orthonormal only if they are of one feature."""
    target: torch.Tensor
    """[k]: where they are to lie."""
    shift: torch.Tensor
    """[k, w_dim]: row i moves a latent along direction i and along no other."""


def shift_along(latents: LabelledLatents, subspace: Subspace) -> torch.Tensor:
    """[k, w_dim]: the natural way to move along the subspace, by the covariance of the labelled latents."""
    return natural_shift(subspace.basis, covariance_of(latents))


def target_at(latents: LabelledLatents, subspace: Subspace, quantile: float) -> torch.Tensor:
    """[k]: where the given share of the latents without the feature lies below, along the subspace."""
    return projection_quantile(subspace, latents.w[latents.score <= 0], quantile)


def covariance_of(latents: LabelledLatents) -> torch.Tensor:
    """[w_dim, w_dim] float64, shrunk."""
    w = latents.w[thinned(latents.w)].double()
    return shrunk_covariance(w - w.mean(dim=0))


def move_for(feature: Feature, keep: tuple[str, ...], quantile: float, method: str, *, rank: int | None = None) -> Move:
    """Where to move the latents of one feature, or of several, without moving along what is to be kept.

    Args:
        feature:  With labelled latents and a subspace, or with parts that have them.
        keep:     Attributes whose position along their own direction stays, for every w: each direction of the feature is made uncorrelated with
                  theirs, so that what it shares with them stays as well.
        quantile: Of the latents without the feature, each feature's own.
        method:   For the message.
        rank:     Directions of each of several features; None: all that there are.

    Raises:
        RedactError: something is missing, or the features or the keep-list are the same directions.
    """
    labelled = [(part.latents, part.subspace) for part in feature.each if part.latents is not None and part.subspace is not None]
    if len(labelled) < len(feature.each):
        raise RedactError(f"{feature.name} was to be redacted by {method} - there are no labelled latents of it - gather it from a classifier")
    latents = labelled[0][0]
    protected = kept_directions(feature, latents, keep)
    if protected is not None:
        metric = covariance_of(latents)
        freed = [torch.stack([orthogonal_to(row, protected, metric) for row in subspace.basis]) for _, subspace in labelled]
        labelled = [(each, Subspace(basis, subspace.threshold, subspace.accuracy)) for (each, subspace), basis in zip(labelled, freed, strict=True)]
    if len(labelled) == 1:
        subspace = labelled[0][1]
        return Move(subspace, target_at(latents, subspace, quantile), shift_along(latents, subspace))
    cut = [(each, Subspace(subspace.basis[:rank], subspace.threshold[:rank], subspace.accuracy)) for each, subspace in labelled]
    joint = Subspace(
        torch.cat([subspace.basis for _, subspace in cut]),
        torch.cat([subspace.threshold for _, subspace in cut]),
        min(subspace.accuracy for _, subspace in cut),
    )
    return Move(joint, torch.cat([target_at(each, subspace, quantile) for each, subspace in cut]), shift_along(latents, joint))


def hinge_for(latents: LabelledLatents, subspace: Subspace, quantile: float) -> HingeEdit:
    """The hinge that moves back, to that quantile of the latents without the feature, whatever is past it."""
    return hinge_at(subspace, target_at(latents, subspace, quantile), shift_along(latents, subspace))


def gate_for(feature: Feature, keep: tuple[str, ...], quantile: float, method: str, strength: float = 1.0) -> Gate:
    """The hinge of a feature, or of each of several at once; arguments as of `move_for` and `hinge_at`."""
    move = move_for(feature, keep, quantile, method, rank=1)
    if len(feature.each) == 1:
        return hinge_at(move.subspace, move.target, move.shift, strength)
    basis, threshold = move.subspace.basis, move.subspace.threshold
    rows = range(len(move.target))
    return JointHinge(tuple(hinge_at(Subspace(basis[row:], threshold[row:], 0.0), move.target[row:], move.shift[row:], strength) for row in rows))


def kept_directions(feature: Feature, latents: LabelledLatents, keep: tuple[str, ...]) -> torch.Tensor | None:
    """[m, w_dim] float64: the direction of each attribute to keep, by the detector's labels of the same latents; None where there is none to keep.

    Raises:
        RedactError: an attribute that the latents are not labelled with, or that nearly none or nearly all of them show.
    """
    if not keep:
        return None
    known = () if feature.detector is None or latents.logits is None else feature.detector.attributes
    rows = []
    for name in sorted(keep):
        if name not in known or latents.logits is None:
            raise RedactError(f"{name} was to be kept - these latents are labelled with: {', '.join(known) or 'nothing else'} - label them with it")
        score = latents.logits[:, known.index(name)]
        showing = int((score > 0).sum())
        if min(showing, len(score) - showing) < FEWEST_OF_A_LABEL:
            told = f"{showing} of {len(score)} labelled images show it"
            raise RedactError(f"{name} was to be kept - {told}, too few either way for a direction - label more, or take it out of the keep-list")
        rows.append(find_subspace(LabelledLatents(latents.w, score)).basis[0])
    return torch.stack(rows)


def to_unit(direction: torch.Tensor) -> torch.Tensor:
    """The direction [w_dim], finite and not zero, float64, of length 1, however large or small its numbers are."""
    direction = direction.double()
    _, exponent = math.frexp(float(direction.abs().max()))
    direction = direction * 2.0 ** min(-exponent, 1000)  # Exact; without it the squares of 1e200 or 1e-200 would be none.
    return direction / direction.norm()
