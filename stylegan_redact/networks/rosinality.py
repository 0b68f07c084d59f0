# SPDX-License-Identifier: Apache-2.0
"""StyleGAN2 checkpoints in the layout of rosinality's stylegan2-pytorch <-> networks of ours.

Both are the same network (skip generator, residual discriminator) under other names: no weight is flipped and nothing is computed, so that every
tensor has the same bits on either side. The filters, which that code derives from [1, 3, 3, 1], are made again.

Source: names and shapes as documented by people who used them (stylegan-compat.md, section 9); written from these, not from that code.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from stylegan_redact.networks.stylegan2 import Discriminator, Generator
from stylegan_redact.types import RedactError
from torch_utils.ops import upfirdn2d

Tensors = Mapping[str, torch.Tensor]
PARTS = ("g_ema", "g", "d", "latent_avg")
"""What is read of a checkpoint; it also holds the states of optimisers and the arguments of the training."""
WHAT = "a checkpoint of rosinality's stylegan2-pytorch"
_OF_IMAGES: Mapping[str, Any] = dict(c_dim=0, img_channels=3)
_FILTER = (1, 3, 3, 1)
_LR_MLP = 0.01
"""Learning rate multiplier of the mapping network there; the file does not say it."""
_MBSTD_GROUP = 4
_MOST_BLOCKS = 9
_LATENTS = 10_000
"""To estimate the mean w of, where the file does not have it."""
_VIEWS = {"same": ("", ""), "first": ("1", ""), "bias": ("1", "11"), "noise": ("11", ""), "number": ("1", "")}
"""How theirs differs from ours: so many axes of length 1 before and after it."""
Pair = tuple[str, str, str]
"""Name here, name there, view."""


def generator_pairs(resolution: int, num_layers: int) -> Iterator[Pair]:
    """Every tensor of a generator but the filters and the mean w."""
    for i in range(num_layers):
        yield from ((f"mapping.fc{i}.{part}", f"style.{i + 1}.{part}", "same") for part in ("weight", "bias"))
    yield "synthesis.b4.const", "input.input", "first"
    yield from _synthesis_layer("synthesis.b4.conv1", "conv1", 0)
    yield from _to_rgb("synthesis.b4.torgb", "to_rgb1")
    for k in range(3, resolution.bit_length()):
        block, j = f"synthesis.b{2**k}", k - 3
        yield from _synthesis_layer(f"{block}.conv0", f"convs.{2 * j}", 2 * k - 5)
        yield from _synthesis_layer(f"{block}.conv1", f"convs.{2 * j + 1}", 2 * k - 4)
        yield from _to_rgb(f"{block}.torgb", f"to_rgbs.{j}")


def _synthesis_layer(ours: str, theirs: str, noise: int) -> Iterator[Pair]:
    yield f"{ours}.weight", f"{theirs}.conv.weight", "first"
    yield from ((f"{ours}.affine.{part}", f"{theirs}.conv.modulation.{part}", "same") for part in ("weight", "bias"))
    yield f"{ours}.bias", f"{theirs}.activate.bias", "same"
    yield f"{ours}.noise_strength", f"{theirs}.noise.weight", "number"
    yield f"{ours}.noise_const", f"noises.noise_{noise}", "noise"


def _to_rgb(ours: str, theirs: str) -> Iterator[Pair]:
    yield f"{ours}.weight", f"{theirs}.conv.weight", "first"
    yield from ((f"{ours}.affine.{part}", f"{theirs}.conv.modulation.{part}", "same") for part in ("weight", "bias"))
    yield f"{ours}.bias", f"{theirs}.bias", "bias"


def discriminator_pairs(resolution: int) -> Iterator[Pair]:
    """Every tensor of a discriminator but the filters."""
    yield f"b{resolution}.fromrgb.weight", "convs.0.0.weight", "same"
    yield f"b{resolution}.fromrgb.bias", "convs.0.1.bias", "same"
    for index, k in enumerate(range(resolution.bit_length() - 1, 2, -1), start=1):
        for ours, theirs in (("conv0.weight", "conv1.0.weight"), ("conv0.bias", "conv1.1.bias"), ("conv1.weight", "conv2.1.weight"),
                             ("conv1.bias", "conv2.2.bias"), ("skip.weight", "skip.1.weight")):  # fmt: skip
            yield f"b{2**k}.{ours}", f"convs.{index}.{theirs}", "same"
    yield "b4.conv.weight", "final_conv.0.weight", "same"
    yield "b4.conv.bias", "final_conv.1.bias", "same"
    for ours, theirs in (("fc", "final_linear.0"), ("out", "final_linear.1")):
        yield from ((f"b4.{ours}.{part}", f"{theirs}.{part}", "same") for part in ("weight", "bias"))


def their_filters(class_name: str, resolution: int) -> dict[str, torch.Tensor]:
    """The filters that such a network has in that code, by its names. Those that enlarge have a gain of 4."""
    plain = upfirdn2d.setup_filter(list(_FILTER))
    blocks = range(resolution.bit_length() - 3)
    if class_name == "Generator":
        return {name: plain * 4 for j in blocks for name in (f"convs.{2 * j}.conv.blur.kernel", f"to_rgbs.{j}.upsample.kernel")}
    return {name: plain for j in blocks for name in (f"convs.{j + 1}.conv2.0.kernel", f"convs.{j + 1}.skip.0.kernel")}


def from_checkpoint(checkpoint: Mapping[str, Any]) -> tuple[dict[str, torch.nn.Module], tuple[str, ...]]:
    """G, D and G_ema of ours with the tensors of the checkpoint, and what the user should know of them.

    Args:
        checkpoint: `g_ema`, and where they are there `g`, `d` (state dicts) and `latent_avg`.

    Raises:
        RedactError: no `g_ema`, or state dicts of another network.
    """
    if not _is_state(checkpoint.get("g_ema")):
        there = ascii(", ".join(checkpoint) or "nothing")[1:-1][:200]
        raise RedactError(f"{WHAT} was to be read - it holds {there} and no g_ema - give the .pt that its training or its converter wrote")
    told: list[str] = []
    G_ema = _generator("g_ema", checkpoint["g_ema"])
    average = checkpoint.get("latent_avg")
    if isinstance(average, torch.Tensor) and average.numel() == G_ema.w_dim:
        w_avg = average.detach().float().flatten()
    else:
        z = torch.randn([_LATENTS, G_ema.z_dim], generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            w_avg = G_ema.mapping(z, None)[:, 0].mean(dim=0)
        told.append(f"The checkpoint has no mean w (latent_avg): it was estimated from {_LATENTS} latents")
    if not _is_state(checkpoint.get("g")):
        told.append("The checkpoint has no g: G is a copy of G_ema")
    G = _generator("g", checkpoint["g"]) if _is_state(checkpoint.get("g")) else _generator("g_ema", checkpoint["g_ema"])
    for net in (G, G_ema):
        net.mapping.w_avg.copy_(w_avg)
    if _is_state(checkpoint.get("d")):
        return {"G": G, "D": _discriminator(checkpoint["d"]), "G_ema": G_ema}, tuple(told)
    told.append("The checkpoint has no d: D is all zeros, judges nothing, and only stands there since NVIDIA's tools ask for one")
    with torch.random.fork_rng(devices=[]):
        kwargs = dict(num_fp16_res=0, conv_clamp=None, **_channels(_sizes_of(G_ema)))
        D = Discriminator(**_OF_IMAGES, img_resolution=G_ema.img_resolution, **kwargs).eval().requires_grad_(False)
    for parameter in D.parameters():
        parameter.zero_()
    return {"G": G, "D": D, "G_ema": G_ema}, tuple(told)


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and bool(value) and all(isinstance(tensor, torch.Tensor) for tensor in value.values())


def _generator(part: str, state: Tensors) -> Any:
    blocks, layers = _count(state, r"to_rgbs\.(\d+)\.bias"), max(1, _count(state, r"style\.(\d+)\.weight"))
    resolution = _resolution(part, blocks)
    pairs = list(generator_pairs(resolution, layers))
    _check_names(part, state, pairs, their_filters("Generator", resolution))
    w_dim, z_dim = _shape(part, state, "style.1.weight", [None, None])
    for i in range(1, layers):
        _shape(part, state, f"style.{i + 1}.weight", [w_dim, w_dim])
    layers_at = {4: "conv1"} | {8 << j: f"convs.{2 * j + 1}" for j in range(blocks)}
    channels = {at: _shape(part, state, f"{name}.conv.weight", [1, None, None, 3, 3])[1] for at, name in layers_at.items()}
    for number, at in [(0, 4)] + [(2 * j + extra, 8 << j) for j in range(blocks) for extra in (1, 2)]:
        _shape(part, state, f"noises.noise_{number}", [1, 1, at, at])
    kwargs = dict(mapping_kwargs=dict(num_layers=layers, lr_multiplier=_LR_MLP), num_fp16_res=0, conv_clamp=None, **_channels(channels))
    with torch.random.fork_rng(devices=[]):
        net = Generator(z_dim=z_dim, w_dim=w_dim, **_OF_IMAGES, img_resolution=resolution, **kwargs)
    return _filled(net, part, state, pairs)


def _discriminator(state: Tensors) -> Any:
    blocks = _count(state, r"convs\.(\d+)\.skip\.1\.weight")
    resolution = _resolution("d", blocks)
    pairs = list(discriminator_pairs(resolution))
    _check_names("d", state, pairs, their_filters("Discriminator", resolution))
    channels = {resolution >> j: _shape("d", state, f"convs.{j + 1}.conv1.0.weight", [None, None, 3, 3])[0] for j in range(blocks)}
    channels[4] = _shape("d", state, "final_conv.0.weight", [None, None, 3, 3], more=1)[0]
    kwargs = dict(epilogue_kwargs=dict(mbstd_group_size=_MBSTD_GROUP), num_fp16_res=0, conv_clamp=None, **_channels(channels))
    with torch.random.fork_rng(devices=[]):
        net = Discriminator(**_OF_IMAGES, img_resolution=resolution, **kwargs)
    return _filled(net, "d", state, pairs)


def _resolution(part: str, blocks: int) -> int:
    if not 1 <= blocks <= _MOST_BLOCKS:
        raise RedactError(f"{WHAT} was to be read - its {part} has {blocks} blocks, and known are 1 to {_MOST_BLOCKS} - it is of another network")
    return 4 << blocks


def _shape(part: str, state: Tensors, name: str, wanted: list[int | None], *, more: int = 0) -> list[int]:
    """The shape of a tensor that says how large the network is: as wanted; where that is None twice, as many outputs as inputs less `more`."""
    tensor, shape = state[name], list(state[name].shape)
    fits = len(shape) == len(wanted) and all(want in (None, there) for want, there in zip(wanted, shape, strict=True))
    free = [there for want, there in zip(wanted, shape, strict=False) if want is None]
    square = len(free) < 2 or len(wanted) == 2 or free[1] == free[0] + more
    if not fits or not square or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise RedactError(
            f"{WHAT} was to be read - its {part}.{name} has the shape {shape}, which does not fit the rest - it is a variant of the network"
        )
    return shape


def _count(state: Tensors, pattern: str) -> int:
    return sum(re.fullmatch(pattern, name) is not None for name in state)


def _channels(sizes: Mapping[int, int]) -> dict[str, int]:
    """Arguments with which ours has those channels at those resolutions.

    Raises:
        RedactError: none has.
    """
    largest, widest = max(sizes), max(sizes.values())
    found = {"channel_base": sizes[largest] * largest, "channel_max": widest}
    if any(min(found["channel_base"] // resolution, widest) != channels for resolution, channels in sizes.items()):
        told = ", ".join(f"{channels} at {resolution}" for resolution, channels in sorted(sizes.items()))
        raise RedactError(f"{WHAT} was to be converted - its channels are {told}, here they fall by half or stay - it is a variant of the network")
    return found


def _sizes_of(G: Generator) -> dict[int, int]:
    return {resolution: len(getattr(G.synthesis, f"b{resolution}").conv1.bias) for resolution in G.synthesis.block_resolutions}


def _check_names(part: str, state: Tensors, pairs: list[Pair], filters: Tensors) -> None:
    expected = {theirs for _, theirs, _ in pairs} | set(filters)
    missing, unknown = sorted(expected - set(state)), sorted(set(state) - expected)
    for what, names in (("lacks", missing), ("has unknown", unknown)):
        if names:
            told = ascii(", ".join(names[:3]))[1:-1][:200]
            raise RedactError(
                f"{WHAT} was to be read - its {part} {what} tensors ({told}; {len(names)} in all) - it is of another network or a variant of it"
            )
    odd = [name for name, values in filters.items() if state[name].shape != values.shape or not torch.allclose(state[name], values, atol=1e-6)]
    if odd:
        raise RedactError(f"{WHAT} was to be read - its {part} has another filter than {list(_FILTER)} ({odd[0]}) - it is a variant of the network")


def _filled(net: Any, part: str, state: Tensors, pairs: list[Pair]) -> Any:
    """The network with the tensors of the state; its filters stay as built."""
    own = net.eval().requires_grad_(False).state_dict()
    for ours, theirs, view in pairs:
        before, after = (len(axes) for axes in _VIEWS[view])
        tensor, wanted = state[theirs], own[ours]
        if tuple(tensor.shape) != (1,) * before + tuple(wanted.shape) + (1,) * after or tensor.dtype != wanted.dtype:
            there = f"{tensor.dtype} {list(tensor.shape)}"
            raise RedactError(f"{WHAT} was to be read - its {part}.{theirs} is {there}, which does not fit the rest - it is a variant of the network")
        wanted.copy_(tensor.reshape(wanted.shape))
    return net


def to_checkpoint(G: Any, D: Any, G_ema: Any) -> tuple[dict[str, Any], tuple[str, ...]]:
    """g_ema, g, d and latent_avg as that code loads them, and what the user should know.

    Args:
        G, D, G_ema: Of ours.

    Raises:
        RedactError: a network that has no counterpart there.
    """
    told = ["The checkpoint has no state of optimisers: that code draws from it, and trains on only with optimisers of its own"]
    states = {}
    for key, net in (("g_ema", G_ema), ("g", G), ("d", D)):
        if wrong := list(_differences(key, net)):
            raise RedactError(f"{WHAT} was to be written - {key} has {'; '.join(wrong)}, which it cannot have - write .pkl or .safetensors instead")
        class_name, resolution = ("Discriminator" if key == "d" else "Generator"), net.img_resolution
        pairs = discriminator_pairs(resolution) if key == "d" else generator_pairs(resolution, net.mapping.num_layers)
        own = net.state_dict()
        states[key] = {theirs: _their_view(own[ours], view) for ours, theirs, view in pairs} | their_filters(class_name, resolution)
        clamped = [layer.conv_clamp for layer in net.modules() if getattr(layer, "conv_clamp", None) is not None]
        if clamped:
            told.append(f"{key} clamps its activations at {clamped[0]:g} here and nowhere there: pictures differ where it does")
    return states | {"latent_avg": G_ema.mapping.w_avg.clone()}, tuple(told)


def _their_view(tensor: torch.Tensor, view: str) -> torch.Tensor:
    before, after = (len(axes) for axes in _VIEWS[view])
    return tensor.detach().cpu().clone().reshape((1,) * before + tuple(tensor.shape) + (1,) * after)


def _differences(key: str, net: Any) -> Iterator[str]:
    """What of the network that code does not have."""
    of_images = key == "d"
    if not isinstance(net, Discriminator if of_images else Generator):
        yield f"the class {type(net).__name__} of another architecture"
        return
    if net.c_dim != 0 or net.img_channels != 3:
        yield f"{net.c_dim} labels and {net.img_channels} colours instead of 0 and 3"
    filters = [buffer for name, buffer in net.named_buffers() if name.endswith("resample_filter")]
    if any(buffer.shape != (4, 4) or not torch.allclose(buffer.cpu(), upfirdn2d.setup_filter(list(_FILTER))) for buffer in filters):
        yield f"another filter than {list(_FILTER)}"
    if {layer.activation for layer in net.modules() if hasattr(layer, "activation")} - {"lrelu", "linear"}:
        yield "another activation than lrelu"
    pairs = discriminator_pairs(net.img_resolution) if of_images else generator_pairs(net.img_resolution, net.mapping.num_layers)
    if {ours for ours, _, _ in pairs} != {name for name in net.state_dict() if not name.endswith(("resample_filter", "w_avg"))}:
        yield "other layers (another architecture, labels or no noise)"
        return
    yield from _differences_in_depth(net) if of_images else _differences_in_mapping(net)


def _differences_in_depth(D: Any) -> Iterator[str]:
    if (D.b4.mbstd.group_size, D.b4.mbstd.num_channels) != (_MBSTD_GROUP, 1):
        yield f"other minibatch statistics than one channel of groups of {_MBSTD_GROUP}"
    blocks = {resolution: getattr(D, f"b{resolution}").conv0 for resolution in D.block_resolutions}
    yield from _other_channels({resolution: len(layer.bias) for resolution, layer in blocks.items()} | {4: len(D.b4.conv.bias)})


def _differences_in_mapping(G: Any) -> Iterator[str]:
    if G.z_dim != G.w_dim or {layer.out_features for layer in G.mapping.children()} != {G.w_dim}:
        yield f"z of {G.z_dim} and w of {G.w_dim} numbers, or a mapping network of yet another width"
    if any(not math.isclose(layer.bias_gain, _LR_MLP) for layer in G.mapping.children()):
        yield f"a mapping network with another learning rate than {_LR_MLP}"
    yield from _other_channels(_sizes_of(G))


def _other_channels(channels: Mapping[int, int]) -> Iterator[str]:
    if all(channels != {r: 512 if r <= 32 else 16384 * multiplier // r for r in channels} for multiplier in (1, 2)):
        told = ", ".join(f"{number} at {r}" for r, number in sorted(channels.items()))
        yield f"channels {told} (there: 512 up to 32 pixels, then half at each step)"
