# SPDX-License-Identifier: Apache-2.0
"""Pictures in a row -> a file that moves: mp4 by imageio where it is installed with an encoder, else an animated WebP by pillow."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, features

from stylegan_redact.run_dir import whole_file
from stylegan_redact.types import RedactError

Frames = Iterable[NDArray[np.uint8]]
"""Each [H, W, 3]."""
Writer = Callable[[Frames, Path, int], None]
"""Frames, file, frames a second."""
ENDINGS = (".mp4", ".webp")
_MOST_BYTES = 1 << 31
"""Of frames that pillow holds at once."""
_LOSSLESS_UP_TO = 256
"""Pixels of height: small pictures stay what they are."""


def writer_for(out: Path, frame_bytes: int, count: int) -> tuple[Writer, Path, tuple[str, ...]]:
    """Who writes the film, the file that it will be in, and what to know of that; nothing is written yet.

    Args:
        out:         With one of ENDINGS. Of .mp4 without an encoder it becomes .webp.
        frame_bytes: Of one frame.
        count:       Of frames.

    Raises:
        RedactError: another ending, no way to write either, or too much for a WebP.
    """
    if out.suffix not in ENDINGS:
        raise RedactError(f"a video was to go to {out} - its ending must be {' or '.join(ENDINGS)} - choose one of these")
    missing = missing_encoder() if out.suffix == ".mp4" else None
    if out.suffix == ".mp4" and missing is None:
        return _write_mp4, out, ()
    install = "pip install 'stylegan-redact[video]'"
    if not features.check("webp"):
        raise RedactError(f"a video was to go to {out} - there is no encoder ({missing or 'pillow without WebP'}) - {install}")
    if frame_bytes * count > _MOST_BYTES:
        size = f"{count} frames of {frame_bytes >> 10} KiB"
        raise RedactError(
            f"an animated WebP was to be made of {size} - at most {_MOST_BYTES >> 20} MiB are held - fewer --frames, or .mp4: {install}"
        )
    webp = out.with_suffix(".webp")
    return _write_webp, webp, () if missing is None else (f"No encoder for mp4 ({missing}; {install}): an animated WebP instead, {webp.name}",)


def missing_encoder() -> str | None:
    """What mp4 lacks here; None: nothing."""
    try:
        importlib.import_module("imageio.v2")
        importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
    except ImportError as error:
        return f"{error.name or 'imageio'} is not installed"
    except RuntimeError:
        return "imageio-ffmpeg has no ffmpeg"
    return None


def _write_mp4(frames: Frames, path: Path, fps: int) -> None:
    imageio = importlib.import_module("imageio.v2")
    with whole_file(path) as temporary:
        named = temporary.with_suffix(path.suffix)  # Both imageio and ffmpeg go by the ending.
        try:
            with imageio.get_writer(named, fps=fps, codec="libx264", quality=8, macro_block_size=2) as writer:
                for frame in frames:
                    writer.append_data(frame)
            os.replace(named, temporary)
        finally:
            named.unlink(missing_ok=True)


def _write_webp(frames: Frames, path: Path, fps: int) -> None:
    pictures: Iterator[Image.Image] = (Image.fromarray(frame) for frame in frames)
    first = next(pictures)
    lossless = first.height <= _LOSSLESS_UP_TO
    with whole_file(path) as temporary:
        first.save(
            temporary, format="webp", save_all=True, append_images=list(pictures), duration=round(1000 / fps), loop=0, lossless=lossless, quality=90
        )
