# SPDX-License-Identifier: Apache-2.0
"""Pictures of a folder or zip in NVIDIA's dataset layout: PNG or JPEG files at any depth, and `dataset.json` with the labels, if there are any."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from stylegan_redact.pipes import check_no_pipe
from stylegan_redact.types import RedactError

SUFFIXES = (".png", ".jpg", ".jpeg")
LABELS = "dataset.json"


@dataclass(frozen=True)
class ImageFiles:
    """Pictures that are read when they are asked for."""

    path: Path
    names: tuple[str, ...]
    """Inside the folder or zip, sorted, with / between the parts."""
    labels: tuple[Any, ...] | None
    """By name: the number of a class, or a list of numbers; None: the set has none."""
    shape: tuple[int, int, int]
    """[C, H, W] that all must have."""

    @property
    def name(self) -> str:
        """For messages."""
        return str(self.path)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, rows: Sequence[int]) -> torch.Tensor:
        """[n, C, H, W] in [-1, 1] of these rows.

        Raises:
            RedactError: a picture that is damaged, or of another size or number of channels.
        """
        pixels = np.stack([self._pixels(self.names[row]) for row in rows])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1  # uint8 => [-1, 1]

    def one_hot(self, c_dim: int) -> torch.Tensor | None:
        """[len, c_dim] float32 labels; None for an unconditional network, which looks at none.

        Raises:
            RedactError: a conditional network, and no labels, or of other classes.
        """
        if c_dim == 0:
            return None
        if self.labels is None:
            raise RedactError(f"{self.path} was to be trained on - the network has {c_dim} classes and the set no labels - give a {LABELS} with them")
        if all(isinstance(label, int) and 0 <= label < c_dim for label in self.labels):
            return torch.nn.functional.one_hot(torch.tensor(self.labels), c_dim).float()
        if all(isinstance(label, list) and len(label) == c_dim for label in self.labels):
            return torch.tensor(self.labels, dtype=torch.float32)
        raise RedactError(
            f"{self.path} was to be trained on - its {LABELS} has labels that are not of {c_dim} classes - give such as the network has"
        )

    def _pixels(self, name: str) -> np.ndarray:
        """[H, W, C] uint8."""
        channels, height, width = self.shape
        try:
            with Image.open(io.BytesIO(_bytes(self.path, name))) as image:
                if image.size != (width, height):
                    told = f"it is {image.size[0]}x{image.size[1]}, the network draws {width}x{height}"
                    raise RedactError(f"{self.path}: {name} was to be trained on - {told} - scale the set, for example with dataset_tool.py")
                if len(image.getbands()) != channels and image.mode != "P":
                    told = f"it has {len(image.getbands())} channels, the network draws {channels}"
                    raise RedactError(f"{self.path}: {name} was to be trained on - {told} - convert the set")
                mode = {1: "L", 3: "RGB", 4: "RGBA"}.get(channels)
                pixels = np.asarray(image.convert(mode) if mode else image)
        except (OSError, SyntaxError, EOFError, zipfile.BadZipFile, Image.DecompressionBombError) as error:
            raise RedactError(f"{self.path}: {name} was to be trained on - it is no picture that can be read: {error} - mend or remove it") from None
        return pixels[:, :, None] if pixels.ndim == 2 else pixels


def open_images(path: str | Path, shape: tuple[int, int, int]) -> ImageFiles:
    """The pictures of a folder or zip.

    Args:
        path:  Folder or .zip.
        shape: [C, H, W] that the network draws.

    Raises:
        RedactError: there is no such thing, or no picture in it, or labels that cannot be read.
    """
    path = Path(path)
    check_images(path, f"pictures of {path}")
    names = tuple(sorted(name for name in _names(path) if name.lower().endswith(SUFFIXES)))
    if not names:
        raise RedactError(f"pictures of {path} were asked - no {', '.join(SUFFIXES)} file is in it - give a folder or zip with some")
    return ImageFiles(path, names, _labels(path, names), shape)


def check_images(path: str | Path, asked: str) -> None:
    """Raises RedactError, led by what was asked, if the path is neither a folder nor a zip."""
    check_no_pipe(path)
    if not os.path.isdir(path) and not (os.path.isfile(path) and zipfile.is_zipfile(path)):
        there = "that is no zip" if os.path.isfile(path) else "there is no such folder or file"
        raise RedactError(f"{asked} was asked - {there} - give a folder or zip of PNG or JPEG files")


def _names(path: Path) -> list[str]:
    if path.is_dir():
        return [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
    with zipfile.ZipFile(path) as archive:
        return [info.filename for info in archive.infolist() if not info.is_dir()]


def _bytes(path: Path, name: str) -> bytes:
    if path.is_dir():
        return (path / name).read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def _labels(path: Path, names: tuple[str, ...]) -> tuple[Any, ...] | None:
    """By name, from dataset.json: {"labels": [["00000/img00000000.png", 6], ...]} or {"labels": null}."""
    if LABELS not in _names(path):
        return None
    try:
        found = json.loads(_bytes(path, LABELS))["labels"]
        known = None if found is None else {str(name).replace("\\", "/"): label for name, label in found}
    except (ValueError, KeyError, TypeError) as error:
        raise RedactError(f"labels of {path} were asked - its {LABELS} cannot be read: {error!r} - mend or remove it") from None
    if known is None:
        return None
    missing = [name for name in names if name not in known]
    if missing:
        raise RedactError(f"labels of {path} were asked - its {LABELS} has none for {missing[0]} and {len(missing) - 1} more - mend or remove it")
    return tuple(known[name] for name in names)
