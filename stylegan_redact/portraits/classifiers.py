# SPDX-License-Identifier: Apache-2.0
"""The bundled attribute classifiers: three architectures, one to steer a redaction, one to judge it, one to see whether another judge agrees.

`DetectorNet` is a plain strided convolutional network; `JudgeNet` mixes patches with large depthwise kernels (in the manner of ConvMixer)
and reads pooled features; `SecondJudgeNet` has residual blocks at full resolution of its patches and looks for the strongest response anywhere in
each sixteenth of the image. They share no weights, were trained on different drawings and saw different augmentations (`train_classifiers.py`).
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from stylegan_redact.types import RedactError


class DetectorNet(nn.Sequential):
    """[n, 3, 64, 64] in [-1, 1] -> logits [n, num_attributes]."""

    def __init__(self, num_attributes: int) -> None:
        layers: list[nn.Module] = []
        widths = [3, 24, 32, 64, 96]
        for c_in, c_out in zip(widths, widths[1:], strict=False):  # 64 => 4 pixels
            layers += [nn.Conv2d(c_in, c_out, 4, stride=2, padding=1), nn.GroupNorm(4, c_out), nn.LeakyReLU(0.1)]
        super().__init__(*layers, nn.Flatten(), nn.Linear(96 * 16, 96), nn.LeakyReLU(0.1), nn.Linear(96, num_attributes))


class MixerBlock(nn.Module):
    """Depthwise 7x7 for space, then two 1x1 for channels, each around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.space = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.GroupNorm(1, width)
        self.channels = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.GELU(), nn.Conv2d(2 * width, width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + torch.nn.functional.gelu(self.space(x))
        return x + self.channels(self.norm(x))


class JudgeNet(nn.Sequential):
    """[n, 3, 64, 64] in [-1, 1] -> logits [n, num_attributes]."""

    def __init__(self, num_attributes: int, width: int = 32) -> None:
        patches = [nn.Conv2d(3, width, 6, stride=4, padding=1), nn.GELU()]  # 64 => 16 pixels
        head = [nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.1), nn.Linear(width * 64, num_attributes)]
        super().__init__(*patches, *(MixerBlock(width) for _ in range(2)), *head)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = (nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))
        self.body = nn.Sequential(*half, nn.GroupNorm(4, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class SecondJudgeNet(nn.Sequential):
    """[n, 3, 64, 64] in [-1, 1] -> logits [n, num_attributes]."""

    def __init__(self, num_attributes: int, width: int = 40) -> None:
        stem = [nn.PixelUnshuffle(4), nn.Conv2d(48, width, 3, padding=1)]  # 64 => 16 pixels
        head = [nn.SiLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Dropout(0.1), nn.Linear(width * 16, num_attributes)]
        super().__init__(*stem, *(ResidualBlock(width) for _ in range(3)), *head)


ARCHITECTURES: dict[str, type[DetectorNet] | type[JudgeNet] | type[SecondJudgeNet]] = {
    "DetectorNet": DetectorNet,
    "JudgeNet": JudgeNet,
    "SecondJudgeNet": SecondJudgeNet,
}


def save_classifier(net: nn.Module, attributes: tuple[str, ...], path: Path) -> None:
    """A safetensors file with the architecture's and the attributes' names in its metadata."""
    metadata = dict(architecture=type(net).__name__, attributes=json.dumps(attributes))
    save_file({name: tensor.contiguous() for name, tensor in net.state_dict().items()}, path, metadata=metadata)


def load_classifier(path: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """What `save_classifier` wrote: the network in eval mode without gradients, and the names of its logits."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("architecture") not in ARCHITECTURES:
            raise RedactError(f"a bundled classifier was expected in {path} - its architecture is {metadata.get('architecture')!r} - reinstall")
        attributes = tuple(json.loads(metadata["attributes"]))
        net = ARCHITECTURES[metadata["architecture"]](len(attributes))
        net.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
    return net.eval().requires_grad_(False), attributes
