# SPDX-License-Identifier: Apache-2.0
"""How much faster a CPU draws and trains with the channels of small images side by side in memory: ratios, measured in turn in one process.

python -m benchmarks.layout --resolution=64 --channel-base=1024 --batch=32
"""

from __future__ import annotations

import time
from collections.abc import Callable

import click
import numpy as np
import torch

from stylegan_redact.network import broadcast_w
from stylegan_redact.networks.stylegan2 import Discriminator, Generator
from torch_utils.ops import conv2d_resample

LAYOUTS = {"planes": 0, "pixels": conv2d_resample.LARGEST_BY_PIXEL}


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


@click.command()
@click.option("--resolution", default=64, show_default=True)
@click.option("--channel-base", default=1024, show_default=True)
@click.option("--batch", default=32, show_default=True)
@click.option("--rounds", default=15, show_default=True)
def main(resolution: int, channel_base: int, batch: int, rounds: int) -> None:
    """Print the median and the quartiles of time with planes apart / time with small images' pixels together."""
    torch.manual_seed(0)
    G = Generator(z_dim=64, c_dim=0, w_dim=64, img_resolution=resolution, img_channels=3, channel_base=channel_base).requires_grad_(False)
    D = Discriminator(c_dim=0, img_resolution=resolution, img_channels=3, channel_base=channel_base).requires_grad_(False)
    ws = broadcast_w(G, torch.randn([batch, 64]))
    img = torch.randn([batch, 3, resolution, resolution])

    def draw() -> None:
        with torch.no_grad():
            G.synthesis(ws, noise_mode="const")

    def step() -> None:
        G.synthesis.requires_grad_(True)
        G.synthesis(ws, noise_mode="const").square().mean().backward()
        G.synthesis.requires_grad_(False)

    def judge() -> None:
        D(img.requires_grad_(True), None).sum().backward()

    for name, work in {"draw": draw, "draw and back": step, "discriminate and back": judge}.items():
        times: dict[str, list[float]] = {layout: [] for layout in LAYOUTS}
        for _ in range(rounds + 1):
            for layout, limit in LAYOUTS.items():
                conv2d_resample.LARGEST_BY_PIXEL = limit
                times[layout].append(seconds(work))
        ratio = np.array(times["planes"][1:]) / np.array(times["pixels"][1:])
        low, middle, high = np.quantile(ratio, [0.25, 0.5, 0.75])
        click.echo(f"{resolution} px, batch {batch}, {name}: {middle:.2f} times as fast (quartiles {low:.2f} to {high:.2f}, n = {len(ratio)})")


if __name__ == "__main__":
    main()
