# SPDX-License-Identifier: Apache-2.0
"""One person on the small network: drawn as somebody else, others less touched; and the measure sees it where that is not so."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import tiny_conditional
import tiny_person as world
import torch

from stylegan_redact import evaluation
from stylegan_redact.estimates import clopper_pearson
from stylegan_redact.evaluation import NoClassifier, measure_pairs
from stylegan_redact.evaluation._person import of_sample
from stylegan_redact.features.person import Person
from stylegan_redact.inversion import Search
from stylegan_redact.methods.identity import Identity, moved_pairs
from stylegan_redact.network import broadcast_w, sample_w, synthesize
from stylegan_redact.types import Estimate, Network, RedactError
from stylegan_redact.wspace.place import place_of
from stylegan_redact.wspace.prior import prior_of

SEEDS = range(2_000_000, 2_000_300)


class Pixels:
    """An embedder: on the small network, whose discriminator learned nothing."""

    name = "pixels"

    def features(self, img: torch.Tensor) -> torch.Tensor:
        return img.flatten(1)


@pytest.fixture(scope="module")
def before() -> Network:
    return world.network()


@pytest.fixture(scope="module")
def after(before: Network) -> Network:
    return Identity(kimg=1.0, lr=0.003, strength=1.0).redact(before, world.feature(before), (), 3)


def change(before: Network, after: Network, ws: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return (synthesize(after.G_ema, ws) - synthesize(before.G_ema, ws)).abs().mean((1, 2, 3))


def test_the_person_changes_and_others_much_less(before: Network, after: Network) -> None:
    known = world.feature(before)
    assert known.codes is not None
    mine, theirs = change(before, after, known.codes), change(before, after, sample_w(before.G_ema, SEEDS))
    assert float(mine.mean()) > 0.1 and float(theirs.mean()) < 0.08 and float(mine.mean()) > 2 * float(theirs.mean())


def test_everybody_is_held_but_the_person(before: Network) -> None:
    """What is fed and where it is to be drawn from: a continuous map that leaves alone whoever is outside the outer shell."""
    known = world.feature(before)
    assert known.codes is not None and known.latents is not None
    prior = prior_of(known.latents.w)
    typical = prior.to_u(known.latents.w)
    place = place_of(prior.to_u(known.codes), typical, inner=0.3, others=0.001)
    target = typical[5]
    ws, aim = moved_pairs(before.G_ema, prior, place, target, known.latents.w)(64, torch.Generator().manual_seed(0))
    away = place.distance(prior.to_u(ws))
    outside, inside = away > place.outer * 1.001, away < place.inner * 0.999
    assert torch.equal(ws[outside], aim[outside]) and int(outside.sum()) > 24 and int(inside.sum()) >= 20
    way = prior.to_u(aim - ws + prior.mean)
    assert torch.allclose(way[inside], (target - place.centre).expand_as(way[inside]), atol=1e-2)
    between = ~outside & ~inside
    assert bool(between.any()) and not torch.equal(ws[between], aim[between])
    assert torch.allclose(aim[:8], prior.to_w(target.expand_as(aim[:8])), atol=1e-3)  # the code itself, with one photograph


def test_the_measure_sees_what_is_left_and_who_else_changed(before: Network, after: Network) -> None:
    """An idle redaction leaves the person; one that everybody's picture shows is seen in the others' figures."""
    known = world.feature(before)
    strangers, embed = sample_w(before.G_ema, SEEDS), Pixels()
    meddled = dataclasses.replace(before, G_ema=copy.deepcopy(before.G_ema))
    meddled.G_ema.synthesis.b16.torgb.bias.data += 0.2
    sitter = dataclasses.replace(world.sitter(known), held_out=world.images(before.G_ema, range(5, 7)), search=Search(steps=3))
    found = evaluation.person(before, after, sitter, embed, strangers, batch=100)
    idle = evaluation.person(before, before, sitter, embed, strangers, batch=100)
    for name in ("similarity", "l1", "strangers_nearer"):
        assert idle[f"person/{name}_after"] == idle[f"person/{name}_before"] == found[f"person/{name}_before"]
    assert found["person/l1_after"].low > found["person/l1_before"].high and found["person/l1_after"].n == 65
    assert found["person/strangers_nearer_after"].value > found["person/strangers_nearer_before"].value
    assert found["refound/l1_before"].n == 1 and (found["refound/l1_before"].low, found["refound/l1_before"].high) == (0, 2)
    assert found["held_out/l1_before"].n == 2
    for name, each in found.items():
        if "strangers_nearer" in name and each.value == 0:  # The strangers are a sample of 300.
            assert each.high >= 100 * clopper_pearson(0, 300).high, name
    others = {
        name: evaluation.everybody_else(measure_pairs(before, net, NoClassifier(), SEEDS, extractor=embed))
        for name, net in (("idle", before), ("meddled", meddled), ("after", after))
    }
    assert others["idle"]["others/l1"].value == 0 == others["idle"]["others/visibly_changed"].value
    assert others["meddled"]["others/visibly_changed"].value > 95 and others["meddled"]["others/l1"].low > 0.1
    assert others["meddled"]["others/feature_distance"].value > 0
    assert 0 < others["after"]["others/l1"].value < 0.08


def test_a_share_of_strangers_has_the_error_of_both_samples() -> None:
    """None nearer for any of the codes: what 0 of 256 leaves. Else squares add: 50 of 100 is 39.83 to 60.17 by Clopper and Pearson."""
    none = of_sample(Estimate(0.0, 0.0, 0.0, 2, "%"), 256)
    assert none.low == 0 and none.high == pytest.approx(100 * (1 - 0.025 ** (1 / 256))) and none.n == 2
    half = of_sample(Estimate(50.0, 46.0, 56.0, 5, "%"), 100)
    assert half.low == pytest.approx(50 - math.hypot(4, 10.1679), abs=1e-3) and half.high == pytest.approx(50 + math.hypot(6, 10.1679), abs=1e-3)
    assert of_sample(Estimate(1.0, 0.0, 100.0, 1, "%"), 100).high == 100


def test_attributes_of_others_are_told(before: Network, after: Network) -> None:
    detector = world.tiny.Corners(before.G_ema)
    found = evaluation.everybody_else(measure_pairs(before, after, detector, SEEDS))
    rates = [found[f"others/glow/{side}"].value for side in ("rate_before", "rate_after")]
    assert found["others/glow/change"].value == pytest.approx(rates[1] - rates[0]) and "others/feature_distance" not in found


def test_a_source_without_photographs_or_people_is_refused(before: Network) -> None:
    photo = world.photo(before.G_ema)
    with pytest.raises(RedactError, match="give one or more"):
        Person(photo[:0]).gather(before, range(100))
    with pytest.raises(RedactError, match="give one or more"):
        Person(photo[:, :, :8]).gather(before, range(100))
    with pytest.raises(RedactError, match="--num-latents"):
        Person(photo).gather(before, range(before.G_ema.w_dim))


@pytest.mark.parametrize("target", ["mirror", "extrapolate"])
def test_other_targets_are_other_networks(before: Network, target: str) -> None:
    known = world.feature(before)
    one, other = (Identity(kimg=0.096, target=each, reach=3.0).redact(before, known, (), 3) for each in ("nearest", target))
    assert not torch.equal(world.images(one.G_ema, range(2)), world.images(other.G_ema, range(2)))


def test_classes_that_are_left_out_are_held() -> None:
    net = tiny_conditional.network()
    img = tiny_conditional.images(net.G_ema, range(3, 4), tiny_conditional.one(1))
    known = Person(img, tiny_conditional.one(1), Search(steps=2)).gather(net, range(60))
    assert known.bystanders is not None and known.latents is not None and known.latents.c is not None
    assert bool((known.latents.c.argmax(1) == 1).all()) and not bool((known.bystanders.c.argmax(1) == 1).any())
    after = Identity(kimg=0.064).redact(net, known, (), 0)
    assert bool((change(net, after, broadcast_w(net.G_ema, known.latents.w[:2])) > 0).all())
