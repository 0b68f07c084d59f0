# SPDX-License-Identifier: Apache-2.0
"""Our StyleGAN3 against NVIDIA's own: tensors of theirs rendered by us, files of ours and redacted files rendered by them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from any_feature import METHODS, redacted
from host import checkout, run_in

from stylegan_redact.network import load_network, save_network
from stylegan_redact.networks.export import write_network_pickle
from stylegan_redact.networks.stylegan3 import Generator
from stylegan_redact.pickles import read_snapshot
from stylegan_redact.types import Network

pytestmark = pytest.mark.host

# float32 through 15 layers with values up to about 10; one wrong gain, row or flip shows as 1e-2 and more.
TOLERANCE = 1e-4
# Filters are designed in float64 and rounded once.
FILTER_TOLERANCE = 1e-7
R: dict[str, Any] = dict(conv_kernel=1, use_radial_filters=True)
ODD: dict[str, Any] = dict(
    num_layers=7, num_critical=1, margin_size=6, output_scale=0.5, conv_clamp=0.6, filter_size=4, first_cutoff=3, conv_kernel=5
)
VARIANTS: dict[str, dict[str, Any]] = {
    "t": dict(G={}),
    "r": dict(G=R),
    "t-conditional": dict(c_dim=3, G={}, mapping=dict(num_layers=3, lr_multiplier=0.1, w_avg_beta=0.9)),
    "r-conditional": dict(c_dim=3, G=R | dict(num_fp16_res=2, magnitude_ema_beta=0.9)),
    "t-128": dict(img_resolution=128, G=dict(channel_base=512)),
    "r-odd": dict(img_channels=1, G=R | ODD | dict(lrelu_upsampling=4)),
    "t-odd": dict(img_channels=1, G=ODD),
    "t-32": dict(img_resolution=32, G=dict(num_layers=6)),
    "r-32": dict(img_resolution=32, G=R | dict(num_layers=6)),
}
OURS = ("t", "r", "t-conditional", "r-odd")
"""Written by us as well, and drawn by them."""
REDACTED = [(variant, method) for variant in ("t-32", "r-32") for method in METHODS]

MAKE = """
import copy, json, pickle, sys, dnnlib, torch
from training.networks_stylegan2 import Discriminator
from training.networks_stylegan3 import Generator
folder, variants = sys.argv[1], json.loads(sys.argv[2])

def shaken(net):
    net = copy.deepcopy(net).eval().requires_grad_(False)
    for name, tensor in list(net.named_parameters()) + list(net.named_buffers()):
        if name.endswith(('bias', 'w_avg')):
            tensor.add_(torch.randn_like(tensor) * 0.1)
        if tensor.ndim == 4 and tensor.shape[0] < 4:
            tensor.mul_(20)  # ToRGB's: a new network draws next to nothing.
        if name.endswith('magnitude_ema'):
            tensor.uniform_(0.5, 2)
        if name.endswith('input.affine.weight'):
            tensor.add_(torch.randn_like(tensor) * 0.3)
    return net

torch.manual_seed(1)
for name, variant in variants.items():
    common = dict(c_dim=variant.get('c_dim', 0), img_resolution=variant.get('img_resolution', 64), img_channels=variant.get('img_channels', 3))
    small = dict(channel_base=1024, channel_max=16)
    G = Generator(z_dim=32, w_dim=32, mapping_kwargs=dnnlib.EasyDict(variant.get('mapping', {})), **common, **dict(small, **variant['G']))
    D = Discriminator(**common, **small)
    with open(f'{folder}/{name}.pkl', 'wb') as f:
        pickle.dump(dict(G=shaken(G), D=shaken(D), G_ema=shaken(G), augment_pipe=None, training_set_kwargs=None), f)
    fresh = {key: value.numpy() for key, value in G.state_dict().items() if 'filter' in key}
    import numpy as np
    np.savez(f'{folder}/{name}.fresh.npz', names=list(G.state_dict()), shapes=[json.dumps(list(t.shape)) for t in G.state_dict().values()], **fresh)
