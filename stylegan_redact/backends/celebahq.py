# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's attribute classifiers of CelebA-HQ, one file each, read without TensorFlow.

The network is the discriminator of Progressive GAN (Karras et al. 2018, table 2; layers of equalised learning rate, section 4.1) as StyleGAN
(Karras et al. 2019, appendix C) trains it to tell attributes, perhaps with the blur before each step down that StyleGAN added. The shapes of the
variables say the rest; written from these papers and from the variables' names (stylegan-compat.md, section 7.4), not from that code.

No real file could be had where this was written: it is tested on files of the same layout.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from stylegan_redact import names
from stylegan_redact.backends import picture
from stylegan_redact.pickle_classifier import SingleNetwork
from stylegan_redact.types import RedactError

BASE_URL = "https://nvlabs-fi-cdn.nvidia.com/stylegan/networks/metrics/"
FILES = tuple(
    """male smiling attractive wavy-hair young 5-o-clock-shadow arched-eyebrows bags-under-eyes bald bangs
    big-lips big-nose black-hair blond-hair blurry brown-hair bushy-eyebrows chubby double-chin eyeglasses
    goatee gray-hair heavy-makeup high-cheekbones mouth-slightly-open mustache narrow-eyes no-beard oval-face pale-skin
    pointy-nose receding-hairline rosy-cheeks sideburns straight-hair wearing-earrings wearing-hat wearing-lipstick wearing-necklace
    wearing-necktie""".split()
)
"""In NVIDIA's order, which is not CelebA's."""
SHA256: Mapping[str, str] = {}
"""File name -> hash, of those that are known. None is: nobody here has had the files."""
_SLOPE = 0.2
_OUTER = ((1.0, 2.0, 1.0), (2.0, 4.0, 2.0), (1.0, 2.0, 1.0))
_ALONE = 1e-4
"""Standard deviation in a minibatch of one picture: sqrt(0 + 1e-8)."""
_FILE = re.compile(r"celebahq-classifier-(\d\d)-([a-z0-9-]+)\.pkl")


def file_name(attribute: str) -> str:
    """Of the classifier of a CelebA attribute: no_beard -> celebahq-classifier-27-no-beard.pkl."""
    slug = attribute.replace("_", "-")
    return f"celebahq-classifier-{FILES.index(slug):02d}-{slug}.pkl"


def attribute_of(name: str) -> str | None:
    """The CelebA attribute that a file of this name tells, or None if it is not named like NVIDIA's."""
    found = _FILE.search(name)
    return found[2].replace("-", "_") if found and found[2] in FILES and FILES.index(found[2]) == int(found[1]) else None


