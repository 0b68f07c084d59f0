# SPDX-License-Identifier: Apache-2.0
"""What NVIDIA's training leaves while it runs: network-snapshot-NNNNNN.pkl and fakesNNNNNN.png, NNNNNN being thousands of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stylegan_redact.keeping import Moment
from stylegan_redact.running import Run
from stylegan_redact.types import Network


@dataclass(frozen=True)
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

    def __call__(self, moment: Moment) -> None:
        """Writes what is due. What is there from before the run was resumed stays: it is the same."""
        if moment.so_far is None:
            return
        number = moment.images // (1000 * self.kimg) * self.kimg
        path = self.folder / f"network-snapshot-{number:06d}{self.ending}"
        if number == 0 or path.exists():
            return
        network = moment.so_far()
        self.draw(network, self.folder / f"fakes{number:06d}.png")
        self.save(network, path)


def of_run(kimg: int, run: Run, draw: Callable[[Network, Path], None]) -> Snapshots:
    """Snapshots in the folder of a run, which can save networks by now."""
    save = run.save
    assert save is not None

    def write(network: Network, path: Path) -> None:
        save(network, path, f"snapshot after {path.stem[-6:]} thousand images")

    return Snapshots(run.folder, kimg, run.ending, write, draw)
