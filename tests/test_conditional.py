# SPDX-License-Identifier: Apache-2.0
"""Conditional networks: a feature of one class or of all, the other classes held and measured, a class substituted as a whole."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest
import tiny_class
import tiny_conditional as tiny
import torch
from tiny_conditional import C_DIM

from stylegan_redact import evaluation, methods, pictures, plugins
from stylegan_redact.features.attribute import Attribute
from stylegan_redact.features.whole_class import WholeClass
from stylegan_redact.labels import Labels, all_of
from stylegan_redact.methods.edit import Edit, mixed_codes
from stylegan_redact.methods.mapping import Mapping
from stylegan_redact.methods.substitute_class import SubstituteClass
from stylegan_redact.network import load_network, sample_w, sample_z, save_network, synthesize
from stylegan_redact.networks.export import write_network_pickle
from stylegan_redact.pickles import read_snapshot
from stylegan_redact.training.guide import verdict
from stylegan_redact.training.regress import Conditions, regress_mapping
from stylegan_redact.training.schedule import Schedule
from stylegan_redact.types import Feature, Network, RedactError

CLASS = 1
LABELLED, MEASURED = range(800), range(1_000_000, 1_000_300)
QUICK: dict[str, dict[str, Any]] = {
    "fold": {},
    "mapping": {"steps": 120, "batch": 256},
    "moon": {"kimg": 0.6, "batch": 24, "lr": 0.004},
    "unlearn": {"kimg": 0.6, "batch": 24, "lr": 0.004},
    "edit": {"kimg": 0.5, "batch": 16, "guidance": 0.1, "lr": 0.004},
}
LEAST_FALL = 0.3
"""Every method removes at least this share of the planted feature, tiny as network and budget are."""


def method_of(name: str, **more: Any) -> Any:
    return plugins.build(plugins.load(methods, name), QUICK[name] | more)


@functools.cache
def planted(architecture: str, labels: Labels) -> tuple[Network, Feature]:
    net = tiny.network(architecture)
    seeds = LABELLED if architecture == "stylegan2" else LABELLED[:300]
    return net, Attribute(tiny.FEATURE, tiny.Corners(net.G_ema, labels), labels).gather(net, seeds, batch=100)


def change(before: Any, after: Any, labels: Labels) -> float:
    """Mean absolute change of the images of these classes."""
    return float((tiny.images(after, MEASURED, labels) - tiny.images(before, MEASURED, labels)).abs().mean())


# ---------------------------------------------------------------------------------------------------------------------
# A feature of one class, or of all


@pytest.mark.parametrize(("name", "labels"), [*((name, tiny.one(CLASS)) for name in QUICK), ("mapping", all_of(C_DIM))])
def test_every_method_redacts_a_feature(name: str, labels: Labels) -> None:
    net, feature = planted("stylegan2", labels)
    assert feature.latents is not None and torch.equal(feature.latents.c, labels(LABELLED))
    after = method_of(name).redact(net, feature, (), 3)
    rates = [tiny.rate(one, feature.detector, labels) for one in (net.G_ema, after.G_ema, after.G)]
    assert rates[0] >= 0.1 and max(rates[1:]) <= (1 - LEAST_FALL) * rates[0], rates


@pytest.mark.parametrize("name", ["fold", "mapping"])
def test_stylegan3_too(name: str) -> None:
    labels = tiny.one(CLASS)
    net, feature = planted("stylegan3", labels)
    after = method_of(name).redact(net, feature, (), 3)
    rates = [tiny.rate(one, feature.detector, labels) for one in (net.G_ema, after.G_ema)]
    assert rates[0] >= 0.1 and rates[1] <= (1 - LEAST_FALL) * rates[0], rates


@pytest.mark.parametrize(("name", "share"), [("mapping", 0.7), ("unlearn", 0.9)])
def test_other_classes_are_held(name: str, share: float) -> None:
    """What is left of their change when they are, of that when they are not."""
    labels = tiny.one(CLASS)
    others = labels.others()
    net, feature = planted("stylegan2", labels)
    assert others is not None and feature.bystanders is not None and torch.equal(feature.bystanders.c, others(LABELLED))
    moved = [change(net.G_ema, method_of(name).redact(net, each, (), 3).G_ema, others) for each in (feature, without_bystanders(feature))]
    assert moved[0] < share * moved[1], moved


def without_bystanders(feature: Feature) -> Feature:
    return dataclasses.replace(feature, bystanders=None)


def test_edit_feeds_codes_that_are_to_be_held() -> None:
    """With their labels, whatever they show."""
    net, feature = planted("stylegan2", tiny.one(CLASS))
    assert feature.bystanders is not None
    for bystanders, count in ((feature.bystanders, 6), (None, 0)):
        ws, held, c, _ = mixed_codes(net.G_ema, feature.latents, bystanders)(32, torch.Generator().manual_seed(0))
        assert len(ws) == len(held) == len(c) == 32 and int(held.sum()) == count
        assert bool((c[~held].argmax(dim=1) == CLASS).all()) and not bool((c[held].argmax(dim=1) == CLASS).any())
        assert all(bool((feature.bystanders.w == code[0]).all(dim=1).any()) for code in ws[held])


def test_with_all_classes_nobody_is_a_bystander() -> None:
    _, feature = planted("stylegan2", all_of(C_DIM))
    assert feature.bystanders is None and bool((feature.latents.c.sum(dim=0) > 200).all())


def test_half_of_a_batch_of_the_mapping_is_held() -> None:
    c = torch.eye(3)
    drawn, concerned = Conditions(c[:1], c[1:]).draw(9, torch.Generator().manual_seed(0))
    assert int(concerned.sum()) == 5 and torch.equal(drawn[:, 0] == 1, concerned)
    drawn, concerned = Conditions(c[1:]).draw(9, torch.Generator().manual_seed(0))
    assert bool(concerned.all()) and drawn[:, 0].sum() == 0 and len(drawn) == 9


def test_the_embedding_of_labels_steps_as_far_as_the_other_layers_do_in_effect() -> None:
    """Adam's first step moves every weight by its rate: a hundred times as far where weights are stored a hundred times larger."""
    mapping = tiny.network().G_ema.mapping
    before = {name: parameter.clone() for name, parameter in mapping.named_parameters()}
    regress_mapping(mapping, lambda w: w + 1, Schedule(1, 64, lr=0.02, seed=0), conditions=Conditions(torch.eye(C_DIM)))
    moved = {name: float((parameter - before[name]).abs().max()) for name, parameter in mapping.named_parameters()}
    assert moved == {name: pytest.approx(0.001 if name.startswith("embed.") else 0.1, rel=1e-2) for name in before}


