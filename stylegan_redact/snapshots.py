# SPDX-License-Identifier: Apache-2.0
"""What NVIDIA's training leaves while it runs: network-snapshot-NNNNNN.pkl, fakesNNNNNN.png and tick lines, NNNNNN being thousands of images."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from stylegan_redact.keeping import Moment
from stylegan_redact.progress import Progress, time_text
from stylegan_redact.running import Run
from stylegan_redact.types import Network

GIB = 1 << 30


@dataclass
class Snapshots:
    """Told every moment of a training (`checkpoints.Checkpoints`)."""

    folder: Path
    kimg: int
    """Thousands of images between two of them."""
    ending: str
    """Of networks' files."""
    save: Callable[[Network, Path], None]
    """Writes a network that is not finished."""
    draw: Callable[[Network, Path], None]
    """Writes pictures of it."""
    say: Callable[[str], None]
    events: Any = None
    """TensorBoard's writer, if there is one."""
    clock: Callable[[], float] = time.monotonic
    _begin: float = field(init=False)
    _last: tuple[float, int] | None = None
    """Seconds and images at the last tick."""
    _tick: int = 0

    _figures: dict[str, float] = field(default_factory=dict)
    """Told since the last moment, by stage/name."""

    def __post_init__(self) -> None:
        self._begin = self.clock()

    def figures(self, stage: str, figures: Mapping[str, Any]) -> None:
        """Told what the progress is told; it is of the next moment."""
        self._figures |= {f"{stage}/{name}": float(value) for name, value in figures.items()}

    def __call__(self, moment: Moment) -> None:
        """Writes what is due. What is there from before the run was resumed stays: it is the same."""
        figures, self._figures = self._figures, {}
        if moment.so_far is None:
            return
        if self.events is not None:
            for name, value in figures.items():
                self.events.add_scalar(name, value, moment.images)
            self.events.flush()
        if self._last is None:
            self._last = (self._begin, 0)
        number = moment.images // (1000 * self.kimg) * self.kimg
        path = self.folder / f"network-snapshot-{number:06d}{self.ending}"
        if number == 0 or path.exists():
            return
        begin, network = self.clock(), moment.so_far()
        self.draw(network, self.folder / f"fakes{number:06d}.png")
        self.save(network, path)
        self.say(self._line(moment.images, self.clock() - begin))
        self._last, self._tick = (self.clock(), moment.images), self._tick + 1

    def _line(self, images: int, maintenance: float) -> str:
        assert self._last is not None
        now = self.clock()
        seconds, seen = now - self._last[0], max(images - self._last[1], 1)
        told = {
            "tick": f"{self._tick:<5d}",
            "kimg": f"{images / 1000:<8.1f}",
            "time": f"{time_text(now - self._begin):<12s}",
            "sec/tick": f"{seconds:<7.1f}",
            "sec/kimg": f"{1000 * (seconds - maintenance) / seen:<7.2f}",
            "maintenance": f"{maintenance:<6.1f}",
            "cpumem": f"{peak_memory():<6.2f}",
            "gpumem": f"{torch.cuda.max_memory_allocated() / GIB if torch.cuda.is_available() else 0:<6.2f}",
        }
        return " ".join(f"{name} {value}" for name, value in told.items()).rstrip()


def of_run(kimg: int, run: Run, draw: Callable[[Network, Path], None], progress: Progress) -> Snapshots:
    """Snapshots in the folder of a run, which can save networks by now."""
    save = run.save
    assert save is not None

    def write(network: Network, path: Path) -> None:
        save(network, path, f"snapshot after {path.stem[-6:]} thousand images")

    found = Snapshots(run.folder, kimg, run.ending, write, draw, progress.tell, events_in(run.folder, progress.tell))
    progress.listener = found.figures
    return found


def events_in(folder: Path, say: Callable[[str], None]) -> Any:
    """A writer of TensorBoard's events, or None, told of, where tensorboard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        say("No TensorBoard events: tensorboard is not installed")
        return None
    return SummaryWriter(str(folder))


def peak_memory() -> float:
    """Most memory that this process had, in GiB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / GIB
