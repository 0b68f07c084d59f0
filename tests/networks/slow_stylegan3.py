# SPDX-License-Identifier: Apache-2.0
"""StyleGAN3's synthesis by its definition, in float64 from a bare state dict: every filter a sum, every sample's waves one by one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

State = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Rates:
    """Of one layer, or of the input."""

    size: int
    rate: float
    cutoff: float


def plan(resolution: int, *, layers: int, critical: int = 2, margin: int = 10) -> list[Rates]:
    """The progression of cutoffs of the paper's section 4, with its constants."""
    found = []
    for index in range(layers + 1):
        share = min(index / (layers - critical), 1)
        cutoff = math.exp(math.log(2) * (1 - share) + math.log(resolution / 2) * share)
        stopband = math.exp(math.log(2**2.1) * (1 - share) + math.log(resolution / 2 * 2**0.3) * share)
        rate = 1
        while rate < min(2 * stopband, resolution) - 1e-9:
            rate *= 2
        found.append(Rates(resolution if index >= layers - 1 else rate + 2 * margin, rate, cutoff))
    return found


def affine(state: State, name: str, w: torch.Tensor) -> torch.Tensor:
    return w @ state[f"{name}.weight"].T / math.sqrt(w.shape[1]) + state[f"{name}.bias"]


def waves(state: State, w: torch.Tensor, spec: Rates) -> torch.Tensor:
    """The input features [n, C, size, size]."""
    weight, images = state["synthesis.input.weight"], []
    places = (torch.arange(spec.size, dtype=torch.float64) - (spec.size - 1) / 2) / spec.rate
    for pose in affine(state, "synthesis.input.affine", w):
        c, s, x, y = pose / torch.hypot(pose[0], pose[1])
        turned = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)
        turned = turned @ torch.tensor([[1, 0, -x], [0, 1, -y], [0, 0, 1]], dtype=torch.float64) @ state["synthesis.input.transform"]
        channels = []
        for freq, phase in zip(state["synthesis.input.freqs"], state["synthesis.input.phases"], strict=True):
            fx, fy = (freq @ turned[:2, :2]).tolist()
            amplitude = 1 - (math.hypot(fx, fy) - spec.cutoff) / (spec.rate / 2 - spec.cutoff)
            angle = places[None, :] * fx + places[:, None] * fy + phase + freq @ turned[:2, 2]
            channels.append(torch.sin(2 * math.pi * angle) * min(max(amplitude, 0), 1))
        images.append(torch.einsum("oi,ihw->ohw", weight / math.sqrt(len(weight)), torch.stack(channels)))
    return torch.stack(images)


def convolved(x: torch.Tensor, weight: torch.Tensor, styles: torch.Tensor, demodulate: bool) -> torch.Tensor:
    images = []
    for image, style in zip(x, styles, strict=True):
        effective = weight * style[:, None, None]
        if demodulate:  # Normalising weights and styles before has no effect on this.
            effective = effective / (effective.square().sum([1, 2, 3], keepdim=True)).sqrt()
        images.append(F.conv2d(image[None], effective, padding=weight.shape[2] - 1)[0])
    return torch.stack(images)


def resampled(x: torch.Tensor, taps: torch.Tensor | None, up: int, down: int, pads: list[int]) -> torch.Tensor:
    n, c, h, w = x.shape
    zeros = x.new_zeros([n, c, h * up, w * up])
    zeros[:, :, ::up, ::up] = x
    x = F.pad(zeros, pads)
    if taps is not None:
        full = torch.outer(taps, taps) if taps.ndim == 1 else taps
        x = F.conv2d(x, full.flip([0, 1]).expand(c, 1, *full.shape), groups=c)
    return x[:, :, ::down, ::down]


def synthesis(
    state: State, ws: torch.Tensor, resolution: int, *, layers: int, lrelu_upsampling: int = 2, clamp: float = 256, **options: Any
) -> torch.Tensor:
    specs = plan(resolution, layers=layers, **options)
    x = waves(state, ws[:, 0], specs[0])
    for index, (before, spec) in enumerate(zip([specs[0], *specs], specs, strict=False)):
        name = next(key.rpartition(".")[0] for key in state if key.startswith(f"synthesis.L{index}_") and key.endswith(".magnitude_ema"))
        last = index == layers
        weight, styles = state[f"{name}.weight"], affine(state, f"{name}.affine", ws[:, index + 1])
        styles = styles / math.sqrt(weight[0].numel()) if last else styles
        x = convolved(x, weight, styles, not last) / state[f"{name}.magnitude_ema"].sqrt() + state[f"{name}.bias"][:, None, None]
        rate = max(before.rate, spec.rate) * (1 if last else lrelu_upsampling)
        up, down = int(rate / before.rate), int(rate / spec.rate)
        fu, fd = state.get(f"{name}.up_filter"), state.get(f"{name}.down_filter")
        # Both images are centred on the same point: what is too much is shared out on both sides, the odd sample at the end.
        spare = (spec.size - 1) * down + 1 + sum(0 if f is None else len(f) - 1 for f in (fu, fd)) - x.shape[3] * up
        pads = [(spare + up) // 2, spare - (spare + up) // 2] * 2
        x = resampled(x, fu, up, 1, pads) * up**2
        x = x if last else F.leaky_relu(x, 0.2) * math.sqrt(2)
        x = resampled(x.clamp(-clamp, clamp), fd, 1, down, [0, 0, 0, 0])
    return x * 0.25
