# SPDX-License-Identifier: Apache-2.0
"""How much faster whole networks draw and learn on a CPU than with torch's operations and than NVIDIA's code: measured in turn in one process.

python -m benchmarks.whole_network --network=stylegan2 --resolution=256 --batch=1 --work=step --host=CHECKOUT

All contenders have the same weights and take turns, A B C A B C. A step is what a fine-tuning does for a batch: a frozen target, a trainable
synthesis network, L1, backward, Adam (ours the fused one of torch, as its methods have it). The limit printed is the time that plain convolutions
of the same arithmetic take, timed in the same process.

With --apart they take turns too, but each in a process of its own, as its users run it: ours with memory kept as `redact.py` has it, NVIDIA's code
with the system's settings. Then the peak of memory of each is printed as well.
"""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from benchmarks.beside import Host
from benchmarks.memory import GIB_IN_MIB
from stylegan_redact.host import ALLOCATOR
from stylegan_redact.networks import stylegan2, stylegan3
from stylegan_redact.ticks import peak_memory
from torch_utils.ops import cpu_kernels

NETWORKS = {
    "stylegan2": (stylegan2, "training.networks_stylegan2", dict(channel_base=32768, channel_max=512)),
    "stylegan3-t": (stylegan3, "training.networks_stylegan3", dict(channel_base=32768, channel_max=512)),
    "stylegan3-r": (
        stylegan3,
        "training.networks_stylegan3",
        dict(channel_base=65536, channel_max=1024, conv_kernel=1, use_radial_filters=True),
    ),
}
"""Name -> our module, theirs, and the configuration; up to 256 px it has half the channels, as the published ones have."""
Convolution = tuple[int, int, int, int]
"""Channels in and out, side of the kernel, side of the image."""
Work = Callable[[], torch.Tensor]
HOST = "NVIDIA's code"


def generator(module: Any, name: str, resolution: int) -> Any:
    """The generator of a module of networks, with random weights."""
    options = dict(NETWORKS[name][2])
    if resolution <= 256:
        options["channel_base"] //= 2
    return module.Generator(z_dim=512, c_dim=0, w_dim=512, img_resolution=resolution, img_channels=3, **options).eval().requires_grad_(False)


