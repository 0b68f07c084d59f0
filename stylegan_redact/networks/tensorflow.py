# SPDX-License-Identifier: Apache-2.0
"""Networks of StyleGAN2 and StyleGAN2-ADA for TensorFlow -> the same networks in PyTorch. Takes plain values; TensorFlow is not needed.

Both descend from one paper and differ in how they are written down: convolutions are stored as [kh, kw, in, out] instead of [out, in, kh,
kw], matrices as [in, out], kernels that enlarge an image the other way round, and the bias of a style without the 1 that it starts from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from stylegan_redact.networks import build, fit, stylegan2
from stylegan_redact.types import RedactError, UntrustedFile

Arguments = Mapping[str, tuple[str, Any]]

_COMMON: Arguments = {
    "label_size": ("c_dim", 0),
    "resolution": ("img_resolution", 1024),
    "num_channels": ("img_channels", 3),
    "fmap_base": ("channel_base", 16384),
    "fmap_max": ("channel_max", 512),
    "num_fp16_res": ("num_fp16_res", 0),
    "conv_clamp": ("conv_clamp", None),
}
ARGUMENTS: Mapping[str, Arguments] = {
    "Generator": {
        **_COMMON,
        "latent_size": ("z_dim", 512),
        "dlatent_size": ("w_dim", 512),
        "architecture": ("architecture", "skip"),
        "resample_kernel": ("resample_filter", [1, 3, 3, 1]),
        "use_noise": ("use_noise", True),
        "nonlinearity": ("activation", "lrelu"),
        "mapping_layers": ("mapping_kwargs.num_layers", 8),
        "label_fmaps": ("mapping_kwargs.embed_features", None),
        "mapping_fmaps": ("mapping_kwargs.layer_features", None),
        "mapping_nonlinearity": ("mapping_kwargs.activation", "lrelu"),
        "mapping_lrmul": ("mapping_kwargs.lr_multiplier", 0.01),
        "w_avg_beta": ("mapping_kwargs.w_avg_beta", 0.995),
    },
    "Discriminator": {
        **_COMMON,
        "architecture": ("architecture", "resnet"),
        "nonlinearity": ("block_kwargs.activation", "lrelu"),
        "resample_kernel": ("block_kwargs.resample_filter", [1, 3, 3, 1]),
        "freeze_layers": ("block_kwargs.freeze_layers", 0),
        "mapping_fmaps": ("cmap_dim", None),
        "mapping_layers": ("mapping_kwargs.num_layers", 0),
        "mapping_lrmul": ("mapping_kwargs.lr_multiplier", 0.1),
        "mbstd_group_size": ("epilogue_kwargs.mbstd_group_size", None),
        "mbstd_num_features": ("epilogue_kwargs.mbstd_num_channels", 1),
    },
}
"""TensorFlow's name -> our argument, and the value where the pickle does not say (stylegan-compat.md 4.1)."""
IGNORED = frozenset("truncation_psi truncation_cutoff style_mixing_prob structure conditioning fused_modconv".split())
"""How to sample, train or compute; the network is the same."""
HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "fmap_min": (1,),
    "fmap_decay": (1.0,),
    "normalize_latents": (True,),
    "dtype": ("float32",),
    "mapping_func": ("G_mapping",),
    "synthesis_func": ("G_synthesis", "G_synthesis_stylegan2"),
    "use_spectral_norm": (False,),
    "score_max": (1,),
}
"""What must be so, since ours is so."""

