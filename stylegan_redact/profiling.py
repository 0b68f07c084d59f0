# SPDX-License-Identifier: Apache-2.0
"""`--profile`: where a run's time goes, as a table by part of the run, and traces of a few steps of the parts that take long.

A trace is what torch's profiler writes, for chrome://tracing or ui.perfetto.dev; of a whole run it would be gigabytes.
"""

from __future__ import annotations

import gzip
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from stylegan_redact.keeping import Moment, State, Store
from stylegan_redact.run_dir import whole_file, write_text

LABELLING, SUBSPACE, TRAINING, EVALUATION, IO, REPORT, OTHER = "labelling", "subspace", "training", "evaluation", "I/O", "report", "all else"
PARTS = (LABELLING, SUBSPACE, TRAINING, EVALUATION, IO, REPORT, OTHER)
TABLE = "profile.txt"
SKIPPED, RECORDED = 1, 2
"""Steps of a part before its trace begins, the first one warms up, and steps in it."""
_OPERATIONS = 8
"""Of a trace that the table names, the dearest ones."""


def trace_name(part: str) -> str:
    """Of the file."""
    return f"trace-{part}.json.gz"


class Profile:
    """Seconds by part of a run; every moment belongs to one part, the innermost.

    Args:
        folder: The run directory; None: nothing is measured or written.
        clocks: Seconds of the clock and of the processor, growing.
    """

    def __init__(self, folder: Path | None, *, clocks: tuple[Callable[[], float], ...] = (time.perf_counter, time.process_time)) -> None:
        self._folder, self._clocks = folder, clocks
        self._seconds = {part: [0.0 for _ in clocks] for part in PARTS}
        self._part, self._since = OTHER, [clock() for clock in clocks]
        self._steps = 0
        self._recorder: Any = None
        self._operations: dict[str, list[str]] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """The block belongs to that part."""
        before = self._part
        self._turn_to(name)
        try:
            yield
        finally:
            if name != IO:  # Within another part, whose steps go on.
                self._stop_recording()
                self._steps = 0
            self._turn_to(before)

    def step(self) -> None:
        """Told after every step of the part that it is in."""
        if self._folder is None:
            return
        self._steps += 1
        if self._steps == SKIPPED and self._part not in self._operations:
            kinds = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] * torch.cuda.is_available())]
            self._recorder = torch.profiler.profile(activities=kinds)
            self._recorder.start()
        elif self._steps == SKIPPED + RECORDED:
            self._stop_recording()

    def watching(self, store: Store) -> Store:
        """The store, whose work is I/O, and which sees every step of a training."""
        return store if self._folder is None else _Watched(store, self)

    def stepping(self, progress: Callable[..., None]) -> Callable[..., None]:
        """`progress`, each event of which is a step."""

        def told(*event: Any) -> None:
            progress(*event)
            self.step()

        return told

    def labelled(self) -> None:
        """What is left of labelling looks for the subspace."""
        if self._part == LABELLING:
            self._stop_recording()
            self._turn_to(SUBSPACE)

    def write(self) -> None:
        """Writes the table, if there is to be one."""
        if self._folder is not None:
            self._turn_to(OTHER)
            write_text(self._folder / TABLE, table(self._seconds, self._operations))

    def _turn_to(self, part: str) -> None:
        now = [clock() for clock in self._clocks]
        self._seconds[self._part] = [spent + end - begin for spent, end, begin in zip(self._seconds[self._part], now, self._since, strict=True)]
        self._part, self._since = part, now

    def _stop_recording(self) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is None or self._folder is None:
            return
        recorder.stop()
        self._operations[self._part] = dearest(recorder.key_averages())
        with tempfile.TemporaryDirectory() as folder:
            recorder.export_chrome_trace(f"{folder}/trace.json")
            content = Path(folder, "trace.json").read_bytes()
        with whole_file(self._folder / trace_name(self._part)) as temporary:
            temporary.write_bytes(gzip.compress(content))


class _Watched:
    """A store (`keeping.Store`) under a profile."""

    def __init__(self, store: Store, profile: Profile) -> None:
        self._store, self._profile = store, profile
        self.check, self.tell = store.check, store.tell

    def begin(self, stage: str) -> tuple[str, State | None]:
        """As `keeping.Store`."""
        with self._profile.part(IO):
            return self._store.begin(stage)

    def keep(self, moment: Moment) -> None:
        """As `keeping.Store`."""
        self._profile.step()
        with self._profile.part(IO):
            self._store.keep(moment)
        if moment.share >= 1:
            self._profile.labelled()


def table(seconds: Mapping[str, list[float]], operations: Mapping[str, list[str]]) -> str:
    """Seconds of the clock and of the processor of each part, and the dearest operations of each trace, as text."""
    total = [sum(column) for column in zip(*seconds.values(), strict=True)]
    rows = [f"{'part':<12s} {'clock, s':>10s} {'processor, s':>14s} {'share, %':>10s}"]
    for part, (clock, processor) in [*((part, seconds[part]) for part in PARTS), ("all", total)]:
        rows.append(f"{part:<12s} {clock:>10.2f} {processor:>14.2f} {100 * clock / max(total[0], 1e-9):>10.1f}")
    for part, lines in operations.items():
        rows += ["", f"{part}: {RECORDED} steps, {trace_name(part)}; operations without what they call", *lines]
    return "\n".join(rows) + "\n"


def dearest(averages: Any) -> list[str]:
    """A line for each of the operations of torch that took longest, longest first.

    Args:
        averages: As torch.profiler's `key_averages` gives them.
    """
    spent = "self_device_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
    found = sorted(averages, key=lambda each: getattr(each, spent), reverse=True)
    total = max(sum(getattr(each, spent) for each in found), 1e-9)
    return [
        f"{each.key[:40]:<40s} {each.count:>7d} calls {getattr(each, spent) / 1000:>10.1f} ms {100 * getattr(each, spent) / total:>6.1f} %"
        for each in found[:_OPERATIONS]
    ]
