# SPDX-License-Identifier: Apache-2.0
"""Decoders of VAEs, z [n, z_dim] -> img [n, C, R, R] in [-1, 1], as generators: w is z, there is one row of ws, and no discriminator.

A file of weights says nothing of the network that they are of: whoever redacts it names a factory, a function without arguments that returns the
module. Running it is running the user's own code, which is why it is asked for by name and never found in a file of weights.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from stylegan_redact import foreign
from stylegan_redact.losses.ms_ssim import WINDOW_SIZE
from stylegan_redact.network import sample_z
from stylegan_redact.types import Network, RedactError

SLACK = 0.05
"""How far images may lie outside of [-1, 1]."""
_TRIED = 64


class _SameLatent(torch.nn.Module):
    """The mapping network that there is not."""

    def forward(self, z: torch.Tensor, c: torch.Tensor | None = None, truncation_psi: float = 1.0) -> torch.Tensor:
        """z [n, z_dim] -> ws [n, 1, z_dim]; truncation is towards 0, the middle of the prior."""
        return (z * truncation_psi).unsqueeze(1)


class _Drawing(torch.nn.Module):
    """The decoder, called as a synthesis network is."""

    def __init__(self, decoder: torch.nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, ws: torch.Tensor, noise_mode: str = "const", force_fp32: bool = True) -> torch.Tensor:
        """ws [n, 1, z_dim] -> img [n, C, R, R]; there is no noise, and float32 is all there is."""
        return self.decoder(ws[:, 0])


class Generator(torch.nn.Module):
    """A decoder with the interface of a StyleGAN generator that is not known here."""

    def __init__(self, decoder: torch.nn.Module, z_dim: int, img_channels: int, img_resolution: int) -> None:
        super().__init__()
        self.z_dim = self.w_dim = z_dim
        self.c_dim, self.num_ws = 0, 1
        self.img_channels, self.img_resolution = img_channels, img_resolution
        self.mapping, self.synthesis = _SameLatent(), _Drawing(decoder)
        setattr(self, foreign.ROWS, {})


def from_factory(factory: str) -> torch.nn.Module:
    """What the function in FILE.py:NAME returns; the file is run.

    Raises:
        RedactError: no such file or function, code that fails, or something that is no module.
    """
    asked = f"a decoder was to be made by {factory}"
    file, colon, name = factory.rpartition(":")
    if not colon or not file.endswith(".py") or not name.isidentifier():
        raise RedactError(f"{asked} - that is no FILE.py:FACTORY - name a Python file and a function in it that returns the decoder")
    path = Path(file)
    if not os.path.isfile(path):
        raise RedactError(f"{asked} - there is no file {path} - check the name")
    spec = importlib.util.spec_from_file_location(f"stylegan_redact_decoder_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            sys.modules[spec.name] = module  # Dataclasses look their module up.
            spec.loader.exec_module(module)
            make = getattr(module, name, None)
            made = make() if callable(make) else None
        except Exception as error:  # noqa: BLE001 - the user's code raises whatever it likes
            sys.modules.pop(spec.name)
            raise RedactError(f"{asked} - it fails with {_reason(error)} - run that file by itself first") from None
    if make is None:
        raise RedactError(f"{asked} - {path.name} has no function {name} - name one that returns the decoder")
    if not isinstance(made, torch.nn.Module):
        raise RedactError(f"{asked} - it gives a {type(made).__name__} - it must be a function without arguments that returns a torch.nn.Module")
    return made


def place_of(decoder: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> str:
    """What the names of the decoder's tensors begin with in a file that holds more than a decoder, "decoder." for example; "" where nothing.

    Raises:
        RedactError: its tensors are not there, are of other shapes, or are there several times.
    """
    own = decoder.state_dict()
    asked = f"weights were to be loaded into a decoder with {len(own)} tensors"
    if not own:
        raise RedactError(f"{asked} - there is nothing in it to redact - let the factory return the decoder")
    first = next(iter(own))
    prefixes = sorted({name.removesuffix(first) for name in tensors if name == first or name.endswith(f".{first}")})
    whole = [prefix for prefix in prefixes if all(prefix + name in tensors for name in own)]
    if not whole:
        nearest = max(prefixes, key=lambda prefix: sum(prefix + name in tensors for name in own), default="")
        missing = [nearest + name for name in own if nearest + name not in tensors]
        there = ", ".join(list(tensors)[:3]) or "nothing"
        raise RedactError(
            f"{asked} - the file has no {', '.join(missing[:3])}; it has {len(tensors)}: {there}, ... - name the factory of these weights"
        )
    fitting = [prefix for prefix in whole if all(tensors[prefix + name].shape == tensor.shape for name, tensor in own.items())]
    if not fitting:
        name = next(name for name, tensor in own.items() if tensors[whole[0] + name].shape != tensor.shape)
        shapes = f"{list(tensors[whole[0] + name].shape)} in the file and {list(own[name].shape)} in the decoder"
        raise RedactError(f"{asked} - {whole[0] + name} is {shapes} - name the factory of these weights")
    if len(fitting) > 1:
        told = " and ".join(repr(prefix) for prefix in fitting)
        raise RedactError(f"{asked} - they are there more than once, under {told} - let the factory return a module whose names tell them apart")
    return fitting[0]


def as_network(decoder: torch.nn.Module, tensors: Mapping[str, torch.Tensor], device: torch.device | str = "cpu") -> tuple[Network, str]:
    """The decoder with these weights as a network, G and G_ema being one, and a sentence on what it takes and gives.

    Args:
        decoder: Its `z_dim` says how many numbers z has; without it, its first linear layer does.
        tensors: Name as in its state dict -> tensor.
        device:  Where it goes.

    Raises:
        RedactError: what it takes cannot be told, or it gives something else than fixed images [n, C, R, R] in [-1, 1].
    """
    decoder.load_state_dict(dict(tensors))
    decoder.float().eval().requires_grad_(False).to(device)
    z_dim, said = _z_dim(decoder)
    img = _tried(decoder, z_dim, device)
    _, channels, height, width = img.shape
    if height != width or height < WINDOW_SIZE:
        raise RedactError(f"a decoder was to draw - its images are {height} by {width} - they must be square, {WINDOW_SIZE} pixels or more")
    wanted = getattr(decoder, "img_shape", None)
    if wanted is not None and tuple(wanted) != tuple(img.shape[1:]):
        raise RedactError(f"a decoder was to draw images {list(wanted)}, its img_shape - it draws {list(img.shape[1:])} - correct one of the two")
    low, high = float(img.min()), float(img.max())
    if low < -1 - SLACK or high > 1 + SLACK:
        raise RedactError(f"a decoder was to draw in [-1, 1] - its images reach from {low:.2f} to {high:.2f} - let the factory scale what it draws")
    G = Generator(decoder, z_dim, channels, height).eval()
    told = f"z has {z_dim} numbers, as {said}; images are {channels} x {height} x {width}, as it draws them, from {low:.2f} to {high:.2f}"
    return Network(G, None, G), told + ("; should they be in [0, 1]: [-1, 1] is expected" if low >= 0 else "")


def tensors_of(network: Network) -> dict[str, torch.Tensor]:
    """The decoder's state dict; RedactError if the network is none of `as_network`, or holds what is not finite."""
    decoder: Any = getattr(getattr(network.G_ema, "synthesis", None), "decoder", None)
    if not isinstance(decoder, torch.nn.Module):
        raise RedactError("weights of a decoder were asked - this network has none - give one that `decoders.as_network` made")
    return {name: tensor.detach().cpu() for name, tensor in decoder.state_dict().items()}