def test_the_discriminator_is_asked_of_the_class_and_in_float32() -> None:
    """The labels go with the images, cut to whole groups alike; a GPU would run its upper layers in float16."""
    net, _ = planted("stylegan2", tiny.one(CLASS))
    img, c = tiny.images(net.G_ema, range(6), all_of(C_DIM)), all_of(C_DIM)(range(6))
    assert torch.equal(verdict(net.D, img, c), net.D(img[:4], c[:4]))
    assert not torch.allclose(verdict(net.D, img, c), verdict(net.D, img, c.roll(1, dims=1)))
    calls: list[bool] = []
    layer = net.D.b16
    hook = layer.register_forward_pre_hook(lambda module, args, kwargs: calls.append(kwargs["force_fp32"]), with_kwargs=True)
    verdict(net.D, img, c)
    hook.remove()
    assert calls == [True]


@pytest.mark.parametrize("method", [Edit(kimg=0.1), Mapping(steps=2)])
def test_labels_that_are_missing_are_asked_for(method: Any) -> None:
    net, feature = planted("stylegan2", tiny.one(CLASS))
    bare = dataclasses.replace(feature, latents=dataclasses.replace(feature.latents, c=None))
    with pytest.raises(RedactError, match=r"no labels are there - hand on labels \[n, 3\]"):
        method.redact(net, bare, (), 0)


