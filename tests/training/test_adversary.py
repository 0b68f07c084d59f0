# SPDX-License-Identifier: Apache-2.0
"""The attacker that a network trains against, on the tiny network with the planted feature."""

from __future__ import annotations

import functools

import pytest
import tiny
import torch

from stylegan_redact.methods.edit import Edit, mixed_codes
from stylegan_redact.network import synthesize
from stylegan_redact.training.adversary import FREE, OLDEST, Adversary
from stylegan_redact.training.guide import BARELY, Guide
from stylegan_redact.types import Feature, Network
from stylegan_redact.wspace.prior import prior_of

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE = 12


@functools.cache
def planted() -> tuple[Network, Feature]:
    network = tiny.network()
    return network, tiny.feature(network)


def guide() -> Guide:
    _, feature = planted()
    assert feature.detector is not None
    return Guide(feature.detector, (feature.detector.attributes.index(feature.name),))


def adversary(size: int = SIZE, micro: int = SIZE) -> Adversary:
    network, feature = planted()
    assert feature.latents is not None
    return Adversary(network.G_ema, guide(), feature.latents, size, micro)


def shown(ws: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return guide().logit(synthesize(planted()[0].G_ema, ws))


def test_codes_climb_until_they_show_the_feature() -> None:
    found, generator = adversary(), torch.Generator().manual_seed(0)
    first = shown(found.climb(generator)[0])
    for _ in range(OLDEST // 2 - 1):  # None is older than OLDEST by then.
        ws = found.climb(generator)[0]
    last = shown(ws)
    assert bool((last > first).all()) and float((first > 0).float().mean()) < 0.5 < float((last > 0).float().mean())


def test_codes_stay_within_the_shell() -> None:
    network, feature = planted()
    assert feature.latents is not None
    prior, found, generator = prior_of(feature.latents.w), adversary(), torch.Generator().manual_seed(0)
    for _ in range(2 * OLDEST):
        ws = found.climb(generator)[0]
        assert bool((prior.to_u(ws).norm(dim=2) <= found.limit[:, :, 0] * 1.001).all())
    most = prior.to_u(feature.latents.w).norm(dim=1).max()
    assert prior.radius < float(most) and bool((found.limit <= most * 1.001).all()) and bool((found.limit >= prior.radius * 0.999).all())


def test_old_codes_make_way() -> None:
    found, generator = adversary(), torch.Generator().manual_seed(0)
    seen = [found.climb(generator)[0] for _ in range(2 * OLDEST)]
    jumps = [(later - earlier).flatten(1).norm(dim=1) for earlier, later in zip(seen, seen[1:], strict=False)]
    began = torch.stack(jumps) > 3 * torch.stack(jumps).median()
    assert bool(began.any(dim=0).all()), "every code was replaced at least once"
    assert int(found.age.max()) <= OLDEST


def test_most_begin_where_the_feature_does_not_show() -> None:
    found = adversary(size=400)
    generator = torch.Generator().manual_seed(0)
    for index in range(400):
        found._begin(index, generator)
    assert planted()[1].latents is not None
    free = (planted()[1].latents.score[found.began] <= BARELY).float().mean()
    base = (planted()[1].latents.score <= BARELY).float().mean()
    assert float(free) == pytest.approx(FREE + (1 - FREE) * float(base), abs=0.06)
    mixed = (found.u[:, 1:] != found.u[:, :1]).flatten(1).any(dim=1).float().mean()
    assert float(mixed) == pytest.approx(0.25, abs=0.07)


def test_portions_and_seeds() -> None:
    one, other, third = ([each.climb(generator)[0] for _ in range(3)] for each, generator in (
        (adversary(), torch.Generator().manual_seed(1)), (adversary(micro=5), torch.Generator().manual_seed(1)),
        (adversary(), torch.Generator().manual_seed(2)),
    ))  # fmt: skip
    assert torch.allclose(one[-1], other[-1], atol=1e-4) and not torch.allclose(one[-1], third[-1], atol=1e-2)


def test_a_quarter_of_a_batch_are_what_it_found() -> None:
    network, feature = planted()
    assert feature.latents is not None
    found = adversary(size=8)
    batch = mixed_codes(network.G_ema, feature.latents, None, found)(32, torch.Generator().manual_seed(0))
    assert len(batch.ws) == 32 and torch.equal(batch.ws[:8], found.prior.to_w(found.u)) and not bool(batch.held.any())


def test_a_network_that_trained_against_it_is_harder_to_attack() -> None:
    network, feature = planted()
    assert feature.latents is not None

    def found_by_attack(attacked: float) -> float:
        after = Edit(kimg=1.2, batch=16, lr=0.01, guidance=0.3, robust=2.0, realism=0.0, attacked=attacked).redact(network, feature, (), 0)
        attacker = Adversary(after.G_ema, guide(), feature.latents, 64, 64)
        generator = torch.Generator().manual_seed(9)
        for index in range(64):
            attacker._begin(index, generator)
            attacker.age[index] = 0
        for _ in range(OLDEST - 1):
            ws = attacker.climb(generator)[0]
        with torch.no_grad():
            return float((guide().logit(synthesize(after.G_ema, ws)) > 0).float().mean())

    assert found_by_attack(0.25) < 0.5 * found_by_attack(0.0)