"""

# Executed by NVIDIA's code and by ours alike.
RENDER = """
def rendered(G, D):
    import copy, math, torch
    random = torch.Generator().manual_seed(5)
    z, code = torch.randn(3, 32, generator=random), torch.randn(3, G.num_ws, 32, generator=random)
    c = torch.nn.functional.one_hot(torch.tensor([0, 2, 1]), 3).float() if G.c_dim else None
    pictures = torch.randn(4, G.img_channels, G.img_resolution, G.img_resolution, generator=random)
    def synthesis(ws):
        return G.synthesis(ws, noise_mode='const', force_fp32=True)
    with torch.no_grad():
        ws = G.mapping(z, c)
        truncated = G.mapping(z, c, truncation_psi=0.7, truncation_cutoff=3)
        found = {
            'ws': ws, 'truncated': truncated, 'all truncated': G.mapping(z, c, truncation_psi=-0.5),
            'images': synthesis(ws), 'truncated images': synthesis(truncated), 'code': synthesis(code), 'one': synthesis(code[:1]),
            'whole': G(z[:2], c if c is None else c[:2], truncation_psi=0.7, noise_mode='none'),
            'logits': D(pictures, c if c is None else torch.cat([c, c[:1]]), force_fp32=True),
        }
        moved = copy.deepcopy(G)
        turned, shift = torch.tensor([0.3, 0.2]), math.radians(40)
        moved.synthesis.input.transform.copy_(torch.tensor(
            [[math.cos(shift), -math.sin(shift), 0.3], [math.sin(shift), math.cos(shift), 0.2], [0, 0, 1]]))
        found['transformed'] = moved(z[:2], c if c is None else c[:2])
        learning = copy.deepcopy(G).train()
        found['updating'] = learning(z[:2], c if c is None else c[:2], update_emas=True)
        for name in ('mapping.w_avg', 'synthesis.' + G.synthesis.layer_names[3] + '.magnitude_ema'):
            found[name] = learning.state_dict()[name]
        still = copy.deepcopy(G).train()
        still(z, c)
        same = all(torch.equal(a, b) for a, b in zip(still.state_dict().values(), G.state_dict().values()))
        found['stays without update_emas'] = torch.tensor(float(same))
    return found
"""
SHOW = (
    RENDER
    + """
import legacy, sys, numpy as np, torch
folder, names = sys.argv[1], sys.argv[3:]
for name in names:
    data = legacy.load_network_pkl(open(f'{folder}/{name}.pkl', 'rb'))
    for key in ('G', 'G_ema'):
        found = rendered(data[key], data['D'])
        np.savez(f'{folder}/{name}.{key}.npz', **{what: tensor.numpy() for what, tensor in found.items()})
"""
)

RESUME = """
from torch_utils import misc
for name in names:
    before, after = [legacy.load_network_pkl(open(f'{folder}/{file}.pkl', 'rb')) for file in (sys.argv[2], name)]
    for key in ('G', 'G_ema'):
        theirs = before[key]  # of NVIDIA's class
        fresh = type(theirs)(*theirs.init_args, **theirs.init_kwargs).eval().requires_grad_(False)
        misc.copy_params_and_buffers(after[key], fresh, require_all=False)
        images = [net(torch.ones(1, 32), None) for net in (after[key], fresh)]
        print(key, type(after[key]) is type(theirs), bool(torch.equal(*images)))
"""


class Host:
    """NVIDIA's checkout, and a folder for files that it and we write and draw; nothing is made before it is asked for."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        self.redactions: dict[tuple[str, str], tuple[Network, list[str]]] = {}

    def pickle(self, variant: str) -> Path:
        """A snapshot by NVIDIA's code, which has drawn it, too."""
        path = self.folder / f"{variant}.pkl"
        if not path.exists():
            run_in(self.root, self.folder, MAKE + SHOW, str(self.folder), json.dumps({variant: VARIANTS[variant]}), variant)
        return path

    def draw(self, name: str, code: str = "", before: str = "") -> list[str]:
        """Has NVIDIA's code draw a file that we wrote."""
        return run_in(self.root, self.folder, SHOW + code, str(self.folder), before, name)

    def redacted(self, variant: str, method: str) -> tuple[Network, list[str]]:
        """The network whose file NVIDIA's code has drawn, and what RESUME printed."""
        if (variant, method) not in self.redactions:
            original = self.pickle(variant)
            network = redacted(load_network(original), method)
            save_network(network, self.folder / f"{variant}-{method}.pkl", original=read_snapshot(original), record={"feature": "beard"})
            self.redactions[variant, method] = network, self.draw(f"{variant}-{method}", RESUME, variant)
        return self.redactions[variant, method]

    def shown(self, name: str, key: str) -> dict[str, torch.Tensor]:
        """What NVIDIA's code drew."""
        with np.load(self.folder / f"{name}.{key}.npz") as file:
            return {what: torch.from_numpy(file[what]) for what in file.files}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    return Host(checkout("STYLEGAN3_ROOT"), tmp_path_factory.mktemp("stylegan3"))


