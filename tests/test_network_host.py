# SPDX-License-Identifier: Apache-2.0
"""Our networks against NVIDIA's own: tensors of theirs rendered by us, files of ours rendered by them, and their way to resume."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from any_feature import METHODS, redacted
from host import checkout, run_in

from stylegan_redact.network import load_network, save_network
from stylegan_redact.networks.export import write_network_pickle
from stylegan_redact.pickles import read_snapshot
from stylegan_redact.types import Network

pytestmark = pytest.mark.host

# float32 through some 20 layers with values up to about 30; one wrong gain, row or flip shows as 1e-2 and more.
TOLERANCE = 1e-4
ROOTS = {"ada": "STYLEGAN2_ADA_ROOT", "stylegan3": "STYLEGAN3_ROOT"}
ODD_BLOCKS: dict[str, Any] = dict(activation="swish", resample_filter=[1, 4, 6, 4, 1])
VARIANTS: dict[str, dict[str, Any]] = {
    "skip": dict(G=dict(architecture="skip"), D=dict(architecture="skip")),
    "orig": dict(G=dict(architecture="orig"), D=dict(architecture="orig")),
    "resnet": dict(G=dict(architecture="resnet"), D=dict(architecture="resnet")),
    "conditional": dict(c_dim=3, G={}, D={}),
    "clamped": dict(G=dict(architecture="resnet", conv_clamp=2, num_fp16_res=4), D=dict(conv_clamp=0.5, num_fp16_res=4)),
    "odd": dict(
        c_dim=3,
        img_channels=1,
        G=dict(use_noise=False, **ODD_BLOCKS),
        mapping=dict(num_layers=3, embed_features=5, layer_features=24, lr_multiplier=0.1, w_avg_beta=0.9),
        D=dict(
            cmap_dim=7, block_kwargs=ODD_BLOCKS, mapping_kwargs=dict(num_layers=2), epilogue_kwargs=dict(mbstd_group_size=2, mbstd_num_channels=2)
        ),
    ),
}

REDACTED = {
    f"{variant}-{method}": (variant, method) for variant, method in [*(("skip", each) for each in METHODS), ("orig", "fold"), ("resnet", "fold")]
}
"""Name of the file -> whose redaction it is, and how."""

MAKE = """
import copy, json, pickle, sys, dnnlib, torch
folder, variants = sys.argv[1], json.loads(sys.argv[2])
try:
    from training.networks import Generator, Discriminator
    nested = True
except ModuleNotFoundError:
    from training.networks_stylegan2 import Generator, Discriminator
    nested = False

def shaken(net):
    net = copy.deepcopy(net).eval().requires_grad_(False)
    for name, tensor in list(net.named_parameters()) + list(net.named_buffers()):
        if name.endswith(('bias', 'noise_strength', 'w_avg')):
            tensor.add_(torch.randn_like(tensor) * 0.5)
    return net

def easy(kwargs):
    return dnnlib.EasyDict({name: easy(value) if isinstance(value, dict) else value for name, value in kwargs.items()})

torch.manual_seed(1)
for name, variant in variants.items():
    c_dim, img_channels = variant.get('c_dim', 0), variant.get('img_channels', 3)
    small = dict(channel_base=1024, channel_max=32)
    synthesis = easy(dict(small, **variant['G']))
    synthesis = dict(synthesis_kwargs=synthesis) if nested else synthesis
    common = dict(c_dim=c_dim, img_resolution=64, img_channels=img_channels)
    G = Generator(z_dim=32, w_dim=32, mapping_kwargs=easy(variant.get('mapping', {})), **common, **synthesis)
    D = Discriminator(**common, **easy(dict(small, **variant['D'])))
    with open(f'{folder}/{name}.pkl', 'wb') as f:
        pickle.dump(dict(G=shaken(G), D=shaken(D), G_ema=shaken(G), augment_pipe=None, training_set_kwargs=None), f)
