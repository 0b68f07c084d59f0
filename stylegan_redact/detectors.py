# SPDX-License-Identifier: Apache-2.0
"""Classifiers as detectors: the bundled ones, and any TorchScript file that maps images to one logit each."""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from stylegan_redact.portraits import classifiers
from stylegan_redact.types import Detector, RedactError

PORTRAITS = Path(__file__).parent / "portraits"
BUNDLED_ROLES = ("detector", "judge", "second_judge")


@dataclass(frozen=True)
class Classifier:
    """A detector made of a network that maps img [n, C, H, W] in [-1, 1] to logits [n, len(attributes)]."""

    net: torch.nn.Module
    attributes: tuple[str, ...]
    differentiable: bool = True

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        out = self.net(img)
        return out.reshape(len(img), -1).float()


def load_bundled(role: str, device: torch.device | str = "cpu") -> Classifier:
    """A classifier of the bundled portrait network: the "detector" that steers, the "judge" that measures, or the "second_judge"."""
    if role not in BUNDLED_ROLES:
        raise RedactError(f"a bundled classifier in the role {role!r} was asked - there are {', '.join(BUNDLED_ROLES)} - choose one")
    net, attributes = classifiers.load_classifier(PORTRAITS / f"{role}.safetensors")
    return Classifier(net.to(device), attributes)


def load_torchscript(path: str | os.PathLike[str], feature: str, img_shape: tuple[int, int, int], device: torch.device | str = "cpu") -> Classifier:
    """A TorchScript file as a detector of one feature.

    Args:
        path:      What `torch.jit.save` wrote: img [n, C, H, W] float32 in [-1, 1] -> [n] or [n, 1] logits, > 0: the feature shows.
        feature:   What its logit says.
        img_shape: (C, H, W) of the network's images; the file is tried on two of them.
        device:    Where it goes.

    Raises:
        RedactError: no such file, not TorchScript, does not take such images, or gives something else than one finite logit each.
    """
    asked = f"a TorchScript classifier was expected in {os.fspath(path)}"
    if not Path(path).is_file():
        raise RedactError(f"{asked} - there is no such file - give the path of a file that torch.jit.save wrote")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
            warnings.filterwarnings("ignore", message=".*torch.jit.*", category=FutureWarning)
            net = torch.jit.load(path, map_location=device).eval()
    except (RuntimeError, ValueError, OSError, EOFError):
        raise RedactError(f"{asked} - the file is of another kind - write it with torch.jit.save(torch.jit.script(model), path)") from None
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    probe = torch.linspace(-1, 1, 2 * img_shape[0] * img_shape[1] * img_shape[2], device=device).reshape(2, *img_shape).requires_grad_(True)
    try:
        logit = net(probe)
    except Exception as error:  # noqa: BLE001 - TorchScript raises whatever the user's code raises
        reason = str(error).strip().splitlines()[-1][:200]
        raise RedactError(
            f"{asked} - it does not take images of shape [n, {', '.join(map(str, img_shape))}]: {reason} - train it on such images"
        ) from None
    if not isinstance(logit, torch.Tensor) or logit.numel() != 2 or not bool(torch.isfinite(logit).all()):
        got = f"shape {list(logit.shape)}" if isinstance(logit, torch.Tensor) else type(logit).__name__
        raise RedactError(f"{asked} - two images gave {got} - it must give one finite logit for each image, [n] or [n, 1]")
    return Classifier(net, (feature,), differentiable=logit.requires_grad)


def column(detector: Detector, feature: str) -> int:
    """Index of the feature among the detector's logits; RedactError lists what there is."""
    if feature not in detector.attributes:
        raise RedactError(f"feature {feature!r} was asked - the detector knows {', '.join(detector.attributes)} - choose one of these")
    return detector.attributes.index(feature)