def rendered_here(network: Network, key: str) -> dict[str, torch.Tensor]:
    names: dict[str, Any] = {}
    exec(RENDER, names)
    return names["rendered"](getattr(network, key), network.D)


def differences(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> dict[str, float]:
    assert list(ours) == list(theirs)
    return {what: float((ours[what] - theirs[what]).abs().max()) for what in ours}


def assert_same(what: str, ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    found = differences(ours, theirs)
    largest = max(float(tensor.abs().max()) for tensor in theirs.values())
    print(f"{what}: at most {max(found.values()):.1e} apart, of values up to {largest:.1f}")
    assert max(found.values()) < TOLERANCE, found


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_new_network_has_their_tensors_and_their_filters(host: Host, variant: str) -> None:
    said = dict(VARIANTS[variant])
    kwargs = dict(channel_base=1024, channel_max=16) | said.pop("G") | dict(mapping_kwargs=said.pop("mapping", {}))
    ours = Generator(**(dict(z_dim=32, c_dim=0, w_dim=32, img_resolution=64, img_channels=3) | said | kwargs)).state_dict()
    with np.load(host.pickle(variant).with_suffix(".fresh.npz")) as theirs:
        assert dict(zip(theirs["names"].tolist(), map(json.loads, theirs["shapes"].tolist()), strict=True)) == {
            name: list(tensor.shape) for name, tensor in ours.items()
        }
        filters = [name for name in theirs.files if "filter" in name]
        assert filters
        for name in filters:
            np.testing.assert_allclose(ours[name].numpy(), theirs[name], atol=FILTER_TOLERANCE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_tensors_of_theirs_give_the_same_here(host: Host, variant: str) -> None:
    network = load_network(host.pickle(variant))
    for key in ("G", "G_ema"):
        theirs = host.shown(variant, key)
        assert_same(f"{variant} {key}", rendered_here(network, key), theirs)
        assert float((theirs["transformed"] - theirs["whole"]).abs().max()) > 0.05
        assert theirs["stays without update_emas"] == 1 and theirs["mapping.w_avg"].abs().max() > 0
    assert float((host.shown(variant, "G")["images"] - host.shown(variant, "G_ema")["images"]).abs().max()) > 0.05


@pytest.mark.parametrize("variant", OURS)
def test_files_of_ours_give_the_same_there(host: Host, variant: str) -> None:
    """The source of our networks travels in the file and is run by NVIDIA's code."""
    network, name = load_network(host.pickle(variant)), f"ours-{variant}"
    write_network_pickle(host.folder / f"{name}.pkl", G=network.G, D=network.D, G_ema=network.G_ema)
    host.draw(name)
    for key in ("G", "G_ema"):
        assert_same(f"{name} {key}", rendered_here(network, key), host.shown(name, key))


@pytest.mark.parametrize(("variant", "method"), REDACTED)
def test_a_redaction_shows_there(host: Host, variant: str, method: str) -> None:
    network, resumed = host.redacted(variant, method)
    for key in ("G", "G_ema"):
        there = host.shown(f"{variant}-{method}", key)
        assert_same(f"{variant} redacted by {method}, {key}", rendered_here(network, key), there)
        change = differences(there, host.shown(variant, "G_ema" if method == "edit" else key))  # edit makes G a copy of the redacted G_ema.
        assert change["logits"] == 0
        assert (change["ws"] == 0) == (method != "mapping")
        assert change["images"] > 0.02
        assert (change["code"] == 0) == (method == "mapping"), "a kept code meets all but the mapping's redaction"
    assert resumed == ["G True True", "G_ema True True"], "their resume copies by name, and keeps the redaction"


@pytest.mark.parametrize(("variant", "method"), REDACTED)
def test_the_pose_stays(host: Host, variant: str, method: str) -> None:
    host.redacted(variant, method)
    before, after = (read_snapshot(host.folder / f"{name}.pkl").modules["G_ema"].tensors for name in (variant, f"{variant}-{method}"))
    kept = [key for key in before if key.startswith("synthesis.input.affine") or key.endswith(("transform", "freqs", "phases"))]
    assert len(kept) == 5 and all(torch.equal(before[key], after[key]) for key in kept)
