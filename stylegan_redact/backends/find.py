# SPDX-License-Identifier: Apache-2.0
"""What --classifier and --judge mean: celebahq:WORD, or the path or URL of a file of one of the kinds that are known here."""

from __future__ import annotations

import os
import re
import urllib.parse
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stylegan_redact import detectors, names
from stylegan_redact.backends import celebahq, described, resnet50
from stylegan_redact.downloads import cached, download, sha256_of
from stylegan_redact.pickle_classifier import read_single_network
from stylegan_redact.types import RedactError

CELEBAHQ = "celebahq"
KINDS = (CELEBAHQ, "resnet50", "torch.export", "torchscript")
_LEGACY = re.compile(rb"\x80[\x02-\x05](\x95.{8})?\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.", re.DOTALL)
"""How files of torch.save began before they were zips."""


@dataclass(frozen=True)
class ClassifierFile:
    """A file that is there, and what it looks like; nothing of it was built."""

    path: Path
    sha256: str
    kind: str
    """Of KINDS."""
    feature: str
    """What the detector will call its feature."""
    word: str
    """What of the file it is: as the feature, unless celebahq:WORD said otherwise."""

    @property
    def record(self) -> dict[str, Any]:
        """For the records of a run; nothing in it names the machine."""
        told: dict[str, Any] = {"torchscript_sha256" if self.kind == "torchscript" else "file_sha256": self.sha256}
        if self.kind != "torchscript":
            told["kind"] = self.kind
        if self.kind in (CELEBAHQ, "resnet50"):
            told["attribute"] = str(names.recipe(self.word))
        elif os.path.isfile(described.beside(self.path)):
            told["description_sha256"] = sha256_of(described.beside(self.path))
        return told

    def load(self, img_shape: tuple[int, int, int], device: torch.device | str = "cpu") -> detectors.Classifier:
        """The detector, tried on two images.

        Args:
            img_shape: (C, H, W) of the network's images.
            device:    Where it goes.

        Raises:
            RedactError: damaged, of another kind than it looks, does not take such images, or does not know the feature.
        """
        asked = f"a classifier ({self.kind}) was expected in {self.path}"
        if self.kind == CELEBAHQ:
            built = celebahq.build(read_single_network(self.path), self.word).to(device)
            return detectors.tried(built, (self.feature,), img_shape, device, asked)
        if self.kind == "resnet50":
            predictor, columns = resnet50.load(self.path, self.feature)
            return detectors.tried(predictor.to(device), columns, img_shape, device, asked)
        json_file = described.beside(self.path)
        if self.kind == "torchscript" and not os.path.isfile(json_file):
            return detectors.load_torchscript(self.path, self.feature, img_shape, device)
        told = described.read(json_file) if os.path.isfile(json_file) else described.Description()
        net, inside = detectors.open_torchscript(self.path, device) if self.kind == "torchscript" else (described.open_exported(self.path), "")
        columns = described.names_of(told, inside, self.feature, asked)
        return detectors.as_asked(detectors.tried(described.Described(net, told).to(device), columns, img_shape, device, asked), self.feature)


def find(text: str, feature: str) -> ClassifierFile:
    """The file that a user names, downloaded if it has to be.

    Args:
        text:    celebahq:WORD, or celebahq for the feature itself: NVIDIA's classifier of a CelebA attribute, of which nothing but this one file is
                 downloaded. Else a path or a URL.
        feature: What is to be seen.

    Raises:
        RedactError: there is no such thing, or it cannot be had.
    """
    source, colon, word = text.partition(":")
    if source == CELEBAHQ and (colon == "" or not os.path.exists(text)):
        word = word if colon else feature
        name = celebahq.file_name(names.recipe(word).attribute)
        path = download(celebahq.BASE_URL + name, "classifier", celebahq.SHA256.get(name))
        return ClassifierFile(path, sha256_of(path), CELEBAHQ, feature, word)
    path, name = Path(text), Path(text).name
    if "://" in text:
        path, name = download(text, "classifier"), Path(urllib.parse.unquote(urllib.parse.urlparse(text).path)).name
    sha256 = sha256_of(path)
    if name.endswith(".pkl"):
        _check_named(name, feature)
        return ClassifierFile(path, sha256, CELEBAHQ, feature, feature)
    return ClassifierFile(path, sha256, _kind(path), feature, feature)


def of_celebahq(word: str) -> tuple[str, bool] | None:
    """NVIDIA's file for what the word means, and whether it was downloaded before; None: the word is no attribute of CelebA. Makes no connection."""
    if names.find(word, names.ATTRIBUTES) is None:
        return None
    name = celebahq.file_name(names.recipe(word).attribute)
    return name, cached(celebahq.BASE_URL + name) is not None


def _check_named(name: str, feature: str) -> None:
    """Raises RedactError unless a pickle's name says what it tells, and that is the feature."""
    attribute = celebahq.attribute_of(name)
    if attribute is None:
        raise RedactError(
            f"the classifier {name} was asked - of pickles only NVIDIA's of CelebA-HQ are read, and their names say what they tell - "
            "name it celebahq-classifier-NN-ATTRIBUTE.pkl as NVIDIA does, or give a TorchScript file"
        )
    if names.recipe(feature).attribute != attribute:
        raise RedactError(
            f"the classifier {name} was asked for {feature!r} - it tells {attribute} - give {celebahq.file_name(names.recipe(feature).attribute)}"
        )


def _kind(path: Path) -> str:
    """By what is in the file; what is nothing that is known counts as TorchScript, whose reader says what is wrong."""
    with path.open("rb") as file:
        if _LEGACY.match(file.read(64)):
            return "resnet50"
    try:
        with zipfile.ZipFile(path) as archive:
            inside = {name.partition("/")[2] or name for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError):
        return "torchscript"
    if inside & {"archive_format", "models/model.json", "serialized_exported_program.json"}:
        return "torch.export"
    return "resnet50" if "data.pkl" in inside and "constants.pkl" not in inside else "torchscript"


def was_steering(record: Mapping[str, Any]) -> str | None:
    """sha256 of the file that such a record is of, or None if it is of something else."""
    found = record.get("torchscript_sha256", record.get("file_sha256"))
    return found if isinstance(found, str) else None
