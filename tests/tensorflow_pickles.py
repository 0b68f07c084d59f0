# SPDX-License-Identifier: Apache-2.0
"""Pickles as NVIDIA's TensorFlow code lays them out, from networks of ours: layer by layer, the other way round than the package reads them."""

from __future__ import annotations

import collections
import contextlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

import dnnlib
from stylegan_redact.networks.stylegan2 import Discriminator, Generator

Variables = dict[str, Any]
SOURCE = "raise RuntimeError('the embedded source was run')\n"


class Network:
    """Pickles as TensorFlow's class of that name."""

    def __init__(self, name: str, variables: Variables, *, version: int, kwargs: dict[str, Any], **components: Network) -> None:
        self.state = {
            "version": version,
            "name": name,
            "static_kwargs": dnnlib.EasyDict(kwargs),
            "components": dnnlib.EasyDict(components),
            "build_module_src": SOURCE,
            "build_func_name": f"{name}_main",
            "variables": [(path, stored(value)) for path, value in variables.items()],
        }

    def __getstate__(self) -> dict[str, Any]:
        return self.state


def stored(value: Any) -> Any:
    """TensorFlow gives a NumPy number where there are no dimensions."""
    array = np.array(value.detach().numpy() if isinstance(value, torch.Tensor) else value, np.float32, order="C")
    return array if array.ndim else np.float32(array)


@contextlib.contextmanager
def under_the_name(module: str) -> Iterator[None]:
    """Within it, Network is a class of that module, as far as pickle can see."""
    parts = module.split(".")
    names = [".".join(parts[: n + 1]) for n in range(len(parts))]
    before = {name: sys.modules.get(name) for name in names}
    try:
        for name in names:
            sys.modules.setdefault(name, ModuleType(name))
        sys.modules[module].Network = Network  # type: ignore[attr-defined]
        Network.__module__ = module
        yield
    finally:
        Network.__module__ = __name__
        for name, old in before.items():
            if old is None:
                del sys.modules[name]


def dumps(value: Any, *, module: str = "dnnlib.tflib.network", protocol: int = 4) -> bytes:
    with under_the_name(module):
        return pickle.dumps(value, protocol=protocol)


def hwio(weight: torch.Tensor) -> torch.Tensor:
    """[out, in, kh, kw] => [kh, kw, in, out]"""
    return weight.permute(2, 3, 1, 0)


def turned(weight: torch.Tensor) -> torch.Tensor:
    """Rotated by half a turn."""
    return torch.rot90(weight, 2, [2, 3])


def mapping_variables(mapping: Any, dense: str) -> Variables:
    found: Variables = {}
    if mapping.c_dim:
        found["LabelEmbed/weight"], found["LabelEmbed/bias"] = mapping.embed.weight.t(), mapping.embed.bias
    for index in range(mapping.num_layers):
        layer = mapping.get_submodule(f"fc{index}")
        found[f"{dense}{index}/weight"], found[f"{dense}{index}/bias"] = layer.weight.t(), layer.bias
    return found


def styled(layer: Any, *, turn: bool = False) -> Variables:
    """A layer that reads w; the bias of its style is stored without the 1."""
    found: Variables = {"weight": hwio(turned(layer.weight) if turn else layer.weight)}
    found |= {"mod_weight": layer.affine.weight.t(), "mod_bias": layer.affine.bias - 1, "bias": layer.bias}
    return found | ({"noise_strength": layer.noise_strength} if hasattr(layer, "noise_strength") else {})


