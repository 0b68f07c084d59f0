# SPDX-License-Identifier: Apache-2.0
"""In simulation, the intervals that are made of others hold what they say, and what they are there for would be missed without."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stylegan_redact.estimates import mean_interval
from stylegan_redact.evaluation import rate
from stylegan_redact.evaluation._manifold import precision_and_recall
from stylegan_redact.evaluation._person import of_sample
from stylegan_redact.evaluation.residual_rate import _bound
from stylegan_redact.probe import balanced_accuracy
from stylegan_redact.types import Estimate

DRAWS = 400
NOISE = 2.5 * math.sqrt(0.95 * 0.05 / DRAWS)


def covered(found: list[Estimate], truth: float) -> float:
    return float(np.mean([each.low <= truth <= each.high for each in found]))


def flags(hits: int, n: int) -> torch.Tensor:
    return torch.arange(n) < hits


@pytest.mark.parametrize(("percent", "overlooked", "counted"), [(1.0, 0.3, 60), (0.5, 0.5, 200), (20.0, 0.5, 40)])
def test_the_bound_holds_the_rate_that_an_imperfect_judge_sees_a_part_of(percent: float, overlooked: float, counted: int) -> None:
    """The judge sees the share 1 - overlooked of what there is, and how much it overlooks is known from a count. Without that the rate is missed."""
    stream, n = np.random.default_rng(1), 5_000
    seen = stream.binomial(n, percent / 100 * (1 - overlooked), DRAWS)
    missed = stream.binomial(counted, overlooked, DRAWS)
    after = [rate(flags(hits, n)) for hits in seen]
    bounds = [_bound(each, int(of), counted) for each, of in zip(after, missed, strict=True)]
    assert covered(bounds, percent) >= 0.95 - NOISE
    assert covered(after, percent) < 0.9 - NOISE
    assert np.mean([each.high for each in bounds]) < 5 * percent  # It says something.


@pytest.mark.parametrize(("hit", "passed", "shown", "not_shown"), [(0.9, 0.8, 30, 100), (0.97, 0.99, 60, 60), (0.6, 0.95, 15, 400)])
def test_balanced_accuracy_covers(hit: float, passed: float, shown: int, not_shown: int) -> None:
    stream = np.random.default_rng(2)
    shows = flags(shown, shown + not_shown)
    found = []
    for hits, passes in zip(stream.binomial(shown, hit, DRAWS), stream.binomial(not_shown, passed, DRAWS), strict=True):
        found.append(balanced_accuracy(torch.cat([flags(int(hits), shown), ~flags(int(passes), not_shown)]), shows))
    assert 0.95 - NOISE <= covered(found, (hit + passed) / 2) and np.mean([each.high - each.low for each in found]) < 0.3


def test_a_share_of_strangers_covers_what_other_strangers_would_give() -> None:
    """Of a code with threshold t the strangers above t are nearer; codes and strangers are samples. Of the codes alone the interval is too narrow."""
    stream, codes, strangers = np.random.default_rng(3), 300, 60
    alone, both = [], []
    for _ in range(DRAWS):
        threshold, stranger = stream.beta(9, 2, codes), stream.random(strangers)
        share = mean_interval(100 * (stranger[:, None] > threshold).mean(axis=0), unit="%")
        alone.append(share)
        both.append(of_sample(share, strangers))
    truth = 100 * (1 - 9 / 11)
    assert covered(both, truth) >= 0.95 - NOISE and covered(alone, truth) < 0.7


@pytest.mark.parametrize("side", ["precision", "recall"])
def test_precision_and_recall_cover_what_more_samples_would_give(side: str) -> None:
    """Of the manifold that the other set spans: precision asks for the share of what is generated, recall for that of the reference."""
    stream = np.random.default_rng(4)
    spanning = torch.from_numpy(stream.standard_normal([80, 3]))

    def measured(n: int) -> Estimate:
        some = torch.from_numpy(1.3 * stream.standard_normal([n, 3]))
        found = precision_and_recall(spanning, some) if side == "precision" else precision_and_recall(some, spanning)
        return found[0] if side == "precision" else found[1]

    truth = measured(4_000).value
    found = [measured(50) for _ in range(DRAWS // 2)]
    assert covered(found, truth) >= 0.95 - NOISE and np.mean([each.high - each.low for each in found]) < 30
