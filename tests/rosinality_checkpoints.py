# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in the layout of rosinality's stylegan2-pytorch with random weights, and that code's arithmetic written out slowly, in float64.

Names, shapes and formulas are those of stylegan-compat.md, section 9; `channels` maps a resolution to its number of channels.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

State = dict[str, torch.Tensor]
KERNEL = torch.outer(torch.tensor([1.0, 3.0, 3.0, 1.0]), torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64
SMALL = {4: 8, 8: 8, 16: 4}
"""Fewer channels than that code makes, for speed."""
REAL = {4: 512, 8: 512}
"""What it makes at 8 pixels."""


def generator_state(channels: dict[int, int], style_dim: int = 6, n_mlp: int = 3, seed: int = 0) -> State:
    random = torch.Generator().manual_seed(seed)
    state: State = {}

    def add(name: str, *shape: int, scale: float = 1.0, mean: float = 0.0) -> None:
        state[name] = torch.randn(*shape, generator=random) * scale + mean

    def modulated(name: str, inputs: int, outputs: int, kernel: int) -> None:
        add(f"{name}.conv.weight", 1, outputs, inputs, kernel, kernel)
        add(f"{name}.conv.modulation.weight", inputs, style_dim)
        add(f"{name}.conv.modulation.bias", inputs, scale=0.1, mean=1.0)

    def styled(name: str, inputs: int, outputs: int) -> None:
        modulated(name, inputs, outputs, 3)
        add(f"{name}.noise.weight", 1, scale=0.1)
        add(f"{name}.activate.bias", outputs, scale=0.1)

    def to_rgb(name: str, inputs: int) -> None:
        modulated(name, inputs, 3, 1)
        add(f"{name}.bias", 1, 3, 1, 1, scale=0.1)

    for layer in range(1, n_mlp + 1):
        add(f"style.{layer}.weight", style_dim, style_dim, scale=100)
        add(f"style.{layer}.bias", style_dim, scale=10)
    add("input.input", 1, channels[4], 4, 4)
    styled("conv1", channels[4], channels[4])
    to_rgb("to_rgb1", channels[4])
    add("noises.noise_0", 1, 1, 4, 4)
    sizes = sorted(channels)
    for j, (before, size) in enumerate(zip(sizes, sizes[1:], strict=False)):
        styled(f"convs.{2 * j}", channels[before], channels[size])
        styled(f"convs.{2 * j + 1}", channels[size], channels[size])
        to_rgb(f"to_rgbs.{j}", channels[size])
        state |= {f"convs.{2 * j}.conv.blur.kernel": KERNEL * 4, f"to_rgbs.{j}.upsample.kernel": KERNEL * 4}
        for number in (2 * j + 1, 2 * j + 2):
            add(f"noises.noise_{number}", 1, 1, size, size)
    return state


def discriminator_state(channels: dict[int, int], seed: int = 1) -> State:
    random = torch.Generator().manual_seed(seed)
    state: State = {}

    def add(name: str, *shape: int, scale: float = 1.0) -> None:
        state[name] = torch.randn(*shape, generator=random) * scale

    sizes = sorted(channels, reverse=True)
    add("convs.0.0.weight", channels[sizes[0]], 3, 1, 1)
    add("convs.0.1.bias", channels[sizes[0]], scale=0.1)
    for number, (size, smaller) in enumerate(zip(sizes, sizes[1:], strict=False), start=1):
        inputs, outputs = channels[size], channels[smaller]
        add(f"convs.{number}.conv1.0.weight", inputs, inputs, 3, 3)
        add(f"convs.{number}.conv1.1.bias", inputs, scale=0.1)
        add(f"convs.{number}.conv2.1.weight", outputs, inputs, 3, 3)
        add(f"convs.{number}.conv2.2.bias", outputs, scale=0.1)
        add(f"convs.{number}.skip.1.weight", outputs, inputs, 1, 1)
        state |= {f"convs.{number}.conv2.0.kernel": KERNEL, f"convs.{number}.skip.0.kernel": KERNEL}
    add("final_conv.0.weight", channels[4], channels[4] + 1, 3, 3)
    add("final_conv.1.bias", channels[4], scale=0.1)
    add("final_linear.0.weight", channels[4], channels[4] * 16)
    add("final_linear.0.bias", channels[4], scale=0.1)
    add("final_linear.1.weight", 1, channels[4])
    add("final_linear.1.bias", 1, scale=0.1)
    return state


def checkpoint(channels: dict[int, int], **replaced: Any) -> dict[str, Any]:
    """As its training writes it; None takes a part away."""
    parts: dict[str, Any] = {
        "g": generator_state(channels, seed=5),
        "d": discriminator_state(channels),
        "g_ema": generator_state(channels),
        "g_optim": {"state": {0: {"step": 3, "exp_avg": torch.ones(4)}}, "param_groups": [{"lr": 0.002, "betas": (0, 0.99), "params": [0]}]},
        "d_optim": {"state": {}, "param_groups": []},
        "args": argparse.Namespace(size=16, arch="stylegan2", ckpt=None, path="/home/someone/faces", channel_multiplier=2),
        "ada_aug_p": 0.25,
        "latent_avg": torch.linspace(-1, 1, 6),
    } | replaced
    return {name: part for name, part in parts.items() if part is not None}


def write(path: Path, parts: dict[str, Any], *, legacy: bool = False) -> Path:
    torch.save(parts, path, _use_new_zipfile_serialization=not legacy)
    return path


def lrelu(x: torch.Tensor) -> torch.Tensor:
    return functional.leaky_relu(x, 0.2) * math.sqrt(2)


def linear(state: State, name: str, x: torch.Tensor, lr: float = 1.0) -> torch.Tensor:
    weight, bias = state[f"{name}.weight"].double(), state[f"{name}.bias"].double()
    return x @ (weight * lr / math.sqrt(weight.shape[1])).T + bias * lr


def blurred(x: torch.Tensor, kernel: torch.Tensor, before: int, after: int) -> torch.Tensor:
    padded = functional.pad(x, (before, after, before, after))
    return torch.stack([functional.conv2d(channel[:, None], kernel.double().flip(0, 1)[None, None])[:, 0] for channel in padded.unbind(1)], 1)


def spread_out(x: torch.Tensor) -> torch.Tensor:
    """A zero after every pixel, in both directions."""
    out = x.new_zeros([*x.shape[:2], x.shape[2] * 2, x.shape[3] * 2])
    out[:, :, ::2, ::2] = x
    return out


def modulated_conv(state: State, name: str, x: torch.Tensor, w: torch.Tensor, *, up: bool = False, demodulate: bool = True) -> torch.Tensor:
    base = state[f"{name}.weight"].double()[0]  # [O, I, k, k]
    styles = linear(state, f"{name}.modulation", w)  # [n, I]
    results = []
    for image, style in zip(x, styles, strict=True):
        weight = base / math.sqrt(base[0].numel()) * style[None, :, None, None]
        if demodulate:
            weight = weight / (weight.square().sum([1, 2, 3], keepdim=True) + 1e-8).sqrt()
        if up:  # Each pixel puts its multiple of the kernel down, two apart.
            grown = functional.conv_transpose2d(image[None], weight.transpose(0, 1), stride=2)
            results.append(blurred(grown, state[f"{name}.blur.kernel"], 1, 1))
        else:
            results.append(functional.conv2d(image[None], weight, padding=base.shape[-1] // 2))
    return torch.cat(results)


def styled_conv(state: State, name: str, noise: int, x: torch.Tensor, w: torch.Tensor, *, up: bool = False) -> torch.Tensor:
    x = modulated_conv(state, f"{name}.conv", x, w, up=up)
    x = x + state[f"{name}.noise.weight"].double() * state[f"noises.noise_{noise}"].double()
    return lrelu(x + state[f"{name}.activate.bias"].double()[None, :, None, None])


def rgb(state: State, name: str, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return modulated_conv(state, f"{name}.conv", x, w, demodulate=False) + state[f"{name}.bias"].double()


def mapping(state: State, z: torch.Tensor) -> torch.Tensor:
    x = z.double()
    x = x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()
    for layer in range(1, sum(name.startswith("style.") for name in state) // 2 + 1):
        x = lrelu(linear(state, f"style.{layer}", x, 0.01))
    return x


def draw(state: State, ws: torch.Tensor) -> torch.Tensor:
    """ws [n, rows, style_dim] -> img [n, 3, r, r] with the stored noise."""
    ws = ws.double()
    x = state["input.input"].double().expand(len(ws), -1, -1, -1)
    x = styled_conv(state, "conv1", 0, x, ws[:, 0])
    img = rgb(state, "to_rgb1", x, ws[:, 1])
    for j in range(sum(name.endswith("upsample.kernel") for name in state)):
        x = styled_conv(state, f"convs.{2 * j}", 2 * j + 1, x, ws[:, 2 * j + 1], up=True)
        x = styled_conv(state, f"convs.{2 * j + 1}", 2 * j + 2, x, ws[:, 2 * j + 2])
        img = blurred(spread_out(img), state[f"to_rgbs.{j}.upsample.kernel"], 2, 1) + rgb(state, f"to_rgbs.{j}", x, ws[:, 2 * j + 3])
    return img


def judge(state: State, img: torch.Tensor) -> torch.Tensor:
    """img [4 n, 3, r, r] -> [4 n, 1]: the logits of batches of four, whose statistics are taken together."""

    def conv(name: str, bias: str, x: torch.Tensor, kernel: str = "", pad: int = 0) -> torch.Tensor:
        weight = state[f"{name}.weight"].double()
        weight = weight / math.sqrt(weight[0].numel())
        x = blurred(x, state[f"{kernel}.kernel"], pad, pad) if kernel else x
        x = functional.conv2d(x, weight, stride=2 if kernel else 1, padding=0 if kernel else weight.shape[-1] // 2)
        return lrelu(x + state[f"{bias}.bias"].double()[None, :, None, None]) if bias else x

    x = conv("convs.0.0", "convs.0.1", img.double())
    for number in range(1, sum(name.endswith("skip.1.weight") for name in state) + 1):
        name = f"convs.{number}"
        y = conv(f"{name}.conv1.0", f"{name}.conv1.1", x)
        y = conv(f"{name}.conv2.1", f"{name}.conv2.2", y, f"{name}.conv2.0", 2)
        x = (y + conv(f"{name}.skip.1", "", x, f"{name}.skip.0", 1)) / math.sqrt(2)
    groups = len(x) // 4  # Image i is in group i modulo the number of groups.
    spread = torch.stack([(x[g::groups].var(0, unbiased=False) + 1e-8).sqrt().mean() for g in range(groups)])
    x = torch.cat([x, spread.repeat(4)[:, None, None, None].expand(-1, 1, 4, 4)], 1)
    x = conv("final_conv.0", "final_conv.1", x)
    return linear(state, "final_linear.1", lrelu(linear(state, "final_linear.0", x.flatten(1))))
