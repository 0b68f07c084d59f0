# SPDX-License-Identifier: Apache-2.0
"""What NVIDIA's training says of itself while it goes on, of every method's: tick lines in log.txt, the same in stats.jsonl, TensorBoard's events."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_redact.keeping import Moment
from stylegan_redact.progress import Progress, figures_text, time_text

TICKS = 50
"""Of a training, if it is short."""
MOST_IMAGES = 4000
"""Between two of them, as in NVIDIA's training."""
GIB = 1 << 30


class Ticks:
    """Told every moment of a training (`checkpoints.Checkpoints`), on the one rank that writes; changes nothing about it.

    A tick is due by the number of the step alone. Those of steps that were lost to a kill come again with the steps; no others do.

    Args:
        folder:   Where TensorBoard's events go.
        progress: Keeps the lines, without showing them: on a screen there is its bar. What it is told of figures comes here, too.
        clock:    Seconds, growing.
    """

    def __init__(self, folder: Path, progress: Progress, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._progress, self._clock = folder, progress, clock
        self._begin = clock()
        self._last: tuple[str, int, float, int] = ("", -1, self._begin, 0)
        """Name of the training; number, seconds and images of its last tick."""
        self._maintenance = 0.0
        """Seconds since that tick which went into other things than training."""
        self._stage = ""
        self._fresh: dict[str, float] = {}
        """Figures told since the last moment."""
        self._figures: dict[str, list[float]] = {}
        """Those told since the last tick."""
        self._events: Any = None
        """TensorBoard's writer; False: there is none, or no more."""
        self._elsewhere = False
        """What is told now is of no training."""
        progress.listener = self.told

    def told(self, stage: str, figures: Mapping[str, Any]) -> None:
        """What the progress is told; it is of the next moment. What a look or a snapshot tells is not."""
        if self._elsewhere:
            return
        if stage != self._stage:
            self._stage, self._fresh, self._figures = stage, {}, {}
        for name, value in figures.items():
            self._fresh[name] = float(value)
            self._figures.setdefault(name, []).append(float(value))

    @contextmanager
    def maintaining(self) -> Iterator[None]:
        """What happens in the block is no training: it is the next tick's maintenance."""
        begin, self._elsewhere = self._clock(), True
        try:
            yield
        finally:
            self._elsewhere = False
            self._maintenance += self._clock() - begin

    def __call__(self, moment: Moment) -> None:
        """Writes what is due."""
        if moment.step_images == 0:
            return
        self._to_tensorboard(moment.images)
        done, steps = (round(images / moment.step_images) for images in (moment.images, moment.images / moment.share))
        every = max(min(steps // TICKS, MOST_IMAGES // moment.step_images), 1)
        name, last, then, _ = self._last
        if moment.name != name:
            last, self._maintenance, self._last = -1, 0.0, (moment.name, -1, then, 0)
            if done > 1:  # Gone on with: of this moment was told before.
                self._last = (moment.name, (done - 1) // every, self._clock(), moment.images)
                return
        number = -(-(done - 1) // every)
        if number > last and ((done - 1) % every == 0 or done == steps):
            self._write(moment.images, number)
            self._last, self._maintenance, self._figures = (moment.name, number, self._clock(), moment.images), 0.0, {}

    def _write(self, images: int, number: int) -> None:
        _, _, then, seen = self._last
        now = self._clock()
        seconds, memory = max(now - then - self._maintenance, 0.0), (peak_memory(), peak_gpu_memory())
        per_kimg, means = 1000 * seconds / (images - seen), {name: float(np.mean(values)) for name, values in self._figures.items()}
        told = {
            "tick": f"{number:<5d}",
            "kimg": f"{images / 1000:<8.1f}",
            "time": f"{time_text(now - self._begin):<12s}",
            "sec/tick": f"{seconds:<7.1f}",
            "sec/kimg": f"{per_kimg:<7.2f}",
            "maintenance": f"{self._maintenance:<6.1f}",
            "cpumem": f"{memory[0]:<6.2f}",
            "gpumem": f"{memory[1]:<6.2f}",
        }
        figures = f"{self._stage} {figures_text(means)}" if means else ""
        self._progress.note(f"{' '.join(f'{name} {value}' for name, value in told.items())} {figures}".rstrip())
        counted = {
            "Progress/tick": number,
            "Progress/kimg": images / 1000,
            "Timing/total_sec": now - self._begin,
            "Timing/sec_per_tick": seconds,
            "Timing/sec_per_kimg": per_kimg,
            "Timing/maintenance_sec": self._maintenance,
            "Resources/cpu_mem_gb": memory[0],
            "Resources/peak_gpu_mem_gb": memory[1],
        }
        collected = {name: [float(value)] for name, value in counted.items()} | {
            f"Loss/{self._stage}/{name}": each for name, each in self._figures.items()
        }
        self._progress.count({"stage": self._stage, **{name: _collected(each) for name, each in collected.items()}, "timestamp": time.time()})

    def _to_tensorboard(self, images: int) -> None:
        try:
            if self._events is None:
                self._events = events_in(self._folder, self._progress.note) or False
            if self._events:
                for name, value in self._fresh.items():
                    self._events.add_scalar(f"{self._stage}/{name}", value, images)
                if self._fresh:
                    self._events.flush()
        except OSError as error:  # Of a disk that is full, as a rule: the redaction matters more.
            self._events = False
            self._progress.tell(f"No more TensorBoard events: {error.strerror or error}. The run goes on")
        self._fresh = {}


def _collected(values: list[float]) -> dict[str, float]:
    return {"num": len(values), "mean": float(np.mean(values)), "std": float(np.std(values))}


def events_in(folder: Path, say: Callable[[str], None]) -> Any:
    """A writer of TensorBoard's events, or None, told of, where tensorboard is not installed or not in order."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        say("No TensorBoard events: tensorboard is not installed")
        return None
    except (AttributeError, TypeError, ValueError) as error:  # As it raises where numpy or protobuf are not those that it was made for.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        say(f"No TensorBoard events: tensorboard cannot be imported ({reason})")
        return None
    return SummaryWriter(str(folder))


def peak_memory() -> float:
    """Most memory that this process had, in GiB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / GIB


def peak_gpu_memory() -> float:
    """Most memory of a GPU that this process had, in GiB; 0 without one."""
    return torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else 0.0
