# SPDX-License-Identifier: Apache-2.0
"""The one adversarial training of the project: StyleGAN2 and 3, from the weights that a file has, on streams of real pictures and negatives.

Lazy R1 (Mescheder et al. 2018, arXiv 1801.04406) and path length regularisation (Karras et al. 2020, arXiv 1912.04958, section 3.2 and appendix B);
random views of a share of the pictures of all streams alike, so that the discriminator has no mark to tell the streams by (ADA, Karras et al. 2020,
arXiv 2006.06676). float32 throughout. Noise is constant, hence its strengths are not trained; nor is what steers StyleGAN3's pose.
StyleGAN3's running magnitudes stay as the file has them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from stylegan_redact.losses.redaction import RedactionLoss
from stylegan_redact.network import is_foreign, trainable
from stylegan_redact.training.augment import viewed
from stylegan_redact.training.checkpoint import Training, Turn, train
from stylegan_redact.training.guide import verdict
from stylegan_redact.training.schedule import Schedule, falling
from stylegan_redact.training.streams import Allowed, Images, Stream
from stylegan_redact.types import Network, Progress, RedactError

W_AVG_BETA = 0.998
"""Of the centre of truncation, as in StyleGAN, where a network does not say its own."""
PATH_DECAY = 0.01
"""Of the mean path length, and PATH_SHRINK: on so much of a batch are paths measured; as in StyleGAN2."""
PATH_SHRINK = 2
FINE_TUNE = "fine-tune"
WARM_UP = 10
"""Steps until Adam's step is at its largest: its moments start from nothing."""


@dataclass(frozen=True)
class Rules:
    """What steadies an adversarial training."""

    r1: float = 1.0
    """gamma of R1: half of it times the squared slope of D at real pictures."""
    r1_interval: int = 16
    """Every so many steps, times as much."""
    paths: float = 2.0
    """Weight of path length regularisation; StyleGAN2's generators have it, others do not."""
    path_interval: int = 4
    augment: float = 0.0
    """Share of pictures that D sees through a random view, in [0, 1]."""
    half_life: float = 0.05
    """Of G_ema's average, as a share of the training: a long one would not let the change reach G_ema."""


@dataclass(frozen=True)
class Streams:
    """What the discriminator is shown besides what the generator draws, and who else has a say."""

    real: Stream
    negative: Stream | None = None
    """Pictures of the redaction set, to be called fake."""
    allowed: Allowed | None = None
    penalty: Callable[[], torch.Tensor] | None = None
    """A scalar that the generator also minimises, of its weights."""


class _Drawn(NamedTuple):
    """Pictures of a portion, kept from the generator's step for the discriminator's."""

    fake: torch.Tensor
    c: torch.Tensor | None
    allowed: torch.Tensor | None