_NAMES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "Generator": (
        (r"dlatent_avg", r"mapping.w_avg"),
        (r"mapping/LabelEmbed/(\w+)", r"mapping.embed.\1"),
        (r"mapping/Dense(\d+)/(\w+)", r"mapping.fc\1.\2"),
        (r"synthesis/4x4/Const/const", r"synthesis.b4.const"),
        (r"synthesis/4x4/Conv/([\w.]+)", r"synthesis.b4.conv1.\1"),
        (r"synthesis/(\d+)x\1/Conv0_up/([\w.]+)", r"synthesis.b\1.conv0.\2"),
        (r"synthesis/(\d+)x\1/Conv1/([\w.]+)", r"synthesis.b\1.conv1.\2"),
        (r"synthesis/(\d+)x\1/ToRGB/([\w.]+)", r"synthesis.b\1.torgb.\2"),
        (r"synthesis/(\d+)x\1/Skip/(\w+)", r"synthesis.b\1.skip.\2"),
    ),
    "Discriminator": (
        (r"LabelEmbed/(\w+)", r"mapping.embed.\1"),
        (r"Mapping(\d+)/(\w+)", r"mapping.fc\1.\2"),
        (r"(\d+)x\1/FromRGB/(\w+)", r"b\1.fromrgb.\2"),
        (r"(\d+)x\1/Conv0/(\w+)", r"b\1.conv0.\2"),
        (r"(\d+)x\1/Conv1_down/(\w+)", r"b\1.conv1.\2"),
        (r"(\d+)x\1/Skip/(\w+)", r"b\1.skip.\2"),
        (r"4x4/Conv/(\w+)", r"b4.conv.\1"),
        (r"4x4/Dense0/(\w+)", r"b4.fc.\1"),
        (r"Output/(\w+)", r"b4.out.\1"),
    ),
}
"""TensorFlow's path -> our name (stylegan-compat.md 4.2), but for the noise."""
_ENLARGING = re.compile(r"synthesis/\d+x\d+/(Conv0_up|Skip)/weight")
_LONGEST_FILTER = 64
_MOST_EXPANDED = 64
"""Times what the file holds that a network may have by its arguments; the honest ratio is below ten."""


def build_network(class_name: str, static_kwargs: Mapping[str, Any], variables: Mapping[str, np.ndarray]) -> torch.nn.Module:
    """A network of ours with the variables of TensorFlow's, in eval mode, without gradients, on the CPU.

    Args:
        class_name:    "Generator" or "Discriminator".
        static_kwargs: What the pickle says that the network was built with.
        variables:     By path, those of components with `mapping/` and `synthesis/` before their own.

    Raises:
        RedactError: built with something that has no counterpart, or the variables are not those of such a network.
    """
    if "mapping/LabelConcat/weight" in variables:
        raise RedactError(
            "a TensorFlow pickle was to be converted - it is a conditional StyleGAN2, which joins label and latent before normalising them, where "
            "StyleGAN2-ADA and all that came later do so after - train a conditional network with one of these"
        )
    kwargs = constructor_arguments(class_name, static_kwargs, variables)
    tensors = {}
    for path, values in variables.items():
        if path.rpartition("/")[2] == "lod":  # Counts progressive growing, which StyleGAN2 has given up.
            continue
        name = tensor_name(class_name, path)
        if name is None:
            raise RedactError(
                f"the {class_name} of a TensorFlow pickle was to be converted - StyleGAN2 has nothing like its variable {ascii(path)[:100]} - "
                "configurations A to D of StyleGAN2 and other variants are not supported, take config E or F"
            )
        tensors[name] = tensor_of(path, values)
    try:
        with torch.random.fork_rng(devices=[]):
            net = getattr(stylegan2, class_name)(**kwargs)
    except fit.MISFITS as error:
        raise RedactError(
            f"the {class_name} of a TensorFlow pickle was to be converted - what it was built with does not fit ours ({error}) - is it a fork's?"
        ) from None
    tensors |= {name: tensor for name, tensor in net.state_dict().items() if name.endswith("resample_filter")}
    build.check_tensors(class_name, net.state_dict(), tensors)
    net.load_state_dict(tensors)
    return net.eval().requires_grad_(False)


