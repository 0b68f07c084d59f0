# SPDX-License-Identifier: Apache-2.0
"""StyleGAN3 through the whole of ours: pickles in and out, style layers, every method, the command; the pose stays."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_person
import torch
from click.testing import CliRunner
from tiny_run import RESOLUTION, write_classifier

import legacy
from stylegan_redact import cli, methods, plugins
from stylegan_redact import network as networks
from stylegan_redact.features.person import Person
from stylegan_redact.inversion import Search
from stylegan_redact.methods.identity import Identity
from stylegan_redact.network import load_network, save_network, synthesize
from stylegan_redact.networks.export import write_network_pickle
from stylegan_redact.networks.stylegan2 import Discriminator
from stylegan_redact.networks.stylegan3 import Generator
from stylegan_redact.pickles import read_snapshot
from stylegan_redact.types import Feature, Network
from stylegan_redact.wspace.affine import AffineEdit, fold_into_affine

NAMES = [name for name in plugins.names(methods) if not {"label", "codes"} & set(plugins.load(methods, name).needs)]
"""Those for features; a class is substituted in test_conditional.py, a person in test_person.py."""
NEED_A_TRAINED_D = {"adapt_unlearn", "clean_finetune", "redact_data"}
"""Led by the discriminator alone, which has learned nothing here; test_methods.py gives them time."""
LAYERS = 4
SMALL: dict[str, Any] = dict(channel_base=128, channel_max=8, num_layers=LAYERS, margin_size=4, filter_size=4)
CONFIGS: dict[str, dict[str, Any]] = {"t": SMALL, "r": SMALL | dict(conv_kernel=1, use_radial_filters=True)}
OPTIONS: dict[str, Any] = {"steps": 200, "kimg": 1.0, "batch": 16}
MORE: dict[str, dict[str, Any]] = {
    "moon": {"kimg": 2.5, "lr": 0.004},
    "redact_validity": {"kimg": 1.5, "lr": 0.004},
    "unlearn": {"kimg": 1.5, "lr": 0.004},
    "edit": {"guidance": 0.1, "lr": 0.004},
}
LEAST_FALL = 0.3
"""Every method removes at least this share of the planted feature, tiny as network and budget are."""
MEASURED = range(1_000_000, 1_000_300)


def generator(config: str = "t", seed: int = 0) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        G = Generator(z_dim=8, c_dim=0, w_dim=8, img_resolution=RESOLUTION, img_channels=3, **CONFIGS[config]).eval().requires_grad_(False)
        G.synthesis.input.affine.weight.normal_().mul_(0.05)
    getattr(G.synthesis, G.synthesis.layer_names[-1]).weight.mul_(8)
    return G


def network(config: str = "t") -> Network:
    """G and G_ema differ, as after training."""
    G, G_ema = generator(config), generator(config)
    G.synthesis.input.weight += 0.01
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        D = Discriminator(c_dim=0, img_resolution=RESOLUTION, img_channels=3, channel_base=128, channel_max=8)
    return Network(G, D.eval().requires_grad_(False), G_ema)


def write(path: Path, net: Network) -> Path:
    write_network_pickle(path, G=net.G, D=net.D, G_ema=net.G_ema)
    return path


@pytest.fixture(scope="module")
def before() -> Network:
    return network()


@pytest.fixture(scope="module")
def feature(before: Network) -> Feature:
    return tiny.feature(before)


def steady(name: str) -> bool:
    """What steers the pose, and every buffer: a redaction leaves them."""
    parts = ("input.affine.weight", "input.affine.bias", "transform", "freqs", "phases", "magnitude_ema", "up_filter", "down_filter")
    return name.endswith(parts) and ("affine" not in name or "synthesis.input.affine" in name)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_pickle_gives_the_network_in_it(config: str, tmp_path: Path) -> None:
    net = network(config)
    path = write(tmp_path / "new.pkl", net)
    for data in (load_network(path).__dict__, legacy.load_network_pkl(path), legacy.load_network_pkl(path, force_fp16=True)):
        assert [type(data[key]) for key in ("G", "D", "G_ema")] == [Generator, Discriminator, Generator]
        for key in ("G", "D", "G_ema"):
            state = data[key].state_dict()
            assert all(torch.equal(tensor, state[name]) for name, tensor in getattr(net, key).state_dict().items())
        assert torch.equal(tiny.images(data["G_ema"], range(2)), tiny.images(net.G_ema, range(2)))
        assert data["G_ema"].init_kwargs["channel_base"] == 128 and data["G_ema"].synthesis.num_fp16_res == 4
    assert b"numpy._core" not in path.read_bytes()


def test_style_layers_and_the_rows_that_they_read() -> None:
    """The first row is the input's, which steers the pose. Changing a row moves exactly its layer's styles."""
    G = generator()
    layers = networks.style_layers(G)
    assert {name: row for name, (row, _) in layers.items()} == {f"synthesis.{name}.affine": i + 1 for i, name in enumerate(G.synthesis.layer_names)}
    assert len(layers) == LAYERS + 1 and all(affine is G.get_submodule(name) for name, (_, affine) in layers.items())
    seen: dict[str, float] = {}
    for name, (_, affine) in layers.items():
        affine.register_forward_hook(lambda module, args, output, name=name: seen.update({name: float(args[0][0, 0])}))
    G.synthesis(torch.arange(LAYERS + 2.0).reshape(1, -1, 1).repeat(1, 1, 8))
    assert seen == {name: row for name, (row, _) in layers.items()}


def test_an_edit_folded_into_the_style_layers_is_the_edit_of_their_rows() -> None:
    """For W+ codes too; the pose keeps reading the code as it came."""
    G, random = generator(), torch.Generator().manual_seed(1)
    matrix = torch.eye(8) + 0.3 * torch.randn(8, 8, generator=random)
    edit = AffineEdit(matrix.double(), torch.randn(8, generator=random).double())
    ws = torch.randn(3, LAYERS + 2, 8, generator=random)
    edited = networks.with_pose_of(G, ws, edit(ws))
    assert torch.equal(edited[:, 0], ws[:, 0]) and torch.equal(edited[:, 1:], edit(ws)[:, 1:])
    folded = copy.deepcopy(G)
    for _, affine in networks.style_layers(folded).values():
        weight, bias = fold_into_affine(affine.weight, affine.bias, edit, weight_gain=affine.weight_gain, bias_gain=affine.bias_gain)
        affine.weight.copy_(weight)
        affine.bias.copy_(bias)
    expected = synthesize(G, edited)
    assert float((synthesize(folded, ws) - expected).abs().max()) < 1e-4
    assert float((synthesize(G, edit(ws)) - expected).abs().max()) > 1e-3, "or the pose would not be told from the rest"


@pytest.mark.parametrize("name", NAMES)
def test_every_method_redacts_and_leaves_the_pose(name: str, before: Network, feature: Feature, tmp_path: Path) -> None:
    cls = plugins.load(methods, name)
    known = {option.name for option in plugins.options(cls)}
    method = plugins.build(cls, {option: value for option, value in (OPTIONS | MORE.get(name, {})).items() if option in known})
    after = method.redact(before, feature, (), 3)
    path = write(tmp_path / "before.pkl", before)
    save_network(after, tmp_path / "after.pkl", original=read_snapshot(path), record={"feature": "glow"})
    written = load_network(tmp_path / "after.pkl")
    for key in ("G", "G_ema"):
        start, end = getattr(before, key).state_dict(), getattr(written, key).state_dict()
        assert [tensor_name for tensor_name in start if steady(tensor_name)] and list(start) == list(end)
        assert all(torch.equal(start[tensor_name], end[tensor_name]) for tensor_name in start if steady(tensor_name))
        rates = [tiny.rate(getattr(net, key), feature, MEASURED) for net in (before, written)]
        assert rates[0] >= 0.1 and (name in NEED_A_TRAINED_D or rates[1] <= (1 - LEAST_FALL) * rates[0]), rates
    assert all(torch.equal(tensor, before.D.state_dict()[part]) for part, tensor in written.D.state_dict().items())


def test_a_person_is_redacted_and_the_pose_stays(before: Network) -> None:
    photo = tiny_person.photo(before.G_ema)
    feature = Person(photo, search=Search(steps=20)).gather(before, range(400), batch=64)
    after = Identity(kimg=1.0, batch=16, lr=0.005, strength=1.0).redact(before, feature, (), 0)
    assert feature.codes is not None
    with torch.no_grad():
        own, others = (
            [draw(net.G_ema) for net in (before, after)]
            for draw in (lambda G: synthesize(G, feature.codes), lambda G: tiny.images(G, range(10_000, 10_100)))
        )
    apart = [float((img - photo).abs().mean()) for img in own]
    assert apart[1] > 1.4 * apart[0], apart
    changes = [float((one - other).abs().mean()) for one, other in (own, others)]
    assert changes[0] > 2 * changes[1], "the person changes, and everybody else much less"
    start, end = (net.G_ema.state_dict() for net in (before, after))
    assert all(torch.equal(start[name], end[name]) for name in start if steady(name))


def test_the_command(tmp_path: Path) -> None:
    net = network("r")
    write(tmp_path / "tiny.pkl", net)
    for role, size in (("detector", 8), ("judge", 9)):
        write_classifier(tmp_path / f"{role}.pt", net.G_ema, size)
    options = [f"--network={tmp_path / 'tiny.pkl'}", "--feature=glow", f"--classifier={tmp_path / 'detector.pt'}", f"--judge={tmp_path / 'judge.pt'}"]
    options += ["--method=fold", "--num-latents=600", "--num-images=150", f"--outdir={tmp_path / 'runs'}"]
    result = CliRunner().invoke(cli.command(), options)
    assert result.exit_code == 0, result.output
    (run,) = (tmp_path / "runs").iterdir()
    after = legacy.load_network_pkl(run / "network-redacted.pkl")
    assert after["redaction"] and type(after["G_ema"]) is Generator
    assert not torch.equal(tiny.images(after["G_ema"], range(2)), tiny.images(net.G_ema, range(2)))
