# SPDX-License-Identifier: Apache-2.0
"""Trains a small StyleGAN2, or StyleGAN3-t, on handwritten digits, and two classifiers of them, for `compare_methods.py`.

    OMP_NUM_THREADS=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=4000000000 python -m benchmarks.train_digits --outdir=digits-run

The pictures are the 1,797 digits of 8x8 pixels that come with scikit-learn (`pip install "stylegan-redact[benchmarks]"`; from UCI's Optical
Recognition of Handwritten Digits, Alpaydin & Kaynak 1998), made larger and shifted by up to two pixels. Nothing is downloaded.

    digits-run/
        digits32.pkl              the network, 32x32, one channel; fakes*.png shows how it came along; digits32-sg3.pkl with --cfg=stylegan3-t
        detector.pt, judge.pt     TorchScript, ten logits, one for each digit against the rest; their names, digit-0 to digit-9, are in the files
        checkpoint.pt             a run that was stopped goes on from here

Detector and judge were trained on different halves of the digits, with other architectures and augmentations; each is tested on the half that it has
not seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import affine_grid, avg_pool2d, binary_cross_entropy_with_logits, grid_sample

from stylegan_redact.detectors import save_torchscript
from stylegan_redact.estimates import clopper_pearson
from stylegan_redact.networks import stylegan3
from stylegan_redact.portraits.train_gan import LATENT, LEAN, Pick, Schedule, Task, run

ATTRIBUTES = tuple(f"digit-{digit}" for digit in range(10))
RESOLUTION = 32
MOST_SHIFT = 2
"""Pixels, each way."""
SHAPE = dict(LEAN, img_resolution=RESOLUTION, img_channels=1, channel_base=1024, channel_max=64)
Augment = Callable[[torch.Tensor], torch.Tensor]


def load() -> tuple[np.ndarray, np.ndarray]:
    """Pictures [1797, 28, 28] uint8, white on black, and the digits that they show [1797]."""
    from sklearn.datasets import load_digits

    small, digits = load_digits(return_X_y=True)
    pixels = np.clip(small.reshape(-1, 8, 8) * (255 / 16), 0, 255).astype(np.uint8)
    side = RESOLUTION - 2 * MOST_SHIFT
    return np.stack([np.asarray(Image.fromarray(each).resize((side, side), Image.Resampling.BICUBIC)) for each in pixels]), digits


def placed(pictures: np.ndarray, picks: np.random.Generator) -> torch.Tensor:
    """Each picture somewhere in 32x32, by up to two pixels off the middle: [n, 1, 32, 32] in [-1, 1]."""
    canvas = np.zeros([len(pictures), RESOLUTION, RESOLUTION], np.uint8)
    side = pictures.shape[1]
    for row, (y, x) in enumerate(picks.integers(2 * MOST_SHIFT + 1, size=[len(pictures), 2])):
        canvas[row, y : y + side, x : x + side] = pictures[row]
    return torch.from_numpy(canvas)[:, None].float() / 127.5 - 1  # uint8 => [-1, 1]


def digits(outdir: Path) -> Pick:
    """All digits, shifted at random."""
    pictures, _ = load()
    return lambda picks, n: placed(pictures[picks.integers(len(pictures), size=n)], picks)


class Convolutions(nn.Sequential):
    """The detector: strided convolutions. [n, 1, 32, 32] -> [n, 10]."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        widths = [1, 24, 48, 64]
        for c_in, c_out in zip(widths, widths[1:], strict=False):  # 32 => 4 pixels
            layers += [nn.Conv2d(c_in, c_out, 4, stride=2, padding=1), nn.GroupNorm(4, c_out), nn.LeakyReLU(0.1)]
        super().__init__(*layers, nn.Flatten(), nn.Linear(64 * 16, len(ATTRIBUTES)))


class Pooled(nn.Sequential):
    """The judge: a perceptron on means of 2x2 pixels. [n, 1, 32, 32] -> [n, 10]."""

    def __init__(self) -> None:
        hidden = [nn.Linear(256, 256), nn.GELU(), nn.Dropout(0.3), nn.Linear(256, 256), nn.GELU(), nn.Dropout(0.3)]
        super().__init__(nn.AvgPool2d(2), nn.Flatten(), *hidden, nn.Linear(256, len(ATTRIBUTES)))


def turned(img: torch.Tensor) -> torch.Tensor:
    """For the detector: small rotations, scales and shifts, and noise."""
    n = len(img)
    angle, scale = 0.1 * torch.randn(n), torch.exp(0.07 * torch.randn(n))
    matrix = torch.stack([scale * angle.cos(), -scale * angle.sin(), scale * angle.sin(), scale * angle.cos()], dim=1).reshape(n, 2, 2)
    theta = torch.cat([matrix, 0.03 * torch.randn(n, 2, 1)], dim=2)
    img = grid_sample(img, affine_grid(theta, list(img.shape), align_corners=False), padding_mode="border", align_corners=False)
    return img + torch.rand(n, 1, 1, 1) * 0.2 * torch.randn_like(img)


