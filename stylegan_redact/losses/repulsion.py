# SPDX-License-Identifier: Apache-2.0
"""What keeps weights near some weights, or drives them away from others: the penalties of Adapt-then-Unlearn.

Tiwary, Guha, Panda & Prathosh 2023, arXiv 2309.14054: a generator is adapted to pictures with the feature, held near its start where its Fisher
information says that it matters (elastic weight consolidation); then the original is trained on without the feature and repelled from the adapted
weights. Three repulsions are theirs: EL2, IL2 and NL2. Two things are ours, so that settings mean the same for all networks: the Fisher information
is scaled to a mean of 1, and distances are measured in units of that between original and adapted.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from stylegan_redact.types import RedactError

Weights = Sequence[torch.Tensor]

KINDS = ("EL2", "IL2", "NL2")


def mean_square(weights: Weights, others: Weights) -> torch.Tensor:
    """Mean squared difference of two lists of tensors of the same shapes: a scalar, the mean over tensors of each one's mean."""
    return torch.stack([(mine - theirs).square().mean() for mine, theirs in zip(weights, others, strict=True)]).mean()


def repulsion(kind: str, weights: Weights, adapted: Weights, original: Weights, *, gamma: float) -> torch.Tensor:
    """What a generator minimises to get away from adapted weights, a scalar.

    Args:
        kind: EL2: exp(-gamma d). IL2: gamma / d. NL2: -gamma d, which has no lower bound. d is the distance from the adapted weights: 1 at the
            original, 0 at the adapted.
        weights:  Carry the gradient.
        adapted, original: Fixed.
        gamma:    How hard.

    Raises:
        RedactError: another kind, or adapted weights that are the original's.

    Source: Tiwary et al. 2023, the three repulsion losses; the unit of d is ours.
    """
    unit = mean_square(original, adapted)
    if not bool(unit > 0):
        raise RedactError("weights were to be repelled from adapted ones - these are the original's own - adapt for longer")
    distance = mean_square(weights, adapted) / unit
    if kind == "EL2":
        return (-gamma * distance).exp()
    if kind == "IL2":
        return gamma / distance
    if kind == "NL2":
        return -gamma * distance
    raise RedactError(f"repulsion {kind!r} was asked - there is: {', '.join(KINDS)} - take one of them")


def elastic(weights: Weights, original: Weights, fisher: Weights) -> torch.Tensor:
    """Half the mean squared way from the original weights, each weighed by its Fisher information; a scalar.

    Source: Tiwary et al. 2023, adaptation; elastic weight consolidation is Kirkpatrick et al. 2017, arXiv 1612.00796, equation 3.
    """
    count = sum(each.numel() for each in weights)
    parts = [(f * (mine - start).square()).sum() for mine, start, f in zip(weights, original, fisher, strict=True)]
    return torch.stack(parts).sum() / (2 * count)
