# SPDX-License-Identifier: Apache-2.0
"""Which run directory a run goes to: a new one, or that of a run that did not come to its end, if it was asked for the same."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stylegan_redact import run_dir
from stylegan_redact.types import RedactError

LATEST = "latest"
OPTIONS, RESULT = "options.json", "redaction.json"
NOT_COMPARED = {"outdir", "resume", "checkpoint_every", "snap", "delta", "profile", "network", "classifier", "judge", "labels"}
"""Options that do not change the network that comes out; of files, the hashes are compared."""


@contextmanager
def run_folder(resume: str | None, outdir: str, description: str, options: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """The folder, for this process alone, with options.json in it, and what to tell of it.

    Args:
        resume:      None: a new folder. A folder: that one. latest: the newest of this description in `outdir` that is not finished and that no other
                     process is at; a new one if there is none.
        outdir:      Where new ones are made.
        description: For its name.
        options:     All options of the run, as they will be used.

    Raises:
        RedactError: no such run, or a finished one, or one of other options, or one that another process is at.
    """
    for folder in _candidates(resume, outdir, description):
        _check(folder, options)
        with locked(folder) as alone:
            if alone:
                run_dir.check_outdir(folder)
                yield folder, f"Resuming {folder}"
                return
        if resume != LATEST:
            raise RedactError(f"{folder} was to be resumed - another process is at it - wait for it, or start a run of its own without --resume")
    folder = run_dir.make_run_dir(outdir, description)
    with locked(folder):
        run_dir.write_json(folder / OPTIONS, options)
        yield folder, (f"No run to resume in {outdir}: a new one. " if resume == LATEST else "") + f"Results go to {folder}"


def foreseen(resume: str | None, outdir: str, description: str, options: Mapping[str, Any]) -> str:
    """What `run_folder` would do, without doing it, as a sentence; empty where a new folder is all that was asked.

    Raises:
        RedactError: as there, but that of another process.
    """
    if resume is None:
        return ""
    found = _candidates(resume, outdir, description)
    for folder in found[:1]:
        _check(folder, options)
    return f"It would go on with {found[0]}." if found else f"There is no run to resume in {outdir}: it would be a new one."


def discard(folder: Path) -> None:
    """Deletes a run directory of a run that never began, and the folders around it that hold nothing else."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.parent.rmdir()
    except OSError:  # Something else is in it.
        return


def _candidates(resume: str | None, outdir: str, description: str) -> list[Path]:
    """Folders that may be gone on with, the newest first."""
    if resume is None:
        return []
    if resume != LATEST:
        folder = Path(resume)
        if not os.path.isfile(folder / OPTIONS):
            raise RedactError(
                f"--resume={resume} was asked - there is no {OPTIONS} in it, so it is no run directory - give one, or --resume={LATEST}"
            )
        if os.path.exists(folder / RESULT):
            raise RedactError(f"--resume={resume} was asked - that run is finished - its {RESULT} has the figures")
        return [folder]
    name = run_dir.safe_name(description)
    found = [path for path in Path(outdir).glob(f"*-{name}") if re.fullmatch(r"\d+", path.name.partition("-")[0])]
    left = [path for path in found if path.name.partition("-")[2] == name and (path / OPTIONS).is_file() and not (path / RESULT).exists()]
    return sorted(left, key=lambda path: int(path.name.partition("-")[0]), reverse=True)


def _check(folder: Path, options: Mapping[str, Any]) -> None:
    there, here = run_dir.read_json(folder / OPTIONS), json.loads(json.dumps(run_dir.strict(options)))
    if not isinstance(there, dict):
        raise RedactError(f"{folder} was to be resumed - its {OPTIONS} is damaged - start a run of its own without --resume")
    one, other = (_flat({key: value for key, value in each.items() if key not in NOT_COMPARED}) for each in (there, here))
    changed = [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
    if changed:
        told = "; ".join(f"{name}: {one.get(name, 'none')} there, {other.get(name, 'none')} now" for name in changed)
        raise RedactError(f"{folder} was to be resumed - it was asked for something else ({told}) - give its options, or leave out --resume")


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, each in value.items():
        flat |= _flat(each, f"{prefix}{key}.") if isinstance(each, Mapping) else {f"{prefix}{key}": each}
    return flat


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Whether no other process is at the folder; none is until the block ends. The system lets go of it however this process ends.

    Where the system or the disk knows no such locks, it is True.
    """
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield True
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:
            pass
        yield True
    finally:
        os.close(handle)
