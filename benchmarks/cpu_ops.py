# SPDX-License-Identifier: Apache-2.0
"""How much faster the compiled CPU kernels resample than torch's operations do: ratios, measured in turn in one process.

python -m benchmarks.cpu_ops --network=stylegan3-t --threads=1

Every layer of the network is run by one contender after the other, A B C A B C; a ratio is that of two sums over the layers. So what else a machine
has to do meets all contenders alike, and ratios mean something where seconds do not. `--clock=cpu` also leaves out the time that the
process waited for a processor; with more than one thread only `--clock=wall` says what a user sees.
"""

from __future__ import annotations

import functools
import gc
import math
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.beside import Host
from stylegan_redact.networks.stylegan3 import SynthesisNetwork
from torch_utils.ops import bias_act, cpu_kernels, filtered_lrelu, upfirdn2d

CONFIGURATIONS = {
    "stylegan3-t": dict(channel_base=16384, channel_max=512),
    "stylegan3-r": dict(channel_base=32768, channel_max=1024, conv_kernel=1, use_radial_filters=True),
}
Call = Callable[[Any, torch.Tensor, str], torch.Tensor]
"""(module of operations, images, impl) -> images."""
Layer = tuple[str, tuple[int, ...], Call]


def layers_of_stylegan3(configuration: str, batch: int) -> list[Layer]:
    """Name, shape of the images and the `filtered_lrelu` of every layer at 256 px, but ToRGB, which filters nothing."""
    synthesis = SynthesisNetwork(512, 256, 3, **CONFIGURATIONS[configuration])
    layers: list[Layer] = []
    for name in synthesis.layer_names[:-1]:
        layer = getattr(synthesis, name)
        side = layer.in_size[0] + layer.conv_kernel - 1
        options = dict(fu=layer.up_filter, fd=layer.down_filter, b=torch.randn(layer.out_channels), up=layer.up_factor, down=layer.down_factor)
        options |= dict(padding=layer.padding, gain=math.sqrt(2), slope=0.2, clamp=256)

        def call(module: Any, x: torch.Tensor, impl: str, options: dict[str, Any] = options) -> torch.Tensor:
            return module.filtered_lrelu(x, **options, impl=impl)

        layers.append((name, (batch, layer.out_channels, side, side), call))
    return layers


def layers_of_stylegan2(batch: int) -> list[Layer]:
    """The filters behind the up-sampling convolutions at 256 px, and those that enlarge the image of the skip connections."""
    f = upfirdn2d.setup_filter([1, 3, 3, 1])
    layers: list[Layer] = []
    for resolution in (8, 16, 32, 64, 128, 256):
        channels = min(32768 // resolution, 512)

        def blur(module: Any, x: torch.Tensor, impl: str) -> torch.Tensor:
            return module.upfirdn2d(x, f, padding=[1, 1, 1, 1], gain=4, impl=impl)

        def enlarge(module: Any, x: torch.Tensor, impl: str) -> torch.Tensor:
            return module.upsample2d(x, f, impl=impl)

        layers.append((f"b{resolution}.conv0", (batch, channels, resolution + 1, resolution + 1), blur))
        layers.append((f"b{resolution}.img", (batch, 3, resolution // 2, resolution // 2), enlarge))
    return layers


def layers_of_activation(batch: int) -> list[Layer]:
    """Bias, leaky ReLU, gain and clamp behind the large convolutions of StyleGAN2 at 256 px."""
    layers: list[Layer] = []
    for resolution in (64, 128, 256):
        channels = min(16384 // resolution, 512)
        b = torch.randn(channels)

        def bend(module: Any, x: torch.Tensor, impl: str, b: torch.Tensor = b) -> torch.Tensor:
            return module.bias_act(x, b, act="lrelu", clamp=256, impl=impl)

        layers.append((f"b{resolution}.conv1", (batch, channels, resolution, resolution), bend))
    return layers


def work_of(module: Any, impl: str, compiled: bool, backward: bool) -> Callable[[Call, torch.Tensor], torch.Tensor]:
    """One contender: runs a layer, and its gradient too if asked to."""
    least = 0 if compiled else sys.maxsize

    def work(call: Call, x: torch.Tensor) -> torch.Tensor:
        cpu_kernels.LEAST_SAMPLES = least
        if not backward:
            with torch.no_grad():
                return call(module, x, impl)
        x = x.detach().requires_grad_()
        y = call(module, x, impl)
        (dx,) = torch.autograd.grad(y, x, y.detach())
        return dx

    return work


@click.command()
@click.option("--network", type=click.Choice(["stylegan2", "activation", *CONFIGURATIONS]), default="stylegan3-t", show_default=True)
@click.option("--batch", default=1, show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--rounds", default=5, show_default=True)
@click.option("--backward", is_flag=True, help="Forward and backward instead of forward.")
@click.option("--every", default=1, show_default=True, help="Only every n-th layer, counted from the last.")
@click.option("--clock", type=click.Choice(["wall", "cpu"]), default="wall", show_default=True)
@click.option("--host", type=click.Path(exists=True, file_okay=False, path_type=Path), help="NVIDIA checkout to compare with as well.")
def main(network: str, batch: int, threads: int, rounds: int, backward: bool, every: int, clock: str, host: Path | None) -> None:
    """Print the median and the range of the time of each contender / the time of the compiled kernels, and the largest difference."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    now = time.process_time if clock == "cpu" else time.perf_counter
    makers = {"stylegan2": (upfirdn2d, layers_of_stylegan2), "activation": (bias_act, layers_of_activation)}
    ours, make = makers.get(network, (filtered_lrelu, functools.partial(layers_of_stylegan3, network)))
    layers, name = make(batch), ours.__name__.rpartition(".")[2]
    layers = layers[::-1][::every][::-1]
    contenders = {"compiled": work_of(ours, "cuda", True, backward), "torch-only path": work_of(ours, "cuda", False, backward)}
    contenders["reference"] = work_of(ours, "ref", False, backward)
    if host is not None:
        contenders["host's reference"] = work_of(Host(host).module(f"torch_utils.ops.{name}"), "ref", False, backward)
    if cpu_kernels._plugin() is None:
        raise click.ClickException("there is nothing to compare: the kernels are not compiled")

    times = {contender: np.zeros([rounds, len(layers)]) for contender in contenders}
    worst = 0.0
    for index, (_, shape, call) in enumerate(layers):
        x = torch.randn(shape)
        for round_ in range(-1, rounds):  # the first one warms up
            results = {}
            for contender, work in contenders.items():
                gc.collect()
                begin = now()
                results[contender] = work(call, x)
                if round_ >= 0:
                    times[contender][round_, index] = now() - begin
            scale = results["reference"].abs().max()
            worst = max(worst, *(float((result - results["reference"]).abs().max() / scale) for result in results.values()))
    what = (
        f"{network} at 256 px, {name} of {len(layers)} layers, {'forward and backward' if backward else 'forward'}, batch {batch}, threads {threads}"
    )
    click.echo(f"{what}, {clock} clock, n = {rounds}; torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {platform.machine()}")
    click.echo(f"  compiled: median {np.median(times['compiled'].sum(1)):.3f} s; largest relative difference {worst:.1e}")
    for contender in list(contenders)[1:]:
        ratio = times[contender].sum(1) / times["compiled"].sum(1)
        each = np.median(times[contender] / times["compiled"], axis=0)
        text = f"{np.median(ratio):.1f} times the time ({ratio.min():.1f} to {ratio.max():.1f}), single layers {each.min():.1f} to {each.max():.1f}"
        click.echo(f"  {contender}: {text}")


if __name__ == "__main__":
    main()
