# SPDX-License-Identifier: Apache-2.0
"""--trust-source: nothing of an unknown network runs but what the user names by its hash, and what ran is redacted like any other."""

from __future__ import annotations

import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import odd_network
import pytest
import tiny
import tiny_conditional
import tiny_run
import torch
from click.testing import CliRunner, Result

from stylegan_redact import api, cli, pickle_encode, pickle_tree, pickles
from stylegan_redact.features.attribute import Attribute
from stylegan_redact.labels import all_of
from stylegan_redact.methods.edit import Edit
from stylegan_redact.methods.fold import Fold
from stylegan_redact.methods.mapping import Mapping
from stylegan_redact.methods.unlearn import Unlearn
from stylegan_redact.network import load_network, read_snapshot, save_network, style_layers, synthesize
from stylegan_redact.pickle_stream import Global, Object
from stylegan_redact.types import Feature, Network, RedactError

METHODS: dict[str, Any] = {
    "fold": Fold(),
    "mapping": Mapping(steps=200),
    "unlearn": Unlearn(kimg=1.0, batch=16, lr=0.004),
    "edit": Edit(kimg=1.0, batch=16, lr=0.004, guidance=0.1),
}


class Odd:
    """The file, its source's hash, and the marker that the source leaves where it runs."""

    def __init__(self, folder: Path, **kind: Any) -> None:
        self.marker = folder / "ran"
        self.text = odd_network.source(self.marker, **kind)
        self.path, self.sha256 = odd_network.write(folder, self.text)
        self.marker.unlink()

    def load(self) -> Network:
        return load_network(self.path, trust_source=[self.sha256])


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[Odd]:
    made = Odd(tmp_path)
    yield made
    odd_network.forget(made.text)


def refusal(path: Path, *trust: str) -> str:
    with pytest.raises(RedactError) as caught:
        load_network(path, trust_source=trust)
    return str(caught.value)


def run(*args: Any) -> Result:
    chosen, verb = cli.choose([str(arg) for arg in args])
    return CliRunner().invoke(chosen, [str(arg) for arg in args[1 if verb else 0 :]])


def test_without_trust_or_with_trust_in_another_source_nothing_runs(odd: Odd) -> None:
    text = refusal(odd.path)
    assert "of class 'OddGenerator'" in text and f"run it with --trust-source={odd.sha256}; or `redact.py fold`" in text and "\n" not in text
    other = odd.sha256[:-1] + ("0" if odd.sha256[-1] != "0" else "1")
    assert f"the file holds other ones: {odd.sha256} (G_ema)" in refusal(odd.path, other)
    assert "no sha256 of 64" in refusal(odd.path, odd.sha256[:-1]) and "no sha256 of 64" in refusal(odd.path, "all")
    assert not odd.marker.exists()
    assert odd.load().G_ema.z_dim == 6 and odd.marker.exists(), "a source that leaves no marker proves nothing"


def test_one_trusted_source_does_not_run_another(odd: Odd, tmp_path: Path) -> None:
    """The mapping network of the file comes from a second source: the hash of the first alone runs neither."""
    second = tmp_path / "second"
    data = odd.path.read_bytes()
    snapshot = read_snapshot(odd.path)
    meta = dict(pickle_tree.each_module(snapshot._tree["G"]))["mapping"].args[0]
    assert meta["class_name"] == "Mapping"
    meta["module_src"] = f"import pathlib; pathlib.Path({str(second)!r}).touch()\n" + odd.text
    pickles.write_snapshot(snapshot, odd.path, tensors={}, redaction={})
    assert odd.path.read_bytes() != data
    text = refusal(odd.path, odd.sha256)
    sources = list(pickles.embedded_sources(read_snapshot(odd.path), "G"))
    assert len(sources) == 2 and sources[0] == odd.sha256 and f"--trust-source={','.join(sources)}" in text
    assert not second.exists() and not odd.marker.exists()
    network = load_network(odd.path, trust_source=sources)
    assert second.exists() and odd.marker.exists() and network.G_ema.num_ws == 3
    odd_network.forget(meta["module_src"])


def test_trust_in_what_need_not_run_is_refused(tmp_path: Path) -> None:
    tiny_run.write_network(tmp_path / "tiny.pkl")
    sha256 = read_snapshot(tmp_path / "tiny.pkl").modules["G"].source_sha256
    assert "no network here needs it to be run" in refusal(tmp_path / "tiny.pkl", sha256)


