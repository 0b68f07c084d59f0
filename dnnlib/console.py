# SPDX-License-Identifier: Apache-2.0
"""What a training script shows a person: a log of the console, durations, questions."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, TextIO

import numpy as np

_ANSWERS = dict.fromkeys(("y", "yes", "t", "true", "on", "1"), True) | dict.fromkeys(("n", "no", "f", "false", "off", "0"), False)


class Logger:
    """Copies what is written to stdout and stderr into a file, from its construction to close().

    Args:
        file_name:    Where to; None only passes the text on.
        file_mode:    "w" or "a".
        should_flush: Flush after every write.
    """

    def __init__(self, file_name: str | None = None, file_mode: str = "w", should_flush: bool = True) -> None:
        self.file: TextIO | None = open(file_name, file_mode, encoding="utf-8") if file_name is not None else None  # type: ignore[assignment]
        self.should_flush = should_flush
        self.stdout: Any = sys.stdout
        self.stderr: Any = sys.stderr
        sys.stdout = self
        sys.stderr = self

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def write(self, text: str | bytes) -> None:
        """Write to the file and to the stdout of before."""
        if isinstance(text, bytes):
            text = text.decode()
        if not text:
            return
        if self.file is not None:
            self.file.write(text)
        self.stdout.write(text)
        if self.should_flush:
            self.flush()

    def flush(self) -> None:
        """Flush the file and the stdout of before."""
        if self.file is not None:
            self.file.flush()
        self.stdout.flush()

    def close(self) -> None:
        """Close the file; stdout and stderr are put back unless somebody else has taken them since."""
        self.flush()
        if sys.stdout is self:
            sys.stdout = self.stdout
        if sys.stderr is self:
            sys.stderr = self.stderr
        if self.file is not None:
            self.file.close()
            self.file = None


def format_time(seconds: float) -> str:
    """Duration in all its units but seconds of days: "59s", "1m 00s", "1h 01m 01s", "1d 01h 01m"."""
    days, hours, minutes, secs = _split(seconds)
    if days:
        return f"{days}d {hours:02}h {minutes:02}m"
    if hours:
        return f"{hours}h {minutes:02}m {secs:02}s"
    return f"{minutes}m {secs:02}s" if minutes else f"{secs}s"


def format_time_brief(seconds: float) -> str:
    """Duration in its two largest units: "59s", "1m 00s", "1h 01m", "1d 01h"."""
    days, hours, minutes, secs = _split(seconds)
    if days:
        return f"{days}d {hours:02}h"
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m {secs:02}s" if minutes else f"{secs}s"


def _split(seconds: float) -> tuple[int, int, int, int]:
    """Days, hours, minutes, seconds."""
    total = int(np.rint(seconds))
    return total // 86400, total // 3600 % 24, total // 60 % 60, total % 60


def ask_yes_no(question: str) -> bool:
    """The answer typed at the console; asks again until it is one."""
    while True:
        answer = input(f"{question} [y/n]\n").strip().lower()
        if answer in _ANSWERS:
            return _ANSWERS[answer]