"""

# Executed by NVIDIA's code and by ours alike.
RENDER = """
def rendered(G, D, pictures):
    import torch
    random = torch.Generator().manual_seed(5)
    z, code = torch.randn(4, 32, generator=random), torch.randn(4, G.num_ws, 32, generator=random)
    c = torch.nn.functional.one_hot(torch.tensor([0, 2, 1, 1]), 3).float() if G.c_dim else None
    pictures = pictures[:, : G.img_channels]
    def synthesis(ws, noise_mode='const'):
        torch.manual_seed(6)
        return G.synthesis(ws, noise_mode=noise_mode, force_fp32=True)
    with torch.no_grad():
        ws = G.mapping(z, c)
        truncated = G.mapping(z, c, truncation_psi=0.7, truncation_cutoff=3)
        return {
            'ws': ws, 'truncated': truncated, 'all truncated': G.mapping(z, c, truncation_psi=-0.5),
            'const': synthesis(ws), 'none': synthesis(ws, 'none'), 'random': synthesis(ws, 'random'),
            'truncated images': synthesis(truncated), 'code': synthesis(code), 'one': synthesis(code[:1]),
            'whole': G(z[:2], c if c is None else c[:2], truncation_psi=0.7, noise_mode='const', force_fp32=True),
            'logits': D(pictures, c if c is None else c.repeat(2, 1), force_fp32=True),
            'two logits': D(pictures[:2], c if c is None else c[:2], force_fp32=True),
        }
"""
SHOW = (
    RENDER
    + """
import legacy, sys, numpy as np, torch
folder, names = sys.argv[1], sys.argv[3:]
pictures = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(7))
for name in names:
    data = legacy.load_network_pkl(open(f'{folder}/{name}.pkl', 'rb'))
    for key in ('G', 'G_ema'):
        found = rendered(data[key], data['D'], pictures)
        np.savez(f'{folder}/{name}.{key}.npz', **{what: tensor.numpy() for what, tensor in found.items()})
"""
)

RESUME = """
from torch_utils import misc
import json
for name, original in json.loads(sys.argv[2]).items():
    before, after = [legacy.load_network_pkl(open(f'{folder}/{file}.pkl', 'rb')) for file in (original, name)]
    z = torch.randn(2, 32)
    for key in ('G', 'G_ema'):
        theirs = before[key]  # of NVIDIA's class
        fresh = type(theirs)(*theirs.init_args, **theirs.init_kwargs).eval().requires_grad_(False)
        misc.copy_params_and_buffers(after[key], fresh, require_all=False)
        images = [net(z, None, noise_mode='const', force_fp32=True) for net in (theirs, after[key], fresh)]
        print(name, key, bool(torch.equal(images[1], images[2])), bool((images[0] - images[2]).abs().max() > 0.02))
"""


@dataclass(frozen=True)
class Host:
    """A checkout, and a folder with a snapshot and a rendering by NVIDIA's code for every variant."""

    kind: str
    root: Path
    folder: Path

    def shown(self, name: str, key: str) -> dict[str, torch.Tensor]:
        """What NVIDIA's code rendered."""
        with np.load(self.folder / f"{name}.{key}.npz") as file:
            return {what: torch.from_numpy(file[what]) for what in file.files}


@dataclass(frozen=True)
class Shipped:
    """Networks that were written to files here, which NVIDIA's code then rendered."""

    ours: dict[str, Network]
    redacted: dict[str, Network]
    resumed: list[str]
    """What RESUME printed."""


@pytest.fixture(scope="module", params=ROOTS)
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Host:
    root, folder = checkout(ROOTS[request.param]), tmp_path_factory.mktemp(request.param)
    run_in(root, folder, MAKE + SHOW, str(folder), json.dumps(VARIANTS), *VARIANTS)
    return Host(request.param, root, folder)


@pytest.fixture(scope="module")
def shipped(host: Host) -> Shipped:
    ours = {variant: load_network(host.folder / f"{variant}.pkl") for variant in VARIANTS}
    for variant, network in ours.items():
        write_network_pickle(host.folder / f"ours-{variant}.pkl", G=network.G, D=network.D, G_ema=network.G_ema)
    redactions = {name: redacted(ours[variant], method) for name, (variant, method) in REDACTED.items()}
    for name, network in redactions.items():
        original = read_snapshot(host.folder / f"{REDACTED[name][0]}.pkl")
        save_network(network, host.folder / f"{name}.pkl", original=original, record={"feature": "beard"})
    originals = json.dumps({name: variant for name, (variant, _) in REDACTED.items()})
    names = [*(f"ours-{variant}" for variant in ours), *redactions]
    return Shipped(ours, redactions, run_in(host.root, host.folder, SHOW + RESUME, str(host.folder), originals, *names))


