# SPDX-License-Identifier: Apache-2.0
"""Repulsion from adapted weights and elastic weight consolidation: values worked by hand, slopes, limits."""

import math

import pytest
import torch

from stylegan_redact.losses.repulsion import KINDS, elastic, mean_square, repulsion
from stylegan_redact.types import RedactError


def tensors(*values: list[float]) -> list[torch.Tensor]:
    return [torch.tensor(each, dtype=torch.float64) for each in values]


ORIGINAL = tensors([0.0, 0.0], [0.0])
ADAPTED = tensors([1.0, -1.0], [3.0])
"""Mean squares 1 and 9: 5 in all, the unit."""
NOW = tensors([0.0, -2.0], [1.0])
"""From the adapted weights: (1 + 1) / 2 = 1 and 4, the mean 2.5: d = 1/2."""


@pytest.mark.parametrize(("kind", "value"), [("EL2", math.exp(-2 * 0.5)), ("IL2", 2 / 0.5), ("NL2", -2 * 0.5)])
def test_values_by_hand(kind: str, value: float) -> None:
    assert float(mean_square(NOW, ADAPTED)) == pytest.approx(2.5, abs=1e-12)
    assert float(repulsion(kind, NOW, ADAPTED, ORIGINAL, gamma=2.0)) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(("kind", "value"), [("EL2", math.exp(-0.7)), ("IL2", 0.7), ("NL2", -0.7)])
def test_at_the_original_the_distance_is_one(kind: str, value: float) -> None:
    assert float(repulsion(kind, ORIGINAL, ADAPTED, ORIGINAL, gamma=0.7)) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_slopes_lead_away_from_the_adapted(kind: str) -> None:
    weights = [each.clone().requires_grad_() for each in NOW]
    assert torch.autograd.gradcheck(lambda *w: repulsion(kind, w, ADAPTED, ORIGINAL, gamma=1.3), weights)
    repulsion(kind, weights, ADAPTED, ORIGINAL, gamma=1.3).backward()
    for weight, adapted in zip(weights, ADAPTED, strict=True):
        assert weight.grad is not None and float((-weight.grad * (weight.detach() - adapted)).sum()) > 0


def test_elastic_by_hand() -> None:
    """Ways 0, -2, 1 from the original with information 5, 1/2, 4: (0 + 2 + 4) / (2 * 3) = 1."""
    fisher = tensors([5.0, 0.5], [4.0])
    assert float(elastic(NOW, ORIGINAL, fisher)) == pytest.approx(1.0, abs=1e-12)
    assert float(elastic(ORIGINAL, ORIGINAL, fisher)) == 0
    weights = [each.clone().requires_grad_() for each in NOW]
    assert torch.autograd.gradcheck(lambda *w: elastic(w, ORIGINAL, fisher), weights)


def test_what_means_nothing_is_refused() -> None:
    with pytest.raises(RedactError, match="adapt for longer"):
        repulsion("EL2", NOW, ORIGINAL, ORIGINAL, gamma=1.0)
    with pytest.raises(RedactError, match="EL2, IL2, NL2"):
        repulsion("XL2", NOW, ADAPTED, ORIGINAL, gamma=1.0)
