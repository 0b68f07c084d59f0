# SPDX-License-Identifier: Apache-2.0
"""The same pickles of TensorFlow converted by NVIDIA's code and by ours: the same networks. Needs a checkout (STYLEGAN3_ROOT, STYLEGAN2_ADA_ROOT)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from host import checkout, run_in
from tensorflow_variants import VARIANTS

import legacy
from stylegan_redact.network import load_network, read_snapshot

pytestmark = pytest.mark.host

TOLERANCE = 1e-4
"""float32 through some 15 layers with values up to about 20; one wrong gain, bias or flip shows as 1e-2 and more."""
ROOTS = {"stylegan3": "STYLEGAN3_ROOT", "ada": "STYLEGAN2_ADA_ROOT"}

# Executed by NVIDIA's code and by ours alike.
RENDER = """
def rendered(data):
    import torch
    random = torch.Generator().manual_seed(5)
    found = {}
    for key in ('G', 'G_ema'):
        G, D = data[key], data['D']
        z, code = torch.randn(4, 32, generator=random), torch.randn(4, G.num_ws, 32, generator=random)
        c = torch.nn.functional.one_hot(torch.tensor([0, 2, 1, 1]), 3).float() if G.c_dim else None
        pictures = torch.randn(4, G.img_channels, G.img_resolution, G.img_resolution, generator=random)
        with torch.no_grad():
            ws = G.mapping(z, c, truncation_psi=0.7)
            found[key + ' ws'] = ws
            for mode in ('const', 'none'):
                found[key + ' ' + mode] = G.synthesis(ws, noise_mode=mode, force_fp32=True)
            found[key + ' code'] = G.synthesis(code, noise_mode='const', force_fp32=True)
            found[key + ' logits'] = D(pictures, c, force_fp32=True)
    return found
"""
SHOW = (
    RENDER
    + """
import json, legacy, sys, numpy as np
def plain(value):
    return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value
for path in sys.argv[1:]:
    data = legacy.load_network_pkl(open(path, 'rb'))
    np.savez(path + '.npz', **{what: tensor.numpy() for what, tensor in rendered(data).items()})
    print(json.dumps({key: plain(data[key].init_kwargs) for key in ('G', 'D', 'G_ema')}))
"""
)


@pytest.mark.parametrize("kind", ROOTS)
def test_nvidias_code_makes_the_same_of_it(kind: str, tmp_path: Path) -> None:
    """The pickle as it is, and what we make of it, each loaded by NVIDIA's code and by ours."""
    root = checkout(ROOTS[kind])
    originals = {name: variant.write(tmp_path / f"{name}.pkl", variant.networks()) for name, variant in VARIANTS.items()}
    for path in originals.values():
        legacy.main([f"--source={path}", f"--dest={path}.converted"])
    told = run_in(root, tmp_path, SHOW, *(f"{path}{end}" for path in originals.values() for end in ("", ".converted")))
    names: dict[str, Any] = {}
    exec(RENDER, names)
    for number, (name, path) in enumerate(originals.items()):
        network = load_network(path)
        ours = names["rendered"](dict(G=network.G, D=network.D, G_ema=network.G_ema))
        for end in ("", ".converted"):
            with np.load(f"{path}{end}.npz") as theirs:
                far = {what: float((ours[what] - torch.from_numpy(theirs[what])).abs().max()) for what in ours}
                largest = max(float(np.abs(theirs[what]).max()) for what in ours)
            print(f"{kind} {name}{end}: at most {max(far.values()):.1e} apart, of values up to {largest:.1f}")
            assert max(far.values()) < TOLERANCE, (name, far)
        assert_same_arguments(json.loads(told[2 * number]), read_snapshot(path).modules)


def flat(kwargs: dict[str, Any]) -> dict[str, Any]:
    """By dotted name, without what is None, and without the group that only one of the two generations of NVIDIA's code has."""
    found: dict[str, Any] = {}
    for name, value in kwargs.items():
        if isinstance(value, dict):
            found |= {part if name == "synthesis_kwargs" else f"{name}.{part}": each for part, each in flat(value).items()}
        else:
            found |= {} if value is None else {name: value}
    return found


def assert_same_arguments(theirs: dict[str, dict[str, Any]], ours: Any) -> None:
    for key, kwargs in theirs.items():
        mine = flat(ours[key].init_kwargs)
        mine.pop("mapping_kwargs.layer_features", None)  # Ours is spelt out.
        wanted = flat(kwargs)
        wanted.pop("mapping_kwargs.layer_features", None)
        assert mine == wanted, key