def synthesis_variables(synthesis: Any) -> Variables:
    found: Variables = {"lod": 0.0}
    noise: list[torch.Tensor] = []
    for resolution in synthesis.block_resolutions:
        block = synthesis.get_submodule(f"b{resolution}")
        layers: dict[str, Variables] = {}
        if resolution == 4:
            layers = {"Const": {"const": block.const[None]}, "Conv": styled(block.conv1)}
        else:
            layers = {"Conv0_up": styled(block.conv0, turn=True), "Conv1": styled(block.conv1)}
        if hasattr(block, "skip"):
            layers["Skip"] = {"weight": hwio(turned(block.skip.weight))}
        if hasattr(block, "torgb"):
            layers["ToRGB"] = styled(block.torgb)
        for layer, parts in layers.items():
            found |= {f"{resolution}x{resolution}/{layer}/{part}": value for part, value in parts.items()}
        noise += [getattr(block, name).noise_const for name in ("conv0", "conv1") if hasattr(getattr(block, name, None), "noise_const")]
    return found | {f"noise{index}": value[None, None] for index, value in enumerate(noise)}


def discriminator_variables(D: Any) -> Variables:
    found: Variables = {"lod": 0.0}
    names = {"fromrgb": "FromRGB", "conv0": "Conv0", "conv1": "Conv1_down", "skip": "Skip", "conv": "Conv"}
    for resolution in [*D.block_resolutions, 4]:
        block = D.get_submodule(f"b{resolution}")
        for ours, theirs in names.items():
            if hasattr(block, ours):
                layer = getattr(block, ours)
                found[f"{resolution}x{resolution}/{theirs}/weight"] = hwio(layer.weight)
                if layer.bias is not None:
                    found[f"{resolution}x{resolution}/{theirs}/bias"] = layer.bias
    for path, layer in (("4x4/Dense0", D.b4.fc), ("Output", D.b4.out)):
        found |= {f"{path}/weight": layer.weight.t(), f"{path}/bias": layer.bias}
    return found | (mapping_variables(D.mapping, "Mapping") if D.c_dim else {})


def generator_network(G: Any, *, version: int, kwargs: dict[str, Any], name: str = "G") -> Network:
    mapping = Network("G_mapping", mapping_variables(G.mapping, "Dense"), version=version, kwargs=kwargs)
    synthesis = Network("G_synthesis", synthesis_variables(G.synthesis), version=version, kwargs=kwargs)
    return Network(name, {"dlatent_avg": G.mapping.w_avg}, version=version, kwargs=kwargs, mapping=mapping, synthesis=synthesis)


def discriminator_network(D: Any, *, version: int, kwargs: dict[str, Any]) -> Network:
    return Network("D", discriminator_variables(D), version=version, kwargs=kwargs)


def shaken(net: Any) -> Any:
    """With random numbers wherever initialisation leaves a constant; in steps of 2^-10, so that taking 1 off and adding it again loses nothing."""
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        if name.endswith(("bias", "noise_strength", "w_avg")):
            tensor.data += (torch.randn_like(tensor) * 512).round() / 1024
    return net.eval().requires_grad_(False)


Nets = collections.namedtuple("Nets", "G D G_ema")


def tiny_networks(resolution: int, G: dict[str, Any], D: dict[str, Any], *, seed: int = 0, z_dim: int = 32, w_dim: int = 32) -> Nets:
    """Three networks of ours, with `G` and `D` as arguments of our classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        shape = (resolution, G.get("img_channels", 3))
        rest, c_dim = {name: value for name, value in G.items() if name not in ("c_dim", "img_channels")}, G.get("c_dim", 0)
        generators = [shaken(Generator(z_dim, c_dim, w_dim, *shape, **rest)) for _ in range(2)]
        return Nets(generators[0], shaken(Discriminator(c_dim, *shape, **D)), generators[1])


def write(path: Path, nets: Nets, *, version: int, G: dict[str, Any], D: dict[str, Any]) -> Path:
    """The pickle of these networks, with `G` and `D` as what TensorFlow would have been told."""
    networks = (
        generator_network(nets.G, version=version, kwargs=G),
        discriminator_network(nets.D, version=version, kwargs=D),
        generator_network(nets.G_ema, version=version, kwargs=G, name="Gs"),
    )
    path.write_bytes(dumps(networks))
    return path
