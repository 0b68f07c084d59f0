# SPDX-License-Identifier: Apache-2.0
"""Snapshots that NVIDIA's own code wrote, edited here, and loaded by NVIDIA's own code. Needs a checkout; theirs runs in processes of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from host import checkout, run_in

from stylegan_redact.pickles import read_snapshot, write_snapshot

pytestmark = pytest.mark.host

MAKE = """
import copy, pickle, sys, dnnlib
kind, out = sys.argv[1:]
small = dict(channel_base=256, channel_max=8)
common = dict(z_dim=8, c_dim=0, w_dim=8, img_resolution=16, img_channels=3, mapping_kwargs=dnnlib.EasyDict(num_layers=2))
if kind == 'ada':
    from training.networks import Generator, Discriminator
    G = Generator(**common, synthesis_kwargs=dnnlib.EasyDict(**small))
else:
    from training.networks_stylegan2 import Generator, Discriminator
    if kind == 'stylegan3':
        from training.networks_stylegan3 import Generator
        small['num_layers'] = 4
    G = Generator(**common, **small)
small.pop('num_layers', None)
D = Discriminator(c_dim=0, img_resolution=16, img_channels=3, **small)
from training.augment import AugmentPipe
nets = dict(G=G, D=D, G_ema=copy.deepcopy(G), augment_pipe=AugmentPipe(xflip=1))
for net in nets.values():
    net.eval().requires_grad_(False)
with open(out, 'wb') as f:
    pickle.dump(dict(nets, training_set_kwargs=dict(path='/home/someone/faces.zip', max_size=7)), f)
"""

COMPARE = """
import sys, torch, legacy
before, after = [legacy.load_network_pkl(open(path, 'rb')) for path in sys.argv[1:]]
for key in ('G', 'D', 'G_ema', 'augment_pipe'):
    a, b = [dict(list(d[key].named_parameters()) + list(d[key].named_buffers())) for d in (before, after)]
    assert list(a) == list(b) and type(before[key]) is type(after[key]), key
    print(key, *[name for name in a if not torch.equal(a[name], b[name])])
z = torch.randn(2, 8)
x, y = [d['G_ema'](z, None, force_fp32=True, noise_mode='const') for d in (before, after)]
print('shift %.4f %.6f' % ((y - x).mean(), (y - x).std()))
print('kwargs', after['training_set_kwargs'], after['redaction'], before['G_ema'].init_kwargs == after['G_ema'].init_kwargs)
"""


@pytest.mark.parametrize(
    ("variable", "kind", "last_bias", "scale"),
    [
        ("STYLEGAN2_ADA_ROOT", "ada", "synthesis.b16.torgb.bias", 1.0),
        ("STYLEGAN3_ROOT", "stylegan2", "synthesis.b16.torgb.bias", 1.0),
        # StyleGAN3 multiplies its output by output_scale, 0.25.
        ("STYLEGAN3_ROOT", "stylegan3", "synthesis.L4_16_3.bias", 0.25),
    ],
)
def test_edited_snapshot_loads_in_the_host_and_shows_only_the_edit(variable: str, kind: str, last_bias: str, scale: float, tmp_path: Path) -> None:
    root = checkout(variable)
    original, edited = tmp_path / "original.pkl", tmp_path / "edited.pkl"
    run_in(root, tmp_path, MAKE, kind, str(original))
    snapshot = read_snapshot(original)
    new = {last_bias: snapshot.modules["G_ema"].tensors[last_bias] + 1}
    dropped = write_snapshot(snapshot, edited, tensors={"G": new, "G_ema": new}, redaction={"feature": "beard"})
    assert dropped == ("training_set_kwargs.path",) and b"numpy._core" not in edited.read_bytes()
    assert run_in(root, tmp_path, COMPARE, str(original), str(edited)) == [
        f"G {last_bias}",
        "D",
        f"G_ema {last_bias}",
        "augment_pipe",
        f"shift {scale:.4f} {0:.6f}",
        "kwargs {'max_size': 7} {'feature': 'beard'} True",
    ]
    assert torch.equal(read_snapshot(edited).modules["G"].tensors[last_bias], new[last_bias])
