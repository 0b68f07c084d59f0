# SPDX-License-Identifier: Apache-2.0
"""Images -> features that distances between sets of images are measured in: the network's own discriminator, NVIDIA's Inception, or any other.

Numbers of different extractors say different things. So each figure carries the name of its extractor, and only NVIDIA's Inception gives a FID.
"""

from __future__ import annotations

import importlib
import os
import re
import urllib.parse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch

from stylegan_redact.downloads import download, refuse_offline
from stylegan_redact.networks.stylegan2 import Discriminator
from stylegan_redact.types import Network, RedactError

INCEPTION = "nvidia:inception"
"""Name of NVIDIA's Inception: its figures are called fid, kid, precision and recall. No file's name can be this, for the colon."""
DISCRIMINATOR = "D"
TORCH_FIDELITY = "torch-fidelity:"
_INCEPTION_WIDTH = 2048


@runtime_checkable
class FeatureExtractor(Protocol):
    """Describes images one by one."""

    @property
    def name(self) -> str:
        """Of the figures measured with it: fd-NAME; INCEPTION stands for the usual names."""
        ...

    def features(self, img: torch.Tensor) -> torch.Tensor:
        """[n, C, H, W] in [-1, 1] -> [n, d] float32 without gradient; no image's features depend on the others."""
        ...


class DiscriminatorFeatures:
    """What a StyleGAN's own discriminator sees: needs no download, and tells what this network's training images told it.

    The features are the input of its last linear layer as it is for an image judged alone. Alone means: the spread within a minibatch, which the
    discriminator also looks at, is that of one image, so an image's features do not depend on its neighbours. Labels enter behind this layer: a
    conditional discriminator needs none here.
    """

    name = DISCRIMINATOR

    def __init__(self, D: Any) -> None:
        """Takes the discriminator of a Network as it is; it is not changed.

        Raises:
            RedactError: None, or a discriminator that is none of ours.
        """
        if not isinstance(D, Discriminator):
            there = "the file has none that is known here" if D is None else f"it is a {type(D).__name__} that is not known here"
            raise RedactError(f"features of the network's discriminator were asked - {there} - give another extractor, such as NVIDIA's Inception")
        self._D: Any = D

    def features(self, img: torch.Tensor) -> torch.Tensor:
        """[n, C, res, res] in [-1, 1] -> [n, channels of its 4x4 layers]."""
        with torch.no_grad():
            return self.describe(img)

    def describe(self, img: torch.Tensor) -> torch.Tensor:
        """As `features`, with the gradient by the images."""
        D, x = self._D, None
        img = img.float()
        for resolution in D.block_resolutions:
            x, img = getattr(D, f"b{resolution}")(x, img, force_fp32=True)
        assert x is not None  # There is a block above 4x4.
        end = D.b4
        x = x.float()
        if end.architecture == "skip":
            x = x + end.fromrgb(img.float())
        if end.mbstd is not None:
            x = torch.cat([end.mbstd(one) for one in x.split(1)])
        features: torch.Tensor = end.fc(end.conv(x).flatten(1))
        return features


def describe_by(D: Any) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """The discriminator's features, differentiable; None if it is not known here."""
    return DiscriminatorFeatures(D).describe if isinstance(D, Discriminator) else None


class TorchScript:
    """A TorchScript file, by one of two conventions.

    NVIDIA's, where its forward has an argument `return_features`: img uint8 [n, 3, H, W] -> [n, d]. Else: img float32 [n, C, H, W] in [-1, 1] ->
    [n, d].
    """

    def __init__(self, path: str | os.PathLike[str], img_shape: tuple[int, int, int], device: torch.device | str = "cpu", *, name: str = "") -> None:
        """Loads the file and tries it on two images.

        Args:
            path:      What torch.jit.save wrote.
            img_shape: (C, H, W) of the network's images.
            device:    Where it goes.
            name:      Of its figures; empty: the file's name without its ending.

        Raises:
            RedactError: no such file, not TorchScript, or it does not take such images or give finite features of each.
        """
        self.name = _name_of(name or Path(path).stem)
        asked = f"a TorchScript feature extractor was expected in {os.fspath(path)}"
        self._net: Any = _load_torchscript(Path(path), asked, device)
        self.takes_uint8 = any(argument.name == "return_features" for argument in self._net.forward.schema.arguments)
        self.width = _tried(self.features, img_shape, device, asked)

    def features(self, img: torch.Tensor) -> torch.Tensor:
        """[n, C, H, W] in [-1, 1] -> [n, d] float32."""
        with torch.no_grad():
            found: torch.Tensor = self._net(to_uint8(img), return_features=True) if self.takes_uint8 else self._net(img.float())
        return found.float()


class Inception(TorchScript):
    """NVIDIA's Inception as TorchScript, `inception-2015-12-05.pt` of stylegan2-ada-pytorch: figures compare with those of their metrics at one n."""

    def __init__(self, path: str | os.PathLike[str], img_shape: tuple[int, int, int] = (3, 64, 64), device: torch.device | str = "cpu") -> None:
        """As TorchScript.

        Raises:
            RedactError: as there, or the file's forward has no argument return_features, or gives something else than 2048 numbers.
        """
        super().__init__(path, img_shape, device)
        self.name = INCEPTION
        if not self.takes_uint8 or self.width != _INCEPTION_WIDTH:
            there = f"its forward {'takes' if self.takes_uint8 else 'has no argument'} return_features and gives {self.width} numbers of an image"
            raise RedactError(
                f"NVIDIA's Inception was expected in {os.fspath(path)} - {there} - give inception-2015-12-05.pt, or this file as what it is"
            )


