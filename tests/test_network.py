# SPDX-License-Identifier: Apache-2.0
"""Networks in and out of pickles, seeds, latents, images, and the list of style layers."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from stylegan_redact import network as networks
from stylegan_redact.network import generate, load_network, sample_w, save_network
from stylegan_redact.networks.export import write_network_pickle
from stylegan_redact.networks.stylegan2 import Discriminator, Generator
from stylegan_redact.pickles import read_snapshot
from stylegan_redact.types import Network, RedactError

SMALL: dict[str, Any] = dict(channel_base=64, channel_max=4)


def new(architecture: str = "skip", seed: int = 0) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        nets = [Generator(5, 0, 6, 16, 3, architecture=architecture, **SMALL) for _ in range(2)]
        for G in nets:
            G.mapping.w_avg.normal_()
        D = Discriminator(0, 16, 3, **SMALL)
    return Network(*(net.eval().requires_grad_(False) for net in (nets[0], D, nets[1])))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file, net = tmp_path_factory.mktemp("network") / "new.pkl", new()
    write_network_pickle(file, G=net.G, D=net.D, G_ema=net.G_ema, training_set_kwargs={"max_size": 7})
    return file


def images(G: torch.nn.Module) -> torch.Tensor:
    return torch.cat(list(networks.generate(G, networks.sample_w(G, range(3)), batch=2)))


def test_a_file_gives_the_networks_in_it(path: Path) -> None:
    expected, snapshot = new(), read_snapshot(path)
    for source in (path, str(path), snapshot):
        network = load_network(source)
        for key in ("G", "D", "G_ema"):
            state = getattr(network, key).state_dict()
            assert all(torch.equal(tensor, state[name]) for name, tensor in getattr(expected, key).state_dict().items())
        assert torch.equal(images(network.G), images(expected.G)) and torch.equal(images(network.G_ema), images(expected.G_ema))
        assert not torch.equal(images(network.G), images(network.G_ema))
        assert (network.training_set_kwargs, network.sha256, network.augment_pipe) == ({"max_size": 7}, snapshot.sha256, None)


def test_a_discriminator_that_is_not_known_is_done_without(path: Path) -> None:
    snapshot = read_snapshot(path)
    without = dataclasses.replace(snapshot, modules={key: record for key, record in snapshot.modules.items() if key != "D"})
    network = load_network(without)
    assert network.D is None and network.G_ema is not None
    with pytest.raises(RedactError, match="and no D"):
        load_network(dataclasses.replace(without, keys=tuple(key for key in snapshot.keys if key != "D")))


def test_saving_changes_what_was_changed_and_records_it(path: Path, tmp_path: Path) -> None:
    original = read_snapshot(path)
    network = networks.copy_network(load_network(original))
    for G in (network.G, network.G_ema):
        G.synthesis.b16.torgb.bias.add_(1)
    assert save_network(network, tmp_path / "after.pkl", original=original, record={"feature": "beard"}) == ()
    written = read_snapshot(tmp_path / "after.pkl")
    assert written.redaction == {"feature": "beard"} and written.training_set_kwargs == {"max_size": 7}
    for key in ("G", "D", "G_ema"):
        before, after = original.modules[key].tensors, written.modules[key].tensors
        changed = [name for name in before if not torch.equal(before[name], after[name])]
        assert changed == ([] if key == "D" else ["synthesis.b16.torgb.bias"])
    assert torch.allclose(images(load_network(tmp_path / "after.pkl").G_ema), images(load_network(path).G_ema) + 1, atol=1e-5)


@pytest.mark.parametrize("forgotten", ["G", "G_ema"])
def test_a_file_that_would_ship_the_feature_is_not_written(forgotten: str, path: Path, tmp_path: Path) -> None:
    original = read_snapshot(path)
    network = networks.copy_network(load_network(original))
    (network.G_ema if forgotten == "G" else network.G).synthesis.b16.torgb.bias.add_(1)
    with pytest.raises(RedactError, match=f"its {forgotten} is unchanged and would ship the feature"):
        save_network(network, tmp_path / "after.pkl", original=original, record={})
    assert not list(tmp_path.iterdir())


def test_a_copy_can_be_worked_on() -> None:
    before = new()
    after = networks.copy_network(before)
    for G in (after.G, after.G_ema):
        G.mapping.fc0.weight.zero_()
    assert before.G.mapping.fc0.weight.abs().max() > 0 and before.G_ema.mapping.fc0.weight.abs().max() > 0
    assert after.D is before.D


@pytest.mark.parametrize("architecture", ["skip", "orig", "resnet"])
def test_style_layers_and_the_rows_that_they_read(architecture: str) -> None:
    """Rows: b4 conv1 0, torgb 1; then conv0 2k-5, conv1 2k-4, torgb 2k-3 at 2^k pixels. Changing a row moves exactly its layers' styles."""
    G = new(architecture).G
    rows = {"b4.conv1": 0, "b4.torgb": 1, "b8.conv0": 1, "b8.conv1": 2, "b8.torgb": 3, "b16.conv0": 3, "b16.conv1": 4, "b16.torgb": 5}
    if architecture != "skip":
        del rows["b4.torgb"], rows["b8.torgb"]
    layers = networks.style_layers(G)
    assert {name: row for name, (row, _) in layers.items()} == {f"synthesis.{name}.affine": row for name, row in rows.items()}
    assert all(affine is G.get_submodule(name) for name, (_, affine) in layers.items())
    seen: dict[str, torch.Tensor] = {}
    for name, (_, affine) in layers.items():
        affine.register_forward_hook(lambda module, args, output, name=name: seen.update({name: args[0]}))
    ws = torch.arange(6.0).reshape(1, 6, 1).repeat(1, 1, 6)
    G.synthesis(ws, noise_mode="const")
    assert {name: int(w[0, 0]) for name, w in seen.items()} == {name: row for name, (row, _) in layers.items()}


