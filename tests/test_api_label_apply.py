# SPDX-License-Identifier: Apache-2.0
"""The two public functions beside `redact`: what a source says of n seeds, and a redaction put on its network again."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_conditional
import tiny_run
import torch

from stylegan_redact import apply, delta, evaluate, label, redact, save_network
from stylegan_redact.features.attribute import Attribute
from stylegan_redact.features.labels import LabelsFile
from stylegan_redact.features.sefa import Sefa
from stylegan_redact.latents import load_labels, save_labels
from stylegan_redact.methods.fold import Fold
from stylegan_redact.network import copy_network, load_network, read_snapshot, sample_w
from stylegan_redact.types import Feature, LabelledLatents, Network, RedactError


def test_labels_are_what_the_source_says_of_the_seeds_and_survive_the_file(tmp_path: Path) -> None:
    network = replace(tiny.network(), sha256="a" * 64)
    corners = tiny.Corners(network.G_ema)
    told: list[str] = []
    found = label(network, Attribute(tiny.FEATURE, corners), 400, first_seed=1000, progress=lambda stage, *_: told.append(stage))
    expected = Attribute(tiny.FEATURE, corners).gather(network, range(1000, 1400)).latents
    assert expected is not None and found.latents.seeds is not None and set(told) == {"label"}
    assert torch.equal(found.latents.score, expected.score) and found.latents.seeds.tolist() == [*range(1000, 1400)]
    assert torch.equal(found.latents.w, sample_w(network.G_ema, range(1000, 1400)))
    assert (found.feature, found.source, found.network_sha256) == (tiny.FEATURE, ("attribute",) * 400, "a" * 64)
    save_labels(tmp_path / "labels.npz", found)
    again = load_labels(tmp_path / "labels.npz")
    assert torch.equal(again.latents.score, found.latents.score.float()) and again.source == found.source
    feature = LabelsFile(str(tmp_path / "labels.npz")).gather(network, ())
    assert redact(network, feature, "fold").sha256 == ""  # It is of no file.


def test_a_source_without_pictures_labels_too() -> None:
    found = label(tiny.network(), Sefa(0), 50)
    assert found.source == ("sefa",) * 50 and int((found.latents.score > 0).sum()) == 10  # Those past the quantile of 0.8.


class Says:
    """A source that says something useless."""

    def __init__(self, latents: LabelledLatents | None) -> None:
        self.latents = latents

    def gather(self, *args: Any, **kwargs: Any) -> Feature:
        return Feature("nobody", self.latents)


@pytest.mark.parametrize(
    ("source", "n", "told"),
    [
        ("beard", 10, "str was to label"),
        (Attribute, 10, "Attribute was to label"),
        (tiny.Corners(tiny.network().G_ema), 10, "Corners was to label"),
        (Sefa(0), 0, "nothing to label"),
        (Sefa(0), 2**32 + 1, "seeds go from 0"),
        (Says(None), 10, "labels no pictures"),
        (Says(LabelledLatents(torch.zeros(2, 8), -torch.ones(2), torch.arange(2))), 10, "labels no pictures"),
        (Attribute((tiny.FEATURE, tiny.OTHER), tiny.Corners(tiny.network().G_ema)), 400, "one after the other"),
    ],
)
def test_what_is_no_source_is_refused(source: Any, n: int, told: str) -> None:
    with pytest.raises(RedactError, match=told):
        label(tiny.network(), source, n)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Network, list[Network]]:
    """A network from a file, and two redactions of it beside it: 0.safetensors, 1.safetensors."""
    folder = tmp_path_factory.mktemp("made")
    tiny_run.write_network(folder / "base.pkl")
    snapshot = read_snapshot(folder / "base.pkl")
    network, redacted = load_network(snapshot), []
    for number, name in enumerate(("b8.conv0", "b16.conv1")):
        after = copy_network(network)
        for net in (after.G, after.G_ema):
            for parameter in net.synthesis.get_submodule(name).parameters():
                parameter.data.add_(0.1)
        delta.write(after, snapshot, folder / f"{number}.safetensors", {"feature": "a"}, {})
        redacted.append(after)
    return folder, network, redacted


def tensors(network: Network, key: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = getattr(network, key).state_dict()
    return found


def test_a_delta_gives_the_redacted_network_to_the_bit_and_leaves_the_given_one(made: tuple[Path, Network, list[Network]]) -> None:
    folder, network, redacted = made
    before = {name: value.clone() for name, value in tensors(network, "G").items()}
    after = apply(network, folder / "0.safetensors")
    for key in delta.GENERATORS:
        here, there = tensors(after, key), tensors(redacted[0], key)
        assert here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in there)
    assert all(torch.equal(tensors(network, "G")[name], before[name]) for name in before) and after.D is network.D
    with pytest.raises(RedactError, match="made in memory"):  # On top of itself it would mean something else.
        apply(after, folder / "1.safetensors")


def test_several_deltas_add_up_each_at_its_strength(made: tuple[Path, Network, list[Network]]) -> None:
    folder, network, redacted = made
    after = apply(network, [str(folder / "0.safetensors"), folder / "1.safetensors"], [0.5, 2])
    base, one, other, out = (tensors(each, "G_ema") for each in (network, *redacted, after))
    for name, value in base.items():
        wanted = value.double() + 0.5 * (one[name].double() - value.double()) + 2 * (other[name].double() - value.double())
        assert torch.equal(out[name], wanted.to(value.dtype)), name


@pytest.mark.parametrize(
    ("names", "strength", "told"),
    [
        ([], 1.0, "no delta"),
        (["0"], 0.0, "above 0 to 4"),
        (["0"], float("nan"), "above 0 to 4"),
        (["0"], [1.0, 1.0], "there are 1 deltas"),
        (["missing"], 1.0, "missing"),
    ],
)
def test_what_cannot_be_applied_is_refused(made: tuple[Path, Network, list[Network]], names: list[str], strength: Any, told: str) -> None:
    with pytest.raises(RedactError, match=told):
        apply(made[1], [made[0] / f"{name}.safetensors" for name in names], strength)


def test_another_network_is_refused(made: tuple[Path, Network, list[Network]]) -> None:
    tiny_run.write_network(made[0] / "other.pkl", seed=1)
    with pytest.raises(RedactError, match="is of the network with the sha256"):
        apply(load_network(made[0] / "other.pkl"), made[0] / "0.safetensors")


def test_a_file_of_another_kind_is_not_said_to_be_a_pickle_that_could_be_run(tmp_path: Path) -> None:
    """NumPy tells of whatever it does not know that it were pickled, and how to load that unsafely."""
    (tmp_path / "text.npz").write_text("seed,score")
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object))
    for name, told in (("text.npz", "it is no file of NumPy"), ("objects.npy", "it holds Python objects, which are not read")):
        with pytest.raises(RedactError, match=rf"it cannot be read \({told}\) - make one"):
            load_labels(tmp_path / name)


@pytest.fixture(scope="module")
def known() -> tuple[Network, Feature]:
    network = tiny.network()
    return network, tiny.feature(network)


def test_what_is_handed_over_is_what_the_functions_take(known: tuple[Network, Feature]) -> None:
    """Each in a sentence: a path, a class, a text where the thing itself is meant, and a feature of another network, which nothing else notices."""
    network, feature = known
    other = replace(network, G_ema=tiny_run.generator(seed=3))
    judge = tiny.Corners(network.G_ema)
    wrong: dict[str, Any] = {
        "str was to be redacted - it is no Network": lambda: redact("ffhq.pkl", feature),  # type: ignore[arg-type]
        "Fold was to redact - it is no method": lambda: redact(network, feature, Fold),
        "keep='glow' was given - it is one text": lambda: redact(network, feature, "fold", keep="glow"),  # type: ignore[arg-type]
        "this network makes another w of seed": lambda: redact(other, feature, "fold"),
        "str was to judge - it gives no logits": lambda: evaluate(network, network, "glow", "judge.pt", range(9)),  # type: ignore[arg-type]
        "the seed -1 was to be measured": lambda: evaluate(network, network, "glow", judge, range(-1, 9)),
        "'glow' was to be redacted - it is no Feature": lambda: redact(network, "glow"),  # type: ignore[arg-type]
        "None was to be redacted - it is no Feature": lambda: redact(network, [feature, None]),  # type: ignore[list-item]
        "the delta None was to be applied at 1.0": lambda: apply(network, None),  # type: ignore[arg-type]
        "the delta 'a' was to be applied at None": lambda: apply(network, "a", None),  # type: ignore[arg-type]
        "NoneType was to be redacted - it is no Network": lambda: apply(None, "a"),  # type: ignore[arg-type]
        "NoneType was to be read as a StyleGAN snapshot": lambda: load_network(None),  # type: ignore[arg-type]
        "bytes was to be read as a StyleGAN snapshot": lambda: read_snapshot(b"abc"),  # type: ignore[arg-type]
        "a file opened as text was to be read as a": lambda: read_snapshot(io.StringIO("abc")),  # type: ignore[arg-type]
        "a network was to be loaded on gpu": lambda: load_network("ffhq.pkl", "gpu"),
        "the seed 1.5 was to be measured": lambda: evaluate(network, network, "glow", judge, [1.5, 2]),  # type: ignore[list-item]
    }
    for told, call in wrong.items():
        with pytest.raises(RedactError, match=told):
            call()


def test_a_network_is_saved_into_the_file_that_it_is_of(known: tuple[Network, Feature], tmp_path: Path) -> None:
    tiny_run.write_network(tmp_path / "tiny.pkl")
    original, network = read_snapshot(tmp_path / "tiny.pkl"), load_network(tmp_path / "tiny.pkl")
    with pytest.raises(RedactError, match="that is a folder"):
        save_network(redact(network, known[1], "fold"), "", original=original, record={})
    deeper = tiny_conditional.network("stylegan3")
    with pytest.raises(RedactError, match="its original has no G.mapping.embed.bias - give what the network was loaded from"):
        save_network(deeper, tmp_path / "out.pkl", original=original, record={})