def constructor_arguments(class_name: str, static_kwargs: Mapping[str, Any], variables: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Keyword arguments for our class of that name, all of them spelt out.

    Raises:
        RedactError: some have no counterpart, or are out of all proportion to the variables.
    """
    arguments, given = ARGUMENTS[class_name], dict(static_kwargs)
    if class_name == "Generator" and "dlatent_avg_beta" in given:  # StyleGAN2's word for it.
        given.setdefault("w_avg_beta", given.pop("dlatent_avg_beta"))
    fine = {name for name, value in given.items() if any(value == ours for ours in HARMLESS.get(name, ()))}
    unknown = sorted(given.keys() - arguments.keys() - IGNORED - fine)
    if unknown:
        told = ascii(", ".join(f"{name}={given[name]!r}"[:80] for name in unknown[:5]))[1:-1]
        raise RedactError(
            f"the {class_name} of a TensorFlow pickle was to be converted - it was built with {told}, which has no counterpart in PyTorch - "
            "it is a variant that is not supported"
        )
    kwargs: dict[str, Any] = {}
    for name, (place, default) in arguments.items():
        group, _, argument = place.rpartition(".")
        (kwargs.setdefault(group, {}) if group else kwargs)[argument] = given.get(name, default)
    _check_proportions(class_name, kwargs, variables)
    kwargs["channel_base"] *= 2  # At r pixels TensorFlow has 2 * fmap_base / r channels.
    mapping = kwargs["mapping_kwargs"]
    if class_name == "Discriminator":
        activation = kwargs["block_kwargs"]["activation"]
        mapping |= {"embed_features": kwargs["cmap_dim"], "layer_features": kwargs["cmap_dim"], "activation": activation}
        kwargs["epilogue_kwargs"]["activation"] = activation
        return kwargs
    mapping["w_avg_beta"] = 1 if mapping["w_avg_beta"] is None else mapping["w_avg_beta"]
    if mapping["layer_features"] is None and variables.get("mapping/Dense0/bias") is not None:
        mapping["layer_features"] = int(variables["mapping/Dense0/bias"].size)  # Unsaid, it is w_dim or 512, depending on the version.
    return kwargs


def _check_proportions(class_name: str, kwargs: Mapping[str, Any], variables: Mapping[str, np.ndarray]) -> None:
    """Raises RedactError where a small file declares a network that would fill the memory."""
    mapping, taps = kwargs["mapping_kwargs"], (kwargs.get("block_kwargs") or kwargs)["resample_filter"]
    sizes = [kwargs[name] for name in ("c_dim", "img_resolution", "img_channels", "channel_base", "channel_max")] + [mapping["num_layers"]]
    wide = [size for size in (kwargs.get("z_dim"), kwargs.get("w_dim"), kwargs.get("cmap_dim"), *mapping.values()) if type(size) is int]
    plain = all(type(size) is int and 0 <= size < 1 << 24 for size in sizes + wide) and isinstance(taps, (list, tuple))
    if (
        not plain
        or len(taps) > _LONGEST_FILTER
        or mapping["num_layers"] > len(variables)
        or _declared(class_name, sizes, wide) > (_MOST_EXPANDED * sum(values.size for values in variables.values()) + (1 << 20))
    ):
        raise UntrustedFile(
            f"the {class_name} of a TensorFlow pickle was to be converted - what it was built with does not fit its variables: it is damaged or "
            "hostile - get it again, from a source that you trust"
        )


def _declared(class_name: str, sizes: list[int], wide: list[int]) -> int:
    """At most how many numbers a network of these arguments has."""
    c_dim, resolution, img_channels, channel_base, channel_max, num_layers = sizes
    channels, widest = min(channel_base // 2, channel_max), max([0, *wide])
    convolutions = resolution.bit_length() * channels * (18 * channels + 2 * img_channels + 3 * widest) + 16 * channels**2
    dense = num_layers * (2 * widest) ** 2 + c_dim * max(widest, channels)
    return convolutions + dense + (2 * resolution**2 if class_name == "Generator" else 0)


def tensor_name(class_name: str, path: str) -> str | None:
    """What our state dict calls the variable, or would call it; None for those that no StyleGAN2 has."""
    if class_name == "Generator" and (found := re.fullmatch(r"synthesis/noise(\d{1,2})", path)):
        number = int(found[1])  # 0 at 4 pixels; then 2k - 5 for the first and 2k - 4 for the second layer at 2^k pixels.
        return f"synthesis.b{2 ** ((number + 5) // 2) if number else 4}.conv{0 if number % 2 else 1}.noise_const"
    for pattern, template in _NAMES[class_name]:
        if found := re.fullmatch(pattern, path.replace("/mod_", "/affine.")):
            return found.expand(template)
    return None


def tensor_of(path: str, values: np.ndarray) -> torch.Tensor:
    """The variable in the form that ours has: float32, in memory of its own."""
    part = path.rpartition("/")[2]
    if part == "weight" and values.ndim == 4:
        values = values[::-1, ::-1] if _ENLARGING.fullmatch(path) else values
        values = values.transpose(3, 2, 0, 1)  # [kh, kw, in, out] => [out, in, kh, kw]
    elif part.endswith("weight"):
        values = values.T  # [in, out] => [out, in]
    elif part.startswith("noise") and values.ndim == 4 and values.shape[:2] == (1, 1):
        values = values[0, 0]  # [1, 1, r, r] => [r, r]
    elif part == "const" and values.shape[:1] == (1,):
        values = values[0]  # [1, channels, 4, 4] => [channels, 4, 4]
    tensor = torch.from_numpy(np.array(values, np.float32, order="C"))
    return tensor + 1 if part == "mod_bias" else tensor
