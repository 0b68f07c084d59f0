# SPDX-License-Identifier: Apache-2.0
"""Trains the bundled attribute classifiers on drawings whose truth is known.

    python -m stylegan_redact.portraits.train_classifiers --which=detector --out=detector.safetensors
    python -m stylegan_redact.portraits.train_classifiers --which=judge --out=judge.safetensors
    python -m stylegan_redact.portraits.train_classifiers --which=second_judge --out=second_judge.safetensors

Prints the accuracy for each attribute on held-out drawings, with n and an interval, in JSON: on drawings that show attributes whole or not at
all, and on such as show one in part.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
from torch.nn.functional import affine_grid, avg_pool2d, binary_cross_entropy_with_logits, grid_sample, interpolate

from stylegan_redact.estimates import clopper_pearson
from stylegan_redact.portraits.classifiers import DetectorNet, JudgeNet, SecondJudgeNet, save_classifier
from stylegan_redact.portraits.draw import draw_portraits
from stylegan_redact.portraits.faint import draw_faint
from stylegan_redact.portraits.portrait import ATTRIBUTES

HELD_OUT_SEED = 900_000
"""Drawings of this seed are never trained on, neither here nor by the generator."""


def augment_for_detector(img: torch.Tensor) -> torch.Tensor:
    """Mirror, small rotations, scales and shifts, and noise: [n, 3, h, w] -> same shape."""
    n = len(img)
    angle, scale = 0.08 * torch.randn(n), torch.exp(0.05 * torch.randn(n))
    flip = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    matrix = torch.zeros([n, 2, 3])
    matrix[:, 0, 0], matrix[:, 0, 1] = scale * angle.cos() * flip, -scale * angle.sin()
    matrix[:, 1, 0], matrix[:, 1, 1] = scale * angle.sin() * flip, scale * angle.cos()
    matrix[:, :, 2] = 0.04 * torch.randn(n, 2)
    img = grid_sample(img, affine_grid(matrix, list(img.shape), align_corners=False), padding_mode="border", align_corners=False)
    return img + torch.rand(n, 1, 1, 1) * 0.15 * torch.randn_like(img)


def augment_for_judge(img: torch.Tensor) -> torch.Tensor:
    """Mirror, whole-pixel shifts, brightness, contrast and tint, blur, and erased rectangles: [n, 3, h, w] -> same shape."""
    n, _, h, w = img.shape
    img = img.flip([3]) if torch.rand([]) < 0.5 else img
    dx, dy = torch.randint(-2, 3, [2]).tolist()
    img = img.roll([dy, dx], dims=[2, 3])
    img = img * (1 + 0.1 * torch.randn(n, 1, 1, 1)) + 0.08 * torch.randn(n, 3, 1, 1)
    blurred = avg_pool2d(img, 3, stride=1, padding=1, count_include_pad=False)
    img = img.lerp(blurred, torch.rand(n, 1, 1, 1))
    x, y = torch.randint(0, w - 6, [n, 1, 1, 1]), torch.randint(0, h - 6, [n, 1, 1, 1])
    inside = ((torch.arange(w).view(1, 1, 1, w) - x - 3).abs() <= 3) & ((torch.arange(h).view(1, 1, h, 1) - y - 3).abs() <= 3)
    return torch.where(inside & (torch.rand(n, 1, 1, 1) < 0.3), img.mean(dim=[2, 3], keepdim=True), img)


def augment_for_second_judge(img: torch.Tensor) -> torch.Tensor:
    """Mirror, shear and stretch, fewer pixels, gamma, coloured noise of low frequency: [n, 3, h, w] -> same shape."""
    n, _, h, w = img.shape
    matrix = torch.eye(2, 3).repeat(n, 1, 1) + torch.cat([0.06 * torch.randn(n, 2, 2), 0.05 * torch.randn(n, 2, 1)], dim=2)
    matrix[:, 0] *= torch.where(torch.rand(n, 1) < 0.5, -1.0, 1.0)
    img = grid_sample(img, affine_grid(matrix, list(img.shape), align_corners=False), padding_mode="border", align_corners=False)
    side = int(torch.randint(h // 2, h + 1, []))
    img = interpolate(interpolate(img, size=[side, side], mode="area"), size=[h, w], mode="bilinear", align_corners=False)
    img = (img.clamp(-1, 1) * 0.5 + 0.5 + 1e-4) ** torch.exp(0.2 * torch.randn(n, 1, 1, 1)) * 2 - 1
    return img + 0.1 * torch.rand(n, 1, 1, 1) * interpolate(torch.randn(n, 3, 8, 8), size=[h, w], mode="bilinear", align_corners=False)


RECIPES: dict[str, tuple[type[torch.nn.Module], Callable[[torch.Tensor], torch.Tensor], int]] = {
    "detector": (DetectorNet, augment_for_detector, 100_000),
    "judge": (JudgeNet, augment_for_judge, 200_000),
    "second_judge": (SecondJudgeNet, augment_for_second_judge, 300_000),
}
"""Architecture, augmentation, seed of the drawings."""


def to_tensor(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).float() / 127.5 - 1  # uint8 => [-1, 1]


def drawings(seed: int, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and truth, half of them of people who show an attribute in part only."""
    whole, faint = draw_portraits(seed, num - num // 2), draw_faint(seed, num // 2)
    return np.concatenate([whole[0], faint[0]]), np.concatenate([whole[1], faint[1]])


def train(which: str, num: int, steps: int, batch: int, seed: int) -> torch.nn.Module:
    """A classifier trained by its recipe; deterministic by `seed`."""
    build, augment, data_seed = RECIPES[which]
    torch.manual_seed(seed)
    net = build(len(ATTRIBUTES)).train()
    images, truth = drawings(data_seed + seed, num)
    target = torch.from_numpy(truth).float()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    picks = np.random.default_rng(seed)
    for _ in range(steps):
        index = np.sort(picks.integers(num, size=batch))
        loss = binary_cross_entropy_with_logits(net(augment(to_tensor(images[index]))), target[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def accuracies(net: torch.nn.Module, images: np.ndarray, truth: np.ndarray) -> dict[str, dict[str, float]]:
    """For each attribute: accuracy on held-out drawings, its interval, and the true positive rate."""
    num = len(images)
    with torch.no_grad():
        shows = torch.cat([net(to_tensor(images[i : i + 500])) for i in range(0, num, 500)]).numpy() > 0
    rows = {}
    for column, name in enumerate(ATTRIBUTES):
        right = clopper_pearson(int((shows[:, column] == truth[:, column]).sum()), num)
        found = clopper_pearson(int((shows & truth)[:, column].sum()), int(truth[:, column].sum()))
        rows[name] = dict(accuracy=right.value, low=right.low, high=right.high, n=num, found=found.value, found_low=found.low, found_n=found.n)
    return rows


@click.command()
@click.option("--which", type=click.Choice(sorted(RECIPES)), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Safetensors file to write.")
@click.option("--drawings", default=30000, show_default=True)
@click.option("--steps", default=3000, show_default=True)
@click.option("--batch", default=96, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--held-out", default=10000, show_default=True, help="Drawings to measure on.")
def main(which: str, out: Path, drawings: int, steps: int, batch: int, seed: int, held_out: int) -> None:
    """Train a classifier, write it, print its accuracy on held-out drawings."""
    torch.set_num_threads(1)
    net = train(which, drawings, steps, batch, seed)
    temporary = out.with_suffix(".tmp")
    save_classifier(net, ATTRIBUTES, temporary)
    temporary.replace(out)
    told = {kind: accuracies(net, *draw(HELD_OUT_SEED, held_out)) for kind, draw in (("whole", draw_portraits), ("partial", draw_faint))}
    click.echo(json.dumps(dict(which=which, **told), indent=1))


if __name__ == "__main__":
    main()