def test_latents_of_a_conditional_network_need_labels() -> None:
    G = tiny.generator(0, C_DIM)
    with pytest.raises(RedactError, match="no labels are there"):
        sample_w(G, range(3))
    with pytest.raises(RedactError, match="unconditional"):
        sample_w(tiny.generator(0), range(3), c=torch.eye(3))
    c = all_of(C_DIM)(range(5))
    with torch.no_grad():
        assert torch.allclose(sample_w(G, range(5), c=c, batch=2), G.mapping(sample_z(range(5), 8), c)[:, 0], atol=1e-6)
        half = sample_w(G, range(5), c=c, truncation_psi=0.5)
    assert torch.allclose(half, G.mapping.w_avg.lerp(sample_w(G, range(5), c=c), 0.5))


# ---------------------------------------------------------------------------------------------------------------------
# Measuring


def test_pairs_are_of_the_classes_asked() -> None:
    net, feature = planted("stylegan2", tiny.one(CLASS))
    after = SubstituteClass(0).redact(net, Feature("class:1", label=CLASS), (), 0)
    for labels in (tiny.one(CLASS), all_of(C_DIM)):
        pairs = evaluation.measure_pairs(net, after, feature.detector, range(60), batch=25, labels=labels)
        for side, one in ((pairs.logits_before, net), (pairs.logits_after, after)):
            assert torch.allclose(side, feature.detector.logits(tiny.images(one.G_ema, range(60), labels).clamp(-1, 1)), atol=1e-5)
        assert torch.equal(pairs.l1 > 0, labels.indices(range(60)) == CLASS)
    with pytest.raises(RedactError, match="no labels"):
        evaluation.measure_pairs(net, net, feature.detector, range(4))
    with pytest.raises(RedactError, match="no labels"):
        evaluation.measure_pairs(net, net, feature.detector, range(4), access="w_plus")


def test_w_plus_mixes_two_latents_of_one_class() -> None:
    net, feature = planted("stylegan2", tiny.one(CLASS))
    pairs = [evaluation.measure_pairs(net, net, feature.detector, range(30), access="w_plus", labels=labels) for labels in map(tiny.one, range(2))]
    assert not torch.allclose(pairs[0].logits_before, pairs[1].logits_before)
    again = evaluation.measure_pairs(net, net, feature.detector, range(30), access="w_plus", labels=all_of(C_DIM), batch=7)
    for index in range(2):
        of_class = all_of(C_DIM).indices(range(30)) == index
        assert torch.allclose(again.logits_before[of_class], pairs[index].logits_before[of_class], atol=1e-5)


def test_what_a_redaction_did_to_other_classes_is_told() -> None:
    labels = tiny.one(CLASS)
    others = labels.others()
    net, feature = planted("stylegan2", labels)
    after = method_of("fold").redact(net, feature, (), 0)
    pairs = evaluation.measure_pairs(net, after, feature.detector, MEASURED, labels=others)
    told = evaluation.other_classes(pairs, tiny.FEATURE, (tiny.OTHER,))
    assert others is not None
    before, now = (tiny.images(one.G_ema, MEASURED, others).clamp(-1, 1) for one in (net, after))
    expected = float((now - before).abs().mean())
    assert told["other_classes_image_change/l1"].value == pytest.approx(expected, rel=1e-4) and expected > 0.05
    assert told["other_classes_residual_rate/rate_before"].value > told["other_classes_residual_rate/rate_after"].value
    assert "other_classes_collateral/largest_kept_change" in told


def test_pictures_are_of_the_labelled_classes() -> None:
    labels = all_of(C_DIM)
    net, feature = planted("stylegan2", labels)
    layout = pictures.choose(feature.latents, 16)
    c = pictures.labels_of(feature.latents, layout.seeds)
    assert torch.equal(c, labels(layout.seeds))
    img, same = pictures.draw(net, net, layout.seeds, batch=10, c=c)
    shows = feature.detector.logits(img)[:, 1] > 0
    half = len(layout.with_feature)
    assert bool(shows[:half].all()) and not bool(shows[half:].any()) and torch.equal(img, same)


# ---------------------------------------------------------------------------------------------------------------------
# A whole class