class TorchFidelity:
    """An extractor of the package torch-fidelity, by its name there, with the layer that the package takes for its FID."""

    def __init__(self, extractor: str, device: torch.device | str = "cpu") -> None:
        """Builds it; the package downloads its weights, once.

        Raises:
            RedactError: the package is not installed, or has no such extractor.
        """
        asked = f"the extractor {TORCH_FIDELITY}{extractor} was asked"
        refuse_offline(asked, "give an extractor as a file")
        try:
            registry = importlib.import_module("torch_fidelity.registry").FEATURE_EXTRACTORS_REGISTRY
        except ImportError as error:
            missing = f"{error.name.partition('.')[0]} is not installed" if error.name else str(error)
            raise RedactError(f"{asked} - {missing} - pip install 'stylegan-redact[metrics]'") from None
        if extractor not in registry:
            raise RedactError(f"{asked} - torch-fidelity has {', '.join(sorted(registry)) or 'none'} - choose one of these")
        layer = registry[extractor].get_default_feature_layer_for_metric("fid")
        try:
            net = registry[extractor](extractor, [layer])
        except OSError as error:  # urllib's errors of a download are such.
            raise RedactError(f"{asked} - its weights cannot be had ({error}) - check the connection, or give an extractor as a file") from error
        self._net: Any = net.eval().requires_grad_(False).to(device)
        self.name = _name_of(extractor)

    def features(self, img: torch.Tensor) -> torch.Tensor:
        """[n, C, H, W] in [-1, 1] -> [n, d] float32."""
        with torch.no_grad():
            found: torch.Tensor = self._net(to_uint8(img))[0]
        return found.float().flatten(1)


def load_extractor(text: str, network: Network, device: torch.device | str = "cpu") -> FeatureExtractor:
    """The extractor that a user names.

    Args:
        text:    "D": the network's own discriminator. "torch-fidelity:NAME". Else the path or https URL of a TorchScript file; one of NVIDIA's
                 convention that gives 2048 numbers counts as their Inception.
        network: Whose images will be looked at.
        device:  Where it goes; the discriminator stays where it is.

    Raises:
        RedactError: there is no such thing, or it does not take the network's images.
    """
    if text == DISCRIMINATOR:
        return DiscriminatorFeatures(network.D)
    if text.startswith(TORCH_FIDELITY):
        return TorchFidelity(text.removeprefix(TORCH_FIDELITY), device)
    path, stem = Path(text), ""
    if "://" in text:
        path, stem = download(text, "extractor"), Path(urllib.parse.unquote(urllib.parse.urlparse(text).path)).stem
    G = network.G_ema
    img_shape = (G.img_channels, G.img_resolution, G.img_resolution)
    found = TorchScript(path, img_shape, device, name=stem)
    if found.takes_uint8 and found.width == _INCEPTION_WIDTH:
        found.name = INCEPTION
    return found


def to_uint8(img: torch.Tensor) -> torch.Tensor:
    """img [n, 1 or 3, H, W] in [-1, 1] -> uint8 [n, 3, H, W], as NVIDIA's tools write it into files; one channel becomes three."""
    levels = (img.float() * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    return levels.expand(-1, 3, -1, -1) if levels.shape[1] == 1 else levels


def _name_of(text: str) -> str:
    """A name for figures; one that would pass for the discriminator's is refused."""
    name = re.sub(r"[^0-9A-Za-z._-]", "_", text)
    if name == DISCRIMINATOR:
        raise RedactError(f"an extractor in a file named {name} was asked - its figures would pass for the discriminator's - rename the file")
    return name


def _load_torchscript(path: Path, asked: str, device: torch.device | str) -> Any:
    if path.suffix == ".pkl":
        raise RedactError(
            f"{asked} - a pickle, such as NVIDIA's Inception for stylegan3, would have to be run to be read - give inception-2015-12-05.pt of "
            "stylegan2-ada-pytorch, which is the same network as TorchScript"
        )
    if not os.path.isfile(path):
        raise RedactError(f"{asked} - there is no such file - give the path of what torch.jit.save wrote, or D for the discriminator")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
            warnings.filterwarnings("ignore", message=".*torch.jit.*", category=FutureWarning)
            return torch.jit.load(path, map_location=device).eval()
    except (RuntimeError, ValueError, OSError, EOFError):
        raise RedactError(f"{asked} - the file is of another kind - write it with torch.jit.save(torch.jit.script(model), path)") from None


def _tried(features: Callable[[torch.Tensor], torch.Tensor], img_shape: tuple[int, int, int], device: torch.device | str, asked: str) -> int:
    """How many numbers it gives of an image, found by trying two."""
    told = f"images of shape [n, {', '.join(map(str, img_shape))}]"
    probe = torch.linspace(-1, 1, 2 * img_shape[0] * img_shape[1] * img_shape[2], device=device).reshape(2, *img_shape)
    try:
        found = features(probe)
    except Exception as error:  # noqa: BLE001 - TorchScript raises whatever the user's code raises
        reason = str(error).strip().splitlines()[-1][:200]
        raise RedactError(f"{asked} - it does not take {told}: {reason} - train it on such images") from None
    if not isinstance(found, torch.Tensor) or found.ndim != 2 or len(found) != 2 or found.shape[1] < 1 or not bool(torch.isfinite(found).all()):
        got = f"shape {list(found.shape)}" if isinstance(found, torch.Tensor) else type(found).__name__
        raise RedactError(f"{asked} - two {told} gave {got} - it must give finite numbers of each image, [n, d]")
    return found.shape[1]
