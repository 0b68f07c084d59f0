# SPDX-License-Identifier: Apache-2.0
"""A pickle of a generator that nobody here knows, with its own source: it runs nowhere but where it is trusted, and leaves a marker where it runs."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch

from stylegan_redact.networks.export import write_network_pickle
from torch_utils import persistence

SOURCE = """
import math, pathlib
import torch
from torch_utils import persistence

pathlib.Path({marker!r}).touch()


@persistence.persistent_class
class Style(torch.nn.Module):
    def __init__(self, w_dim, channels):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(channels, w_dim))
        self.bias = torch.nn.Parameter(torch.ones(channels))
        self.weight_gain, self.bias_gain = 1 / math.sqrt(w_dim), 0.5

    def forward(self, w):
        return w @ self.weight.t() * self.weight_gain + self.bias * self.bias_gain


@persistence.persistent_class
class Mapping(torch.nn.Module):
    def __init__(self, dim, num_ws):
        super().__init__()
        self.num_ws, self.z_dim = num_ws, dim
        self.layer = torch.nn.Linear(dim + {classes}, dim)

    def forward(self, z, c):
        x = torch.cat([z, c], 1) if {classes} else z
        return torch.nn.functional.leaky_relu(self.layer(x) * 2, 0.2).unsqueeze(1).repeat(1, self.num_ws, 1)


@persistence.persistent_class
class Layer(torch.nn.Module):
    def __init__(self, w_dim, channels):
        super().__init__()
        self.affine = Style(w_dim, channels)
        self.conv = torch.nn.Conv2d(channels, channels, 3, padding=1)
        {stray}

    def forward(self, x, w):
        x = torch.nn.functional.interpolate(x, scale_factor=2) * self.affine(w)[:, :, None, None]
        return torch.nn.functional.leaky_relu(self.conv(x), 0.2) * 2 {read_stray}


@persistence.persistent_class
class Synthesis(torch.nn.Module):
    def __init__(self, w_dim, channels):
        super().__init__()
        self.const = torch.nn.Parameter(torch.randn(channels, 4, 4))
        self.first, self.second = Layer(w_dim, channels), Layer(w_dim, channels)
        self.rgb = torch.nn.Conv2d(channels, 3, 1)

    def forward(self, ws):
        x = self.const.repeat(len(ws), 1, 1, 1)
        return self.rgb(self.second(self.first(x, ws[:, 0]), ws[:, 2])) {noise}


@persistence.persistent_class
class OddGenerator(torch.nn.Module):
    def __init__(self, dim=6, channels=8):
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_ws, self.img_resolution, self.img_channels = dim, {classes}, dim, 3, 16, 3
        self.mapping, self.synthesis = Mapping(dim, 3), Synthesis(dim, channels)

    def forward(self, z, c):
        return self.synthesis(self.mapping(z, c))


@persistence.persistent_class
class OddDiscriminator(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 1, 16)

    def forward(self, img, c):
        return self.layer(img).flatten(1)
"""


def source(marker: Path, *, stray: bool = False, noise: bool = False, classes: int = 0) -> str:
    """`stray`: a layer of another name reads w too. `noise`: every picture has its own. `classes`: that it is conditional on."""
    return SOURCE.format(
        marker=str(marker),
        classes=classes,
        stray="self.shift = Style(w_dim, channels)" if stray else "",
        read_stray="+ self.shift(w)[:, :, None, None]" if stray else "",
        noise="+ torch.randn([])" if noise else "",
    )


def write(folder: Path, text: str) -> tuple[Path, str]:
    """The pickle, and the sha256 of the source in it. Nothing of the source stays known to this process."""
    (folder / "odd_source.py").write_text(text)
    spec = importlib.util.spec_from_file_location("odd_source", folder / "odd_source.py")
    assert spec is not None and spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    sys.modules["odd_source"] = module
    try:
        spec.loader.exec_module(module)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            G_ema, D = module.OddGenerator(), module.OddDiscriminator()
            torch.manual_seed(0)
            G = module.OddGenerator()
            G.synthesis.const.data.add_(0.01)
        write_network_pickle(folder / "odd.pkl", G=G, D=D, G_ema=G_ema, training_set_kwargs={"max_size": 7})
    finally:
        del sys.modules["odd_source"]
        forget(text)
        (folder / "odd_source.py").unlink()
    return folder / "odd.pkl", hashlib.sha256(text.encode()).hexdigest()


def forget(text: str) -> None:
    """As in a process that has not met the source."""
    module = persistence._src_to_module_dict.pop(text, None)
    if module is not None:
        del persistence._module_to_src_dict[module]
