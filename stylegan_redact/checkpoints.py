# SPDX-License-Identifier: Apache-2.0
"""The states of a run in a folder of its run directory, each file whole or not there, the one before it beside it.

A file is the SHA-256 of its content, then the content as `torch.save` writes it: a bit that the disk lost is found out.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stylegan_redact.keeping import Moment, Over, State, Stopped
from stylegan_redact.run_dir import whole_file
from stylegan_redact.types import RedactError

FOLDER = "checkpoint"
"""In the run directory, gone when the run is finished."""
MOST_OF_THE_TIME = 0.1
"""Of a run may go into checkpoints: where one takes seconds, they become rarer."""
_DIGEST = hashlib.sha256().digest_size


class Checkpoints:
    """A store (`keeping.Store`) on disk.

    Args:
        folder:  Made when it is first needed.
        every:   Seconds from one state to the next; 0: every step, whatever that takes.
        say:     Tells the user something.
        clock:   Seconds, growing.
    """

    def __init__(
        self,
        folder: Path,
        every: float,
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.every, self._say, self._clock = folder, every, say, clock
        self.observe: Callable[[Moment], None] | None = None
        """Told every moment, before it is kept; may raise Over."""
        self.stop = False
        """Set by whoever wants the run to end at its next step."""
        self._begun: dict[str, int] = {}
        self._due = clock() + every

    def begin(self, stage: str) -> tuple[str, State | None]:
        """As `keeping.Store`. What is damaged is told of, and the state before it taken instead, or none."""
        self._begun[stage] = self._begun.get(stage, 0) + 1
        name = re.sub(r"[^0-9a-z]+", "-", stage.lower()) + (f"-{self._begun[stage]}" if self._begun[stage] > 1 else "")
        for path, instead in ((self._path(name), "the one before it is used"), (self._before(name), f"{stage} begins anew")):
            if not path.exists():
                continue
            try:
                return name, read(path)
            except RedactError as error:
                self.tell(f"{error}: {instead}")
        return name, None

    def keep(self, moment: Moment) -> None:
        """As `keeping.Store`. A state that cannot be written, for want of space, is told of, and the run goes on: the one before stays."""
        over = self._observed(moment)
        if over is not None or self.stop or moment.share >= 1 or self._clock() >= self._due:
            begin = self._clock()
            try:
                self._write(moment)
            except RedactError as error:
                if self.stop:
                    raise
                self.tell(f"No checkpoint: {error}. The run goes on without; the last checkpoint stays")
            self._due = self._clock() + (max(self.every, (self._clock() - begin) / MOST_OF_THE_TIME) if self.every else 0)
        if over is not None:
            raise over
        if self.stop:
            raise Stopped(moment)

    def _observed(self, moment: Moment) -> Over | None:
        """The end that the observer wants, if it wants one. Where a signal keeps it from looking, it looks again when the run is resumed."""
        try:
            if self.observe is not None:
                self.observe(moment)
        except Stopped:
            return None
        except Over as over:
            return over
        return None

    def check(self) -> None:
        """As `keeping.Store`."""
        if self.stop:
            raise Stopped()

    def tell(self, text: str) -> None:
        """As `keeping.Store`."""
        self._say(text)

    def remove(self) -> None:
        """Deletes all states: what they were for is there."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.pt"

    def _before(self, name: str) -> Path:
        return self.folder / f"{name}.before.pt"

    def _write(self, moment: Moment) -> None:
        path = self._path(moment.name)
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise RedactError(f"{self.folder} was to be made - {error.strerror or error} - check the rights and the space left") from error
        with whole_file(path) as temporary:
            write(moment.state(), temporary)
            if path.exists():
                os.replace(path, self._before(moment.name))
        if moment.share >= 1:
            self._before(moment.name).unlink(missing_ok=True)


def write(state: State, path: Path) -> None:
    """Writes a state, down to the disk.

    Raises:
        OSError: it cannot be written.
    """
    content = io.BytesIO()
    torch.save(dict(state), content)
    with path.open("wb") as file:
        file.write(hashlib.sha256(content.getbuffer()).digest())
        if file.write(content.getbuffer()) < content.getbuffer().nbytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> Any:
    """What `write` wrote, its tensors on the CPU.

    Raises:
        RedactError: it is damaged or cannot be read.
    """
    asked = f"the checkpoint {path} was to be read"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RedactError(f"{asked} - {error.strerror or error} - check that you may read it") from error
    if hashlib.sha256(data[_DIGEST:]).digest() != data[:_DIGEST]:
        raise RedactError(f"{asked} - it is damaged - delete it, to go on without")
    return torch.load(io.BytesIO(data[_DIGEST:]), map_location="cpu", weights_only=True)
