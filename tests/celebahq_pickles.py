# SPDX-License-Identifier: Apache-2.0
"""Files as NVIDIA's classifiers of CelebA-HQ are laid out, small, and what such a network computes, in float64 and the slow way."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from tensorflow_pickles import Network, Variables, dumps

RESOLUTION = 16
SOURCE = "def D_basic(\n    nonlinearity = 'lrelu',\n    blur_filter         = [1,2,1],\n):\n    raise RuntimeError('the source was run')\n"


def variables(seed: int = 0, *, spread: bool = False, resolution: int = RESOLUTION) -> Variables:
    """By name; convolutions [kh, kw, in, out], matrices [in, out]; `spread`: the last convolution has a channel for the minibatch's."""
    random = np.random.RandomState(seed)
    channels = {r: 4 + 2 * index for index, r in enumerate(2**k for k in range(resolution.bit_length() - 1, 1, -1))}
    found: Variables = {"lod": 0.0}

    def layer(name: str, *shape: int) -> None:
        found[f"{name}/weight"], found[f"{name}/bias"] = random.randn(*shape), random.randn(shape[-1]) / 4

    for lod, (r, width) in enumerate(channels.items()):
        layer(f"FromRGB_lod{lod}", 1, 1, 3, width)
        if r > 4:
            layer(f"{r}x{r}/Conv0", 3, 3, width, width)
            layer(f"{r}x{r}/Conv1_down", 3, 3, width, channels[r // 2])
    layer("4x4/Conv", 3, 3, channels[4] + spread, 6)
    layer("4x4/Dense0", 96, 8)
    layer("4x4/Dense1", 8, 1)
    return found


def content(given: Variables, *, version: int = 3, source: str = SOURCE, **kwargs: Any) -> bytes:
    """The pickle of one network, built with these arguments."""
    network = Network("D", given, version=version, kwargs={"num_channels": 3, "resolution": RESOLUTION, "label_size": 0} | kwargs)
    network.state["build_module_src"] = source
    return dumps(network)


def write(folder: Path, name: str, given: Variables, **kwargs: Any) -> Path:
    (folder / name).write_bytes(content(given, **kwargs))
    return folder / name


def logit(given: Variables, img: np.ndarray, *, blur: bool, spread: bool = False) -> np.ndarray:
    """[n], as TensorFlow's network gives it: img [n, 3, r, r] in [-1, 1]."""
    n, resolution = len(img), img.shape[2]
    x = act(convolved(img.astype(np.float64), scaled(given["FromRGB_lod0/weight"]), 0) + column(given["FromRGB_lod0/bias"]))
    while resolution > 4:
        name = f"{resolution}x{resolution}"
        x = act(convolved(x, scaled(given[f"{name}/Conv0/weight"]), 1) + column(given[f"{name}/Conv0/bias"]))
        if blur:
            padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
            taps = np.outer([1, 2, 1], [1, 2, 1]) / 16
            x = sum(taps[i, j] * padded[:, :, i : i + resolution, j : j + resolution] for i in range(3) for j in range(3))
        x = act(stepped(x, scaled(given[f"{name}/Conv1_down/weight"])) + column(given[f"{name}/Conv1_down/bias"]))
        resolution //= 2
    if spread:
        x = np.concatenate([x, np.full([n, 1, 4, 4], math.sqrt(1e-8))], axis=1)
    x = act(convolved(x, scaled(given["4x4/Conv/weight"]), 1) + column(given["4x4/Conv/bias"]))
    x = act(x.reshape(n, -1) @ scaled(given["4x4/Dense0/weight"]) + given["4x4/Dense0/bias"])
    return (x @ scaled(given["4x4/Dense1/weight"], gain=1) + given["4x4/Dense1/bias"])[:, 0]


def scaled(weight: np.ndarray, gain: float = math.sqrt(2)) -> np.ndarray:
    """Equalised learning rate: times gain / sqrt(fan in)."""
    return weight.astype(np.float32).astype(np.float64) * gain / math.sqrt(np.prod(weight.shape[:-1]))


def column(bias: np.ndarray) -> np.ndarray:
    return bias[None, :, None, None]


def act(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.2 * x)


def convolved(x: np.ndarray, weight: np.ndarray, pad: int, stride: int = 1) -> np.ndarray:
    """[n, in, r, r], [kh, kw, in, out] -> [n, out, ...], tap by tap."""
    padded = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    end = x.shape[2] + 2 * pad - len(weight) + 1
    taps = [(i, j) for i in range(len(weight)) for j in range(len(weight))]
    return sum(np.einsum("nchw,co->nohw", padded[:, :, i : i + end : stride, j : j + end : stride], weight[i, j]) for i, j in taps)


def stepped(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A convolution and the mean of 2x2 pixels as one: the kernel, padded and shifted to four places, in steps of two."""
    wide = np.pad(weight, [(1, 1), (1, 1), (0, 0), (0, 0)])
    return convolved(x, (wide[1:, 1:] + wide[:-1, 1:] + wide[1:, :-1] + wide[:-1, :-1]) / 4, 1, stride=2)
