# SPDX-License-Identifier: Apache-2.0
"""`moon`, the published objective: what it feeds and aims at, by the formula; that without alpha nothing moves; what it refuses."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest
import tiny
import tiny_conditional
import torch

from stylegan_redact.features.attribute import Attribute
from stylegan_redact.losses.unlearn import PublishedTarget
from stylegan_redact.methods.moon import Moon, prior_pairs
from stylegan_redact.network import broadcast_w, sample_z
from stylegan_redact.types import Feature, LabelledLatents, Network, RedactError


@functools.cache
def planted() -> tuple[Network, Feature]:
    network = tiny.network()
    return network, Attribute(tiny.FEATURE, tiny.Corners(network.G_ema)).gather(network, range(600), batch=300)


def latents() -> LabelledLatents:
    found = planted()[1].latents
    assert found is not None
    return found


def shifted(latent: torch.Tensor, direction: torch.Tensor, threshold: float) -> torch.Tensor:
    """z_hat by the paper's formula, one latent after the other."""
    moved = []
    for z in latent.double():
        proj = sum(float(a) * float(b) for a, b in zip(direction, z, strict=True)) / float(direction.double().norm())
        moved.append(z - (proj - threshold) * direction.double() if proj >= threshold else z)
    return torch.stack(moved).float()


@pytest.mark.parametrize("space", ["z", "w"])
def test_the_target_is_that_of_all_labelled_latents_in_the_space(space: str) -> None:
    network, _ = planted()
    labelled, G = latents(), network.G_ema
    assert labelled.seeds is not None
    latent = sample_z(labelled.seeds.tolist(), G.z_dim) if space == "z" else labelled.w
    shows = labelled.score > 0
    z_e = latent[shows].mean(0) - latent[~shows].mean(0)
    target = Moon(space=space).target(G, labelled, "")
    torch.testing.assert_close(target.direction, z_e)
    assert target.threshold == pytest.approx(float((latent @ z_e / z_e.norm()).mean()), abs=1e-5)
    assert float(target.moves(latent).float().mean()) == pytest.approx(0.5, abs=0.1)  # Trap 2: about half, of a feature that 15 % show.
    few = Moon(space=space, marks=100).target(G, labelled, "")
    some = dataclasses.replace(labelled, w=labelled.w[:100], score=labelled.score[:100], seeds=labelled.seeds[:100])
    torch.testing.assert_close(few.direction, Moon(space=space).target(G, some, "").direction)
    assert not torch.allclose(few.direction, target.direction)


@pytest.mark.parametrize("space", ["z", "w"])
def test_batches_are_the_prior_and_its_moved_latents(space: str) -> None:
    network, _ = planted()
    G: Any = network.G_ema
    direction = torch.linspace(-1, 2, G.z_dim)
    ws, aim = prior_pairs(G, PublishedTarget(direction, 0.2), space, None, None)(40, torch.Generator().manual_seed(5))
    z = torch.randn([40, G.z_dim], generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        w = G.mapping(z, None)[:, 0]
        goal = G.mapping(shifted(z, direction, 0.2), None)[:, 0] if space == "z" else shifted(w, direction, 0.2)
    torch.testing.assert_close(ws, broadcast_w(G, w))
    torch.testing.assert_close(aim, broadcast_w(G, goal))
    moved = (ws != aim).flatten(1).any(dim=1)
    assert 5 < int(moved.sum()) < 35 and torch.equal(ws[~moved], aim[~moved])


def test_half_of_a_batch_is_of_classes_that_stay() -> None:
    G: Any = tiny_conditional.network().G_ema
    c = torch.eye(G.c_dim)
    target = PublishedTarget(torch.ones(G.z_dim), -1000.0)  # Every latent is past it.
    ws, aim = prior_pairs(G, target, "z", c[:1], c[1:2])(8, torch.Generator().manual_seed(0))
    z = torch.randn([8, G.z_dim], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ws, G.mapping(z, c[[0, 0, 0, 0, 1, 1, 1, 1]]))
    assert (ws != aim).flatten(1).any(dim=1).tolist() == [True] * 4 + [False] * 4


def test_a_pose_stays() -> None:
    G: Any = tiny_conditional.network("stylegan3").G_ema
    target = PublishedTarget(torch.ones(G.z_dim), -1000.0)
    ws, aim = prior_pairs(G, target, "w", torch.eye(G.c_dim), None)(4, torch.Generator().manual_seed(0))
    assert torch.equal(ws[:, 0], aim[:, 0]) and not torch.equal(ws[:, 1], aim[:, 1])


@pytest.mark.parametrize("space", ["z", "w"])
def test_without_alpha_nothing_moves(space: str) -> None:
    """The limiting case: only the reconstruction is left, and a copy reconstructs exactly. With alpha the same steps do move it."""
    network, feature = planted()
    for strength, same in ((0.0, True), (2.0, False)):
        after = Moon(space=space, strength=strength, kimg=0.064).redact(network, feature, (), 0)
        states = after.G_ema.state_dict(), network.G_ema.state_dict()
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[1]) is same


def test_what_cannot_be_done_is_refused() -> None:
    network, feature = planted()
    labelled = latents()
    unseeded = dataclasses.replace(feature, latents=dataclasses.replace(labelled, seeds=None))
    with pytest.raises(RedactError, match="use --space=w"):
        Moon().redact(network, unseeded, (), 0)
    Moon(space="w", kimg=0.032).redact(network, unseeded, (), 0)
    first = int((labelled.score <= 0)[:3].sum())
    assert first == 3, "the first three of these seeds do not show it"
    with pytest.raises(RedactError, match="0 of the 3 latents used show it"):
        Moon(marks=3).redact(network, feature, (), 0)
