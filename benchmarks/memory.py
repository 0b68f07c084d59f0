# SPDX-License-Identifier: Apache-2.0
"""What memory grows with: bytes for each labelled and each measured seed, and the peak of one training step of a large network.

python -m benchmarks.memory --seeds=10000,100000,1000000
python -m benchmarks.memory --network=stylegan2-1024 --limit=12
python -m benchmarks.memory --network=stylegan2-1024 --work=redaction

With --seeds: the bundled network's own mapping network, and in the place of pictures and classifiers, which are gone after their batch, the first
numbers of w; then what a run does with them: the feature and its direction of labelled latents, residual rate and collateral of measured ones. What
is left is what grows. Each line is a process of its own. Its memory is what only the system's swap could take from it (RssAnon of Linux), looked at
a hundred times a second; what lies in files (stylegan_redact/rows.py) the system drops when it has need.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import click
import torch

from benchmarks import whole_run
from stylegan_redact import evaluation
from stylegan_redact.features.attribute import Attribute
from stylegan_redact.network import load_network, sample_w
from stylegan_redact.networks import stylegan2, stylegan3
from stylegan_redact.ticks import peak_memory
from stylegan_redact.training.guide import Guide
from stylegan_redact.training.guided import Batch, GuidedLoss, guided_synthesis
from stylegan_redact.training.schedule import Schedule

MIB = 1 << 20
GIB_IN_MIB = 1024
LARGE = {
    "stylegan2-256": (stylegan2.Generator, 256, dict(channel_base=16384, channel_max=512)),
    "stylegan2-1024": (stylegan2.Generator, 1024, dict(channel_base=32768, channel_max=512)),
    "stylegan3-r-256": (stylegan3.Generator, 256, dict(channel_base=32768, channel_max=1024, conv_kernel=1, use_radial_filters=True)),
    "stylegan3-r-1024": (stylegan3.Generator, 1024, dict(channel_base=65536, channel_max=1024, conv_kernel=1, use_radial_filters=True)),
}
STAGES = ("nothing", "w", "label", "measure")
BATCH = 4096


class Plain(torch.nn.Module):
    """A synthesis network whose picture is the beginning of w, and a detector of such pictures."""

    differentiable, attributes = False, tuple(f"a{index}" for index in range(14))

    def forward(self, ws: torch.Tensor, **_: Any) -> torch.Tensor:
        """[n, num_ws, w_dim] -> [n, 1, 4, 4]"""
        return ws[:, 0, :16].reshape(-1, 1, 4, 4)

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        """[n, 14]"""
        return img.flatten(1)[:, :14]


def grown(stage: str, count: int, *, quiet: bool = False) -> None:
    """Does a stage with so many seeds, and, unless `quiet`, prints the most memory that it took and the size of its results, both in MiB."""
    network = load_network(Path(evaluation.__file__).parents[1] / "portraits" / "portraits64.pkl")
    plain = Plain()
    for G in (network.G, network.G_ema):
        G.synthesis = plain
    with Watch() as watch:
        kept = _results(stage, count, network, plain)
    if not quiet:
        sys.stdout.write(f"{watch.most:.0f} {kept / MIB:.0f}\n")


def _results(stage: str, count: int, network: Any, plain: Plain) -> int:
    """Bytes of what comes of a stage."""
    if stage == "w":
        return sample_w(network.G_ema, range(count)).nbytes
    if stage == "label":
        latents = Attribute("a0", plain).gather(network, range(count), batch=BATCH).latents
        assert latents is not None and latents.logits is not None and latents.seeds is not None
        return latents.w.nbytes + latents.logits.nbytes + latents.seeds.nbytes
    if stage == "measure":
        pairs = evaluation.measure_pairs(network, network, plain, range(count), batch=BATCH, similarity=False)
        evaluation.ask(pairs, "a0", questions=["residual_rate", "collateral"])
        return sum(value.nbytes for value in vars(pairs).values() if isinstance(value, torch.Tensor))
    return 0


class Watch:
    """Within the block, the most memory of its own that this process has, files not counted."""

    most = 0.0
    """MiB."""

    def __enter__(self) -> Watch:
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._look)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _look(self) -> None:
        while True:
            last = self.over.wait(0.01)
            (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
            self.most = max(self.most, int(line.split()[1]) / GIB_IN_MIB)
            if last:
                return


class Rows:
    """A detector whose logits are means of rows of the picture: it costs nothing and remembers nothing."""

    differentiable = True

    def __init__(self, count: int) -> None:
        self.attributes = tuple(f"a{index}" for index in range(count))

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        """[n, C, H, W] -> [n, attributes]"""
        return img.mean(dim=(1, 3))[:, : len(self.attributes)]


def step(name: str, batch: int, micro: int) -> None:
    """One training step of `edit` on a network of random weights, steered by a plain detector; prints peak MiB, seconds and millions of weights."""
    kind, resolution, options = LARGE[name]
    torch.manual_seed(0)
    sizes: dict[str, Any] = dict(z_dim=512, c_dim=0, w_dim=512, img_resolution=resolution, img_channels=3)
    student, teacher = (kind(**sizes, **options).eval().requires_grad_(False) for _ in range(2))
    begin = time.perf_counter()
    train_once(student, teacher, batch, micro, 1)
    weights = sum(parameter.numel() for parameter in student.parameters()) / 1e6
    sys.stdout.write(f"{GIB_IN_MIB * peak_memory():.0f} {time.perf_counter() - begin:.0f} {weights:.0f}\n")


def train_once(student: Any, teacher: Any, batch: int, micro: int, features: int) -> None:
    """One step of `edit`, of so many features, on `student`, a generator like `teacher`."""
    teacher.load_state_dict(student.state_dict())

    def codes(n: int, generator: torch.Generator) -> Batch:
        ws = teacher.mapping(torch.randn([n, teacher.z_dim], generator=generator), None)
        return Batch(ws, torch.zeros([n], dtype=torch.bool))

    shape = (teacher.img_channels, teacher.img_resolution, teacher.img_resolution)
    loss = GuidedLoss(Guide(Rows(features + 1), tuple(range(features))))
    guided_synthesis(student.synthesis, teacher.synthesis, codes, loss, Schedule(1, batch, 1e-6, 0, micro), img_shape=shape)


def child(limit: float, *words: object, module: str = "benchmarks.memory") -> list[float] | str:
    """The numbers that `python -m module --child=WORD...` prints, or what it ended with, its memory held to so many GiB."""
    most = int(limit * (1 << 30))
    done = subprocess.run(
        [sys.executable, "-m", module, *(f"--child={word}" for word in words)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most)),
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]
    return [float(word) for word in done.stdout.splitlines()[-1].split()]  # Above it, compiled operations may tell that they are being made.


@click.command()
@click.option("--seeds", default="10000,100000", show_default=True, help="Numbers of seeds")
@click.option("--network", "name", type=click.Choice(list(LARGE)), help="Instead: one step of training of a network of this size")
@click.option("--work", type=click.Choice(["step", "redaction"]), default="step", show_default=True, help="With --network; a whole run of redact.py")
@click.option("--batch", default=1, show_default=True, help="Images of that step")
@click.option("--micro", default=1, show_default=True, help="Images at a time in it")
@click.option("--limit", default=12.0, show_default=True, help="GiB of address space that a process may have")
@click.option("--child", "words", multiple=True, hidden=True)
def main(seeds: str, name: str | None, work: str, batch: int, micro: int, limit: float, words: tuple[str, ...]) -> None:
    """Print a table of peaks of memory."""
    if words:
        return grown(words[1], int(words[2])) if words[0] == "seeds" else step(words[1], int(words[2]), int(words[3]))
    if name is not None and work == "redaction":
        code, peak, seconds, told = whole_run.run(*LARGE[name])
        click.echo(f"{told}\n{name}, a redaction in one step of 4 images: exit code {code}, peak {peak:.2f} GiB, {seconds:.0f} s of processor")
        return None
    if name is not None:
        found = child(limit, "step", name, batch, micro)
        told = found if isinstance(found, str) else "peak {:.0f} MiB, {:.0f} s, {:.0f} million weights".format(*found)
        click.echo(f"{name}, a step on {batch} images, {micro} at a time, at most {limit:g} GiB: {told}")
        return None
    base = child(limit, "seeds", "nothing", 0)
    assert not isinstance(base, str), base
    click.echo(f"{'stage':<10}{'seeds':>10}{'peak MiB':>10}{'above start':>13}{'results MiB':>13}{'bytes/seed above':>18}")
    for stage in STAGES[1:]:
        for count in map(int, seeds.split(",")):
            found = child(limit, "seeds", stage, count)
            if isinstance(found, str):
                click.echo(f"{stage:<10}{count:>10}  {found}")
                continue
            peak, results = found
            click.echo(f"{stage:<10}{count:>10}{peak:>10.0f}{peak - base[0]:>13.0f}{results:>13.0f}{(peak - base[0]) * MIB / count:>18.0f}")
    return None


if __name__ == "__main__":
    main()
