# SPDX-License-Identifier: Apache-2.0
"""Whoever names a pipe where a file is read is told so at once, by every reader."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stylegan_redact import delta, downloads, latents, photos, pickle_file
from stylegan_redact.features import _direction_file
from stylegan_redact.training import images
from stylegan_redact.types import RedactError
from stylegan_redact.verbs import _convert, _fold, _inspect, _video

READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "pickles": (".pkl", lambda path: pickle_file.read_path(path, "a snapshot", lambda *each: each)),
    "pickles to describe": (".pkl", _inspect.describe),
    "hashes": (".pt", downloads.sha256_of),
    "labels": (".npz", latents.load_labels),
    "deltas": (".safetensors", delta.read),
    "directions to fold": (".npy", _fold.read_direction),
    "directions": (".npy", lambda path: _direction_file._read(path, "a direction was asked")),
    "codes of a video": (".npz", lambda path: _video.codes_in(path, (2, 8))),
    "networks to convert": (".safetensors", _convert._read_safetensors),
    "photographs": (".png", lambda path: list(photos._files(path, "photographs were asked"))),
    "training sets": (".zip", lambda path: images.open_images(path, (3, 8, 8))),
}


@pytest.fixture(autouse=True)
def at_once() -> Iterator[None]:
    """A reader that waits for somebody to write ends with an error, not never."""
    signal.alarm(20)
    yield
    signal.alarm(0)


@pytest.mark.parametrize("kind", READERS)
def test_a_pipe_is_refused_before_it_is_opened(kind: str, tmp_path: Path) -> None:
    ending, read = READERS[kind]
    path = tmp_path / f"given{ending}"
    os.mkfifo(path)
    with pytest.raises(RedactError, match=f"given{ending} was to be read - it is a pipe .* save it as a file"):
        read(path)
