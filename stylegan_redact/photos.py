# SPDX-License-Identifier: Apache-2.0
"""Image files -> tensors that a network could have drawn: of a folder, a zip archive, or a single file."""

from __future__ import annotations

import hashlib
import io
import os
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from stylegan_redact.pipes import check_no_pipe
from stylegan_redact.types import RedactError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MOST_FILES = 10_000
MOST_BYTES = 1 << 26
"""Of one file, unpacked."""


@dataclass(frozen=True)
class Photos:
    """Of one person."""

    known: torch.Tensor
    """[k, C, H, W] in [-1, 1], for the redaction."""
    held_out: torch.Tensor
    """[h, C, H, W], for measuring alone: every second one, h = 0 if there is one in all."""
    sha256: tuple[str, ...]
    """Of the files, in the order of their names."""


def of_person(path: str | os.PathLike[str], img_shape: tuple[int, int, int]) -> Photos:
    """The photographs in a folder, a zip archive or a file, at the network's size.

    Args:
        path:      Of the folder, archive or file.
        img_shape: (C, H, W) of the network's images.

    Raises:
        RedactError: there is no such thing, no photograph, or one that cannot be read.
    """
    what = "photographs of a person were expected"
    files = list(_files(Path(path), what))
    img = torch.stack([to_image(data, img_shape, f"{what} in {os.fspath(path)}", name) for name, data in files])
    return Photos(img[::2], img[1::2], tuple(hashlib.sha256(data).hexdigest() for _, data in files))


def read_images(path: str | os.PathLike[str], img_shape: tuple[int, int, int], what: str) -> torch.Tensor:
    """[n, C, H, W] in [-1, 1] of all image files there, in the order of their names.

    Args:
        path:      Of a folder, an archive or a file.
        img_shape: (C, H, W).
        what:      Was expected, for messages.

    Raises:
        RedactError: there is none, or one that cannot be read.
    """
    return torch.stack([to_image(data, img_shape, f"{what} in {os.fspath(path)}", name) for name, data in _files(Path(path), what)])


def digest(path: str | os.PathLike[str], what: str) -> str:
    """sha256, 64 hexadecimal digits, of the hashes of all image files there, in the order of their names; arguments as of `read_images`."""
    hashes = (hashlib.sha256(data).hexdigest() for _, data in _files(Path(path), what))
    return hashlib.sha256("".join(hashes).encode()).hexdigest()


def as_file(img: torch.Tensor) -> torch.Tensor:
    """img [n, C, H, W] as NVIDIA's tools would write it into a file and `to_image` read it: in [-1, 1], in 256 levels."""
    return (img * 127.5 + 128).clamp(0, 255).to(torch.uint8).float() / 127.5 - 1


def to_image(data: bytes, img_shape: tuple[int, int, int], asked: str, name: str) -> torch.Tensor:
    """[C, H, W] in [-1, 1] of an image file: turned upright, its middle cut out in the network's proportions, and resized.

    Args:
        data:      The file's bytes.
        img_shape: (C, H, W).
        asked:     What was expected where, for messages.
        name:      Of the file.

    Raises:
        RedactError: it cannot be read, or is too large.
    """
    channels, height, width = img_shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as opened:
                upright = _eight_bits(ImageOps.exif_transpose(opened)).convert("RGB" if channels == 3 else "L")
        fitted = ImageOps.fit(upright, (width, height), Image.Resampling.LANCZOS)
    except UnidentifiedImageError:  # What it says names an address in memory.
        raise RedactError(f"{asked} - {name} cannot be read (it is no picture of a known kind) - take it out, or save it anew") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise RedactError(f"{asked} - {name} cannot be read ({error}) - take it out, or save it anew") from None
    levels = torch.from_numpy(np.asarray(fitted).copy()).float() / 127.5 - 1  # uint8 => [-1, 1]
    return levels.permute(2, 0, 1) if levels.ndim == 3 else levels[None]


def _eight_bits(img: Image.Image) -> Image.Image:
    """A grey picture of 16 bits in 8, which `convert` would clip to white; any other as it is."""
    if not img.mode.startswith("I"):
        return img
    return Image.fromarray((np.asarray(img).astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8))


def _files(path: Path, what: str) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of the image files, by name."""
    asked = f"{what} in {path}"
    if not os.path.exists(path):
        raise RedactError(f"{asked} - there is no such folder or file - give a folder, a zip archive or an image file")
    check_no_pipe(path)
    try:
        if zipfile.is_zipfile(path):
            yield from _zipped(path, asked)
            return
        chosen = [path] if os.path.isfile(path) else _images(sorted(path.iterdir()), asked)
        for each in chosen:
            if os.path.isdir(each):
                raise RedactError(f"{asked} - {each.name} is a folder - take it out, or name it otherwise")
            if each.stat().st_size > MOST_BYTES:
                raise RedactError(f"{asked} - {each.name} has more than {MOST_BYTES >> 20} MiB - make it smaller")
            yield each.name, each.read_bytes()
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:  # RuntimeError: encrypted, or packed in a way not known here.
        raise RedactError(f"{asked} - it cannot be read ({error}) - give another one") from None


def _zipped(path: Path, asked: str) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        members = {each.filename: each for each in archive.infolist() if not each.is_dir()}
        for name in map(str, _images([Path(each) for each in sorted(members)], asked)):
            with archive.open(members[name] if name in members else members[name.replace(os.sep, "/")]) as file:
                data = file.read(MOST_BYTES + 1)  # What the archive says of sizes is not believed.
            if len(data) > MOST_BYTES:
                raise RedactError(f"{asked} - {name} has more than {MOST_BYTES >> 20} MiB - make it smaller")
            yield name, data


def _images(paths: list[Path], asked: str) -> list[Path]:
    found = [each for each in paths if each.suffix.lower() in IMAGE_SUFFIXES and not each.name.startswith(".")]
    if not found:
        raise RedactError(f"{asked} - there are none ({', '.join(IMAGE_SUFFIXES)}) - give a folder or archive with some")
    if len(found) > MOST_FILES:
        raise RedactError(f"{asked} - there are {len(found)} - give {MOST_FILES} at most")
    return found
