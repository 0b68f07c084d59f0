# SPDX-License-Identifier: Apache-2.0
"""SIGTERM and Ctrl-C during a run: it stops at its next step, with all that it needs to go on on disk."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

PATIENCE = 8.0
"""Seconds after SIGTERM in which a step is to end; then the process does, with the last checkpoint: who sends SIGTERM soon sends SIGKILL."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as of a shell; after SIGTERM it is 0."""


class Stoppable(Protocol):
    """What ends at its next step."""

    stop: bool


class Signals:
    """What was received."""

    def __init__(self, checkpoints: Stoppable) -> None:
        self.checkpoints = checkpoints
        self.exit_code: int | None = None
        """Of the process, once it was asked to stop."""
        self._timer: threading.Timer | None = None

    def terminate(self, number: int, frame: FrameType | None) -> None:
        """SIGTERM."""
        if self._timer is None:
            self._timer = threading.Timer(PATIENCE, self._give_up)
            self._timer.daemon = True
            self._timer.start()
        self.exit_code, self.checkpoints.stop = 0, True

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Ctrl-C: the first one asks, the second one ends it at once."""
        if self.checkpoints.stop:
            raise KeyboardInterrupt
        self.exit_code, self.checkpoints.stop = INTERRUPTED, True
        _say("Stopping after this step; Ctrl-C again stops at once")

    def over(self) -> None:
        """Nobody waits any longer."""
        if self._timer is not None:
            self._timer.cancel()

    def _give_up(self) -> None:
        _say(f"The step takes more than {PATIENCE:g} s: stopped, with the last checkpoint")
        os._exit(0)


def _say(text: str) -> None:
    """To standard error, past Python's buffers: a signal may come in the middle of a line."""
    os.write(2, f"{text}\n".encode())


@contextmanager
def listening(checkpoints: Stoppable) -> Iterator[Signals]:
    """Within the block, both signals ask the run to stop. In a thread that is not the main one, where Python has no signals, nothing changes."""
    signals = Signals(checkpoints)
    handlers = {signal.SIGTERM: signals.terminate, signal.SIGINT: signals.interrupt}
    if threading.current_thread() is not threading.main_thread():
        handlers = {}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield signals
    finally:
        signals.over()
        for number, handler in before.items():
            signal.signal(number, handler)
