# SPDX-License-Identifier: Apache-2.0
"""StyleGAN2 by its definition, in float64 from a bare state dict: every resampling is zero insertion, padding, filtering and picking."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F

State = Mapping[str, torch.Tensor]
FILTER = torch.tensor([1.0, 3, 3, 1], dtype=torch.float64)
ROOT_HALF = math.sqrt(0.5)


def lrelu(x: torch.Tensor, gain: float = 1) -> torch.Tensor:
    return F.leaky_relu(x, 0.2) * math.sqrt(2) * gain


def clamped(x: torch.Tensor, clamp: float | None, gain: float = 1) -> torch.Tensor:
    return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)


def blurred(x: torch.Tensor) -> torch.Tensor:
    taps = torch.outer(FILTER, FILTER) / FILTER.sum() ** 2
    return F.conv2d(x, taps.expand(x.shape[1], 1, 4, 4), groups=x.shape[1])


def up(x: torch.Tensor, margin: int = 0) -> torch.Tensor:
    y = x.new_zeros([*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3]])
    y[:, :, ::2, ::2] = x
    return blurred(F.pad(y, [2 + margin, 1 + margin] * 2)) * 4


def down(x: torch.Tensor) -> torch.Tensor:
    return blurred(x)[:, :, ::2, ::2]


def dense(state: State, name: str, x: torch.Tensor, lr: float = 1) -> torch.Tensor:
    weight = state[f"{name}.weight"]
    return x @ weight.T * lr / math.sqrt(weight.shape[1]) + state[f"{name}.bias"] * lr


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


def mapping(state: State, z: torch.Tensor | None, c: torch.Tensor | None, *, layers: int, lr: float = 0.01) -> torch.Tensor:
    parts = [unit(part) for part in (z, None if c is None else dense(state, "mapping.embed", c)) if part is not None]
    x = torch.cat(parts, dim=1)
    for i in range(layers):
        x = lrelu(dense(state, f"mapping.fc{i}", x, lr))
    return x


def style_layer(state: State, name: str, x: torch.Tensor, w: torch.Tensor, noise_mode: str, clamp: float | None, gain: float = 1) -> torch.Tensor:
    styles = dense(state, f"{name}.affine", w)
    images = []
    for image, style in zip(x, styles, strict=True):
        weight = state[f"{name}.weight"] * style[None, :, None, None]
        weight = weight / (weight.square().sum(dim=[1, 2, 3], keepdim=True) + 1e-8).sqrt()
        if name.endswith("conv0"):
            images.append(F.conv2d(up(image[None], margin=1), weight.flip([2, 3])))
        else:
            images.append(F.conv2d(image[None], weight, padding=1))
    y = torch.cat(images)
    if noise_mode == "const":
        y = y + state[f"{name}.noise_const"] * state[f"{name}.noise_strength"]
    return clamped(lrelu(y + state[f"{name}.bias"][None, :, None, None], gain), clamp, gain)


def to_rgb(state: State, name: str, x: torch.Tensor, w: torch.Tensor, clamp: float | None) -> torch.Tensor:
    styles = dense(state, f"{name}.affine", w) / math.sqrt(x.shape[1])
    y = torch.einsum("ncij,nc,oc->noij", x, styles, state[f"{name}.weight"][:, :, 0, 0])
    return clamped(y + state[f"{name}.bias"][None, :, None, None], clamp)


def synthesis(state: State, ws: torch.Tensor, resolution: int, architecture: str, *, noise_mode: str = "const", clamp: float | None) -> torch.Tensor:
    x = state["synthesis.b4.const"].expand(len(ws), -1, -1, -1)
    x = style_layer(state, "synthesis.b4.conv1", x, ws[:, 0], noise_mode, clamp)
    img = to_rgb(state, "synthesis.b4.torgb", x, ws[:, 1], clamp) if architecture == "skip" else None
    for k in range(3, int(math.log2(resolution)) + 1):
        block = f"synthesis.b{2**k}"
        y = style_layer(state, f"{block}.conv0", x, ws[:, 2 * k - 5], noise_mode, clamp)
        y = style_layer(state, f"{block}.conv1", y, ws[:, 2 * k - 4], noise_mode, clamp, ROOT_HALF if architecture == "resnet" else 1)
        if architecture == "resnet":
            weight = state[f"{block}.skip.weight"] / math.sqrt(x.shape[1])
            y = y + F.conv2d(up(x), weight) * ROOT_HALF
        x = y
        img = None if img is None else up(img)
        if architecture == "skip" or 2**k == resolution:
            y = to_rgb(state, f"{block}.torgb", x, ws[:, 2 * k - 3], clamp)
            img = y if img is None else img + y
    assert img is not None
    return img


def conv(state: State, name: str, x: torch.Tensor, clamp: float | None, gain: float = 1) -> torch.Tensor:
    weight = state[f"{name}.weight"]
    weight = weight / math.sqrt(weight[0].numel())
    halves = name.endswith(("conv1", "skip"))
    y = F.conv2d(x, weight, padding=weight.shape[2] // 2 + (1 if halves else 0))
    y = down(y) if halves else y
    if name.endswith("skip"):
        return y * gain
    return clamped(lrelu(y + state[f"{name}.bias"][None, :, None, None], gain), clamp, gain)


def minibatch_std(x: torch.Tensor, group: int | None, channels: int) -> torch.Tensor:
    """Samples i, i + N/G, i + 2 N/G, ... form a group."""
    n, c = x.shape[:2]
    size = n if group is None else min(group, n)
    groups, per = n // size, c // channels
    added = x.new_zeros([n, channels, *x.shape[2:]])
    for i in range(n):
        members = x[i % groups :: groups]
        for f in range(channels):
            part = members[:, f * per : (f + 1) * per]
            added[i, f] = (part.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
    return torch.cat([x, added], dim=1)


def discriminator(
    state: State, img: torch.Tensor, c: torch.Tensor | None, architecture: str, *, clamp: float | None, layers: int = 8
) -> torch.Tensor:
    x = None
    for k in range(int(math.log2(img.shape[2])), 2, -1):
        block = f"b{2**k}"
        if x is None or architecture == "skip":
            y = conv(state, f"{block}.fromrgb", img, clamp)
            x = y if x is None else x + y
            img = down(F.pad(img, [1] * 4))
        y = conv(state, f"{block}.conv0", x, clamp)
        y = conv(state, f"{block}.conv1", y, clamp, ROOT_HALF if architecture == "resnet" else 1)
        x = y + conv(state, f"{block}.skip", x, None, ROOT_HALF) if architecture == "resnet" else y
    assert x is not None
    if architecture == "skip":
        x = x + conv(state, "b4.fromrgb", img, None)
    y = conv(state, "b4.conv", minibatch_std(x, 4, 1), clamp)
    y = dense(state, "b4.out", lrelu(dense(state, "b4.fc", y.flatten(1))))
    if c is None:
        return y
    return (y * mapping(state, None, c, layers=layers)).sum(1, keepdim=True) / math.sqrt(y.shape[1])
