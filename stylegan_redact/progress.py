# SPDX-License-Identifier: Apache-2.0
"""A run that a person can watch: a bar on a terminal, NVIDIA-style lines elsewhere, and both kept in the run directory."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from stylegan_redact.failures import escaped
from stylegan_redact.run_dir import append_text, strict
from stylegan_redact.types import RedactError

_SECONDS_BETWEEN_LINES = 5.0
_BAR = "{desc} |{bar}| {percentage:3.0f}% {elapsed}<{remaining}{postfix}"


class Progress:
    """Called by every stage with its name, the share done in [0, 1], and figures. Owns what the command prints.

    Args:
        say:   Prints a line, with any bar out of the way.
        out:   Where bars go, if it is a terminal.
        clock: Seconds, growing.
    """

    def __init__(self, say: Callable[[str], None], *, out: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._out, self._clock = say, out if out is not None else sys.stderr, clock
        self._run_dir: Path | None = None
        self._log: list[str] = []
        self._stats: list[str] = []
        self._begin = self._stage_begin = self._last_event = clock()
        self._short = False
        """Of space for logs; said once."""
        self._stage: str | None = None
        self._last_line = -float("inf")
        self._bar: Any = None
        self.listener: Callable[[str, Mapping[str, Any]], None] | None = None
        """Told the stage and the figures of every event."""

    def __call__(self, stage: str, fraction: float, figures: Mapping[str, Any] | None = None) -> None:
        """One event. A stage ends with the fraction 1, or when another stage begins."""
        now, fraction = self._clock(), min(max(float(fraction), 0.0), 1.0)
        if stage != self._stage:
            self._close_bar()
            # The work before a stage's first event is its own: it began when the one before ended.
            self._stage, self._stage_begin, self._last_line = stage, self._last_event, -float("inf")
        self._last_event = now
        if self.listener is not None:
            self.listener(stage, figures or {})
        self.count({"stage": stage, "fraction": fraction, "time": round(now - self._begin, 3), **(figures or {})})
        due = fraction >= 1 or now - self._last_line >= _SECONDS_BETWEEN_LINES
        line = f"{stage:<24s} {fraction:6.1%}  time {time_text(now - self._stage_begin):<8s} {figures_text(figures or {})}".rstrip()
        if due:
            self._last_line = now
            self._record(self._log, "log.txt", line)
        if self._out.isatty():
            self._move_bar(stage, fraction, figures or {})
        elif due:
            self._say(line)
        if fraction >= 1:
            self._close_bar()
            self._stage = None

    def tell(self, text: str) -> None:
        """Prints text and keeps it in log.txt."""
        self._close_bar()
        text = escaped(text)
        self._say(text)
        self._record(self._log, "log.txt", text)

    def note(self, text: str) -> None:
        """Keeps text in log.txt, without printing it."""
        self._record(self._log, "log.txt", escaped(text))

    def count(self, event: Mapping[str, Any]) -> None:
        """Keeps an event in stats.jsonl that is no progress of a stage."""
        self._record(self._stats, "stats.jsonl", json.dumps(strict(event)))

    def keep_in(self, run_dir: Path) -> None:
        """From now on, and with what was said so far, events go to stats.jsonl and lines to log.txt of this folder."""
        self._run_dir = run_dir
        for lines, name in ((self._log, "log.txt"), (self._stats, "stats.jsonl")):
            append_text(run_dir / name, "".join(f"{line}\n" for line in lines))
            lines.clear()

    def log_error(self, text: str) -> None:
        """Keeps an error in log.txt, if there is one; it is printed by whoever handles it."""
        self._close_bar()
        if self._run_dir is not None and self._run_dir.is_dir():
            try:
                append_text(self._run_dir / "log.txt", f"Error: {escaped(text)}\n")
            except RedactError:  # The disk may be the error: the first one is the one to show.
                return

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return self._clock() - self._begin

    def _record(self, lines: list[str], name: str, line: str) -> None:
        """Keeps a line; one that finds no space waits for the next, and the run goes on."""
        lines.append(line)
        if self._run_dir is None:
            return
        try:
            append_text(self._run_dir / name, "".join(f"{each}\n" for each in lines))
        except RedactError as error:
            if not self._short:
                self._say(f"{error}. The run goes on")
            self._short = True
            return
        lines.clear()

    def _move_bar(self, stage: str, fraction: float, figures: Mapping[str, Any]) -> None:
        if self._bar is None:
            self._bar = tqdm(total=1.0, desc=f"{stage:<24s}", file=self._out, bar_format=_BAR)
        self._bar.set_postfix_str(figures_text(figures), refresh=False)
        self._bar.update(fraction - self._bar.n)

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def time_text(seconds: float) -> str:
    """As NVIDIA's log has it: 12s, 3m 05s, 1h 02m 03s."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    return f"{whole // 3600}h {whole // 60 % 60:02d}m {whole % 60:02d}s"


def figures_text(figures: Mapping[str, Any]) -> str:
    """loss 0.123  rate 4"""
    return "  ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items())
