# SPDX-License-Identifier: Apache-2.0
"""How much faster a fine-tuning step is with the GPU's kernels than with torch's operations or NVIDIA's: ratios, measured in turn in one process.

python -m benchmarks.gpu_step --network=stylegan3-r --host=CHECKOUT

A step draws images with a frozen network and a trainable one, both with the same random weights, takes the mean absolute difference and the
logit of a fixed random linear probe, goes back, and lets Adam change the trainable one. Contenders take turns, A B C A B C. `--device=cpu
--resolution=32` shows that it runs; such figures say nothing about a GPU.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.beside import Host
from stylegan_redact import networks
from torch_utils.ops import gpu_kernels
from torch_utils.ops.cpu_kernels import SWITCH

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "stylegan2": ("stylegan2", dict(channel_base=32768, channel_max=512)),
    "stylegan3-t": ("stylegan3", dict(channel_base=32768, channel_max=512)),
    "stylegan3-r": ("stylegan3", dict(channel_base=65536, channel_max=1024, conv_kernel=1, use_radial_filters=True)),
}
"""Name -> our module, and what its `SynthesisNetwork` takes at 1024 px."""
SMALL = dict(channel_base=512, channel_max=16)
"""Below 256 px, where nothing is measured."""


@dataclass(frozen=True)
class Setting:
    """What is done in a step, and with what."""

    network: str
    resolution: int
    batch: int
    device: torch.device
    half: bool
    live: bool
    graphs: bool
    compiled: bool


def module_of(name: str, host: Path | None) -> Any:
    """Our networks' source on our operations, or once more on those of an NVIDIA checkout."""
    if host is None:
        return importlib.import_module(f"{networks.__name__}.{name}")
    spec = importlib.util.spec_from_file_location(f"{name}_on_host", Path(networks.__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    with Host(host).in_place():
        spec.loader.exec_module(module)
    return module


def synthesis_of(setting: Setting, host: Path | None) -> torch.nn.Module:
    """The same random weights for every contender."""
    name, options = NETWORKS[setting.network]
    options = options if setting.resolution >= 256 else {**options, **SMALL}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = module_of(name, host).SynthesisNetwork(512, setting.resolution, 3, num_fp16_res=4 if setting.half else 0, **options)
    return network.to(setting.device)


def step_of(setting: Setting, host: Path | None) -> Callable[[], torch.Tensor]:
    """One contender's step, which returns its loss."""
    frozen, trained = (synthesis_of(setting, host) for _ in range(2))
    frozen.requires_grad_(False)
    random = torch.Generator().manual_seed(1)
    ws = torch.randn([setting.batch, trained.num_ws, 512], generator=random).to(setting.device)  # type: ignore[list-item]
    probe = torch.randn([3, setting.resolution, setting.resolution], generator=random).to(setting.device) / setting.resolution
    on_gpu = setting.device.type == "cuda"
    optimizer = torch.optim.Adam(trained.parameters(), lr=1e-4, fused=on_gpu, capturable=on_gpu and setting.graphs)
    with torch.no_grad():
        cached = frozen(ws, noise_mode="const")
    draw = torch.compile(trained) if setting.compiled else trained

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=not setting.graphs)
        with torch.no_grad():
            target = frozen(ws, noise_mode="const") if setting.live else cached
        img = draw(ws, noise_mode="const")
        loss = (img - target).abs().mean() + (img * probe).sum([1, 2, 3]).square().mean() * 1e-3
        loss.backward()
        optimizer.step()
        return loss.detach()

    return captured(step) if setting.graphs and on_gpu else step


def captured(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """The step as a graph of CUDA, after a few on a stream of their own, as torch asks for."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step()

    def replay() -> torch.Tensor:
        graph.replay()
        return loss

    return replay


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device is done."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    begin = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - begin


def flops_of(setting: Setting) -> int:
    """Of the convolutions and matrix products of a step."""
    plain = Setting(setting.network, setting.resolution, setting.batch, setting.device, setting.half, setting.live, False, False)
    step = step_of(plain, None)
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def rate_of(device: torch.device) -> float:
    """FLOP/s of a large matrix product, in bfloat16 on a GPU: what a step could reach at most."""
    n, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (512, torch.float32)
    a = torch.randn([n, n], device=device, dtype=dtype)
    for _ in range(3):
        a @ a
    return 2 * n**3 / min(timed(lambda: a @ a, device) for _ in range(10))


@click.command()
@click.option("--network", type=click.Choice(list(NETWORKS)), default="stylegan2", show_default=True)
@click.option("--resolution", default=1024, show_default=True)
@click.option("--batch", default=4, show_default=True)
@click.option("--device", default="cuda", show_default=True)
@click.option("--rounds", default=10, show_default=True)
@click.option("--half/--single", default=True, show_default=True, help="float16 in the four highest resolutions, on a GPU.")
@click.option("--live/--cached", default=True, show_default=True, help="Draw the frozen network's images in every step.")
@click.option("--graphs", is_flag=True, help="Our steps as graphs of CUDA.")
@click.option("--compile", "compiled", is_flag=True, help="Our trainable network through torch.compile.")
@click.option("--host", type=click.Path(exists=True, file_okay=False, path_type=Path), help="NVIDIA checkout to compare with as well.")
def main(rounds: int, host: Path | None, device: str, **options: Any) -> None:
    """Print the median and the range of each contender's time / the kernels' time, images a second, peak memory, and the share of the bf16 limit."""
    setting = Setting(device=torch.device(device), **options)
    if setting.device.type == "cuda" and not torch.cuda.is_available():
        raise click.ClickException("a step on a GPU was asked for - torch sees none - use --device=cpu --resolution=32 to see that this runs")
    torch.backends.cudnn.benchmark = True
    plain = Setting(**{**vars(setting), "graphs": False, "compiled": False})
    asked: dict[str, tuple[Setting, Path | None, str]] = {"kernels": (setting, None, "on"), "torch's operations": (plain, None, "off")}
    if host is not None:
        asked["host's operations"] = (plain, host, "on")
    steps, memory = {}, {}
    for name, (how, where, switch) in asked.items():
        os.environ[SWITCH] = switch
        steps[name] = step_of(how, where)
        steps[name]()
        if setting.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            steps[name]()
            memory[name] = torch.cuda.max_memory_allocated()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(-2, rounds):  # the first ones warm up
        for name, step in steps.items():
            os.environ[SWITCH] = asked[name][2]
            seconds = timed(step, setting.device)
            if round_ >= 0:
                times[name].append(seconds)
    os.environ[SWITCH] = "on"
    report(setting, times, memory, flops_of(plain), rate_of(setting.device))


def report(setting: Setting, times: dict[str, list[float]], memory: dict[str, int], flops: int, limit: float) -> None:
    """Prints what was measured."""
    gpu = torch.cuda.get_device_name() if setting.device.type == "cuda" else f"{platform.machine()}, no GPU"
    kernels = type(gpu_kernels.provider(setting.device.type)).__name__
    what = f"{setting.network} at {setting.resolution} px, batch {setting.batch}, {'live' if setting.live else 'cached'} target"
    click.echo(f"{what}, n = {len(times['kernels'])}; {gpu}, torch {torch.__version__}, {kernels}; {setting}")
    click.echo(f"  limit: {limit / 1e12:.3f} TFLOP/s of a matrix product; a step is {flops / 1e12:.3f} TFLOP of convolutions and matrix products")
    ours = np.array(times["kernels"])
    for name, seconds in times.items():
        ratio, middle = np.array(seconds) / ours, float(np.median(seconds))
        peak = f"{memory[name] / 2**30:.2f} GiB" if name in memory else "peak memory not measured"
        rates = f"{setting.batch / middle:.2f} images/s, {peak}, {100 * flops / middle / limit:.1f} % of the limit"
        click.echo(f"  {name}: {np.median(ratio):.2f} times the time ({ratio.min():.2f} to {ratio.max():.2f}); {rates}")


if __name__ == "__main__":
    main()
