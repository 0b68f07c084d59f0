# SPDX-License-Identifier: Apache-2.0
"""Trains the bundled network: a lean StyleGAN2 on procedurally drawn portraits.

    python -m stylegan_redact.portraits.train_gan --outdir=portraits-run --kimg=500 --procs=2

Non-saturating logistic loss with lazy R1 (StyleGAN2, appendix B), style mixing, moving average of the generator. Data-parallel over
processes. Every step's randomness follows from (seed, step, rank), so that a run that was stopped anywhere goes on from its last
checkpoint as if nothing had happened. `OUTDIR/portraits64.pkl` is the result, `OUTDIR/fakes*.png` shows how it comes along.

Which pictures are learned, by what network, is an argument, the `Task`: `benchmarks/train_digits.py` trains on digits.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image
from torch.nn.functional import softplus

from stylegan_redact.network import load_network
from stylegan_redact.networks import stylegan2, stylegan3
from stylegan_redact.networks.export import write_network_pickle
from stylegan_redact.portraits.draw import draw_portraits
from stylegan_redact.portraits.train_classifiers import to_tensor

LATENT = dict(z_dim=128, w_dim=128, mapping_kwargs=dict(num_layers=4, w_avg_beta=0.995))
LEAN = dict(c_dim=0, num_fp16_res=0, conv_clamp=None)
PORTRAITS = dict(LEAN, img_resolution=64, img_channels=3, channel_base=1024, channel_max=80)
R1_INTERVAL = 16
R1_GAMMA = 0.4
LEARNING_RATE = 0.002
MIXING_PROB = 0.1
EMA_KIMG = 8.0
"""Half-life of the generator's moving average."""


Pick = Callable[[np.random.Generator, int], torch.Tensor]
"""A generator and n -> n training pictures [n, C, H, W] in [-1, 1]: a function of the generator's state alone."""


@dataclass(frozen=True)
class Task:
    """What one training differs in from another."""

    name: str
    """Of the resulting pickle, without its ending."""
    shape: Mapping[str, Any]
    """Arguments that the generator's and the discriminator's constructors share."""
    pictures: Callable[[Path], Pick]
    """Makes or opens the training set, which it may keep in the output folder. Called once in each process, so it must be picklable."""
    latent: Mapping[str, Any] = field(default_factory=lambda: dict(LATENT))
    """Those of the generator alone; they come before the shape's."""
    generator: Any = stylegan2.Generator
    """Its class, of StyleGAN2 or 3."""


@dataclass(frozen=True)
class Schedule:
    """How long is trained, and where it starts and goes."""

    outdir: Path
    kimg: float
    batch: int = 16
    """Images of a step, all processes together."""
    seed: int = 0
    procs: int = 1
    snap: int = 20
    """Thousands of images between checkpoints."""
    port: int = 29517
    """Local, that the processes meet at."""
    pickle: Path | None = None
    """Where training starts if the folder has no checkpoint."""
    pickle_kimg: int = 0


def draw_dataset(outdir: Path, num: int, seed: int) -> np.ndarray:
    """[num, 64, 64, 3] uint8, drawn once and kept in `outdir`."""
    path = outdir / f"drawings-{num}-{seed}.npy"
    if not path.exists():
        images, _ = draw_portraits(seed, num)
        np.save(path.with_suffix(".tmp.npy"), images)
        os.replace(path.with_suffix(".tmp.npy"), path)
    return np.load(path, mmap_mode="r")


def portraits(num: int, seed: int, outdir: Path) -> Pick:
    """Drawn portraits, mirrored at random."""
    data = draw_dataset(outdir, num, seed)

    def pick(picks: np.random.Generator, n: int) -> torch.Tensor:
        img = to_tensor(data[np.sort(picks.integers(len(data), size=n))])
        return img.flip([3]) if picks.random() < 0.5 else img

    return pick


def save_grid(images: torch.Tensor, path: Path, columns: int = 12) -> None:
    """Images [n, 1 or 3, H, W] in [-1, 1] as one picture, at twice their size."""
    pixels = (images * 127.5 + 128).clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    rows = [np.concatenate(list(pixels[i : i + columns]), axis=1) for i in range(0, len(pixels) - columns + 1, columns)]
    sheet = Image.fromarray(np.concatenate(rows))
    sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST).save(path)


