# SPDX-License-Identifier: Apache-2.0
"""Snapshots in the layouts of StyleGAN's forks: their names of classes, modules and keys (stylegan-compat.md, section 8), small random weights, and a
text in the place of their sources. Classes that they pickle by name exist only while the file is written."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import hostile
import tiny_run
import torch
from test_redact_stylegan3 import CONFIGS

from stylegan_redact.networks import stylegan2, stylegan3

SOURCE = "# In the place of {}'s source, which no test runs.\nraise RuntimeError('the embedded source was run')\n"
_INTERNAL = set(vars(torch.nn.Module())) | {"_init_args", "_init_kwargs"}
_CLASSES: dict[str, type] = {}


def stored(net: torch.nn.Module, source: str, class_name: str = "", more: dict[str, Any] | None = None) -> hostile.Call:
    """A network of ours as a fork's persistent one, with its parts likewise; `more` are further parts of it."""
    modules = [(name, stored(part, source)) for name, part in net.named_children()] + list((more or {}).items())
    attributes = {name: value for name, value in vars(net).items() if name not in _INTERNAL}
    attributes |= {"_init_args": net.init_args, "_init_kwargs": dict(net.init_kwargs)}
    return hostile.module(
        class_name or type(net).__name__,
        parameters=net._parameters.items(),
        buffers=net._buffers.items(),
        modules=modules,
        source=source,
        **attributes,
    )


def plain(name: str, **parts: Any) -> torch.nn.Module:
    """An object of a class that the file only names, with parameters, modules (also persistent ones) and attributes."""
    module, _, cls = name.rpartition(".")
    net = _CLASSES.setdefault(name, type(cls, (torch.nn.Module,), {"__module__": module, "__qualname__": cls}))()
    for key, value in parts.items():
        if isinstance(value, (torch.nn.Module, hostile.Call)):
            net._modules[key] = value
        else:
            setattr(net, key, value)
    return net


def dumps(value: Any) -> bytes:
    """The pickle of what refers to such classes."""
    planted: dict[str, Any] = {}
    for name, cls in _CLASSES.items():
        module = name.rpartition(".")[0]
        for depth in range(1, module.count(".") + 2):
            part = ".".join(module.split(".")[:depth])
            planted.setdefault(part, types.ModuleType(part))
        setattr(planted[module], cls.__name__, cls)
    with mock.patch.dict(sys.modules, planted):
        return hostile.dumps(value)


def parameter(*shape: int) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))), requires_grad=False)


