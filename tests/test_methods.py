# SPDX-License-Identifier: Apache-2.0
"""The contract that every file of methods/ keeps, whatever its way: a new method is tested here without a line about it."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
import typing
from collections.abc import Mapping
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import tiny
import tiny_class
import tiny_person
import torch

from stylegan_redact import keeping, methods, plugins
from stylegan_redact.evaluation import measure_pairs
from stylegan_redact.training import checkpoint
from stylegan_redact.types import Feature, Network, RedactError

NAMES = plugins.names(methods)
SMALL = {"steps": 300, "kimg": 1.0, "adapt_kimg": 0.5, "batch": 32}
"""Options that say how long a method works, made to fit a tiny network; those that a method has are used."""
ADVERSARIAL = {"kimg": 2.0, "lr": 0.008}
"""Its discriminator has learned nothing yet."""
MORE: dict[str, dict[str, Any]] = {"moon": {"kimg": 1.5, "lr": 0.004}, "unlearn": {"kimg": 4.0}, "edit": {"kimg": 2.0, "guidance": 0.1, "lr": 0.002}}
MORE["identity"] = {"lr": 0.005, "strength": 4.0}
MORE["extrapolate"] = {"kimg": 1.0, "lr": 0.008}
MORE |= {name: ADVERSARIAL for name in ("redact_classifier", "redact_mixed", "redact_validity")}
MORE["redact_data"] = ADVERSARIAL | {"kimg": 4.0}
MORE["adapt_unlearn"] = {"kimg": 6.0, "adapt_kimg": 1.0, "lr": 0.02}
"""What a method needs beyond that, to get anywhere, with room for other seeds and other processors' rounding."""
FEW_STEPS = {"steps": 3, "kimg": 0.096, "adapt_kimg": 0.096}
SOUGHT = {
    "latents": "latents",
    "subspace": "subspace|latents",
    "detector": "detector|classifier",
    "examples": "examples|images",
    "label": "label",
    "codes": "codes|photographs",
}
"""What a message says when one of Feature's fields is missing."""
MEASURABLE = 0.1
"""The planted feature's rate before is to be at least this, or its fall would mean nothing."""
LEAST_FALL = 0.5
"""Every method removes at least this share of the planted feature, tiny as its budget is here."""
BASELINES = {"clean_finetune"}
"""What redactions are measured against need not redact."""

KEPT_CODES = {
    "fold": {"w": True, "w_plus": True},
    "edit": {"w": True, "w_plus": True},
    "moon": {"w": True},
    "leace": {"w": True, "w_plus": True},
    "unlearn": {"w": True},
    "mapping": {"w": False, "w_plus": False},
    "substitute_class": {"w": False, "w_plus": False},
}
"""Do those who kept codes from before meet the redaction too? As docs/methods/index.md says."""

RUN = checkpoint._Run
State = Mapping[str, torch.Tensor]


def state_of(net: Any) -> dict[str, dict[str, torch.Tensor]]:
    return {key: {name: tensor.clone() for name, tensor in getattr(net, key).state_dict().items()} for key in ("G", "D", "G_ema")}


def equal(one: State, other: State) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def method_of(name: str, **values: Any) -> Any:
    cls = plugins.load(methods, name)
    known = {option.name for option in plugins.options(cls)}
    return plugins.build(cls, {option: value for option, value in (SMALL | values).items() if option in known})


@functools.cache
def planted(world: ModuleType) -> tuple[Network, Feature]:
    """A network with a planted feature."""
    network = world.network()
    return network, world.feature(network)


def world_of(name: str) -> Any:
    """Where the method has something to do: a feature that a classifier sees, a whole class, or a person."""
    needs = plugins.load(methods, name).needs  # type: ignore[attr-defined]
    return tiny_class if "label" in needs else tiny_person if "codes" in needs else tiny