def test_what_runs_draws_what_its_source_draws(odd: Odd) -> None:
    network = odd.load()
    G = network.G_ema
    assert {name: row for name, (row, _) in style_layers(G).items()} == {"synthesis.first.affine": 0, "synthesis.second.affine": 2}
    z = torch.randn(3, 6, generator=torch.Generator().manual_seed(1))
    w = G.mapping(z, None, truncation_psi=1)[:, 0]
    torch.testing.assert_close(synthesize(G, w), G(z, None))
    state = G.state_dict()
    held = read_snapshot(odd.path).modules["G_ema"].tensors
    assert list(state) == list(held) and all(torch.equal(state[name], held[name]) for name in held)
    with pytest.raises(TypeError, match="truncation_psi"):
        G.mapping(z, None, truncation_psi=0.5)  # It cannot truncate, and must not look as if it did.


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Odd, Network, Feature]]:
    """What every method starts from."""
    odd = Odd(tmp_path_factory.mktemp("odd"))
    network = odd.load()
    yield odd, network, Attribute(tiny.FEATURE, tiny.Corners(network.G_ema)).gather(network, range(600), batch=300)
    odd_network.forget(odd.text)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_redacts_it(name: str, labelled: tuple[Odd, Network, Feature], tmp_path: Path) -> None:
    odd, network, known = labelled
    after = api.redact(network, known, METHODS[name])
    before, left = tiny.rate(network.G_ema, known), tiny.rate(after.G_ema, known)
    print(f"{name}: {before:.3f} -> {left:.3f}")
    assert before > 0.08 and left < (0.7 if name != "mapping" else 0.9) * before, (before, left)
    snapshot = read_snapshot(odd.path)
    save_network(after, tmp_path / "out.pkl", original=snapshot, record={"feature": tiny.FEATURE})
    written = read_snapshot(tmp_path / "out.pkl")
    assert written.modules["G"].module_src == odd.text and list(written.modules["G"].tensors) == list(snapshot.modules["G"].tensors)
    again = load_network(written, trust_source=[odd.sha256])
    drawn = [tiny.images(G, range(4)) for G in (network.G_ema, after.G_ema, again.G_ema)]
    assert torch.equal(drawn[1], drawn[2]) and not torch.equal(drawn[0], drawn[1])
    assert all(torch.equal(a, b) for a, b in zip(again.D.state_dict().values(), network.D.state_dict().values(), strict=True))


def test_a_fold_that_would_not_be_exact_is_refused(tmp_path: Path) -> None:
    odd = Odd(tmp_path, stray=True)
    network = odd.load()
    known = Attribute(tiny.FEATURE, tiny.Corners(network.G_ema)).gather(network, range(600), batch=300)
    with pytest.raises(RedactError, match="not only layers named affine read w"):
        api.redact(network, known, Fold())
    odd_network.forget(odd.text)


def test_a_fold_of_a_conditional_one_is_checked_with_labels(tmp_path: Path) -> None:
    odd, labels = Odd(tmp_path, classes=3), all_of(3)
    network = odd.load()
    known = Attribute(tiny.FEATURE, tiny_conditional.Corners(network.G_ema), labels).gather(network, range(600), batch=300)
    after = api.redact(network, known, Fold())
    before, left = (tiny_conditional.rate(G, known.detector, labels) for G in (network.G_ema, after.G_ema))
    assert before > 0.08 and left < 0.7 * before, (before, left)
    odd_network.forget(odd.text)


def test_the_command_says_and_records_what_it_ran(odd: Odd, tmp_path: Path) -> None:
    G = odd.load().G_ema
    for name, size in (("detector", 8), ("judge", 9)):
        tiny_run.write_classifier(tmp_path / f"{name}.pt", G, size)
    odd_network.forget(odd.text)
    odd.marker.unlink()
    files = [f"--network={odd.path}", *(f"--{option}={tmp_path / name}.pt" for option, name in (("classifier", "detector"), ("judge", "judge")))]
    args = [*files, "--feature=glow", "--num-latents=300", "--num-images=50", "--method=fold", f"--outdir={tmp_path / 'runs'}"]
    refused = run(*args)
    assert refused.exit_code == 2 and f"--trust-source={odd.sha256}" in refused.output and not odd.marker.exists()
    done = run(*args, f"--trust-source={odd.sha256.upper()}")
    assert done.exit_code == 0 and odd.marker.exists(), done.output
    (written,) = (tmp_path / "runs").glob("*/network-redacted.pkl")
    record = read_snapshot(written).redaction
    assert record is not None and record["trusted_sources"] == [odd.sha256]