def made(cls: Any, *args: Any, **kwargs: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cls(*args, **kwargs).eval().requires_grad_(False)


def projected_discriminator() -> torch.nn.Module:
    backbone = plain("timm.models.efficientnet.EfficientNet", conv_stem=torch.nn.Conv2d(3, 2, 3).requires_grad_(False))
    features = plain("pg_modules.projector.F_RandomProj", pretrained=backbone, CHANNELS=[2, 4])
    heads = plain("pg_modules.discriminator.MultiScaleD", mini_discs=torch.nn.ModuleDict({"0": torch.nn.Conv2d(2, 1, 1).requires_grad_(False)}))
    return plain("pg_modules.discriminator.ProjectedDiscriminator", feature_network=features, discriminator=heads)


def discriminator(source: str, class_name: str = "Discriminator") -> hostile.Call:
    net = made(stylegan2.Discriminator, c_dim=0, img_resolution=tiny_run.RESOLUTION, img_channels=3, channel_base=128, channel_max=8)
    return stored(net, source, class_name)


def styled(seed: int, source: str) -> hostile.Call:
    return stored(tiny_run.generator(seed), source)


def eg3d() -> dict[str, Any]:
    source = SOURCE.format("EG3D")
    triplane, superresolution = (f"{source}# {name}\n" for name in ("triplane.py", "superresolution.py"))
    small = dict(z_dim=8, c_dim=25, w_dim=8, img_resolution=16, img_channels=6, channel_base=128, channel_max=8, mapping_kwargs={"num_layers": 2})
    block = dict(w_dim=8, resolution=8, img_channels=3, is_last=False)
    decoder = torch.nn.Sequential(torch.nn.Softplus())
    for place in ("0", "2"):
        decoder._modules[place] = stored(made(stylegan2.FullyConnectedLayer, 4, 4), source)

    def generator() -> hostile.Call:
        renderer = "training.volumetric_rendering.renderer.ImportanceRenderer"
        parts = {
            "renderer": plain(renderer, ray_marcher=plain("training.volumetric_rendering.ray_marcher.MipRayMarcher2"), plane_axes=parameter(3, 3, 3)),
            "ray_sampler": plain("training.volumetric_rendering.ray_sampler.RaySampler", ray_origins_h=None),
            "backbone": stored(made(stylegan2.Generator, **small), source),
            "superresolution": hostile.module(
                "SuperresolutionHybrid2X",
                source=superresolution,
                modules={"block0": stored(made(stylegan2.SynthesisBlock, 4, 4, **block), source)}.items(),
            ),
            "decoder": plain("training.triplane.OSGDecoder", hidden_dim=64, net=decoder),
        }
        sizes = {"z_dim": 8, "c_dim": 25, "w_dim": 8, "img_resolution": 32, "img_channels": 3}
        attributes = {"neural_rendering_resolution": 16, "rendering_kwargs": {"depth_resolution": 48, "superresolution_module": "training.x"}}
        return hostile.module("TriPlaneGenerator", modules=parts.items(), source=triplane, _init_args=(), _init_kwargs=sizes, **sizes, **attributes)

    return {"G": generator(), "D": discriminator(source, "DualDiscriminator"), "G_ema": generator(), "augment_pipe": None}


def stylegan_xl(class_name: str = "Generator", **init_kwargs: Any) -> dict[str, Any]:
    source = SOURCE.format("StyleGAN-XL")
    sizes = dict(z_dim=8, c_dim=0, w_dim=8, img_resolution=16, img_channels=3)

    def generator() -> hostile.Call:
        net = made(stylegan3.Generator, **sizes, **CONFIGS["t"])
        mapping = {"embed": torch.nn.Embedding(10, 4).requires_grad_(False), "embed_proj": stored(made(stylegan2.FullyConnectedLayer, 4, 8), source)}
        call = stored(net, source, class_name)
        state = call.reduced[1][0]["state"]
        state["_modules"]["mapping"] = stored(net.mapping, source, more=mapping)
        state["_init_kwargs"] |= init_kwargs
        return call

    progress = {"cur_nimg": torch.tensor(7), "cur_tick": torch.tensor(1), "batch_idx": torch.tensor(2), "best_fid": 3.5}
    return {"G": generator(), "D": projected_discriminator(), "G_ema": generator(), "augment_pipe": None, "progress": progress}


def projected_gan() -> dict[str, Any]:
    source = SOURCE.format("Projected GAN")
    progress = {"cur_nimg": torch.tensor(7), "best_fid": 3.5}
    G_ema, G = tiny_run.generator(0), tiny_run.generator(0)
    G.synthesis.b4.const += 0.01
    return {"G": stored(G, source), "D": projected_discriminator(), "G_ema": stored(G_ema, source), "augment_pipe": None, "progress": progress}


def fastgan() -> dict[str, Any]:
    def generator() -> torch.nn.Module:
        normed = torch.nn.utils.spectral_norm(torch.nn.Conv2d(4, 3, 1)).requires_grad_(False)
        synthesis = plain("pg_modules.networks_fastgan.FastganSynthesis", to_big=normed, init=plain("pg_modules.blocks.InitLayer"))
        return plain("pg_modules.networks_fastgan.Generator", mapping=plain("pg_modules.networks_fastgan.DummyMapping"), synthesis=synthesis)

    return {"G": generator(), "D": projected_discriminator(), "G_ema": generator(), "augment_pipe": None}


def stylegan_t() -> dict[str, Any]:
    def generator() -> torch.nn.Module:
        affine = plain("networks.shared.FullyConnectedLayer", weight=parameter(6, 16), bias=parameter(6), weight_gain=0.25, bias_gain=1.0)
        layer = plain("networks.generator.SynthesisLayer", weight=parameter(6, 6, 3, 3), affine=affine)
        mapping = plain("networks.generator.MappingNetwork", x_avg=parameter(8))
        return plain("networks.generator.Generator", mapping=mapping, synthesis=plain("networks.generator.SynthesisNetwork", L0=layer))

    D = plain("networks.discriminator.ProjectedDiscriminator", head=torch.nn.Conv1d(2, 1, 1).requires_grad_(False))
    return {"G": generator(), "D": D, "G_ema": generator()}


def r3gan() -> dict[str, Any]:
    def network(kind: str) -> torch.nn.Module:
        layer = plain("R3GAN.FusedOperators.BiasedActivation", Bias=parameter(4))
        block = plain(
            "R3GAN.Networks.ResidualBlock", LinearLayer1=plain("R3GAN.Networks.Convolution", Weight=parameter(4, 4, 1, 1)), NonLinearity1=layer
        )
        stage = plain(f"R3GAN.Networks.{kind}", stage=block, Resampler=plain("R3GAN.Resamplers.InterpolativeUpsampler"))
        return plain(f"training.networks.{kind}", Model=stage, z_dim=8, c_dim=0, img_resolution=16)

    state = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 0.0002, "betas": (0, 0.9), "params": [0]}]}
    nets = {"G": network("Generator"), "D": network("Discriminator"), "G_ema": network("Generator")}
    return nets | {"training_set_kwargs": None, "cur_nimg": 100, "G_opt_state": state, "D_opt_state": state}


def stylegan3_fun() -> dict[str, Any]:
    source = SOURCE.format("stylegan3-fun")
    nets = [made(stylegan3.Generator, z_dim=8, c_dim=0, w_dim=8, img_resolution=16, img_channels=3, **CONFIGS["t"]) for _ in range(2)]
    return {"G": stored(nets[0], source), "D": discriminator(source), "G_ema": stored(nets[1], source), "augment_pipe": None}


LAYOUTS: dict[str, Callable[[], dict[str, Any]]] = {
    "stylegan3-fun": stylegan3_fun,
    "Projected GAN, stylegan2": projected_gan,
    "Projected GAN, fastgan": fastgan,
    "StyleGAN-XL": stylegan_xl,
    "StyleGAN-XL, superresolution": lambda: stylegan_xl("SuperresGenerator", path_stem="stem.pkl", head_layers=7, up_factor=2),
    "EG3D": eg3d,
    "StyleGAN-T": stylegan_t,
    "R3GAN": r3gan,
    "StyleGAN-Human": lambda: {"G_ema": styled(0, SOURCE.format("StyleGAN-Human"))},
    "EDM2": lambda: {"ema": hostile.module("Precond"), "encoder": hostile.module("StandardRGBEncoder"), "dataset_kwargs": {}},
}


def write(path: Path, fork: str) -> Path:
    path.write_bytes(dumps({"training_set_kwargs": None} | LAYOUTS[fork]()))
    return path
