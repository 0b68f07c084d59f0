# SPDX-License-Identifier: Apache-2.0
"""The default: the same people without the feature, for whoever samples z and for whoever kept a w or W+ code alike.

The synthesis network learns, wherever its picture shows the feature, to draw that picture so that the detector does not find it however the
picture is looked at, while other attributes, the look of a real picture, and all pixels that the feature does not lie on are held; elsewhere it
learns to draw what it drew.

The mapping network stays: it hands on the w that it always did, and every way into the synthesis network meets the same redaction.

`python -m benchmarks.compare_methods` sets it beside the other methods, such as those that use a direction alone (fold, mapping, unlearn).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from stylegan_redact import labels
from stylegan_redact.network import broadcast_w, c_dim_of, check_finite, copy_network, generate
from stylegan_redact.plugins import option
from stylegan_redact.training.adversary import Adversary
from stylegan_redact.training.guide import BARELY, Guide, barely_of_class, classes_of_one, same_mirrored
from stylegan_redact.training.guided import Batch, Codes, GuidedLoss, Sought, guided_synthesis
from stylegan_redact.training.pool import Pool, rare_weights
from stylegan_redact.training.schedule import Schedule, steps_of
from stylegan_redact.types import Bystanders, Feature, LabelledLatents, Network, Progress, RedactError

LOOKED_AT = 64
"""Pictures that show the feature, looked at mirrored."""
TRAITS: Mapping[str, float] = {"guidance": 0.018, "hold": 0.18, "anywhere": 0.0, "become": 0.0}
CLASSES: Mapping[str, float] = {"guidance": 0.07, "hold": 0.1, "anywhere": 0.8, "become": 0.3}
"""What options are that are None. A picture that is to leave its class changes as a whole."""


@dataclass(frozen=True)
class Edit:
    """Guided edit of what the synthesis network draws."""

    margin: float = option(11.0, "how far below zero the detector's logit is pushed", low=0.0, high=20.0)
    kimg: float = option(16.0, "thousands of images to fine-tune the synthesis network on", low=0.0, high=10000.0)
    guidance: float | None = option(None, "weight of the detector's wish; None: 0.018, of exclusive classes 0.07", low=0.0, high=1000.0)
    hold: float | None = option(None, "weight of the other logits; None: 0.18, of exclusive classes 0.1", low=0.0, high=1000.0)
    still: float = option(0.6, "weight of 1 - MS-SSIM of images that are to stay", low=0.0, high=1000.0)
    elsewhere: float = option(2.0, "weight of the change of all pixels that the feature does not lie on", low=0.0, high=1000.0)
    anywhere: float | None = option(None, "how freely all of an edited image changes; None: 0, of exclusive classes 0.8", low=0.0, high=1.0)
    become: float | None = option(None, "weight of some other class, of the detector's wish; None: 0, of exclusive classes 0.3", low=0.0, high=1000.0)
    realism: float = option(0.06, "weight of the discriminator's verdict on edited images", low=0.0, high=1000.0)
    attacked: float = option(0.25, "share of each batch that is sought by an attacker in W+ while the network learns", low=0.0, high=0.5)
    robust: float = option(0.25, "what these count, of the detector's wish", low=0.0, high=100.0)
    barely: float | None = option(None, "logit above which a picture counts as showing it; None: -1, of classes as found", low=-20.0, high=0.0)
    mirror: bool | None = option(None, "views are mirrored too; no: where left and right matter, as in writing; None: as it finds")
    batch: int = option(20, "images of a step", low=4, high=4096)
    lr: float = option(0.0026, "Adam's step, falling to zero", low=0.0, high=1.0)
    batch_gpu: int | None = option(None, "images at a time, to save memory; None: the whole batch", low=1, high=4096)

    needs: ClassVar[tuple[str, ...]] = ("latents", "detector")
    several: ClassVar[bool] = True
    gradients: ClassVar[bool] = True
    # Twice forward, once back; images as they were and are, bare and through a view, and where half of them change; half of them, back too;
    # likewise. A quarter is climbed once more.
    watched: ClassVar[bool] = True
    passes: ClassVar[Mapping[str, float]] = {"draw": 4.75, "detect": 13.75, "criticise": 1.5, "compare": 1.5}

    def redact(self, network: Network, feature: Feature, keep: tuple[str, ...], seed: int, progress: Progress | None = None) -> Network:
        """A network that draws the same pictures without the feature. G becomes a copy of the redacted G_ema."""
        if feature.latents is None or feature.detector is None:
            raise RedactError(f"{feature.name} was to be redacted by edit - it needs labelled latents and a detector - give a classifier")
        if not feature.detector.differentiable:
            raise RedactError(f"{feature.name} was to be redacted by edit - its detector gives no gradients - use --method=unlearn, mapping or fold")
        labels.needed(feature.latents.c, c_dim_of(network.G_ema), f"{feature.name} was to be redacted by edit")
        loss = self._loss(network, feature, feature.latents)
        after = copy_network(network)
        schedule = Schedule(steps_of(self.kimg, self.batch), self.batch, self.lr, seed, self.batch_gpu)
        num_sought = round(self.attacked * self.batch)
        micro = self.batch_gpu or self.batch
        adversary = Adversary(after.G_ema, loss.guide, feature.latents, num_sought, micro, self.batch) if num_sought else None
        codes = mixed_codes(network.G_ema, feature.latents, feature.bystanders, adversary, barely=loss.guide.barely)

        def so_far() -> Network:
            after.G.load_state_dict(after.G_ema.state_dict())
            return after

        G: Any = network.G_ema
        shape = (G.img_channels, G.img_resolution, G.img_resolution)
        guided_synthesis(after.G_ema.synthesis, G.synthesis, codes, loss, schedule, progress, img_shape=shape, so_far=so_far)
        check_finite(so_far())
        return after

    def _loss(self, network: Network, feature: Feature, latents: LabelledLatents) -> GuidedLoss:
        """The objective, made to fit what the detector knows: traits or classes, and whether left and right matter."""
        detector: Any = feature.detector
        columns = tuple(detector.attributes.index(part.name) for part in feature.each)
        classes = latents.logits is not None and classes_of_one(latents.logits, columns)
        if self.become and len(columns) == len(detector.attributes):
            raise RedactError("pictures of another class were asked - the detector knows none beside the feature - leave --become out")
        guide = Guide(detector, columns, self.margin, classes=classes)
        if self.barely is not None:
            guide = replace(guide, barely=self.barely)
        elif classes and latents.logits is not None:
            guide = replace(guide, barely=barely_of_class(latents.logits, columns))
        some = latents.w[torch.nonzero(latents.score > 0).flatten()[:LOOKED_AT]]
        drawn = generate(network.G_ema, some, batch=self.batch_gpu or self.batch) if len(some) else []
        mirror = same_mirrored(guide.logit, drawn) if self.mirror is None else self.mirror
        usual = CLASSES if classes else TRAITS
        guidance, hold, anywhere, become = (usual[name] if getattr(self, name) is None else getattr(self, name) for name in usual)
        D = network.D if self.realism > 0 else None
        guide = replace(guide, mirror=mirror, become=become)
        return GuidedLoss(guide, D, guidance, self.robust, hold, self.still, self.elsewhere, self.realism, anywhere=anywhere)


def mixed_codes(
    G: Any, latents: LabelledLatents, bystanders: Bystanders | None = None, adversary: Adversary | None = None, *, barely: float = BARELY
) -> Codes:
    """Draws codes: three eighths that show the feature, three that do not, and a quarter that mix two of either kind.

    Where there is an adversary, what it has found comes first, and the rest is shared out so.
    Where there are bystanders, half of those that do not show it are such, and are held whatever they show.
    """
    shows = latents.score > barely
    if bool(shows.all()):
        raise RedactError(
            f"a network without the feature was asked - all of {len(shows)} labelled images show it or nearly do (scores above {barely:g}) - "
            "choose a rarer feature, or scores that are log odds"
        )
    had, never = (Pool(latents.w, rare_weights(latents, of), of.nonzero()[:, 0]) for of in (shows, ~shows))

    def regular(n: int, generator: torch.Generator) -> Batch:
        quarter, shown = n // 4, 3 * n // 8
        num_held = 0 if bystanders is None else (n - shown - quarter) // 2
        row = torch.arange(G.num_ws).view(1, -1, 1)
        # A decoder's code has one row, and nothing to mix: it is the first of the two.
        first = (row < torch.randint(1, max(G.num_ws, 2), [quarter, 1, 1], generator=generator)).to(latents.w.device)
        counts = (had, shown), (never, n - shown - quarter - num_held), (had, quarter), (never, quarter)
        picked = [pool.pick(count, generator) for pool, count in counts]
        one, other, mine, theirs = (broadcast_w(G, pool.w[rows]) for (pool, _), rows in zip(counts, picked, strict=True))
        parts = [one, other, torch.where(first, mine, theirs)]
        c = None if latents.c is None else [latents.c[rows] for rows in picked[:3]]
        if bystanders is not None:
            rows = Pool(bystanders.w).pick(num_held, generator)
            parts.append(broadcast_w(G, bystanders.w[rows]))
            c = None if c is None else [*c, bystanders.c[rows]]
        held = torch.arange(n, device=latents.w.device) >= n - num_held
        return Batch(torch.cat(parts), held, None if c is None else torch.cat(c))

    return regular if adversary is None else Sought(adversary, regular)