class Trainer:
    """One rank's share of the training."""

    def __init__(self, task: Task, schedule: Schedule, rank: int) -> None:
        self.task, self.outdir, self.rank, self.num_procs = task, schedule.outdir, rank, schedule.procs
        self.batch = schedule.batch // schedule.procs
        torch.manual_seed(schedule.seed)
        self.G = task.generator(**{**task.shape, **task.latent})
        self.D = stylegan2.Discriminator(**task.shape)
        self.G_ema = copy.deepcopy(self.G).eval().requires_grad_(False)
        ratio = R1_INTERVAL / (R1_INTERVAL + 1)
        for name, parameter in self.G.named_parameters():  # Drawings have no stochastic detail: noise would only speckle them.
            parameter.requires_grad_(not name.endswith("noise_strength"))
        self.G_opt = torch.optim.Adam([p for p in self.G.parameters() if p.requires_grad], lr=LEARNING_RATE, betas=(0.0, 0.99), foreach=True)
        self.D_opt = torch.optim.Adam(self.D.parameters(), lr=LEARNING_RATE * ratio, betas=(0.0, 0.99**ratio), foreach=True)
        self.step = 0

    def parts(self) -> dict:
        return dict(G=self.G, D=self.D, G_ema=self.G_ema, G_opt=self.G_opt, D_opt=self.D_opt)

    def save(self) -> None:
        state = {name: part.state_dict() for name, part in self.parts().items()}
        torch.save(dict(state, step=self.step), self.outdir / "checkpoint.tmp")
        os.replace(self.outdir / "checkpoint.tmp", self.outdir / "checkpoint.pt")
        write_network_pickle(self.outdir / f"{self.task.name}.pkl", G=self.G, D=self.D, G_ema=self.G_ema)

    def resume(self, pickle: Path | None, pickle_kimg: int) -> None:
        """Goes on from the checkpoint in `outdir`; where there is none, from a pickle of `pickle_kimg` thousand images, if one is given."""
        path = self.outdir / "checkpoint.pt"
        if pickle is not None and not path.exists():
            trained = load_network(pickle)
            for name in ("G", "D", "G_ema"):
                getattr(self, name).load_state_dict(getattr(trained, name).state_dict())
            self.step = pickle_kimg * 1000 // (self.batch * self.num_procs)
        if path.exists():
            state = torch.load(path, weights_only=True)
            for name, part in self.parts().items():
                part.load_state_dict(state[name])
            self.step = state["step"]

    def reduce_gradients(self, module: torch.nn.Module) -> None:
        if self.num_procs > 1:
            grads = [p.grad for p in module.parameters() if p.grad is not None]
            flat = torch.cat([g.flatten() for g in grads])
            dist.all_reduce(flat)
            flat /= self.num_procs
            for g, part in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
                g.copy_(part.view_as(g))

    def generate(self) -> torch.Tensor:
        """A batch of images of G, with style mixing."""
        z = torch.randn([2, self.batch, self.G.z_dim])
        ws = self.G.mapping(z[0], None, update_emas=True)
        if torch.rand([]) < MIXING_PROB:
            cutoff = int(torch.randint(1, ws.shape[1], []))
            ws = torch.cat([ws[:, :cutoff], self.G.mapping(z[1], None)[:, cutoff:]], dim=1)
        averages = {"update_emas": True} if isinstance(self.G, stylegan3.Generator) else {}  # Of the magnitudes of its layers.
        return self.G.synthesis(ws, **averages)

    def train_step(self, real: torch.Tensor) -> dict[str, float]:
        # Gmain: maximise logits for generated images.
        self.D.requires_grad_(False)
        fake = self.generate()
        G_loss = softplus(-self.D(fake, None)).mean()
        G_loss.backward()
        self.reduce_gradients(self.G)
        self.G_opt.step()
        self.G_opt.zero_grad(set_to_none=True)
        # Dmain: minimise logits for generated images, maximise logits for drawn ones. The generator's own batch serves again.
        self.D.requires_grad_(True)
        D_loss = softplus(self.D(fake.detach(), None)).mean() + softplus(-self.D(real, None)).mean()
        D_loss.backward()
        # Dreg: R1.
        if self.step % R1_INTERVAL == 0:
            real = real.requires_grad_(True)
            (grad,) = torch.autograd.grad(self.D(real, None).sum(), real, create_graph=True)
            (grad.square().sum(dim=[1, 2, 3]).mean() * (R1_GAMMA / 2 * R1_INTERVAL)).backward()
        self.reduce_gradients(self.D)
        self.D_opt.step()
        self.D_opt.zero_grad(set_to_none=True)
        self.update_ema()
        self.step += 1
        return dict(G_loss=float(G_loss.detach()), D_loss=float(D_loss.detach()))

    @torch.no_grad()
    def update_ema(self) -> None:
        seen = self.step * self.batch * self.num_procs
        half_life = min(EMA_KIMG * 1000, max(seen, 1) * 0.05)
        beta = 0.5 ** (self.batch * self.num_procs / half_life)
        torch._foreach_lerp_(list(self.G_ema.parameters()), list(self.G.parameters()), 1 - beta)
        for mine, theirs in zip(self.G_ema.buffers(), self.G.buffers(), strict=True):
            mine.copy_(theirs)

    def show(self) -> None:
        z = torch.from_numpy(np.stack([np.random.RandomState(s).randn(self.G.z_dim) for s in range(72)])).float()
        with torch.no_grad():
            images = self.G_ema(z, None, noise_mode="const")
        save_grid(images, self.outdir / f"fakes{self.step * self.batch * self.num_procs // 1000:06d}.png")