def sheared(img: torch.Tensor) -> torch.Tensor:
    """For the judge: shear and stretch, contrast, blur, and erased squares."""
    n = len(img)
    theta = torch.eye(2, 3).repeat(n, 1, 1) + torch.cat([0.09 * torch.randn(n, 2, 2), torch.zeros(n, 2, 1)], dim=2)
    img = grid_sample(img, affine_grid(theta, list(img.shape), align_corners=False), padding_mode="border", align_corners=False)
    img = (img + 1) * torch.exp(0.15 * torch.randn(n, 1, 1, 1)) - 1
    img = img.lerp(avg_pool2d(img, 3, stride=1, padding=1, count_include_pad=False), torch.rand(n, 1, 1, 1))
    y, x = (torch.randint(0, RESOLUTION, [n, 1, 1, 1]) for _ in range(2))
    row, column = torch.arange(RESOLUTION).view(1, 1, -1, 1), torch.arange(RESOLUTION).view(1, 1, 1, -1)
    erased = ((row - y).abs() <= 2) & ((column - x).abs() <= 2) & (torch.rand(n, 1, 1, 1) < 0.3)
    return img.masked_fill(erased, -1.0)


RECIPES: dict[str, tuple[type[nn.Module], Augment, int]] = {"detector": (Convolutions, turned, 0), "judge": (Pooled, sheared, 1)}
"""Architecture, augmentation, and whether the even or the odd half of the digits is learned."""


def train_classifier(role: str, steps: int, seed: int) -> tuple[nn.Module, dict[str, dict[str, float]]]:
    """A classifier by its recipe, deterministic by `seed`; for each digit its accuracy on the half that it has not seen, with an interval."""
    build, augment, half = RECIPES[role]
    pictures, truth = load()
    target = torch.from_numpy(truth[:, None] == np.arange(10)).float()
    mine = np.arange(half, len(pictures), 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net, picks = build().train(), np.random.default_rng([seed, half])
        optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
        for _ in range(steps):
            rows = mine[picks.integers(len(mine), size=64)]
            loss = binary_cross_entropy_with_logits(net(augment(placed(pictures[rows], picks))), target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    net.eval().requires_grad_(False)
    others = np.arange(1 - half, len(pictures), 2)
    shows = net(placed(pictures[others], np.random.default_rng(7))) > 0
    return net, accuracies(shows, target[others] > 0)


def accuracies(shows: torch.Tensor, truth: torch.Tensor) -> dict[str, dict[str, float]]:
    """For each digit, of shows and truth [n, 10]: the share told right, and of those that show it the share found, with intervals."""
    rows = {}
    for column, name in enumerate(ATTRIBUTES):
        right = clopper_pearson(int((shows == truth)[:, column].sum()), len(truth))
        found = clopper_pearson(int((shows & truth)[:, column].sum()), int(truth[:, column].sum()))
        rows[name] = dict(accuracy=right.value, low=right.low, high=right.high, n=right.n, found=found.value, found_low=found.low, found_n=found.n)
    return rows


STYLEGAN3 = dict(LATENT, channel_max=48, num_layers=6, margin_size=4, filter_size=4)
TASKS = {
    "stylegan2": Task("digits32", SHAPE, digits),
    "stylegan3-t": Task("digits32-sg3", SHAPE, digits, STYLEGAN3, stylegan3.Generator),
}


@click.command()
@click.option("--cfg", type=click.Choice([*TASKS]), default="stylegan2", show_default=True, help="Architecture of the generator.")
@click.option("--outdir", type=click.Path(path_type=Path), required=True, help="Where checkpoints, the network and the classifiers go.")
@click.option("--kimg", default=160.0, show_default=True, help="Thousands of images to train the network on.")
@click.option("--steps", default=4000, show_default=True, help="Steps of 64 pictures to train each classifier for.")
@click.option("--seed", default=0, show_default=True)
@click.option("--procs", default=1, show_default=True, help="Processes of one thread each.")
@click.option("--snap", default=10, show_default=True, help="Thousands of images between checkpoints.")
def main(cfg: str, outdir: Path, kimg: float, steps: int, seed: int, procs: int, snap: int) -> None:
    """Train the classifiers, then the network; goes on from OUTDIR's checkpoint if there is one."""
    outdir.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for role in RECIPES:
        path = outdir / f"{role}.pt"
        if not path.exists():
            net, found = train_classifier(role, steps, seed)
            save_torchscript(net, path, ATTRIBUTES)
            click.echo(json.dumps({role: found}))
    run(TASKS[cfg], Schedule(outdir, kimg, seed=seed, procs=procs, snap=snap))


if __name__ == "__main__":
    main()
