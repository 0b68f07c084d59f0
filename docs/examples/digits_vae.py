# SPDX-License-Identifier: Apache-2.0
"""A small VAE of handwritten digits, trained here, and two features unlearned: a digit, and closed loops. Prints figures with intervals.

    pip install -e '.[examples]'
    python docs/examples/digits_vae.py --outdir=vae-runs

The digits are scikit-learn's (1,797 of 8 by 8 pixels, bundled with it), drawn here at 16 by 16. `decoder` is the factory that --decoder names.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from stylegan_redact import decoders, job
from stylegan_redact.estimates import clopper_pearson
from stylegan_redact.network import sample_z, seed_range
from stylegan_redact.progress import Progress

SIDE, Z_DIM, DIGIT = 16, 8, 8
Step = Callable[[torch.Tensor], torch.Tensor]
"""Rows of the data -> loss."""


def decoder() -> torch.nn.Module:
    """z [n, 8] -> img [n, 1, 16, 16] in [-1, 1]."""
    return torch.nn.Sequential(
        torch.nn.Linear(Z_DIM, 48 * 16),
        torch.nn.ReLU(),
        torch.nn.Unflatten(1, (48, 4, 4)),
        torch.nn.ConvTranspose2d(48, 24, 4, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(24, 16, 4, stride=2, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 1, 3, padding=1),
        torch.nn.Tanh(),
    )


class Vae(torch.nn.Module):
    """Encoder and decoder; saved as a whole, and redacted in its decoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Sequential(
            torch.nn.Conv2d(1, 24, 4, stride=2, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(24, 48, 4, stride=2, padding=1),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(48 * 16, 2 * Z_DIM),
        )
        self.decoder = decoder()

    def loss(self, img: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Kingma & Welling 2014, arXiv 1312.6114, equation 10, for a Gaussian of fixed width around the decoder's image."""
        mean, log_variance = self.encoder(img).chunk(2, dim=1)
        z = mean + (0.5 * log_variance).exp() * torch.randn(mean.shape, generator=generator)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
        return ((self.decoder(z) - img).square().flatten(1).sum(dim=1) / 0.4 + divergence).mean()


class Steering(torch.nn.Module):
    """The classifier that steers: convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(16, 32, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.MaxPool2d(2),
            torch.nn.Flatten(),
            torch.nn.Linear(32 * 16, 1),
        )

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return self.net(img).flatten()


class Judge(torch.nn.Module):
    """The classifier that measures: no convolutions, on other images."""

    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(SIDE * SIDE, 128), torch.nn.Tanh(), torch.nn.Linear(128, 64), torch.nn.Tanh(), torch.nn.Linear(64, 1)
        )

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return self.net(img).flatten()


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """img [1797, 1, 16, 16] in [-1, 1] and which digit each is."""
    from sklearn.datasets import load_digits

    found = load_digits()
    img = torch.tensor(found.images, dtype=torch.float32).unsqueeze(1) / 8 - 1  # 0 to 16 => [-1, 1]
    return F.interpolate(img, size=[SIDE, SIDE], mode="bilinear"), torch.tensor(found.target)


def has_loop(img: torch.Tensor) -> torch.Tensor:
    """[n] bool, by computation: whether ink encloses two pixels or more of ground."""
    found = []
    for ink in (img[:, 0] > 0).numpy():
        areas, count = ndimage.label(~np.pad(ink, 1))  # Ground that touches the border is one area, outside.
        sizes = ndimage.sum_labels(np.ones_like(areas), areas, range(1, count + 1))
        found.append(bool(np.count_nonzero(sizes >= 2) > 1))
    return torch.tensor(found)


def train(net: torch.nn.Module, n: int, step: Step, *, epochs: int, batch: int = 64, lr: float = 2e-3) -> None:
    """Adam on batches of the rows 0 to n - 1."""
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(n, generator=generator).split(batch):
            optimizer.zero_grad(set_to_none=True)
            step(rows).backward()
            optimizer.step()


def classifier(net: torch.nn.Module, img: torch.Tensor, shows: torch.Tensor, *, epochs: int, shift: int, noise: float) -> torch.nn.Module:
    """The net, trained on images shifted by up to `shift` pixels, with noise."""
    generator = torch.Generator().manual_seed(1)

    def step(rows: torch.Tensor) -> torch.Tensor:
        by = torch.randint(-shift, shift + 1, [2], generator=generator).tolist()
        some = img[rows].roll(by, dims=(2, 3))
        return F.binary_cross_entropy_with_logits(net(some + noise * torch.randn(some.shape, generator=generator)), shows[rows].float())

    train(net, len(img), step, epochs=epochs)
    return net.eval().requires_grad_(False)


def write_classifiers(vae: Vae, img: torch.Tensor, shows: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], folder: Path) -> str:
    """Writes detector.pt and judge.pt, each trained on its half of the digits and of what the VAE makes of them; says how often each is right."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = torch.arange(len(img))
    with torch.no_grad():
        made = vae.decoder(vae.encoder(img).chunk(2, dim=1)[0])
    told = []
    kinds = (("detector", Steering(), {"epochs": 25, "shift": 1, "noise": 0.1}), ("judge", Judge(), {"epochs": 40, "shift": 0, "noise": 0.3}))
    for half, (name, net, how) in enumerate(kinds):
        mine, theirs = rows[rows % 2 == half], rows[rows % 2 != half]
        both = torch.cat([img[mine], made[mine]])
        classifier(net, both, shows(both, mine.repeat(2)), **how)
        right = (net(img[theirs]) > 0) == shows(img[theirs], theirs)
        told.append(f"{name} right on {percent(right)} of the digits it never saw")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch 2.13 deprecates TorchScript.
            torch.jit.save(torch.jit.script(net), str(folder / f"{name}.pt"))
    return "; ".join(told)


def percent(flags: torch.Tensor) -> str:
    """12.3 % (11.0 to 13.6), with Clopper and Pearson's interval."""
    rate = clopper_pearson(int(flags.sum()), len(flags))
    return f"{100 * rate.value:.2f} % ({100 * rate.low:.2f} to {100 * rate.high:.2f})"


def figures(run_dir: Path) -> str:
    """What the run measured, as the command writes it."""
    found = json.loads((run_dir / "redaction.json").read_text(encoding="utf-8"))["estimates"]
    names = {
        "residual_rate/rate_before": "rate before",
        "residual_rate/rate_after": "left",
        "residual_rate/removed": "removed",
        "image_change/l1_feature_free": "L1 feature-free",
    }
    return "; ".join(
        f"{text} {each['value']:.4g} ({each['low']:.4g} to {each['high']:.4g}) {each['unit']}".rstrip()
        for name, text in names.items()
        if (each := found[name])
    )


@click.command()
@click.option("--outdir", default="vae-runs", show_default=True, type=click.Path(path_type=Path), help="Where everything goes")
@click.option("--methods", default="unlearn,moon,edit", show_default=True, help="To compare")
@click.option("--epochs", default=40, show_default=True, help="Of the VAE")
@click.option("--num-images", default=5_000, show_default=True, help="Fresh z to measure on")
def main(outdir: Path, methods: str, epochs: int, num_images: int) -> None:
    """Trains, redacts, prints."""
    torch.manual_seed(0)
    img, target = digits()
    vae, generator, begin = Vae(), torch.Generator().manual_seed(2), time.process_time()
    train(vae, len(img), lambda rows: vae.loss(img[rows], generator), epochs=epochs)
    outdir.mkdir(parents=True, exist_ok=True)
    torch.save(vae.state_dict(), outdir / "digits.pt")
    seconds = time.process_time() - begin  # Of all threads together: by the clock it is no longer, and other work on the machine does not count.
    click.echo(f"VAE: loss {float(vae.loss(img, generator).detach()):.1f} after {epochs} epochs, {seconds:.0f} s of processor")
    features = {f"digit-{DIGIT}": lambda _, rows: target[rows] == DIGIT, "loop": lambda images, _: has_loop(images)}
    for feature, shows in features.items():
        click.echo(f"{feature}: {write_classifiers(vae, img, shows, outdir / feature)}")
        for method in methods.split(","):
            request = job.Request(
                network=str(outdir / "digits.pt"), decoder=f"{__file__}:decoder", feature=feature, method=method, num_images=num_images,
                classifier=str(outdir / feature / "detector.pt"), judge=str(outdir / feature / "judge.pt"), outdir=str(outdir),
            )  # fmt: skip
            run_dir = job.carry_out(job.prepare(request), Progress(lambda line: None))
            click.echo(f"{feature}, {method}: {figures(run_dir)}")
            if feature == "loop":
                z = sample_z(seed_range(200_000_000, num_images), Z_DIM)
                weights = {"before": outdir / "digits.pt", "after": run_dir / "network-redacted.pt"}
                drawn = {when: draw(path, z) for when, path in weights.items()}
                click.echo("  closed loops by computation: " + ", ".join(f"{when} {percent(has_loop(some))}" for when, some in drawn.items()))


def draw(path: Path, z: torch.Tensor) -> torch.Tensor:
    """Images of the decoder in a file of the whole VAE."""
    tensors = torch.load(path, weights_only=True)
    net = decoder()
    place = decoders.place_of(net, tensors)
    net.load_state_dict({name: tensors[place + name] for name in net.state_dict()})
    with torch.no_grad():
        return torch.cat([net(some) for some in z.split(500)])


if __name__ == "__main__":
    main()
