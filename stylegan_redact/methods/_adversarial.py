# SPDX-License-Identifier: Apache-2.0
"""What the adversarial methods share: their settings, the real pictures that they train on, and the training itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from stylegan_redact import labels
from stylegan_redact.losses.redaction import RedactionLoss
from stylegan_redact.network import c_dim_of, check_finite, copy_network
from stylegan_redact.plugins import option
from stylegan_redact.training.adversarial import Rules, Streams, fine_tune
from stylegan_redact.training.augment import random_view
from stylegan_redact.training.guide import BARELY
from stylegan_redact.training.images import check_images, open_images
from stylegan_redact.training.schedule import Schedule
from stylegan_redact.training.streams import Allowed, Stream, Wanted, from_files, generated, mixed, only
from stylegan_redact.types import Feature, Network, Progress, RedactError


@dataclass(frozen=True)
class Adversarial:
    """Settings that every adversarial fine-tuning has."""

    kimg: float = option(4.0, "thousands of images to fine-tune on", low=0.0, high=100000.0)
    batch: int = option(16, "images of a step", low=4, high=4096)
    lr: float = option(0.002, "Adam's step, falling to zero", low=0.0, high=1.0)
    r1: float = option(0.5, "gamma of R1, the penalty on the discriminator's slope", low=0.0, high=1000.0)
    augment: float = option(0.2, "share of pictures that the discriminator sees through a random view", low=0.0, high=1.0)
    batch_gpu: int | None = option(None, "images at a time, to save memory; None: the whole batch", low=1, high=4096)

    needs: ClassVar[tuple[str, ...]] = ("latents", "detector")
    # The generator forward and back, its paths at every fourth step, what is drawn as real and to be redacted; D forward and back in G's step and
    # of three streams in its own; back is worth two.
    watched: ClassVar[bool] = True
    shared: ClassVar[bool] = False
    passes: ClassVar[Mapping[str, float]] = {"draw": 6, "criticise": 12}

    def schedule(self, seed: int, share: float = 1.0) -> Schedule:
        """Steps and sizes of a share of the training."""
        return Schedule(max(round(share * self.kimg * 1000 / self.batch), 1), self.batch, self.lr, seed, self.batch_gpu)

    def rules(self) -> Rules:
        """What steadies the training."""
        return Rules(r1=self.r1, augment=self.augment)

    def tuned(self, network: Network, after: Network, streams: Streams, loss: RedactionLoss, seed: int, progress: Progress | None = None) -> Network:
        """`after`, trained; G is the trained one, G_ema its average."""
        fine_tune(network, after, streams, loss, self.rules(), self.schedule(seed), progress)
        check_finite(after)
        return after


@dataclass(frozen=True)
class OnCleanPictures(Adversarial):
    """Of those that train on pictures without the feature, also where these come from."""

    data: str | None = option(None, "folder or zip of real images in NVIDIA's layout; None: what the network draws without the feature", path=True)

    def __post_init__(self) -> None:
        if self.data is not None:
            check_images(self.data, f"data={self.data!r}")


def copied(network: Network, feature: Feature, method: str, *, gradients: bool = False) -> Network:
    """A copy to train, after a look at what there is.

    Raises:
        RedactError: what the method needs is missing.
    """
    asked = f"{feature.name} was to be redacted by {method}"
    if feature.latents is None or feature.detector is None:
        raise RedactError(f"{asked} - it needs labelled latents and a detector - give a classifier")
    if network.D is None:
        raise RedactError(f"{asked} - it trains against the discriminator, and the file's is not known here - use --method=edit, unlearn or fold")
    if gradients and not feature.detector.differentiable:
        raise RedactError(f"{asked} - its detector gives no gradients - use --method=redact_validity")
    labels.needed(feature.latents.c, c_dim_of(network.G_ema), asked)
    return copy_network(network)


def scored(feature: Feature) -> Callable[[torch.Tensor], torch.Tensor]:
    """img [n, C, H, W] -> [n], the detector's logit of the feature."""
    assert feature.detector is not None
    detector, column = feature.detector, feature.detector.attributes.index(feature.name)
    return lambda img: detector.logits(img)[:, column]


SURELY = 30.0
"""Logit of what is allowed whatever the detector says: to float32 its probability is 1."""


def guidance(feature: Feature, softness: float) -> Allowed:
    """How likely the detector, looking through a random view, allows a picture; one of a bystanders' class is allowed whatever it shows."""
    score, bystanders = scored(feature), feature.bystanders
    held = None if bystanders is None else bystanders.c.argmax(dim=1).unique()

    def allowed(img: torch.Tensor, c: torch.Tensor | None, generator: torch.Generator) -> torch.Tensor:
        logit: torch.Tensor = -score(random_view(img, generator)) / softness
        return logit if held is None or c is None else logit.masked_fill(torch.isin(c.argmax(dim=1), held), SURELY)

    return allowed


def real_stream(network: Network, feature: Feature, data: str | None, valid: Wanted | None = None) -> Stream:
    """Clean pictures: of a data set, or else what the original draws for labelled latents.

    Where there are bystanders, pictures of other classes that are to stay as they are, half of the stream is what the original draws of these.

    Args:
        data:  Folder or zip, or None.
        valid: Which pictures are clean; None: those without the feature by the detector's word.

    Raises:
        RedactError: there are none, or a data set that does not fit the network.
    """
    latents, bystanders, G = feature.latents, feature.bystanders, network.G_ema
    assert latents is not None
    score = scored(feature)
    if data is not None:
        clean = valid or (lambda img: score(img) <= BARELY)
        stream = from_files(open_images(data, shape_of(G)), c_dim_of(G), latents.w.device, clean)
    elif valid is not None:
        stream = only(generated(G, latents.w, latents.c), valid, "the network")
    else:
        free = latents.score <= BARELY
        if not bool(free.any()):
            raise RedactError(f"pictures without {feature.name} were wanted - none of {len(free)} labelled ones is - choose a rarer feature")
        stream = generated(G, latents.w[free], None if latents.c is None else latents.c[free])
    return stream if bystanders is None else mixed([stream, generated(G, bystanders.w, bystanders.c)])


def shown_stream(network: Network, feature: Feature) -> Stream:
    """What the original draws for the labelled latents that show the feature.

    Raises:
        RedactError: none does.
    """
    latents = feature.latents
    assert latents is not None
    shows = latents.score > 0
    if not bool(shows.any()):
        raise RedactError(f"pictures with {feature.name} were wanted - none of {len(shows)} labelled ones shows it - label more with --num-latents")
    return generated(network.G_ema, latents.w[shows], None if latents.c is None else latents.c[shows])


def example_stream(network: Network, paths: str, device: torch.device) -> Stream:
    """Pictures of folders or zips, separated by commas, each as often as the others."""
    G: Any = network.G_ema
    sets = [open_images(path, shape_of(G)) for path in split_paths(paths)]
    return mixed([from_files(files, c_dim_of(G), device) for files in sets])


def split_paths(paths: str) -> list[str]:
    """a,b -> ["a", "b"]."""
    return [path.strip() for path in paths.split(",") if path.strip()]


def shape_of(G: Any) -> tuple[int, int, int]:
    """[C, H, W] of what it draws."""
    return G.img_channels, G.img_resolution, G.img_resolution