class AttributeClassifier(torch.nn.Module):
    """img [n, 1 or 3, H, W] in [-1, 1] -> [n, 1], the log of the odds that the attribute shows, times `sign`."""

    def __init__(self, network: SingleNetwork, sign: float) -> None:
        """
        Args:
            network: As read.
            sign:    1, or -1 for the absence.

        Raises:
            RedactError: it is not such a network.
        """
        super().__init__()
        _check_arguments(network.static_kwargs)
        variables = dict(network.variables)
        if np.any(variables.pop("lod", np.zeros([]))):
            raise _foreign("it was stored in the middle of its training (lod)")
        self.sign, self.blurs = sign, _blurs(network)
        self.resolution = max((int(found[1]) for name in variables if (found := re.match(r"(\d+)x\1/", name))), default=0)
        if self.resolution < 8 or self.resolution > 4096 or self.resolution & (self.resolution - 1):
            raise _foreign(f"its layers are of {self.resolution} pixels at most")
        self._take("rgb", "FromRGB_lod0", variables)
        for resolution in self._resolutions():
            self._take(f"first{resolution}", f"{resolution}x{resolution}/Conv0", variables)
            self._take(f"second{resolution}", f"{resolution}x{resolution}/Conv1_down", variables)
        self._take("last", "4x4/Conv", variables)
        self._take("dense", "4x4/Dense0", variables)
        self._take("out", "4x4/Dense1", variables, gain=1.0)
        unknown = sorted(name for name in variables if not re.match(r"FromRGB_lod[1-9]\d?/(weight|bias)$", name))
        if unknown:
            raise _foreign(f"it has {ascii(', '.join(unknown[:5]))[1:-1][:200]} besides")
        self._check_shapes()

    def _resolutions(self) -> list[int]:
        return [2**k for k in range(self.resolution.bit_length() - 1, 2, -1)]

    def _take(self, ours: str, theirs: str, variables: dict[str, np.ndarray], gain: float = math.sqrt(2)) -> None:
        """A layer's variables become buffers: [kh, kw, in, out] => [out, in, kh, kw] and [in, out] => [out, in], times gain / sqrt(fan in)."""
        weight, bias = variables.pop(f"{theirs}/weight", None), variables.pop(f"{theirs}/bias", None)
        dimensions = 2 if "Dense" in theirs else 4
        if weight is None or bias is None or weight.ndim != dimensions or bias.shape != weight.shape[-1:] or 0 in weight.shape:
            raise _foreign(f"its layer {theirs} is missing or misshapen")
        scaled = torch.from_numpy(weight.astype(np.float32)) * (gain / math.sqrt(math.prod(weight.shape[:-1])))
        self.register_buffer(f"{ours}_weight", scaled.permute(3, 2, 0, 1).contiguous() if dimensions == 4 else scaled.t().contiguous())
        self.register_buffer(f"{ours}_bias", torch.from_numpy(bias.astype(np.float32)))

    def _check_shapes(self) -> None:
        """Raises RedactError if one layer does not take what the one before gives."""
        channels, size = 3, 1
        for name in ("rgb", *(f"{half}{resolution}" for resolution in self._resolutions() for half in ("first", "second"))):
            weight, _ = self._layer(name)
            if weight.shape[1:] != (channels, size, size):
                raise _foreign(f"its layer {name} takes {list(weight.shape[1:])}, and gets {[channels, size, size]}")
            channels, size = weight.shape[0], 3
        # One channel more: how much the pictures of a minibatch differ.
        ends = [tuple(self._layer(name)[0].shape) for name in ("last", "dense", "out")]
        self.spread = ends[0][1] == channels + 1
        wide, hidden = ends[0][0], ends[1][0]
        if ends != [(wide, channels + self.spread, 3, 3), (hidden, 16 * wide), (1, hidden)]:
            raise _foreign(f"its last layers are {ends}")

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        x = picture.resized(picture.as_rgb(img.to(self.get_buffer("out_bias").dtype)), self.resolution, self.resolution)
        x = functional.leaky_relu(functional.conv2d(x, *self._layer("rgb")), _SLOPE)
        for resolution in self._resolutions():
            x = functional.leaky_relu(self._convolved(x, f"first{resolution}"), _SLOPE)
            if self.blurs:
                kernel = x.new_tensor(_OUTER).expand(x.shape[1], 1, 3, 3) / 16
                x = functional.conv2d(x, kernel, padding=1, groups=x.shape[1])
            x = functional.leaky_relu(functional.avg_pool2d(self._convolved(x, f"second{resolution}"), 2), _SLOPE)
        if self.spread:  # Of each picture alone: no answer depends on the neighbours.
            x = torch.cat([x, x.new_full([len(x), 1, 4, 4], _ALONE)], dim=1)
        x = functional.leaky_relu(self._convolved(x, "last"), _SLOPE).flatten(1)
        x = functional.leaky_relu(functional.linear(x, *self._layer("dense")), _SLOPE)
        # NVIDIA takes softmax([logit, -logit]), and its second entry, sigmoid(-2 logit), is that of pictures that show the attribute.
        found: torch.Tensor = functional.linear(x, *self._layer("out")) * (-2 * self.sign)
        return found

    def _convolved(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.conv2d(x, *self._layer(name), padding=1)

    def _layer(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        return self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_bias")


def build(network: SingleNetwork, word: str) -> AttributeClassifier:
    """The classifier as a detector's network: above 0 where what the word means shows."""
    return AttributeClassifier(network, names.recipe(word).sign).eval().requires_grad_(False)


def _blurs(network: SingleNetwork) -> bool:
    """Whether [1, 2, 1] goes before each step down: as the file was told, else by default of the source in it; ProGAN's knows no blur."""
    if "blur_filter" in network.static_kwargs:
        told = network.static_kwargs["blur_filter"]
    else:
        found = re.search(r"\bblur_filter\s*=\s*(\[[\d\s,.]*\]|None)", network.source)
        told = None if found is None or found[1] == "None" else [float(tap) for tap in found[1].strip("[]").split(",") if tap.strip()]
    if told not in (None, [], [1, 2, 1], (1, 2, 1)):
        raise _foreign(f"its blur filter is {ascii(told)[:100]}")
    return bool(told)


def _check_arguments(static_kwargs: Mapping[str, Any]) -> None:
    expected: dict[str, tuple[Any, ...]] = {"nonlinearity": ("lrelu",), "use_wscale": (True,), "mbstd_num_features": (1,), "label_size": (0,)}
    for name, values in expected.items():
        if static_kwargs.get(name, values[0]) not in values:
            raise _foreign(f"it was built with {name}={ascii(static_kwargs[name])[:80]}")


def _foreign(there: str) -> RedactError:
    return RedactError(
        f"a classifier of CelebA-HQ as NVIDIA's was to be read - {there} - give one of their files, celebahq-classifier-NN-ATTRIBUTE.pkl"
    )
