# SPDX-License-Identifier: Apache-2.0
"""Some clicks -> a guess for every picture: ridge-logistic regression on whitened features, what to show next, how good it is, when to stop.

The covariance that whitens is that of all pictures, labelled or not: it costs no clicks. The guesses for all of them then say where the feature lies
in W, which a hundred clicks alone, in as many dimensions, do not (docs/labels.md has the figures).
"""

from __future__ import annotations

import math

import torch

from stylegan_redact.estimates import clopper_pearson
from stylegan_redact.types import Estimate, RedactError
from stylegan_redact.wspace.subspace import shrunk_covariance

RIDGE = 3.0
"""In units of whitened features; the benchmark's choice."""
CERTAIN = 6.0
"""Score of what a person said, as a logit."""
FEWEST = 2
"""Of either label; with fewer there is nothing to learn."""
FEWEST_TO_STOP = 10
"""Of either label before clicking on can be called useless."""
AGREEMENT = 0.95
"""Cohen's kappa between the guesses now and a page of clicks earlier past which more clicks change little."""
_FOLDS = 5
_NEWTON_STEPS = 25
_SHARES = {"uncertain": 0.75, "likely": 0.125}
"""Of the pictures shown next; the rest are random, so that what the probe overlooks has a chance."""


def whiten(features: torch.Tensor) -> torch.Tensor:
    """[n, d] float64 with mean 0 and about the identity as covariance.

    Args:
        features: [n, d] of all pictures, n > 1.
    """
    centred = features.double() - features.double().mean(dim=0)
    factor = torch.linalg.cholesky(shrunk_covariance(centred))
    return torch.linalg.solve_triangular(factor, centred.T, upper=False).T


def can_learn(shows: torch.Tensor) -> bool:
    """Whether both labels occur often enough; shows [m] bool."""
    return min(int(shows.sum()), int((~shows).sum())) >= FEWEST


def fit(white: torch.Tensor, rows: torch.Tensor, shows: torch.Tensor) -> torch.Tensor:
    """Scores [n] of all pictures, log odds; > 0: shows, says the probe.

    Args:
        white: [n, d] float64, whitened.
        rows:  [m] which of them are labelled.
        shows: [m] bool, how.

    Raises:
        RedactError: too few of a label.

    Source: Hoerl and Kennard 1970 (ridge); le Cessie and van Houwelingen 1992 (ridge logistic), by Newton's method with halved steps.
    """
    if not can_learn(shows):
        raise RedactError(f"guesses were asked - {int(shows.sum())} of {len(shows)} labels are yes - label {FEWEST} or more of each")
    ones = torch.ones([len(white), 1], dtype=torch.float64)
    design, target = torch.cat([white, ones], dim=1), shows.double()
    x = design[rows]
    penalty = torch.full([x.shape[1]], RIDGE, dtype=torch.float64)
    penalty[-1] = 1e-3  # The offset is free but for what keeps it finite.

    def loss(b: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.binary_cross_entropy_with_logits(x @ b, target, reduction="sum") + (penalty * b.square()).sum() / 2

    b = torch.zeros(x.shape[1], dtype=torch.float64)
    for _ in range(_NEWTON_STEPS):
        p = torch.sigmoid(x @ b)
        gradient = x.T @ (p - target) + penalty * b
        step = torch.linalg.solve((x * (p * (1 - p))[:, None]).T @ x + torch.diag(penalty), gradient)
        size = 1.0
        while loss(b - size * step) > loss(b) and size > 1e-6:
            size /= 2
        b = b - size * step
        if float(step.abs().max()) < 1e-6:
            break
    return design @ b


def show_next(score: torch.Tensor | None, labelled: torch.Tensor, count: int, generator: torch.Generator) -> list[int]:
    """Rows to show next, the borderline first, then likely ones, then some at random; all random while there is no probe.

    Args:
        score:     [n] of all pictures, or None.
        labelled:  [n] bool: not to be shown again.
        count:     How many; fewer where fewer are left.
        generator: Of the random ones.
    """
    free = (~labelled).nonzero()[:, 0]
    shuffled = free[torch.randperm(len(free), generator=generator)]
    if score is None:
        return shuffled[:count].tolist()
    uncertain = free[score[free].abs().argsort()][: math.ceil(_SHARES["uncertain"] * count)]
    likely = free[score[free].argsort(descending=True)].tolist()
    chosen = uncertain.tolist()
    chosen += [row for row in likely if row not in set(chosen)][: math.ceil(_SHARES["likely"] * count)]
    return (chosen + [row for row in shuffled.tolist() if row not in set(chosen)])[:count]


def cross_validated(white: torch.Tensor, rows: torch.Tensor, shows: torch.Tensor, *, seed: int = 0) -> torch.Tensor | None:
    """[m] score of each labelled picture by a probe that did not see its label; None: too few of a label.

    Args:
        white, rows, shows: As for `fit`.
        seed:               Of the folds.
    """
    folds = min(_FOLDS, int(shows.sum()), int((~shows).sum()))
    if folds <= FEWEST:
        return None
    generator = torch.Generator().manual_seed(seed)
    fold = torch.zeros(len(rows), dtype=torch.int64)
    for label in (True, False):  # The same share of either label in each fold.
        members = (shows == label).nonzero()[:, 0]
        fold[members[torch.randperm(len(members), generator=generator)]] = torch.arange(len(members)) % folds
    score = torch.zeros(len(rows), dtype=torch.float64)
    for each in range(folds):
        aside = fold == each
        if not can_learn(shows[~aside]):
            return None
        score[aside] = fit(white, rows[~aside], shows[~aside])[rows[aside]]
    return score


def balanced_accuracy(guess: torch.Tensor, shows: torch.Tensor) -> Estimate:
    """Mean of the hit rates on either label, [m] bool each, with an interval.

    Source: Zou and Donner 2008 (MOVER: the intervals of two independent rates make that of their mean), of Clopper and Pearson's intervals.
    """
    parts = [clopper_pearson(int((guess[shows == label] == label).sum()), int((shows == label).sum())) for label in (True, False)]
    value = sum(part.value for part in parts) / 2
    low = value - math.hypot(*(part.value - part.low for part in parts)) / 2
    high = value + math.hypot(*(part.high - part.value for part in parts)) / 2
    return Estimate(value, max(low, 0.0), min(high, 1.0), len(shows))


def settled(white: torch.Tensor, rows: torch.Tensor, shows: torch.Tensor, *, last: int) -> bool:
    """Whether the last clicks hardly changed any guess, which is to say that more of them will hardly.

    Args:
        white, rows, shows: As for `fit`, labels in the order of the clicks.
        last:               How many were clicked since the guesses that are compared.

    Source: Bloodgood and Vijay-Shanker 2009, "A Method for Stopping Active Learning Based on Stabilizing Predictions"; the threshold is ours.
    """
    earlier = slice(0, max(len(rows) - last, 0))
    if min(int(shows[earlier].sum()), int((~shows[earlier]).sum())) < FEWEST_TO_STOP:
        return False
    return kappa(fit(white, rows, shows) > 0, fit(white, rows[earlier], shows[earlier]) > 0) >= AGREEMENT


def kappa(first: torch.Tensor, second: torch.Tensor) -> float:
    """Agreement of two guesses [n] bool beyond chance, at most 1; 1 also if both say the same of every picture. Source: Cohen 1960."""
    agree = float((first == second).double().mean())
    a, b = float(first.double().mean()), float(second.double().mean())
    chance = a * b + (1 - a) * (1 - b)
    return 1.0 if agree == 1 else (agree - chance) / (1 - chance)