@pytest.fixture(scope="module")
def elsewhere(host: Host, shipped: Shipped) -> Host:
    """The other checkout, which has never seen the networks whose redactions it draws."""
    (kind,) = set(ROOTS) - {host.kind}
    other = Host(kind, checkout(ROOTS[kind]), host.folder / kind)
    other.folder.mkdir()
    for name in shipped.redacted:
        shutil.copy(host.folder / f"{name}.pkl", other.folder)
    run_in(other.root, other.folder, SHOW, str(other.folder), "{}", *shipped.redacted)
    return other


def rendered_here(network: Network, key: str) -> dict[str, torch.Tensor]:
    names: dict[str, Any] = {}
    exec(RENDER, names)
    pictures = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(7))
    with torch.random.fork_rng(devices=[]):
        return names["rendered"](getattr(network, key), network.D, pictures)


def differences(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> dict[str, float]:
    assert list(ours) == list(theirs)
    return {what: float((ours[what] - theirs[what]).abs().max()) for what in ours}


def assert_same(what: str, ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    found = differences(ours, theirs)
    largest = max(float(tensor.abs().max()) for tensor in theirs.values())
    print(f"{what}: at most {max(found.values()):.1e} apart, of values up to {largest:.1f}")
    assert max(found.values()) < TOLERANCE, found


@pytest.mark.parametrize("variant", VARIANTS)
def test_tensors_of_theirs_give_the_same_here(host: Host, variant: str) -> None:
    network = load_network(host.folder / f"{variant}.pkl")
    for key in ("G", "G_ema"):
        theirs = host.shown(variant, key)
        assert_same(f"{host.kind} {variant} {key}", rendered_here(network, key), theirs)
        assert VARIANTS[variant]["G"].get("use_noise", True) == (float((theirs["const"] - theirs["none"]).abs().max()) > 0.05)
    assert float((host.shown(variant, "G")["const"] - host.shown(variant, "G_ema")["const"]).abs().max()) > 0.05


@pytest.mark.parametrize("variant", VARIANTS)
def test_files_of_ours_give_the_same_there(host: Host, shipped: Shipped, variant: str) -> None:
    """The source of our networks travels in the file and is run by NVIDIA's code."""
    for key in ("G", "G_ema"):
        assert_same(f"ours in {host.kind}, {variant} {key}", rendered_here(shipped.ours[variant], key), host.shown(f"ours-{variant}", key))


@pytest.mark.parametrize("name", REDACTED)
def test_a_redaction_shows_there(host: Host, shipped: Shipped, name: str) -> None:
    variant, method = REDACTED[name]
    for key in ("G", "G_ema"):
        there = host.shown(name, key)
        assert_same(f"made and drawn in {host.kind}, {variant} redacted by {method}, {key}", rendered_here(shipped.redacted[name], key), there)
        change = differences(there, host.shown(variant, "G_ema" if method == "edit" else key))  # edit makes G a copy of the redacted G_ema.
        assert change["logits"] == 0
        assert (change["ws"] == 0) == (method != "mapping")
        assert (change["code"] == 0) == (method == "mapping"), "a kept code meets all but the mapping's redaction"
        assert min(change[what] for what in ("const", "none", "truncated images", "whole")) > 0.02


@pytest.mark.parametrize("name", REDACTED)
def test_a_redaction_shows_in_the_other_checkout_too(host: Host, shipped: Shipped, elsewhere: Host, name: str) -> None:
    variant, method = REDACTED[name]
    for key in ("G", "G_ema"):
        what = f"made in {host.kind}, drawn in {elsewhere.kind}, {variant} redacted by {method}, {key}"
        assert_same(what, rendered_here(shipped.redacted[name], key), elsewhere.shown(name, key))


def test_their_resume_keeps_the_redaction(shipped: Shipped) -> None:
    assert shipped.resumed == [f"{name} {key} True True" for name in REDACTED for key in ("G", "G_ema")]
