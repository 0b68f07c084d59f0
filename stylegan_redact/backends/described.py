# SPDX-License-Identifier: Apache-2.0
"""TorchScript and torch.export files, with a JSON file beside them that says what pictures they take and what their outputs mean."""

from __future__ import annotations

import json
import logging
import math
import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from stylegan_redact import detectors
from stylegan_redact.backends import picture
from stylegan_redact.types import RedactError

OUTPUTS = ("logits", "probabilities")
_CLOSEST = 1e-6
"""Probabilities are kept this far from 0 and 1, which have no logit."""


@dataclass(frozen=True)
class Description:
    """What stands in the JSON file; each of it may be left out. The defaults are what a file without a description does."""

    names: tuple[str, ...] = ()
    """Of the outputs, one by one. Else:"""
    index: int | None = None
    """The output that tells the feature."""
    against: int | None = None
    """The output that tells its absence, of a network that ends in a softmax over both."""
    sign: tuple[float, ...] = (1.0,)
    """-1: a high output says that the feature is absent. One, or one for each name."""
    threshold: tuple[float, ...] = (0.0,)
    """From which on the feature shows, in units of the output; of probabilities 0.5 if it is not said. One, or one for each name."""
    output: str = "logits"
    """Of OUTPUTS."""
    size: tuple[int, int] | None = None
    """Height and width of the pictures that it takes."""
    mean: tuple[float, ...] = ()
    """Taken off pictures in [0, 1] before they are divided by `std`; without both they stay in [-1, 1]."""
    std: tuple[float, ...] = ()


class Described(torch.nn.Module):
    """img [n, C, H, W] in [-1, 1] -> logits [n, a], by a network that takes and gives what the description says."""

    def __init__(self, net: torch.nn.Module, description: Description) -> None:
        super().__init__()
        self.net, self.description = net, description
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(description, name), dtype=torch.float32).reshape(1, -1, 1, 1))
        cut = torch.tensor(description.threshold, dtype=torch.float32)
        self.register_buffer("threshold", torch.logit(cut) if description.output == "probabilities" else cut)
        self.register_buffer("sign", torch.tensor(description.sign, dtype=torch.float32))

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        told = self.description
        if told.size is not None:
            img = picture.resized(img, *told.size)
        if told.mean:
            img = (picture.as_rgb(img) if len(told.mean) == 3 else img).mul(0.5).add(0.5).sub(self.get_buffer("mean")).div(self.get_buffer("std"))
        out = self.net(img)
        if not isinstance(out, torch.Tensor):
            raise TypeError(f"it gives a {type(out).__name__} and no tensor")
        out = out.reshape(len(img), -1).float()
        if told.output == "probabilities":
            out = torch.logit(out, eps=_CLOSEST)
        if told.index is not None:
            chosen = out[:, told.index : told.index + 1]
            out = chosen if told.against is None else chosen - out[:, told.against : told.against + 1]
        return (out - self.get_buffer("threshold")) * self.get_buffer("sign")


def beside(path: Path) -> Path:
    """Where the description of a file is looked for."""
    return path.with_suffix(".json")


def read(path: Path) -> Description:
    """The description in a JSON file.

    Raises:
        RedactError: it is none; names what is wrong.
    """
    asked = f"{path} was to describe the classifier beside it"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RedactError(f"{asked} - it is no JSON ({error}) - see docs/classifiers.md, or move it away") from None
    known = {field.name for field in fields(Description)}
    unknown = sorted(told.keys() - known) if isinstance(told, dict) else ["no dictionary"]
    if unknown:
        raise RedactError(f"{asked} - it has {ascii(', '.join(unknown))[1:-1][:200]} - there is: {', '.join(sorted(known))}; or move it away")
    try:
        return _checked(told)
    except _Wrong as error:
        raise RedactError(f"{asked} - its {error} - see docs/classifiers.md") from None


def names_of(told: Description, inside: str, feature: str, asked: str) -> tuple[str, ...]:
    """Names of the columns of a Described network.

    Args:
        told:    The description.
        inside:  JSON list of the names that a TorchScript file itself gives its outputs; empty: it does not.
        feature: One of them has to be it.
        asked:   How messages begin.

    Raises:
        RedactError: the file and its description do not agree, or do not know the feature.
    """
    if inside and (told.names or told.index is not None):
        raise RedactError(f"{asked} - the file itself names its outputs, and so does the JSON file beside it - take names or index out of the latter")
    return detectors.attributes_of(inside or (json.dumps(told.names) if told.names else ""), feature, asked)


def open_exported(path: Path) -> torch.nn.Module:
    """The network in a file of torch.export.save, which has to take any number of images.

    Raises:
        RedactError: the file is of another kind, or of a torch too far from this one.
    """
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # It writes a traceback of what is told in one sentence here.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found: torch.nn.Module = torch.export.load(path).module()
    except Exception as error:  # noqa: BLE001 - it raises whatever it stumbles over
        reason = ascii(str(error).strip().partition("\n")[0])[1:-1][:160]
        raise RedactError(f"a network of torch.export was expected in {path} - it cannot be read ({reason}) - export it with this torch") from None
    finally:
        logger.setLevel(level)
    return found


class _Wrong(Exception):
    """What of a description is wrong."""


def _checked(told: dict[str, Any]) -> Description:
    if told.get("output") == "probabilities":
        told = {"threshold": 0.5} | told
    values: dict[str, Any] = {name: _numbers(name, told[name]) for name in ("sign", "threshold", "mean", "std") if name in told}
    names, size = told.get("names", []), told.get("size")
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise _Wrong("names are no list of texts")
    for name in ("index", "against"):
        if name in told and (type(told[name]) is not int or told[name] < 0):
            raise _Wrong(f"{name} is no number of an output, which count from 0")
    if size is not None:
        size = [size, size] if type(size) is int else size
        if not isinstance(size, list) or len(size) != 2 or not all(type(n) is int and 1 <= n <= 4096 for n in size):
            raise _Wrong("size is not a number of pixels or [height, width]")
        values["size"] = tuple(size)
    values |= {name: told[name] for name in ("index", "against", "output") if name in told}
    found = Description(names=tuple(names), **values)
    _check_together(found)
    return found


def _check_together(found: Description) -> None:
    if found.names and found.index is not None:
        raise _Wrong("names and index are both there; names are of all outputs, an index is of one")
    if found.against is not None and found.index in (None, found.against):
        raise _Wrong("against comes with an index, of another output")
    if found.output not in OUTPUTS:
        raise _Wrong(f"output is {ascii(found.output)[:40]}; there is {', '.join(OUTPUTS)}")
    if not all(abs(sign) == 1 for sign in found.sign):
        raise _Wrong("sign is neither 1 nor -1")
    if any(len(value) not in {1, len(found.names)} for value in (found.sign, found.threshold)):
        raise _Wrong("sign or threshold is a list that is not as long as names")
    if len(found.mean) != len(found.std) or not all(value > 0 for value in found.std):
        raise _Wrong("mean and std do not go together: both, of one length, std above 0")
    if found.output == "probabilities" and not all(0 < cut < 1 for cut in found.threshold):
        raise _Wrong("threshold is no probability between 0 and 1")


def _numbers(name: str, value: Any) -> tuple[float, ...]:
    found = value if isinstance(value, list) else [value]
    if not found or not all(type(number) in (int, float) and math.isfinite(number) for number in found):
        raise _Wrong(f"{name} is no number or list of numbers")
    return tuple(float(number) for number in found)