class Game:
    """G and D, trained in place against each other, step by step.

    Args:
        G, D:      To be trained: copies, since they are changed.
        streams:   What D is shown. Generated pictures have the labels of the real ones of the same step.
        loss:      What both minimise.
        rules:     What steadies them.
        schedule:  Sizes and Adam's step; how it falls is the caller's (`share`).
        generator: Of all randomness.

    Raises:
        RedactError: a batch that does not fill the groups that D compares pictures in.
    """

    def __init__(self, G: Any, D: Any, streams: Streams, loss: RedactionLoss, rules: Rules, schedule: Schedule, generator: torch.Generator) -> None:
        self.G, self.D, self.streams, self.loss, self.rules, self.generator = G, D, streams, loss, rules, generator
        self.batch, self.lr = schedule.batch, schedule.lr
        self.portion = portion_size(D, schedule.batch, schedule.micro_batch)
        groups = self.parameters, self.critic_parameters = trained_parameters(G), list(D.parameters())
        self.optimizers = [torch.optim.Adam(group, lr=schedule.lr, betas=(0.0, 0.99), fused=True) for group in groups]
        self.paths = rules.paths if hasattr(G.synthesis, "block_resolutions") and not is_foreign(G) else 0.0  # StyleGAN2's alone.
        self.mean_length: torch.Tensor | None = None
        self.centre_keep = float(getattr(G.mapping, "w_avg_beta", None) or W_AVG_BETA)
        """So much of the centre of truncation stays at each step."""
        self.device = next(G.parameters()).device
        self.done, self.penalties = 0, 0.0

    def state_dict(self) -> dict[str, Any]:
        """All that changes from step to step, but the generator of randomness."""
        streams = {name: stream.state_dict() for name, stream in self._streams_that_change().items()}
        own = {"done": self.done, "mean_length": self.mean_length, "optimizers": [each.state_dict() for each in self.optimizers]}
        return {"G": self.G.state_dict(), "D": self.D.state_dict(), "streams": streams} | own

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As it was when `state_dict` was made."""
        self.G.load_state_dict(state_dict["G"])
        self.D.load_state_dict(state_dict["D"])
        for name, stream in self._streams_that_change().items():
            stream.load_state_dict(state_dict["streams"][name])
        for optimizer, state in zip(self.optimizers, state_dict["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        mean_length = state_dict["mean_length"]
        self.done, self.mean_length = state_dict["done"], None if mean_length is None else mean_length.to(self.device)

    def _streams_that_change(self) -> dict[str, Any]:
        """Those that remember what they have seen."""
        return {name: stream for name in ("real", "negative") if hasattr(stream := getattr(self.streams, name), "state_dict")}

    def step(self, share: float = 1.0) -> dict[str, float]:
        """One step of G and one of D, Adam's step being `share` of its largest; figures of it: both losses, and what penalties added to them."""
        for optimizer in self.optimizers:
            optimizer.param_groups[0]["lr"] = self.lr * share
        real = self.streams.real(self.batch, self.generator, self.portion)
        negative = None if self.streams.negative is None else self.streams.negative(self.batch, self.generator, self.portion)
        z = torch.randn([self.batch, self.G.z_dim], generator=self.generator).to(self.device)
        self.penalties = 0.0
        G_loss, drawn = self._step_generator(z, real.c)
        D_loss = self._step_discriminator(real, negative, drawn)
        self.done += 1
        return {"generator": G_loss, "discriminator": D_loss, "penalties": self.penalties}

    def _counted(self, penalty: torch.Tensor) -> torch.Tensor:
        self.penalties += float(penalty.detach())
        return penalty

    def _step_generator(self, z: torch.Tensor, c: torch.Tensor | None) -> tuple[float, list[_Drawn]]:
        _learn(self.parameters, self.critic_parameters)
        self.optimizers[0].zero_grad(set_to_none=True)
        told, drawn, w = 0.0, [], []
        regularise = self.paths > 0 and self.done % self.rules.path_interval == 0
        for part, labels in zip(z.split(self.portion), _split(c, self.portion, len(z)), strict=True):
            ws = self.G.mapping(part, labels)
            fake = self.G.synthesis(ws, noise_mode="const", force_fp32=True)
            allowed = None if self.streams.allowed is None else self.streams.allowed(fake, labels, self.generator)
            loss = self.loss.generator(self._verdict(fake, labels), allowed) * (len(part) / len(z))
            told += float(loss.detach())
            if regularise:
                loss = loss + self._counted(self._path_penalty(ws) * (len(part) / len(z)))
            loss.backward()
            w.append(ws.detach()[:, 0])
            drawn.append(_Drawn(fake.detach(), labels, None if allowed is None else allowed.detach()))
        self._follow_centre(torch.cat(w))
        if self.streams.penalty is not None:
            self._counted(self.streams.penalty()).backward()
        self.optimizers[0].step()
        return told, drawn

    def _step_discriminator(self, real: Images, negative: Images | None, drawn: list[_Drawn]) -> float:
        _learn(self.critic_parameters, self.parameters)
        self.optimizers[1].zero_grad(set_to_none=True)
        told = 0.0
        none = [None] * len(drawn)
        for mine, theirs, bad in zip(drawn, real.split(self.portion), none if negative is None else negative.split(self.portion), strict=True):
            fakes = self._verdict(mine.fake, mine.c)
            bads = None if bad is None else self._verdict(bad.img, bad.c)
            loss = self.loss.discriminator(self._verdict(theirs.img, theirs.c), fakes, bads, mine.allowed)
            loss = loss * (len(theirs.img) / self.batch)
            told += float(loss.detach())
            if self.rules.r1 > 0 and self.done % self.rules.r1_interval == 0:
                loss = loss + self._counted(self._slope_penalty(theirs) * (len(theirs.img) / self.batch))
            loss.backward()
        self.optimizers[1].step()
        return told

    def _verdict(self, img: torch.Tensor, c: torch.Tensor | None) -> torch.Tensor:
        return verdict(self.D, viewed(img, self.rules.augment, self.generator), c).flatten()

    def _slope_penalty(self, real: Images) -> torch.Tensor:
        """R1, as large as the steps without it make it: gamma / 2 |grad D|^2, at the pictures as D sees them."""
        img = viewed(real.img, self.rules.augment, self.generator).detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(verdict(self.D, img, real.c).sum(), img, create_graph=True)
        return self.rules.r1_interval * self.rules.r1 / 2 * slope.square().sum(dim=[1, 2, 3]).mean()

    def _path_penalty(self, ws: torch.Tensor) -> torch.Tensor:
        """(|J' y| - mean)^2 of StyleGAN2 (equation 4). The mean starts at the first lengths: a trained network's are near it."""
        ws = ws[: max(len(ws) // PATH_SHRINK, 1)]
        img = self.G.synthesis(ws, noise_mode="const", force_fp32=True)
        y = torch.randn(img.shape, generator=self.generator).to(img) / math.sqrt(img.shape[2] * img.shape[3])
        (slope,) = torch.autograd.grad((img * y).sum(), ws, create_graph=True)
        lengths = slope.square().sum(dim=2).mean(dim=1).sqrt()  # [n]
        now = lengths.detach().mean()
        self.mean_length = now if self.mean_length is None else self.mean_length.lerp(now, PATH_DECAY)
        return self.rules.path_interval * self.paths * (lengths - self.mean_length).square().mean()

    def _follow_centre(self, w: torch.Tensor) -> None:
        """w_avg, the centre of truncation, goes where the mapping network goes: w [n, w_dim] of the step."""
        centre = getattr(self.G.mapping, "w_avg", None)
        if centre is not None and centre.ndim == 1:
            centre.copy_(w.mean(dim=0).lerp(centre, self.centre_keep))


def fine_tune(
    network: Network,
    after: Network,
    streams: Streams,
    loss: RedactionLoss,
    rules: Rules,
    schedule: Schedule,
    progress: Progress | None = None,
    *,
    stage: str = FINE_TUNE,
) -> None:
    """Trains `after.G` and its average `after.G_ema` in place, against a copy of the network's discriminator, which is not kept.

    Args:
        network:  As it was.
        after:    A copy of it (`copy_network`).
        streams, loss, rules: Of the game.
        schedule: Steps and sizes.
        progress: Told (stage, share done, figures).
        stage:    Its name; under another one, `after` is not what the run is for.

    Raises:
        RedactError: the file's discriminator is not known here, or the batch does not fit it.
    """
    D = trainable_copy(network.D)
    game = Game(after.G, D, streams, loss, rules, schedule, torch.Generator().manual_seed(schedule.seed))
    after_a_step = 0.5 ** (1 / max(rules.half_life * schedule.steps, 1e-9))
    game.centre_keep = min(game.centre_keep, after_a_step)  # StyleGAN's own would hardly follow a short training.

    def step(turn: Turn) -> dict[str, float]:
        game.portion = portion_size(D, schedule.batch, turn.micro)
        figures = game.step(turn.rate * min(1.0, (turn.step + 1) / WARM_UP) * falling(turn.step, schedule.steps))
        average(after.G_ema, after.G, after_a_step)
        return figures

    parts = {"game": game, "G_ema": after.G_ema}
    so_far = (lambda: after) if stage == FINE_TUNE else None
    smallest = portion_size(D, schedule.batch, 1)
    train(Training(stage, schedule.steps, schedule.batch, step, parts, game.generator, game.portion, smallest, so_far), progress)
    after.G.requires_grad_(False)
    for parameter in after.G.parameters():
        parameter.grad = None


def trainable_copy(D: Any) -> Any:
    """A copy of the discriminator to train.

    Raises:
        RedactError: there is none.
    """
    if D is None:
        raise RedactError("an adversarial training was asked - the file's discriminator is not known here - use --method=edit, unlearn or fold")
    return copy.deepcopy(D)


@torch.no_grad()
def average(G_ema: Any, G: Any, keep: float) -> None:
    """Moves what is trained of the average a step towards G: `keep` of it stays. The centre of truncation is G's; all else stays."""
    trained = {id(parameter) for parameter in trained_parameters(G)}
    theirs = {name: parameter for name, parameter in G.named_parameters() if id(parameter) in trained}
    for name, mine in G_ema.named_parameters():
        if name in theirs:
            mine.lerp_(theirs[name].detach(), 1 - keep)
    buffers = dict(G.named_buffers())
    for name, mine in G_ema.named_buffers():
        if name == "mapping.w_avg":
            mine.copy_(buffers[name])


def trained_parameters(G: Any) -> list[torch.nn.Parameter]:
    """Of mapping and synthesis network, but what steers the pose and the strengths of noise, which is not drawn here."""
    strengths = {id(parameter) for name, parameter in G.named_parameters() if name.endswith("noise_strength")}
    return [parameter for parameter in [*G.mapping.parameters(), *trainable(G.synthesis)] if id(parameter) not in strengths]


def portion_size(D: Any, batch: int, most: int | None) -> int:
    """How many pictures at a time: as many as allowed that fill groups of the discriminator's minibatch statistics."""
    group = next((getattr(layer, "group_size") for layer in D.modules() if hasattr(layer, "group_size")), None) or 1  # noqa: B009 - Module's type
    if batch > group and batch % group:
        raise RedactError(f"batch={batch} was asked - the discriminator compares pictures in groups of {group} - give a multiple of it")
    return batch if most is None or most >= batch else max(most // group * group, min(group, batch))


def _learn(parameters: list[torch.nn.Parameter], others: list[torch.nn.Parameter]) -> None:
    for parameter in others:
        parameter.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)


def _split(c: torch.Tensor | None, size: int, n: int) -> list[torch.Tensor | None]:
    return [None] * -(-n // size) if c is None else list(c.split(size))