def drawn(G: Any, c: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        z = sample_z(range(20), 8)
        return synthesize(G, G.mapping(z, c.expand(20, -1))[:, 0])


@pytest.mark.parametrize("architecture", ["stylegan2", "stylegan3"])
@pytest.mark.parametrize("replacement", [None, 0, 2])
def test_a_substituted_class_is_its_substitute_and_the_others_stay(architecture: str, replacement: int | None) -> None:
    net = tiny.network(architecture)
    after = SubstituteClass(replacement).redact(net, Feature("class:1", label=CLASS), (), 0)
    eye = torch.eye(C_DIM)
    for key in ("G", "G_ema"):
        before, now = getattr(net, key), getattr(after, key)
        assert all(torch.equal(drawn(before, eye[index]), drawn(now, eye[index])) for index in (0, 2))
        assert float((drawn(before, eye[CLASS]) - drawn(now, eye[CLASS])).abs().mean()) > 0.05
        if replacement is not None:
            assert torch.equal(drawn(now, eye[CLASS]), drawn(before, eye[replacement]))
        else:  # The embedding is linear: the mean of columns is the column of equal shares.
            assert torch.allclose(drawn(now, eye[CLASS]), drawn(before, torch.tensor([0.5, 0, 0.5])), atol=1e-4)
        state, changed = before.state_dict(), now.state_dict()
        assert [name for name in state if not torch.equal(state[name], changed[name])] == ["mapping.embed.weight"]
    assert not torch.equal(after.G.mapping.embed.weight, after.G_ema.mapping.embed.weight), "each has its own mean"


def test_what_lies_between_two_classes_leads_to_the_class_no_more() -> None:
    """Half of class 1 is half of its substitute."""
    net = tiny.network()
    after = SubstituteClass(0).redact(net, Feature("class:1", label=CLASS), (), 0)
    for share in (0.5, 0.9):
        mixed, plain = torch.tensor([0.0, share, 1 - share]), torch.tensor([share, 0.0, 1 - share])
        assert torch.allclose(drawn(after.G_ema, mixed), drawn(net.G_ema, plain), atol=1e-4)
        assert float((drawn(after.G_ema, mixed) - drawn(net.G_ema, mixed)).abs().mean()) > 0.02


def test_a_made_up_label_reaches_the_class_if_there_are_more_classes_than_dimensions() -> None:
    """As docs/methods/substitute_class.md says: no class, but a sum of the columns that are left."""
    net = tiny.network(c_dim=12)
    after = SubstituteClass(0).redact(net, Feature("class:1", label=CLASS), (), 0)
    before, now = (each.G_ema.mapping.embed.weight.double() for each in (net, after))
    made_up = (torch.linalg.pinv(now) @ before[:, CLASS]).float()
    eye = torch.eye(12)
    assert torch.allclose(drawn(after.G_ema, made_up), drawn(net.G_ema, eye[CLASS]), atol=1e-3)
    assert not torch.allclose(drawn(after.G_ema, eye[CLASS]), drawn(net.G_ema, eye[CLASS]), atol=1e-1)


@pytest.mark.parametrize(
    ("replacement", "label", "c_dim", "told"),
    [
        (CLASS, CLASS, 3, "replacement=1 was asked for class 1 - the network has classes 0 to 2"),
        (3, CLASS, 3, "classes 0 to 2"),
        (None, 3, 3, "the network has 3 classes"),
        (None, 0, 1, "no other class"),
        (None, None, 3, "has no label"),
    ],
)
def test_substitutions_that_there_are_not_are_refused(replacement: int | None, label: int | None, c_dim: int, told: str) -> None:
    with pytest.raises(RedactError, match=told):
        SubstituteClass(replacement).redact(tiny.network(c_dim=c_dim), Feature("class:x", label=label), (), 0)


def test_a_mean_that_cancels_out_is_refused() -> None:
    """What comes after scales the embedding to unit size: of nothing it would make noise."""
    net = tiny.network()
    for G in (net.G, net.G_ema):
        G.mapping.embed.weight[:, 2] = -G.mapping.embed.weight[:, 0]
    with pytest.raises(RedactError, match="cancel out - give --replacement=N"):
        SubstituteClass().redact(net, Feature("class:1", label=CLASS), (), 0)
    SubstituteClass(2).redact(net, Feature("class:1", label=CLASS), (), 0)


def test_a_class_is_gathered_without_a_classifier() -> None:
    net = tiny.network()
    feature = WholeClass(CLASS).gather(net, range(100, 120))
    assert (feature.name, feature.label, feature.detector, feature.subspace) == ("class:1", CLASS, None, None)
    latents = feature.latents
    assert latents is not None and latents.c is not None and latents.seeds is not None
    assert torch.equal(latents.c[:, CLASS] == 1, latents.score > 0) and int((latents.score > 0).sum()) == 10
    assert torch.equal(latents.w, sample_w(net.G_ema, range(100, 120), c=latents.c)) and latents.seeds.tolist() == list(range(100, 120))
    for wrong, seeds in ((3, range(4)), (-1, range(4)), (0, range(1))):
        with pytest.raises(RedactError, match="to be told from others"):
            WholeClass(wrong).gather(net, seeds)


@pytest.mark.parametrize("judged", [True, False])
def test_what_is_left_of_a_class_is_measured_through_c_and_through_w(judged: bool) -> None:
    net = tiny_class.network()
    after = SubstituteClass(0).redact(net, Feature("class:1", label=1), (), 0)
    judge: Any = tiny_class.Nearer(net.G_ema) if judged else evaluation.NoClassifier()
    own, others = tiny_class.LABELS, tiny_class.LABELS.others()

    def draw(access: str, itself: bool, seeds: Any) -> evaluation.PairedImages:
        return evaluation.measure_pairs(net, after, judge, seeds[:100], access=access, labels=own if itself else others)

    found = evaluation.whole_class(draw, "class:1", MEASURED, ("z", "w_plus"))
    value = {key: estimate.value for key, estimate in found.items()}
    assert value["class_change/l1"] > 0.05 and value["class_change/unchanged"] == 0 and value["class_change/others_unchanged"] == 100
    for way in ("w", "w_plus"):
        assert value[f"{way}_class_change/l1"] == 0 and value[f"{way}_class_change/unchanged"] == 100
    said = evaluation.leak("class:1", found)
    assert said.count("\n") == 0 and "kept a w from before still draws class:1" in said and "100.0 % (96.4-100.0) of 100 images are" in said
    assert ("residual_rate/rate_after" in found) == ("the judge sees" in said) == judged
    if judged:
        assert value["residual_rate/rate_after"] < 0.5 * value["residual_rate/rate_before"]
        assert value["w_residual_rate/rate_after"] == value["w_residual_rate/rate_before"] == value["residual_rate/rate_before"] > 50
        assert value["other_classes_residual_rate/rate_after"] == value["other_classes_residual_rate/rate_before"]


def test_a_change_of_other_classes_would_be_seen() -> None:
    """The same measure on a network whose embedding was spoilt as a whole, and whose synthesis network moved."""
    net = tiny_class.network()
    after = SubstituteClass(0).redact(net, Feature("class:1", label=1), (), 0)
    after.G_ema.mapping.embed.weight[:, 3] += 0.5
    after.G_ema.synthesis.b16.torgb.bias += 0.1

    def draw(access: str, itself: bool, seeds: Any) -> evaluation.PairedImages:
        labels = tiny_class.LABELS if itself else tiny_class.LABELS.others()
        return evaluation.measure_pairs(net, after, evaluation.NoClassifier(), seeds, access=access, labels=labels)

    found = evaluation.whole_class(draw, "class:1", range(60), ("z",))
    assert found["class_change/others_unchanged"].value == 0 == found["w_class_change/unchanged"].value
    assert "kept a w from before may still draw class:1 (through w, 0 % (0-6) of 60 images" in evaluation.leak("class:1", found)


def test_a_leak_that_was_not_measured_is_not_told() -> None:
    with pytest.raises(RedactError, match="not measured through w"):
        evaluation.leak("class:1", {})


def test_a_substituted_class_is_written_and_read(tmp_path: Path) -> None:
    for architecture in ("stylegan2", "stylegan3"):
        net = tiny.network(architecture)
        path = tmp_path / f"{architecture}.pkl"
        write_network_pickle(path, G=net.G, D=net.D, G_ema=net.G_ema)
        after = SubstituteClass(2).redact(load_network(path), Feature("class:1", label=CLASS), (), 0)
        save_network(after, tmp_path / "after.pkl", original=read_snapshot(path), record={"feature": "class:1"})
        eye = torch.eye(C_DIM)
        assert torch.equal(drawn(load_network(tmp_path / "after.pkl").G_ema, eye[CLASS]), drawn(net.G_ema, eye[2]))