@pytest.mark.parametrize("seed", [0, 85, 2**32 - 1])
def test_a_seed_means_the_same_picture_as_in_nvidias_tools(seed: int) -> None:
    expected = torch.from_numpy(np.random.RandomState(seed).randn(1, 5)).float()
    assert torch.equal(networks.sample_z([seed], 5), expected)
    assert torch.equal(networks.sample_z([3, seed], 5)[1:], expected)
    G = new().G
    assert torch.equal(networks.sample_w(G, [seed]), G.mapping(expected, None)[:, 0])


def test_latents_in_batches() -> None:
    G = new().G
    w = networks.sample_w(G, range(7))
    assert w.shape == (7, 6) and torch.allclose(networks.sample_w(G, range(7), batch=3), w, atol=1e-6)
    average = G.mapping.w_avg
    assert torch.allclose(networks.sample_w(G, range(7), truncation_psi=0.5), average + 0.5 * (w - average), atol=1e-6)
    assert networks.sample_z([], 5).shape == (0, 5) and networks.sample_w(G, []).shape == (0, 6)


def test_images_from_w_and_from_ws() -> None:
    G = new().G
    w = networks.sample_w(G, range(5))
    ws = networks.broadcast_w(G, w)
    assert ws.shape == (5, 6, 6) and all(torch.equal(ws[:, row], w) for row in range(6)) and networks.broadcast_w(G, ws) is ws
    batches = list(networks.generate(G.requires_grad_(True), w, batch=2))
    assert [len(batch) for batch in batches] == [2, 2, 1] and not any(batch.requires_grad for batch in batches)
    assert torch.allclose(torch.cat(batches), networks.synthesize(G, ws), atol=1e-5)
    assert networks.synthesize(G, w).requires_grad
    G.synthesis.b16.conv1.noise_strength.data.fill_(1)
    assert not torch.allclose(networks.synthesize(G, w, noise_mode="none"), networks.synthesize(G, w), atol=1e-3)


def test_seeds_have_limits() -> None:
    assert networks.seed_range(2**32 - 2, 2) == range(2**32 - 2, 2**32) and networks.seed_range(0, 3) == range(3)
    for start, num in ((2**32 - 2, 3), (-1, 1)):
        with pytest.raises(RedactError, match="seeds go from 0 to 4294967295"):
            networks.seed_range(start, num)


def test_a_network_that_is_not_finite_is_refused() -> None:
    network = new()
    networks.check_finite(network)
    broken = dataclasses.replace(network, G_ema=copy.deepcopy(network.G_ema))
    broken.G_ema.synthesis.b8.conv1.weight.fill_(float("nan"))
    networks.check_finite(broken, ("G", "D"))
    with pytest.raises(RedactError, match="redacted G_ema .* synthesis.b8.conv1.weight is not finite"):
        networks.check_finite(broken)


def test_who_draws_from_two_networks_in_turn_keeps_gradients() -> None:
    G = tiny.network().G_ema
    w = sample_w(G, range(4))
    for one, other in zip(generate(G, w, batch=2), generate(G, w, batch=2), strict=True):
        assert torch.is_grad_enabled() and not one.requires_grad and torch.equal(one, other)
    assert torch.is_grad_enabled()
