# SPDX-License-Identifier: Apache-2.0
"""Improved precision and recall: which share of one set lies where the other set has its neighbours."""

from __future__ import annotations

import torch

from stylegan_redact.evaluation._kernel import checked_features
from stylegan_redact.evaluation._paired import rate
from stylegan_redact.types import Estimate

NEIGHBOURS = 3
BLOCK = 2048
"""Rows and columns of distances at a time: memory grows with n, not with its square."""


def precision_and_recall(reference: torch.Tensor, generated: torch.Tensor) -> tuple[Estimate, Estimate]:
    """How many generated images look like references, and how many references are matched by generated ones.

    A set's manifold is the union of balls around its points that reach to their third neighbour. Precision is the share of `generated` inside the
    reference's manifold, recall the share of `reference` inside that of `generated`. Each interval (Clopper and Pearson) is conditional on the other
    side's manifold: it says how the share varies with the points asked about, not with those that make up the manifold. Both shares depend on how
    many points make up the manifolds: compare sets of one size.

    Args:
        reference: [n, d], finite, n > 3.
        generated: [m, d], finite, m > 3.

    Returns:
        Precision, n is m; recall, n is n. Percent.

    Raises:
        RedactError: too few rows, other shapes, or a number that is not finite.

    Source: Kynkäänniemi et al. 2019, "Improved precision and recall metric for assessing generative models", arXiv 1904.06991, equations 1 to 3.
    """
    x, y = checked_features(reference, generated, least=NEIGHBOURS + 1)
    centre = x.mean(0)
    x, y = x - centre, y - centre  # Distances are differences of squared lengths: shorter ones lose less.
    return rate(_inside(y, x, _radii(x))), rate(_inside(x, y, _radii(y)))


def _squared_distances(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp(min=0)


def _radii(points: torch.Tensor) -> torch.Tensor:
    """[n]: squared distance of every point to its third nearest other point."""
    found = []
    for first, some in _blocks(points):
        nearest = points.new_full([len(some), NEIGHBOURS], torch.inf)
        for start, others in _blocks(points):
            distances = _squared_distances(some, others)
            if start == first:
                distances.fill_diagonal_(torch.inf)  # No point is its own neighbour; a second one at the same place is.
            nearest = torch.cat([nearest, distances], 1).topk(NEIGHBOURS, dim=1, largest=False).values
        found.append(nearest[:, -1])
    return torch.cat(found)


def _inside(queries: torch.Tensor, points: torch.Tensor, radii: torch.Tensor) -> torch.Tensor:
    """[n] bool: is the query within the radius of any of the points?"""
    found = []
    for _, some in _blocks(queries):
        inside = torch.zeros(len(some), dtype=torch.bool)
        for start, others in _blocks(points):
            inside |= (_squared_distances(some, others) <= radii[start : start + len(others)]).any(1)
        found.append(inside)
    return torch.cat(found)


def _blocks(points: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
    """Row of the first, and the rows."""
    return [(start, points[start : start + BLOCK]) for start in range(0, len(points), BLOCK)]