def _z_dim(decoder: torch.nn.Module) -> tuple[int, str]:
    """The numbers in z, and who says so."""
    named = getattr(decoder, "z_dim", None)
    if type(named) is int:
        return named, "its z_dim says"
    for layer in decoder.modules():
        if isinstance(layer, torch.nn.Linear):
            return layer.in_features, "its first linear layer takes"
    raise RedactError("a decoder was to be used - it has no z_dim and no linear layer that tells it - give the module an attribute z_dim")


def _tried(decoder: torch.nn.Module, z_dim: int, device: torch.device | str) -> torch.Tensor:
    """Images [n, C, H, W] of a few seeds, drawn twice to see that they are the same."""
    asked = f"a decoder was to draw from z [n, {z_dim}]"
    z = sample_z(range(_TRIED), z_dim).to(device)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            img, again = decoder(z), decoder(z)
        except Exception as error:  # noqa: BLE001 - the user's code raises whatever it likes
            raise RedactError(f"{asked} - it fails with {_reason(error)} - give it an attribute z_dim, or another factory") from None
    if not isinstance(img, torch.Tensor) or img.ndim != 4 or len(img) != _TRIED or not bool(torch.isfinite(img).all()):
        got = f"numbers of shape {list(img.shape)}" if isinstance(img, torch.Tensor) else f"a {type(img).__name__}"
        raise RedactError(f"{asked} - it gives {got} - finite images [n, C, R, R] are needed")
    if not torch.equal(img, again):
        raise RedactError(f"{asked} - it draws another picture every time - before and after could not be compared, let it return the mean")
    return img


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
