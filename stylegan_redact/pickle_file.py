# SPDX-License-Identifier: Apache-2.0
"""A file that should be a pickle of NVIDIA's code -> its checked root; nothing in it is run, and whatever is wrong with it becomes one sentence."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from stylegan_redact import pickle_recognise, torch_storage
from stylegan_redact.pickle_stream import TRUSTED, Refused, Untrusted, decode
from stylegan_redact.pickle_values import Reader, resolve
from stylegan_redact.pipes import check_no_pipe
from stylegan_redact.types import RedactError, UntrustedFile

DAMAGE = (
    EOFError, struct.error, RecursionError, MemoryError, OverflowError, ValueError, TypeError,
    AttributeError, KeyError, IndexError, RuntimeError,
)  # fmt: skip
Interpret = Callable[[Any, Reader, str], Any]
"""(checked root, reader, sha256 of the file) -> what the file holds."""


def read_path(path: Path, what: str, interpret: Interpret) -> Any:
    """What `interpret` makes of the checked root of the pickle, the reader, and the file's sha256.

    Args:
        path:      The file.
        what:      It should be, for messages.
        interpret: May raise Refused or Untrusted.

    Raises:
        UntrustedFile: it has imports that are not needed, or wants more memory or time.
        RedactError:   missing, damaged, or something else.
    """
    if not os.path.exists(path):
        raise RedactError(f"{path} was to be read - there is no such file - check the name and the folder ({os.path.realpath(path.parent)})")
    if os.path.isdir(path):
        raise RedactError(f"{path} was to be read - it is a folder - give the .pkl file in it")
    check_no_pipe(path)
    try:
        with path.open("rb") as file:
            return read_open(file, str(path), what, interpret)
    except OSError as error:
        raise RedactError(f"{path} was to be read - the system says: {error.strerror or error} - check that you may read it") from error


def read_open(file: BinaryIO, name: str, what: str, interpret: Interpret) -> Any:
    """As `read_path`, of an open file that begins where it stands."""
    head = file.read(pickle_recognise.HEAD_BYTES)
    instead = pickle_recognise.refusal(head)
    if instead is not None:
        raise RedactError(f"{name} was to be read as {what} - {instead}")
    digest = hashlib.sha256(head)
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    size = file.tell()
    file.seek(0)
    try:
        root, reader = _checked(file, size)
        return interpret(root, reader, digest.hexdigest())
    except Refused as error:
        kind = UntrustedFile if isinstance(error, Untrusted) else RedactError
        raise kind(f"{name} was to be read as {what} - {error}") from None
    except DAMAGE as error:
        detail = ascii(str(error))[1:-1][:120] or type(error).__name__
        raise RedactError(f"{name} was to be read as {what} - its pickle is damaged ({detail}) - download it again") from None


def _checked(file: BinaryIO, size: int) -> tuple[Any, Reader]:
    """The root of the pickle and what the reader made of it."""
    root = decode(file, resolve)
    if torch_storage.is_torch_file(root):
        raise Refused("it is a file of torch.save, not a pickle of NVIDIA's code - give the .pkl that training wrote")
    if file.tell() != size:
        raise Untrusted(f"{size - file.tell()} bytes follow its pickle, in no StyleGAN snapshot they do - {TRUSTED}")
    reader = Reader(max_bytes=size)
    return reader.check(root), reader
