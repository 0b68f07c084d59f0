# SPDX-License-Identifier: Apache-2.0
"""Labels -> a detector with gradients: a small network that learns from the labelled pictures, where nobody brought a classifier along.

It knows no more than the labels do, and repeats their mistakes. A linear probe on the discriminator's features is no substitute: an edit that such a
probe steers finds what moves the probe and leaves the feature, whereas this one learns through the random views that will steer the edit, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate

from stylegan_redact import keeping, probe, ranks, rows
from stylegan_redact.network import generate
from stylegan_redact.training.augment import draw_views
from stylegan_redact.training.checkpoint import Training, Turn, train
from stylegan_redact.training.schedule import falling
from stylegan_redact.types import Estimate, LabelledLatents, Network, Progress, RedactError

STAGE, DRAWING = "learn", "draw to learn"
LARGEST = 128
"""Pixels across that it looks at; larger pictures are averaged down to it."""
STEPS, BATCH, RATE = 600, 64, 2e-3
ASIDE = 5
"""One in so many labelled pictures is kept aside, to see what it learned."""
LEAST_SHOWING = 0.25
"""Of a batch, of either kind; corrected for in the end, so that logits are log odds among the pictures as they come."""
FEWEST = BATCH // 4
"""Pictures of either kind to learn from."""
LEAST = 0.6
"""Balanced accuracy on the pictures kept aside that it must surely reach."""
TYPICAL = 2.0
"""Size that scores are brought to if theirs is smaller: to a source whose scores are no log odds, labels are not half true."""
_WIDTHS = (24, 32, 64, 96, 96)


class Student(torch.nn.Module):
    """img [n, C, H, W] in [-1, 1] -> logits [n]. Its weights come from the generator alone."""

    def __init__(self, channels: int, resolution: int, generator: torch.Generator) -> None:
        super().__init__()
        self.size = min(resolution, LARGEST)
        layers: list[torch.nn.Module] = []
        before, size = channels, self.size
        for width in _WIDTHS[: max(round(math.log2(self.size / 4)), 1)]:
            conv = torch.nn.utils.skip_init(torch.nn.Conv2d, before, width, 4, stride=2, padding=1)
            layers += [conv, torch.nn.GroupNorm(4, width), torch.nn.LeakyReLU(0.1)]
            before, size = width, size // 2
        layers += [torch.nn.Flatten(), torch.nn.utils.skip_init(torch.nn.Linear, before * size * size, 96), torch.nn.LeakyReLU(0.1)]
        self.net = torch.nn.Sequential(*layers, torch.nn.utils.skip_init(torch.nn.Linear, 96, 1))
        self.register_buffer("offset", torch.zeros([]))
        for layer in self.net:
            if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
                bound = math.sqrt(3 / layer.weight[0].numel())
                layer.weight.data.uniform_(-bound, bound, generator=generator)
                assert layer.bias is not None
                layer.bias.data.zero_()

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.net(smaller(img, self.size)).flatten() + self.offset
        return logits


@dataclass(frozen=True)
class Learned:
    """A detector (`types.Detector`) of one feature."""

    net: Student
    feature: str
    differentiable: bool = True

    @property
    def attributes(self) -> tuple[str, ...]:
        """The feature alone."""
        return (self.feature,)

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        """[n, 1]."""
        return self.net(img.float())[:, None]


def smaller(img: torch.Tensor, size: int) -> torch.Tensor:
    """Pictures averaged down to that many pixels across, if they are larger."""
    return img if max(img.shape[2:]) <= size else interpolate(img, size=[size, size], mode="area")


def blank(network: Network, feature: str) -> Learned:
    """The detector before it has learned anything: what it costs can be measured."""
    G: Any = network.G_ema
    device = next(G.parameters()).device
    net = Student(G.img_channels, G.img_resolution, torch.Generator().manual_seed(0)).to(device)
    return Learned(net.eval().requires_grad_(False), feature)


def learn(
    network: Network, feature: str, latents: LabelledLatents, *, batch: int, seed: int = 0, mirror: bool = True, progress: Progress | None = None
) -> tuple[Learned, Estimate]:
    """A detector that learned from labels, and its balanced accuracy, in percent, on labelled pictures that it did not learn from.

    Args:
        network:  That the latents are of; drawn once more, noise "const".
        feature:  Its name.
        latents:  Scores above 0 show it; those that are no log odds become such (`log_odds`).
        batch:    Pictures to draw at a time.
        seed:     Of all randomness.
        mirror:   Left and right are alike: it learns from mirrored pictures, too.
        progress: Told (stage, share done, figures).

    Raises:
        RedactError: too few labels of one kind, or it does not tell the pictures kept aside.
    """
    G: Any = network.G_ema
    generator = torch.Generator().manual_seed(seed)
    net = Student(G.img_channels, G.img_resolution, generator).to(latents.w.device)
    shows = (latents.score > 0).cpu()
    aside, kinds = split(feature, shows)
    pictures = _drawn(G, latents.w, net.size, batch, progress)
    target = torch.sigmoid(log_odds(latents.score).cpu().float())
    share = min(max(len(kinds[0]) / (len(kinds[0]) + len(kinds[1])), LEAST_SHOWING), 1 - LEAST_SHOWING)
    _train(net, pictures, target, kinds, share, generator, mirror=mirror, progress=progress)
    odds = math.log(share / (1 - share)) - math.log(len(kinds[0]) / len(kinds[1]))
    state = {name: tensor.cpu() for name, tensor in net.state_dict().items()} | {"offset": torch.tensor(-odds)}
    net.load_state_dict(ranks.world().from_first(state))  # On GPUs the last digits of each rank's differ, and all are to be steered alike.
    net.eval().requires_grad_(False)
    with torch.no_grad():
        said = torch.cat([net(_img(part, latents.w)).cpu() for part in pictures[aside].split(batch)])
    said = ranks.world().from_first(said)  # Else one rank might find it good enough, and another one not.
    found = probe.balanced_accuracy(said > 0, shows[aside])
    accuracy = Estimate(100 * found.value, 100 * found.low, 100 * found.high, found.n, "%")
    if not found.low > LEAST:
        told = f"of {found.n} kept aside it tells {accuracy.value:.0f} % ({accuracy.low:.0f} to {accuracy.high:.0f}; 50 is chance)"
        raise RedactError(
            f"a detector of {feature} was to be learned from labels - {told}, surely more than {100 * LEAST:g} are needed - label more, give "
            "--classifier=FILE, or follow the labels' direction with --method=fold"
        )
    return Learned(net, feature), accuracy


def split(feature: str, shows: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Which of the pictures are kept aside, [n] bool, and rows of the others: those that show the feature, those that do not.

    Args:
        feature: Its name.
        shows:   [n] bool, on the CPU.

    Raises:
        RedactError: too few of one kind.
    """
    aside = torch.arange(len(shows)) % ASIDE == 0
    kinds = [(~aside & (shows == kind)).nonzero()[:, 0] for kind in (True, False)]
    if min(map(len, kinds)) < FEWEST or len({*shows[aside].tolist()}) < 2:
        need = -(-FEWEST * ASIDE // (ASIDE - 1))
        raise RedactError(
            f"a detector of {feature} was to be learned from labels - {int(shows.sum())} of {len(shows)} show it, too few of one kind: about {need} "
            "that show it and as many that do not are needed - label more, give --classifier=FILE, or follow the labels' direction with --method=fold"
        )
    return aside, kinds


def log_odds(score: torch.Tensor) -> torch.Tensor:
    """[n], above 0: shows; scores whose typical size is below TYPICAL are scaled to it, and 0, which does not show, is as sure as the others."""
    size = float(score[score != 0].abs().median()) if bool((score != 0).any()) else 1.0
    return torch.where(score == 0, -size, score) * max(TYPICAL / max(size, 1e-12), 1.0)


def _drawn(G: Any, w: torch.Tensor, size: int, batch: int, progress: Progress | None) -> torch.Tensor:
    """What G draws, as levels [n, C, size, size] uint8 on the CPU: thousands of pictures are kept. Ranks share it out."""

    def work(first: int) -> torch.Tensor:
        (img,) = generate(G, w[first : first + batch], batch=batch)
        return _levels(smaller(img, size))

    def parts() -> Iterator[tuple[torch.Tensor]]:
        done = 0
        for part in ranks.world().spread(work, range(0, len(w), batch)):
            yield (part,)
            done += len(part)
            if progress is not None:
                progress(DRAWING, done / len(w), {})
            keeping.check()

    (pictures,) = rows.filled(parts(), len(w))
    return pictures


def _train(
    net: Student,
    pictures: torch.Tensor,
    target: torch.Tensor,
    kinds: list[torch.Tensor],
    share: float,
    generator: torch.Generator,
    *,
    mirror: bool,
    progress: Progress | None,
) -> None:
    """Trains in place, each batch seen through random views; of its pictures, `share` show the feature."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=1e-3)
    counts = (round(share * BATCH), BATCH - round(share * BATCH))

    def step(turn: Turn) -> dict[str, float]:
        optimizer.param_groups[0]["lr"] = turn.rate * RATE * min(1.0, (turn.step + 1) / 50) * falling(turn.step, STEPS)
        rows = torch.cat([kind[torch.randint(len(kind), [count], generator=generator)] for kind, count in zip(kinds, counts, strict=True)])
        views = draw_views([BATCH, *pictures.shape[1:]], generator, mirror=mirror)
        img = _img(pictures[rows], next(net.parameters()))
        loss = binary_cross_entropy_with_logits(net(views(img)), target[rows].to(img.device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"loss": float(loss.detach())}

    parts: Mapping[str, Any] = {"net": net, "optimizer": optimizer}
    train(Training(STAGE, STEPS, BATCH, step, parts, generator, smallest=BATCH), progress)


def _levels(img: torch.Tensor) -> torch.Tensor:
    """uint8, on the CPU."""
    return (img * 127.5 + 128).clamp(0, 255).to(torch.uint8).cpu()


def _img(levels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return levels.to(like.device).float() / 127.5 - 1
