# SPDX-License-Identifier: Apache-2.0
"""A small decoder of a VAE with its file of weights, and classifiers that call a bright corner a feature."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from tiny_run import BrightRegion, save_torchscript

from stylegan_redact import decoders
from stylegan_redact.network import sample_z

SOURCE = """
import torch


def decoder():
    net = torch.nn.Sequential(
        torch.nn.Linear(6, 64), torch.nn.ReLU(), torch.nn.Unflatten(1, (4, 4, 4)), torch.nn.Upsample(scale_factor=4),
        torch.nn.Conv2d(4, 1, 3, padding=1), torch.nn.Tanh(),
    )
    return net


def other_sizes():
    net = decoder()
    net[0] = torch.nn.Linear(5, 64)
    return net


def other_names():
    return torch.nn.ModuleDict({"net": decoder()})


def fails():
    raise KeyError("nothing here")


def number():
    return 7


class Twice(torch.nn.Sequential):
    def forward(self, z):
        return 2 * super().forward(z) + 1


def too_bright():
    return Twice(*decoder())


class Sampled(torch.nn.Sequential):
    z_dim = 6

    def forward(self, z):
        img = super().forward(z)
        return (img + 0.01 * torch.randn_like(img)).clamp(-1, 1)


def sampled():
    return Sampled(*decoder())
"""
SHARE = 0.25


def write_factory(folder: Path) -> Path:
    (folder / "made.py").write_text(SOURCE)
    return folder / "made.py"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """As a whole VAE is saved: the decoder under a prefix, beside an encoder."""
    made = decoders.from_factory(f"{write_factory(folder)}:decoder")
    generator = torch.Generator().manual_seed(1)
    tensors = {f"decoder.{name}": 0.5 * torch.randn(tensor.shape, generator=generator) for name, tensor in made.state_dict().items()}
    return {"encoder.weight": torch.ones(3), **tensors}


def draw(folder: Path, tensors: dict[str, torch.Tensor], seeds: range) -> torch.Tensor:
    """Images of a file's tensors, as its owner would draw them."""
    made = decoders.from_factory(f"{folder / 'made.py'}:decoder")
    made.load_state_dict({name.removeprefix("decoder."): tensor for name, tensor in tensors.items() if name.startswith("decoder.")})
    with torch.no_grad():
        return made(sample_z(seeds, 6))


def write_all(folder: Path) -> list[str]:
    """Weights in both formats, a factory and two classifiers; the options that name them, .pt first."""
    tensors = weights(folder)
    torch.save(tensors, folder / "vae.pt")
    safetensors.torch.save_file(tensors, folder / "vae.safetensors", metadata={"format": "pt"})
    img = draw(folder, tensors, range(1000, 1400))
    for name, size in (("detector.pt", 8), ("judge.pt", 9)):
        save_torchscript(BrightRegion(size, float(img[:, :, :size, :size].mean([1, 2, 3]).quantile(1 - SHARE))), folder / name)
    named = {"network": "vae.pt", "decoder": "made.py:decoder", "classifier": "detector.pt", "judge": "judge.pt"}
    return ["--feature=glow", *(f"--{option}={folder / file}" for option, file in named.items())]
