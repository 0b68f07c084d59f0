# SPDX-License-Identifier: Apache-2.0
"""Conditional networks of NVIDIA's code: a class substituted here is its substitute there, and the others are what they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from host import checkout, run_in

from stylegan_redact import cli

pytestmark = pytest.mark.host

ROOTS = {"ada": "STYLEGAN2_ADA_ROOT", "stylegan2": "STYLEGAN3_ROOT", "stylegan3": "STYLEGAN3_ROOT"}
MAKE = """
import copy, importlib, pickle, sys, dnnlib, torch
folder, kind = sys.argv[1:]
modules = {'ada': ('training.networks',) * 2, 'stylegan2': ('training.networks_stylegan2',) * 2,
           'stylegan3': ('training.networks_stylegan3', 'training.networks_stylegan2')}[kind]
generators, discriminators = map(importlib.import_module, modules)
torch.manual_seed(1)
small = dict(channel_base=512, channel_max=16)
common = dict(c_dim=3, img_resolution=32, img_channels=3)
more = dict(synthesis_kwargs=dnnlib.EasyDict(small)) if kind == 'ada' else small
nets = dict(G=generators.Generator(z_dim=16, w_dim=16, **common, **more), D=discriminators.Discriminator(**common, **small))
nets = {name: net.eval().requires_grad_(False) for name, net in nets.items()}
nets['G_ema'] = copy.deepcopy(nets['G'])
nets['G_ema'].mapping.embed.weight.add_(0.1 * torch.randn(16, 3))
with open(f'{folder}/before.pkl', 'wb') as f:
    pickle.dump(dict(nets, augment_pipe=None, training_set_kwargs=None), f)
"""
SHOW = """
import sys, legacy, numpy as np, torch
folder = sys.argv[1]
found = {}
for name in ('before', 'after'):
    data = legacy.load_network_pkl(open(f'{folder}/{name}.pkl', 'rb'))
    for key in ('G', 'G_ema'):
        z = torch.randn(4, 16, generator=torch.Generator().manual_seed(5))
        for label in range(3):
            found[f'{name} {key} {label}'] = data[key](z, torch.eye(3)[[label] * 4], noise_mode='const', force_fp32=True).numpy()
    found[f'{name} D'] = data['D'](torch.linspace(-1, 1, 4 * 3 * 32 * 32).reshape(4, 3, 32, 32), torch.eye(3)[[0, 1, 2, 1]], force_fp32=True).numpy()
np.savez(f'{folder}/found.npz', **found)
"""


@pytest.mark.parametrize("kind", ROOTS)
def test_a_class_of_theirs(kind: str, tmp_path: Path) -> None:
    root = checkout(ROOTS[kind])
    run_in(root, tmp_path, MAKE, str(tmp_path), kind)
    options = [f"--network={tmp_path / 'before.pkl'}", "--feature=class:1", "--replacement=2", "--num-images=40", "--num-latents=40"]
    result = CliRunner().invoke(cli.command(), [*options, f"--outdir={tmp_path / 'runs'}"])
    assert result.exit_code == 0, result.output
    (path,) = (tmp_path / "runs").glob("*/network-redacted.pkl")
    path.rename(tmp_path / "after.pkl")
    run_in(root, tmp_path, SHOW, str(tmp_path))
    with np.load(tmp_path / "found.npz") as found:
        for key in ("G", "G_ema"):
            for label, instead in ((0, 0), (1, 2), (2, 2)):
                np.testing.assert_array_equal(found[f"after {key} {label}"], found[f"before {key} {instead}"])
            assert np.abs(found[f"after {key} 1"] - found[f"before {key} 1"]).mean() > 0.01
        np.testing.assert_array_equal(found["after D"], found["before D"])
