# SPDX-License-Identifier: Apache-2.0
"""A ResNet-50 that tells the 40 attributes of CelebA, from the state dict of one.

The network is that of He et al. 2016 (table 1), the step down in the 3x3 convolution of a block, with the names of its layers that torchvision made
common. Its last layer gives 40 logits, or 80: for each attribute one for its absence and one for its presence, as in the attribute predictor of
anycost-gan (Lin et al. 2021), whose file holds such a state dict. Pictures are clamped to [-1, 1] and 256 pixels large.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from stylegan_redact import names
from stylegan_redact.backends import picture
from stylegan_redact.types import RedactError

SIZE = 256
_NUM = len(names.ATTRIBUTES)
BLOCKS = (3, 4, 6, 3)
_COUNTER = "num_batches_tracked"
"""Of batch normalisation: of no use here, and older files have none."""
_WIDER = 4
"""Channels that a block gives, by channels inside it."""


class Bottleneck(torch.nn.Module):
    """[n, inputs, H, W] -> [n, 4 inside, H / stride, W / stride]."""

    def __init__(self, inputs: int, inside: int, stride: int) -> None:
        super().__init__()
        outputs = _WIDER * inside
        self.conv1, self.bn1 = torch.nn.Conv2d(inputs, inside, 1, bias=False), torch.nn.BatchNorm2d(inside)
        self.conv2, self.bn2 = torch.nn.Conv2d(inside, inside, 3, stride, padding=1, bias=False), torch.nn.BatchNorm2d(inside)
        self.conv3, self.bn3 = torch.nn.Conv2d(inside, outputs, 1, bias=False), torch.nn.BatchNorm2d(outputs)
        if stride > 1 or inputs != outputs:
            self.downsample: Any = torch.nn.Sequential(torch.nn.Conv2d(inputs, outputs, 1, stride, bias=False), torch.nn.BatchNorm2d(outputs))
        else:
            self.downsample = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        return functional.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet50(torch.nn.Module):
    """[n, 3, H, W] -> [n, outputs]; `width` is that of the first layer, 64 in the paper."""

    def __init__(self, outputs: int, width: int = 64) -> None:
        super().__init__()
        self.conv1, self.bn1 = torch.nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False), torch.nn.BatchNorm2d(width)
        channels = width
        for stage, blocks in enumerate(BLOCKS):
            inside, layers = width * 2**stage, []
            for block in range(blocks):
                layers.append(Bottleneck(channels, inside, stride=2 if stage > 0 and block == 0 else 1))
                channels = _WIDER * inside
            self.add_module(f"layer{stage + 1}", torch.nn.Sequential(*layers))
        self.fc = torch.nn.Linear(channels, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        for stage in range(len(BLOCKS)):
            x = self.get_submodule(f"layer{stage + 1}")(x)
        found: torch.Tensor = self.fc(x.mean([2, 3]))
        return found


class AttributePredictor(torch.nn.Module):
    """img [n, 1 or 3, H, W] in [-1, 1] -> [n, 40] logits in CelebA's order, those at `inverted` of the absence."""

    def __init__(self, net: ResNet50, inverted: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.net = net
        signs = torch.ones(_NUM)
        signs[list(inverted)] = -1
        self.register_buffer("signs", signs)

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        out = self.net(picture.resized(picture.as_rgb(img.float().clamp(-1, 1)), SIZE, SIZE))
        if out.shape[1] == 2 * _NUM:
            out = out.reshape(len(out), -1, 2)  # [n, 40, absent or present]
            out = out[:, :, 1] - out[:, :, 0]
        found: torch.Tensor = out * self.signs
        return found


def load(path: Path, feature: str) -> tuple[AttributePredictor, tuple[str, ...]]:
    """The predictor, and the names of its 40 columns: that of the attribute that the feature means is the feature.

    Args:
        path:    What torch.save wrote: a state dict, alone or under the key "state_dict".
        feature: A CelebA attribute, or a word for one.

    Raises:
        RedactError: the file holds something else, or CelebA has no such attribute.
    """
    asked = f"a ResNet-50 that knows the attributes of CelebA was expected in {path}"
    state = _state(path, asked)
    first, last = state.get("conv1.weight"), state.get("fc.weight")
    if first is None or last is None or first.ndim != 4 or last.ndim != 2 or len(last) not in (_NUM, 2 * _NUM):
        there = "it has no conv1 and fc" if first is None or last is None else f"its fc.weight is {list(last.shape)}"
        raise RedactError(f"{asked} - {there} - its last layer has 40 outputs, or two for each attribute; export others as TorchScript")
    recipe = names.recipe(feature)
    with torch.device("meta"):  # No memory before the shapes are known to be those of the file.
        net = ResNet50(len(last), len(first))
    state = {name: tensor for name, tensor in state.items() if not name.endswith(_COUNTER)}
    got = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    counters = {name: torch.zeros([], dtype=torch.long) for name in wanted if name.endswith(_COUNTER)}
    differing = sorted(name for name in (got.keys() | wanted.keys()) - counters.keys() if got.get(name) != wanted.get(name))
    if differing:
        name = differing[0]
        told = f"{ascii(name)[1:-1][:80]} is {got.get(name, 'missing')}, of a ResNet-50 it is {wanted.get(name, 'unknown')}"
        raise RedactError(f"{asked} - {told}, and so on in {len(differing)} places - export the network as TorchScript instead")
    net.load_state_dict({name: tensor.float() for name, tensor in state.items()} | counters, assign=True)
    columns = tuple(feature if name == recipe.attribute else name for name in names.ATTRIBUTES)
    return AttributePredictor(net, () if recipe.present else (recipe.index,)).eval(), columns


def _state(path: Path, asked: str) -> Mapping[str, torch.Tensor]:
    """The state dict, without what wrappers put before its names."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Old files warn of their storages.
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch.load raises whatever it stumbles over
        reason = (
            "it holds more than tensors" if isinstance(error, pickle.UnpicklingError) else ascii(str(error).strip().partition("\n")[0])[1:-1][:120]
        )
        raise RedactError(
            f"{asked} - it cannot be read as tensors alone ({reason}) - save its state_dict with torch.save, or any network with torch.jit.save"
        ) from None
    inner = found.get("state_dict", found) if isinstance(found, dict) else None
    if not isinstance(inner, dict) or not inner or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in inner.items()):
        raise RedactError(f"{asked} - the file holds no state dict - save one with torch.save(net.state_dict(), path)")
    return {name.removeprefix("module."): tensor for name, tensor in inner.items()}