def test_convert_writes_it_anew(odd: Odd, tmp_path: Path) -> None:
    assert f"--trust-source={odd.sha256}" in run("convert", odd.path, tmp_path / "new.pkl").output.replace("\n", "")
    option = f"--trust-source={odd.sha256}"
    assert "holds no source" in run("convert", odd.path, tmp_path / "new.safetensors", option).output and not odd.marker.exists()
    done = run("convert", odd.path, tmp_path / "new.pkl", option)
    assert done.exit_code == 0, done.output
    before, after = read_snapshot(odd.path), read_snapshot(tmp_path / "new.pkl")
    assert after.training_set_kwargs == {"max_size": 7} and after.opaque == ()
    assert b"stylegan_redact" not in (tmp_path / "new.pkl").read_bytes()
    for key in ("G", "D", "G_ema"):
        assert after.modules[key].module_src == odd.text
        assert all(torch.equal(before.modules[key].tensors[name], tensor) for name, tensor in after.modules[key].tensors.items())


def test_inspect_shows_the_source_to_be_read(odd: Odd) -> None:
    shown = run("inspect", odd.path, f"--source={odd.sha256}").output
    assert shown.rstrip("\n") == odd.text.rstrip("\n") and not odd.marker.exists()
    assert f"it has: {odd.sha256}" in run("inspect", odd.path, "--source=abc").output
    listed = run("inspect", odd.path).output
    assert "not known here" in listed and odd.sha256 in listed


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("def forward(self, ws):", "def forward(self, ws, camera):"), "TypeError: .*camera"),
        (("return self.rgb(", "return (1.0, self.rgb("), "its synthesis gives a tuple"),
        (("import math, pathlib", "import math, pathlib, no_such_module_of_a_fork"), "No module named 'no_such_module_of_a_fork'"),
        (("class OddGenerator", "class Renamed"), "defines no class 'OddGenerator'"),
    ],
)
def test_what_does_not_fit_is_said(change: tuple[str, str], says: str, odd: Odd) -> None:
    """The file's source is changed, and the changed one is trusted."""
    snapshot = read_snapshot(odd.path)
    text = odd.text.replace(*change) if "tuple" not in says else odd.text.replace(*change).replace("ws[:, 2])) ", "ws[:, 2])))")
    for key in ("G", "D", "G_ema"):
        for node in pickle_tree.each_persistent(snapshot._tree[key]):
            node.args[0]["module_src"] = text
    pickles.write_snapshot(snapshot, odd.path, tensors={}, redaction={})
    (sha256,) = pickles.embedded_sources(read_snapshot(odd.path), "G")
    with pytest.raises(RedactError, match=says) as caught:
        load_network(odd.path, trust_source=[sha256])
    assert "\n" not in str(caught.value)
    odd_network.forget(text)


def test_a_class_that_the_file_only_names_comes_from_the_python_path(odd: Odd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unread it never matters; to run, the fork's repository has to be there."""
    snapshot = read_snapshot(odd.path)
    state = {"training": False, "gain": 2.5, **{part: {} for part in ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")}}
    layer = Object(Global("training.odd_layers", "Extra"), (), new=True, state=state)
    for key in ("G", "G_ema"):
        state_of_net = snapshot._tree[key].args[0]["state"]
        state_of_net["_modules"] = {**dict(pickle_tree.items_of(state_of_net["_modules"]) or ()), "extra": layer}  # Of old torch an OrderedDict.
    with odd.path.open("wb") as file:
        pickle_encode.encode(snapshot._tree, file.write)
    assert read_snapshot(odd.path).opaque == ("training.odd_layers.Extra",)
    assert "the network needs training.odd_layers.Extra, which its file only names - the import fails" in refusal(odd.path, odd.sha256)
    module = types.ModuleType("training.odd_layers")
    vars(module)["Extra"] = type("Extra", (torch.nn.Module,), {"__module__": module.__name__})
    monkeypatch.setitem(sys.modules, "training", types.ModuleType("training"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert odd.load().G_ema.extra.gain == 2.5
    vars(module)["Extra"] = print
    assert "that is no class" in refusal(odd.path, odd.sha256)


def test_what_lacks_the_interface_is_refused(odd: Odd) -> None:
    snapshot = read_snapshot(odd.path)
    state = snapshot._tree["G_ema"].args[0]["state"]
    state["zdim"] = state.pop("z_dim")
    state["_modules"] = {name.replace("mapping", "map"): part for name, part in pickle_tree.items_of(state["_modules"]) or ()}
    with odd.path.open("wb") as file:
        pickle_encode.encode(snapshot._tree, file.write)
    assert "G_ema was run from its own source - it lacks z_dim, mapping, and G.mapping(z, c) and G.synthesis(ws)" in refusal(odd.path, odd.sha256)


def test_pictures_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    odd = Odd(tmp_path, noise=True)
    assert "it draws another picture every time" in refusal(odd.path, odd.sha256)
    odd_network.forget(odd.text)