@pytest.fixture(scope="module", params=NAMES)
def run(request: pytest.FixtureRequest) -> SimpleNamespace:
    """One redaction by each method, with all that may be asked about it."""
    events: list[tuple[str, float, dict[str, Any]]] = []
    world = world_of(request.param)
    before, feature = planted(world)
    known, random = state_of(before), torch.random.get_rng_state()
    labels = copy.deepcopy(feature.latents)
    after = method_of(request.param, **MORE.get(request.param, {})).redact(before, feature, (), 3, lambda *event: events.append(event))
    untouched = torch.equal(random, torch.random.get_rng_state())
    return SimpleNamespace(
        name=request.param, world=world, before=before, feature=feature, known=known, labels=labels, after=after, events=events, untouched=untouched
    )


def test_the_methods_are_there() -> None:
    assert set(NAMES) >= {"edit", "fold", "identity", "leace", "mapping", "moon", "substitute_class", "unlearn"}


def test_the_input_stays_as_it_was(run: SimpleNamespace) -> None:
    before, feature = run.before, run.feature
    assert all(equal(run.known[key], state) for key, state in state_of(before).items())
    assert torch.equal(run.labels.w, feature.latents.w) and torch.equal(run.labels.score, feature.latents.score)
    assert not any(parameter.requires_grad or parameter.grad is not None for key in ("G", "G_ema") for parameter in getattr(before, key).parameters())
    assert not before.G_ema.training and not before.G.training


def test_the_random_state_of_the_process_stays(run: SimpleNamespace) -> None:
    assert run.untouched


def test_the_redacted_feature_became_rare(run: SimpleNamespace) -> None:
    if run.name in BASELINES:
        pytest.skip(f"{run.name} is a baseline")
    for key in ("G", "G_ema"):
        rate_before, rate_after = (run.world.rate(getattr(net, key), run.feature) for net in (run.before, run.after))
        assert rate_before >= MEASURABLE
        assert rate_after <= (1 - LEAST_FALL) * rate_before


@pytest.mark.parametrize("access", ["w", "w_plus"])
def test_kept_codes_meet_the_redaction_where_promised(run: SimpleNamespace, access: str) -> None:
    promised = KEPT_CODES.get(run.name, {}).get(access)
    if promised is None:
        pytest.skip(f"{run.name} promises nothing for {access}")
    seeds, name = run.world.MEASURED, run.world.FEATURE
    pairs = measure_pairs(run.before, run.after, run.feature.detector, seeds, batch=100, access=access, labels=run.world.LABELS)
    shown, left = (float(shows.float().mean()) for shows in (pairs.shows_before(name), pairs.shows_after(name)))
    assert shown > MEASURABLE
    assert left <= (1 - LEAST_FALL) * shown if promised else left == shown


def test_other_tensors_but_the_same_structure(run: SimpleNamespace) -> None:
    for key in ("G", "G_ema"):
        state = getattr(run.after, key).state_dict()
        assert [(name, tensor.shape, tensor.dtype) for name, tensor in state.items()] == [
            (name, tensor.shape, tensor.dtype) for name, tensor in run.known[key].items()
        ]
        assert not equal(state, run.known[key])


def test_everything_is_finite_and_ready_for_use(run: SimpleNamespace) -> None:
    for key in ("G", "G_ema"):
        net = getattr(run.after, key)
        assert all(bool(torch.isfinite(tensor).all()) for tensor in net.state_dict().values())
        assert not any(parameter.requires_grad for parameter in net.parameters()) and not net.training
        assert bool(torch.isfinite(run.world.images(net, run.world.MEASURED)).all())


def test_the_discriminator_stays(run: SimpleNamespace) -> None:
    img = run.world.images(run.before.G_ema, range(4))
    c = None if run.world.LABELS is None else run.world.LABELS(range(4))
    assert equal(run.after.D.state_dict(), run.known["D"])
    assert torch.equal(run.after.D(img, c), run.before.D(img, c))


def test_only_parameters_changed(run: SimpleNamespace) -> None:
    """As NVIDIA's --resume would do it: a network built anew takes the tensors by name. Anything that is no parameter would be lost."""
    for key in ("G", "G_ema"):
        fresh = run.world.generator(seed=17)
        assert not equal(fresh.state_dict(), getattr(run.after, key).state_dict())
        fresh.load_state_dict(getattr(run.after, key).state_dict())
        assert torch.equal(run.world.images(fresh, range(20)), run.world.images(getattr(run.after, key), range(20)))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_network(name: str) -> None:
    before, feature = planted(world_of(name))
    states = []
    for elsewhere in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(elsewhere)  # Nobody may look at this.
            states.append(state_of(method_of(name, **FEW_STEPS).redact(before, feature, (), 3)))
    assert all(equal(states[0][key], states[1][key]) for key in states[0])
    assert not equal(states[0]["G_ema"], before.G_ema.state_dict())