def convolutions(G: Any, name: str) -> list[Convolution]:
    """Those of the synthesis network; an up-sampling one counts at the side of its input, where its multiplications are."""
    found: list[Convolution] = []
    if name == "stylegan2":
        for side in G.synthesis.block_resolutions:
            block = getattr(G.synthesis, f"b{side}")
            layers = [(block.conv0, side // 2)] if hasattr(block, "conv0") else []
            layers += [(block.conv1, side), (block.torgb, side)]
            found += [(layer.weight.shape[1], layer.weight.shape[0], layer.weight.shape[2], at) for layer, at in layers]
        return found
    for label in G.synthesis.layer_names:
        layer = getattr(G.synthesis, label)
        found.append((layer.in_channels, layer.out_channels, layer.conv_kernel, int(layer.in_size[0]) + layer.conv_kernel - 1))
    return found


def arithmetic(found: list[Convolution], batch: int) -> float:
    """Multiplications and additions of the convolutions."""
    return sum(2.0 * i * o * k * k * side * side * batch for i, o, k, side in found)


def limit(found: list[Convolution], batch: int, backward: bool, now: Callable[[], float]) -> float:
    """Seconds that the plain convolutions take, each the better of two; four times as much of a step, whose gradients are convolutions too."""
    total = 0.0
    for i, o, k, side in found:
        x, w = torch.randn(batch, i, side, side), torch.randn(o, i, k, k)
        spent = []
        for _ in range(3):
            begin = now()
            torch.nn.functional.conv2d(x, w, padding=k // 2)
            spent.append(now() - begin)
        total += min(spent[1:])
    return total * (4 if backward else 1)  # The frozen target, and the student forward and twice back.


def drawing(G: Any, ws: torch.Tensor) -> Work:
    """Draws a batch."""

    def work() -> torch.Tensor:
        with torch.no_grad():
            return G.synthesis(ws, noise_mode="const", force_fp32=True)

    return work


def learning(G: Any, frozen: Any, ws: torch.Tensor, fused: bool | None = None) -> Work:
    """One step of a fine-tuning towards a frozen network; the loss comes back. The rate is 0, so that every step is the same."""
    G.synthesis.requires_grad_(True)
    optimiser = torch.optim.Adam(G.synthesis.parameters(), lr=0.0, fused=fused)
    target_of = drawing(frozen, ws + 0.1)

    def work() -> torch.Tensor:
        loss = (G.synthesis(ws, noise_mode="const", force_fp32=True) - target_of()).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.detach()

    return work


def with_kernels(work: Work, compiled: bool) -> Work:
    """The same with compiled operations, or without."""
    least = cpu_kernels.LEAST_SAMPLES

    def chosen() -> torch.Tensor:
        cpu_kernels.LEAST_SAMPLES = least if compiled else sys.maxsize
        return work()

    return chosen


def contenders_of(name: str, resolution: int, ws: torch.Tensor, step: bool, host: Path | None, who: list[str]) -> dict[str, Work]:
    """Name -> work of those asked for; all have the same weights."""
    module = NETWORKS[name][0]
    torch.manual_seed(0)
    state = generator(module, name, resolution).state_dict()

    def work(module: Any, fused: bool | None) -> Work:
        G, frozen = generator(module, name, resolution), generator(module, name, resolution) if step else None
        for one in filter(None, (G, frozen)):
            one.load_state_dict(state)
        return learning(G, frozen, ws, fused) if step else drawing(G, ws)

    made: dict[str, Work] = {}
    if "compiled" in who or "torch-only" in who:
        ours = work(module, True)
        made = {one: with_kernels(ours, one == "compiled") for one in ("compiled", "torch-only") if one in who}
    if HOST in who:
        assert host is not None
        checkout = Host(host)
        theirs = checkout.module(NETWORKS[name][1])
        with checkout.in_place():
            made[HOST] = work(theirs, None)
    return made


def serve(job: Work, now: Callable[[], float]) -> None:
    """Does the work once for each line that comes in, and prints the seconds; then its peak of memory in MiB."""
    for _ in sys.stdin:
        gc.collect()
        begin = now()
        job()
        sys.stdout.write(f"{now() - begin}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{peak_memory() * GIB_IN_MIB}\n")


def apart(who: list[str], rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds and peak of memory in MiB of contenders, each a process of this very command, in turn."""
    plain = {name: value for name, value in os.environ.items() if name not in ALLOCATOR}
    workers = {
        one: subprocess.Popen(
            [sys.executable, "-m", "benchmarks.whole_network", *sys.argv[1:], f"--serve={one}"],
            env=plain if one == HOST else {**plain, **ALLOCATOR},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for one in who
    }
    times: dict[str, list[float]] = {one: [] for one in who}
    for round_ in range(-1, rounds):  # the first one warms up
        for one, worker in workers.items():
            assert worker.stdin is not None and worker.stdout is not None
            worker.stdin.write("\n")
            worker.stdin.flush()
            seconds = numbered(worker)
            if round_ >= 0:
                times[one].append(seconds)
    for worker in workers.values():
        assert worker.stdin is not None
        worker.stdin.close()
    return times, {one: numbered(worker) for one, worker in workers.items()}


def numbered(worker: subprocess.Popen[str]) -> float:
    """The next number that a worker prints; it may tell that operations are being compiled."""
    assert worker.stdout is not None
    for line in worker.stdout:
        try:
            return float(line)
        except ValueError:
            continue
    raise click.ClickException(f"a contender ended with exit code {worker.wait()}")


@click.command()
@click.option("--network", type=click.Choice(list(NETWORKS)), default="stylegan2", show_default=True)
@click.option("--resolution", default=256, show_default=True)
@click.option("--batch", default=1, show_default=True)
@click.option("--work", type=click.Choice(["forward", "step"]), default="forward", show_default=True)
@click.option("--threads", default=1, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--clock", type=click.Choice(["wall", "cpu"]), default="wall", show_default=True)
@click.option("--skip", multiple=True, type=click.Choice(["torch-only"]), help="A contender to leave out.")
@click.option("--host", type=click.Path(exists=True, file_okay=False, path_type=Path), help="NVIDIA checkout to compare with as well.")
@click.option("--apart", "separate", is_flag=True, help="Each contender in a process of its own, as its users run it.")
@click.option("--serve", "serve_", hidden=True)
def main(  # noqa: PLR0913 - the options
    network: str,
    resolution: int,
    batch: int,
    work: str,
    threads: int,
    rounds: int,
    clock: str,
    skip: tuple[str, ...],
    host: Path | None,
    separate: bool,
    serve_: str | None,
) -> None:
    """Print seconds of each contender, the time of each / that with compiled operations, and how near that is to the plain convolutions."""
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    now = time.process_time if clock == "cpu" else time.perf_counter
    if cpu_kernels._plugin() is None:
        raise click.ClickException("there is nothing to compare: the kernels are not compiled")
    step = work == "step"
    num_ws = 2 * resolution.bit_length() - 4 if network == "stylegan2" else 16
    ws = torch.randn(batch, 1, 512).repeat(1, num_ws, 1)
    what = f"{network} at {resolution} px, {work}, batch {batch}, threads {threads}, {clock} clock, n = {rounds}"
    who = [one for one in ("compiled", "torch-only", HOST) if one not in skip and (one != HOST or host is not None)]
    if separate and serve_ is None:
        times, peaks = apart(who, rounds)
        report(f"{what}, each in a process of its own", times)
        for one, peak in peaks.items():
            click.echo(f"  {one}: peak of memory {peak:,.0f} MiB")
        return
    contenders = contenders_of(network, resolution, ws, step, host, [serve_] if serve_ else who)
    if serve_ is not None:
        serve(contenders[serve_], now)
        return
    times = {one: list[float]() for one in contenders}
    worst = 0.0
    for round_ in range(-1, rounds):  # the first one warms up
        results = {}
        for one, job in contenders.items():
            gc.collect()
            begin = now()
            results[one] = job()
            if round_ >= 0:
                times[one].append(now() - begin)
        scale = results["compiled"].abs().max()
        worst = max(worst, *(float((result - results["compiled"]).abs().max() / scale) for result in results.values()))
    found = convolutions(generator(NETWORKS[network][0], network, resolution), network)
    plain = limit(found, batch, step, now)
    kept = "kept" if all(os.environ.get(name) == value for name, value in ALLOCATOR.items()) else "given back"
    report(f"{what}, memory {kept}, largest relative difference {worst:.1e}", times)
    rate = arithmetic(found, batch) * (4 if step else 1) / plain / 1e9
    click.echo(f"  plain convolutions {plain:.3f} s, {rate:.0f} GFLOP/s: {plain / np.median(times['compiled']):.0%} of the time of compiled")


def report(what: str, times: dict[str, list[float]]) -> None:
    """Prints the times and ratios."""
    click.echo(f"{what}; torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {platform.machine()}")
    ours = np.array(times["compiled"])
    for who, each in times.items():
        spent = np.array(each)
        ratio = spent / ours
        text = f"  {who}: {np.median(spent):.3f} s ({spent.min():.3f} to {spent.max():.3f})"
        click.echo(text if who == "compiled" else f"{text}, {np.median(ratio):.2f} times compiled ({ratio.min():.2f} to {ratio.max():.2f})")


if __name__ == "__main__":
    main()
