# SPDX-License-Identifier: Apache-2.0
"""How time and memory grow with the resolution, the number of seeds and the number of features: a table, and a plot.

python -m benchmarks.growth --out=growth.png
python -m benchmarks.growth --resolution=64,128,256,512,1024 --seeds=10000,100000,1000000 --features=1,2,5,20

Each point is a process of its own, with memory kept as `redact.py` has it: seconds of its processor, so that what else a machine has to do does
not count, and its peak of memory (`memory.Watch`) above that of a process that only imports. Resolution and features: one step of `edit` on four
images, of networks of random weights with StyleGAN2's channels; a step of the default method is on 20, and it takes 800. Seeds: labelled and
measured with pictures that cost nothing, which leaves what grows with the seeds alone.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks.memory import Watch, child, grown, train_once
from stylegan_redact.host import ALLOCATOR
from stylegan_redact.networks.stylegan2 import Generator

FIXED = 64
"""Pixels, where features grow."""
IMAGES = 4
UNITS = ("seconds of processor", "MiB above start")


def point(axis: str, value: int) -> None:
    """Does the work of a point, and prints its seconds and its peak in MiB."""
    torch.manual_seed(0)
    begin = time.process_time()
    with Watch() as watch:
        if axis == "seeds":
            for stage in ("label", "measure"):
                grown(stage, value, quiet=True)
        elif axis != "nothing":
            resolution, features = (value, 1) if axis == "resolution" else (FIXED, value)
            sizes: dict[str, Any] = dict(z_dim=512, c_dim=0, w_dim=512, img_resolution=resolution, img_channels=3, channel_base=32 * resolution)
            student, teacher = (Generator(**sizes).eval().requires_grad_(False) for _ in range(2))
            begin = time.process_time()
            train_once(student, teacher, IMAGES, IMAGES, features)
    sys.stdout.write(f"{time.process_time() - begin:.3f} {watch.most:.1f}\n")


def measured(axes: dict[str, list[int]], rounds: int, limit: float) -> dict[str, dict[int, list[list[float]]]]:
    """Axis -> value -> (seconds, MiB above start) of each round; what does not fit into the limit is told and left out."""
    base = child(limit, "nothing", 0, module="benchmarks.growth")
    assert not isinstance(base, str), base
    found: dict[str, dict[int, list[list[float]]]] = {axis: {} for axis in axes}
    for axis, values in axes.items():
        for value in values:
            runs = [child(limit, axis, value, module="benchmarks.growth") for _ in range(rounds)]
            bad = next((run for run in runs if isinstance(run, str)), None)
            if bad is not None:
                click.echo(f"{axis:<12}{value:>10}  {bad}")
                continue
            found[axis][value] = [[run[0], run[1] - base[1]] for run in runs if not isinstance(run, str)]
            told = "".join(f"{statistics.median(each):>12.3f} ({min(each):.3f} to {max(each):.3f})" for each in zip(*found[axis][value], strict=True))
            click.echo(f"{axis:<12}{value:>10}{told}  n = {rounds}")
    return found


def plot(found: dict[str, dict[int, list[list[float]]]], path: Path) -> None:
    """Writes the plot: a column for each axis; bars from the least to the most of the rounds."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(found), 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(UNITS), len(found), squeeze=False)
    for column, (axis, points) in enumerate(found.items()):
        for row, unit in enumerate(UNITS):
            panel, values = panels[row][column], sorted(points)
            runs = [[run[row] for run in points[value]] for value in values]
            middle = [statistics.median(run) for run in runs]
            bars = [[m - min(run) for m, run in zip(middle, runs, strict=True)], [max(run) - m for m, run in zip(middle, runs, strict=True)]]
            panel.errorbar(values, middle, yerr=bars, marker="o", capsize=3)
            panel.set(xscale="log", xlabel=axis, ylabel=unit, ylim=(0, 1.1 * max(map(max, runs))))
            panel.set(xticks=values, xticklabels=[f"{value:,}" for value in values])
            panel.minorticks_off()
    figure.savefig(path, dpi=100)


def numbers(_: click.Context, __: click.Parameter, text: str) -> list[int]:
    """1,2,5 -> [1, 2, 5]"""
    return [int(word) for word in text.split(",") if word]


@click.command()
@click.option("--resolution", default="16,32,64", show_default=True, callback=numbers, help="Of the pictures; powers of two")
@click.option("--seeds", default="1000,10000,30000", show_default=True, callback=numbers)
@click.option("--features", default="1,2,5,20", show_default=True, callback=numbers)
@click.option("--rounds", default=3, show_default=True, help="Processes for each point")
@click.option("--limit", default=12.0, show_default=True, help="GiB of address space that a process may have")
@click.option("--out", type=click.Path(path_type=Path), default="growth.png", show_default=True)
@click.option("--child", "words", multiple=True, hidden=True)
def main(rounds: int, limit: float, out: Path, words: tuple[str, ...], **axes: list[int]) -> None:
    """Print a table and write a plot."""
    if words:
        point(words[0], int(words[1]))
        return
    os.environ.update(ALLOCATOR)  # Of the children.
    click.echo(f"{'':<12}{'':>10}   {UNITS[0]} and {UNITS[1]}: median (least to most)")
    plot(measured(axes, rounds, limit), out)


if __name__ == "__main__":
    main()
