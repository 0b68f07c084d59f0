# SPDX-License-Identifier: Apache-2.0
"""Numbered run directories as NVIDIA's training makes them, and files in them that are whole or not there."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stylegan_redact.types import RedactError

LOGS = ("log.txt", "stats.jsonl")
"""Of a run directory: what was told, and every event."""
DELTA = "redaction.safetensors"
"""Of a run directory: the edit apart from the network."""
OTHER_FORMATS = (".safetensors", ".pt", ".pth", ".npy", ".npz")
"""Endings that no pickle of a network has: whoever refuses pickles goes by them."""
_ATTEMPTS = 100
"""Other processes may take a number between our look and our mkdir."""


def check_outdir(outdir: str | os.PathLike[str]) -> Path:
    """`outdir` as a path, after a look whether a run directory could be made in it; makes nothing.

    Raises:
        RedactError: it, or what it would be made in, is no folder or may not be written to.
    """
    outdir = Path(outdir)
    there = next(path for path in (outdir, *outdir.absolute().parents) if os.path.exists(path))
    if not os.path.isdir(there) or not os.access(there, os.W_OK | os.X_OK):
        what = "is no folder" if not os.path.isdir(there) else "may not be written to"
        raise RedactError(f"results were to go to {outdir} - {there} {what} - give another --outdir")
    return outdir


def check_file(dest: Path, sources: Iterable[str | os.PathLike[str]]) -> None:
    """Raises RedactError if no file could be written to `dest`, or one of `sources`, that it is made from, would be written over."""
    asked = f"{dest} was to be written"
    if not dest.name or os.path.isdir(dest):
        raise RedactError(f"{asked} - that is a folder - give the name of a file in it")
    if not os.path.isdir(dest.parent):
        raise RedactError(f"{asked} - there is no such folder - make it, or give another name")
    if os.path.realpath(dest) in {os.path.realpath(source) for source in sources}:
        raise RedactError(f"{asked} - it is what it is made from, and would be written over - give another name")


def check_pickle(dest: Path, sources: Iterable[str | os.PathLike[str]]) -> None:
    """As `check_file`, of a pickle: raises RedactError too if its ending promises that it is none."""
    if dest.suffix in OTHER_FORMATS:
        raise RedactError(f"{dest} was to be written - it would be a pickle - name it .pkl; redact.py convert makes others of that")
    check_file(dest, sources)


def next_run_id(outdir: Path) -> int:
    """One more than the highest number that starts the name of anything in the folder; 0 if there is none."""
    names = os.listdir(outdir) if os.path.isdir(outdir) else []
    return max((int(found.group()) for name in names if (found := re.match(r"\d+(?=-|$)", name))), default=-1) + 1


def safe_name(text: str) -> str:
    """The text as a part of a file's name on every disk."""
    return re.sub(r"[^0-9A-Za-z._-]", "_", text)


def make_run_dir(outdir: str | os.PathLike[str], description: str) -> Path:
    """`outdir/00000-description` with the next free number, made.

    Raises:
        RedactError: the folder cannot be made.
    """
    outdir = check_outdir(outdir)
    name = safe_name(description)
    with explained(outdir):
        outdir.mkdir(parents=True, exist_ok=True)
        for run_id in range(next_run_id(outdir), next_run_id(outdir) + _ATTEMPTS):
            run_dir = outdir / f"{run_id:05d}-{name}"
            try:
                run_dir.mkdir()
            except FileExistsError:
                continue
            return run_dir
    raise RedactError(f"a run directory was to be made in {outdir} - {_ATTEMPTS} numbers in a row were taken meanwhile - give another --outdir")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends well, and vanishes when it does not.

    Raises:
        RedactError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with explained(path):
            yield temporary
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file that any reader takes: numbers that are not finite become null."""
    write_text(path, json.dumps(strict(value), indent=2, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """What `write_json` wrote, or None if the file is not whole JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def sweep(folder: Path) -> None:
    """Deletes what a process that was killed left half written: files without their name yet, and the last line of a log without its end."""
    for path in folder.rglob(".*.partial"):
        path.unlink(missing_ok=True)
    for path in filter(Path.exists, (folder / name for name in LOGS)):
        whole, end, _ = path.read_bytes().rpartition(b"\n")
        with path.open("r+b") as file:
            file.truncate(len(whole) + len(end))


def append_text(path: Path, text: str) -> None:
    """Adds to the end of a text file, all of it or nothing."""
    with explained(path):
        append(path, text.encode("utf-8"))


def append(path: Path, data: bytes, *, sync: bool = False) -> None:
    """Adds to the end of a file, all of it or nothing; with `sync` down to the disk.

    Raises:
        OSError: it cannot be written; the file is as it was.
    """
    with path.open("ab", buffering=0) as file:
        length = file.seek(0, os.SEEK_END)
        try:
            if file.write(data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if sync:
                os.fsync(file.fileno())
        except OSError:
            file.truncate(length)
            raise


def strict(value: Any) -> Any:
    """`value` in what strict JSON has: text, numbers, lists, and dicts with text keys."""
    if isinstance(value, Mapping):
        return {str(key): strict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [strict(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, os.PathLike) else value


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """An OSError in the block is told as a RedactError: `path` was to be written."""
    try:
        yield
    except OSError as error:
        raise RedactError(f"{path} was to be written - {error.strerror or error} - check the folder, its rights and the space left") from error