def test_progress_is_told(run: SimpleNamespace) -> None:
    assert run.events
    stages: dict[str, list[float]] = {}
    for stage, fraction, figures in run.events:
        stages.setdefault(stage, []).append(fraction)
        assert all(isinstance(figure, int | float) and math.isfinite(figure) for figure in figures.values())
    for fractions in stages.values():
        assert fractions == sorted(fractions) and 0 <= fractions[0] and fractions[-1] == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_keep_list_is_taken(name: str) -> None:
    """Nothing is asked of the feature here: the planted ones are nearly the same, so that keeping the one leaves little to remove of the other."""
    world = world_of(name)
    before, feature = planted(world)
    after = method_of(name, **FEW_STEPS).redact(before, feature, (world.OTHER,), 3)
    assert all(not equal(getattr(after, key).state_dict(), getattr(before, key).state_dict()) for key in ("G", "G_ema"))


@pytest.mark.parametrize("name", NAMES)
def test_every_need_that_is_not_met_is_named(name: str) -> None:
    before, feature = planted(world_of(name))
    method = method_of(name)
    assert method.needs and set(method.needs) <= {field.name for field in dataclasses.fields(Feature)} - {"name"}
    for need in method.needs:
        with pytest.raises(RedactError, match=SOUGHT[need]):
            method.redact(before, dataclasses.replace(feature, **{need: None}), (), 0)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_needed_is_not_used(name: str) -> None:
    """A method may not live on what it does not declare: the command gathers no more than that."""
    before, feature = planted(world_of(name))
    method = method_of(name, **FEW_STEPS)
    others = {field.name: None for field in dataclasses.fields(Feature) if field.name not in ("name", *method.needs)}
    method.redact(before, dataclasses.replace(feature, **others), (), 0)


@pytest.mark.parametrize("name", NAMES)
def test_a_training_can_be_looked_at_and_shared_out_if_the_method_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before, feature = planted(world_of(name))
    splits: list[bool] = []
    monkeypatch.setattr(checkpoint, "_Run", lambda training: splits.append(training.split) or RUN(training))
    method, moments = method_of(name, **FEW_STEPS), []
    store = SimpleNamespace(begin=lambda stage: (stage, None), keep=moments.append, check=lambda: None, tell=lambda text: None)
    with keeping.kept_by(store):
        method.redact(before, feature, (), 3)
    counted = any(option.name == "kimg" for option in plugins.options(type(method)))  # Of mapping, a step's batch is of latents.
    assert getattr(method, "watched", False) == (counted and any(moment.so_far is not None for moment in moments))
    if counted:  # What the time on several ranks is estimated by.
        assert splits and {getattr(method, "shared", True)} == set(splits)


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in NAMES for option in plugins.options(plugins.load(methods, name))])
def test_options_have_help_and_hold_their_range(name: str, option: plugins.Option) -> None:
    cls = plugins.load(methods, name)
    assert option.help and (
        option.low is not None or option.high is not None or option.choices or option.path or bool in (option.type, *typing.get_args(option.type))
    )
    plugins.build(cls, {option.name: option.default})
    kind = next((kind for kind in (int, float, str) if kind == option.type or kind in getattr(option.type, "__args__", ())), bool)
    for outside in (None if option.low is None else option.low - 1, None if option.high is None else option.high + 1):
        if outside is not None:
            with pytest.raises(RedactError, match=option.name):
                plugins.build(cls, {option.name: kind(outside)})
    with pytest.raises(RedactError, match=option.name):
        plugins.build(cls, {option.name: "no such value"})


@pytest.mark.parametrize("name", NAMES)
def test_an_option_that_there_is_not_is_refused(name: str) -> None:
    with pytest.raises(RedactError, match="brightness"):
        plugins.build(plugins.load(methods, name), {"brightness": 1})