def train(rank: int, task: Task, schedule: Schedule) -> None:
    """One rank's training from the last checkpoint, or from the start, to `schedule.kimg`."""
    torch.set_num_threads(1)
    outdir, batch, seed, most = schedule.outdir, schedule.batch, schedule.seed, schedule.kimg * 1000
    if schedule.procs > 1:
        dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{schedule.port}", rank=rank, world_size=schedule.procs)
    pick = task.pictures(outdir)
    trainer = Trainer(task, schedule, rank)
    trainer.resume(schedule.pickle, schedule.pickle_kimg)
    for module in (trainer.G, trainer.D):
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # A tenth faster on a CPU.
    steps_per_snap = max(schedule.snap * 1000 // batch, 1)
    started, first = time.time(), trainer.step
    while trainer.step * batch < most:
        torch.manual_seed((seed * 1_000_003 + trainer.step) * 64 + rank)
        losses = trainer.train_step(pick(np.random.default_rng([seed, trainer.step, rank]), trainer.batch))
        if rank == 0 and (trainer.step % steps_per_snap == 0 or trainer.step * batch >= most):
            trainer.save()
            trainer.show()
        if rank == 0 and trainer.step % 100 == 0:
            rate = (trainer.step - first) * batch / (time.time() - started)
            line = dict(kimg=trainer.step * batch / 1000, images_per_sec=round(rate, 1), **{k: round(v, 4) for k, v in losses.items()})
            with (outdir / "stats.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            click.echo(json.dumps(line))
    if rank == 0:  # Also where there was nothing left to train: the pickle then gets the present source of the networks.
        trainer.save()


def run(task: Task, schedule: Schedule) -> None:
    """Training in as many processes as the schedule wants; `OUTDIR/NAME.pkl` is the result."""
    schedule.outdir.mkdir(parents=True, exist_ok=True)
    if schedule.procs == 1:
        train(0, task, schedule)
    else:
        task.pictures(schedule.outdir)  # Once, before all processes want it.
        mp.start_processes(train, args=(task, schedule), nprocs=schedule.procs, start_method="spawn")


@click.command()
@click.option("--outdir", type=click.Path(path_type=Path), required=True, help="Where checkpoints and the network go.")
@click.option("--kimg", default=500.0, show_default=True, help="Thousands of images to train on.")
@click.option("--batch", default=16, show_default=True, help="Images of a step, all processes together.")
@click.option("--seed", default=0, show_default=True)
@click.option("--procs", default=2, show_default=True, help="Processes of one thread each.")
@click.option("--drawings", default=40000, show_default=True, help="Size of the training set.")
@click.option("--snap", default=20, show_default=True, help="Thousands of images between checkpoints.")
@click.option("--port", default=29517, show_default=True, help="Local port that the processes meet at.")
@click.option("--resume", type=click.Path(path_type=Path, exists=True), help="Pickle to start from where OUTDIR has no checkpoint.")
@click.option("--resume-kimg", default=0, show_default=True, help="Thousands of images that the pickle was trained on.")
def main(  # noqa: PLR0913 - the command's options
    outdir: Path, kimg: float, batch: int, seed: int, procs: int, drawings: int, snap: int, port: int, resume: Path | None, resume_kimg: int
) -> None:
    """Train the bundled network; goes on from OUTDIR's checkpoint if there is one."""
    task = Task("portraits64", PORTRAITS, functools.partial(portraits, drawings, seed))
    run(task, Schedule(outdir, kimg, batch, seed, procs, snap, port, resume, resume_kimg))


if __name__ == "__main__":
    main()
