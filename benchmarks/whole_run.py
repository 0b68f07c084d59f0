# SPDX-License-Identifier: Apache-2.0
"""A whole run of redact.py on a network of random weights, small in all but the network: how much memory it takes, from the file to the report.

`python -m benchmarks.memory --work=redaction --network=stylegan2-1024` writes the network, with a discriminator, and two random linear probes of its
pictures as classifiers; LABELLED latents that a direction of W labels; and runs the default method on them for one step, with everything that comes
before and after: the estimate, the looks at the labels, pictures, the pickle, MEASURED pairs, the report.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from stylegan_redact.latents import LabelFile, save_labels
from stylegan_redact.network import sample_w
from stylegan_redact.networks.export import write_network_pickle
from stylegan_redact.networks.stylegan2 import Discriminator
from stylegan_redact.types import LabelledLatents

LABELLED, SHOWING, MEASURED = 40, 30, 3
FEATURE = "probed"
SIZES = dict(z_dim=512, c_dim=0, w_dim=512)


class Probe(torch.nn.Module):
    """A logit that is linear in the picture, made small."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn([3, 8, 8], generator=torch.Generator().manual_seed(seed)))

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        """[n, 3, H, W] -> [n]"""
        return (torch.nn.functional.adaptive_avg_pool2d(img, [8, 8]) * self.weight).sum(dim=(1, 2, 3))


def written(folder: Path, kind: Any, resolution: int, options: dict[str, Any], sizes: dict[str, int]) -> list[str]:
    """Writes all files that the run needs; its options.

    Args:
        folder:     Where to.
        kind:       Class of the generator.
        resolution: Of its pictures.
        options:    Of its class, but for the sizes.
        sizes:      z_dim, c_dim, w_dim.
    """
    torch.manual_seed(0)
    shape: dict[str, Any] = dict(img_resolution=resolution, img_channels=3)
    G, G_ema = (kind(**sizes, **shape, **options).eval().requires_grad_(False) for _ in range(2))
    channels = {name: value for name, value in options.items() if name == "channel_base"} | {"channel_max": min(options.get("channel_max", 512), 512)}
    D = Discriminator(c_dim=0, **shape, **channels).eval().requires_grad_(False)
    write_network_pickle(folder / "network.pkl", G=G, D=D, G_ema=G_ema)
    for name, seed in (("classifier", 1), ("judge", 2)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Of TorchScript, by torch 2.13.
            torch.jit.save(torch.jit.script(Probe(seed)), str(folder / f"{name}.pt"))
    w = sample_w(G_ema, range(LABELLED))
    past = w[:, 0].argsort().argsort()  # Of each, how many lie before it.
    latents = LabelledLatents(w, past - (LABELLED - SHOWING) + 0.5, torch.arange(LABELLED))
    save_labels(folder / "labels.npz", LabelFile(FEATURE, latents, ("probe",) * LABELLED, ""))
    files = {"network": "network.pkl", "classifier": "classifier.pt", "judge": "judge.pt", "labels": "labels.npz"}
    short = [f"--feature={FEATURE}", f"--num-images={MEASURED}", "--kimg=0.001", "--batch=4", "--device=cpu", f"--outdir={folder / 'runs'}"]
    return [*(f"--{name}={folder / file}" for name, file in files.items()), *short]


def run(kind: Any, resolution: int, options: dict[str, Any]) -> tuple[int, float, float, str]:
    """Exit code, peak in GiB, seconds of processor, and the end of what was printed, of the run in a process of its own. Linux or macOS."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = written(folder, kind, resolution, options, SIZES)
        begin = time.perf_counter()
        with (folder / "output.txt").open("w") as file:
            process = subprocess.Popen([sys.executable, "redact.py", *words], stdout=file, stderr=subprocess.STDOUT)
            _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        unit = 1 if sys.platform == "darwin" else 1024
        told = (folder / "output.txt").read_text()
        told = f"{time.perf_counter() - begin:.0f} s in all\n{told}" if process.returncode else told[-300:]
        return process.returncode, used.ru_maxrss * unit / 2**30, used.ru_utime + used.ru_stime, told
