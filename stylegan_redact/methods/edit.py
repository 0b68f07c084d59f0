# SPDX-License-Identifier: Apache-2.0
"""The default: the same people without the feature, for whoever samples z and for whoever kept a w or W+ code alike.

1. An editor of W+ (training/editor.py) learns, through the frozen generator and the detector seen through random views, a near code of the same
   picture without the feature, other attributes and the image being held.
2. The synthesis network learns to draw, where its picture shows the feature, what it drew for the edited code, and elsewhere what it drew: the
   objective of Moon, Cho & Kim 2024 (arXiv 2303.05699v4; L1 + MS-SSIM), with the detector's word in the place of the gate, and its wish added.

The mapping network stays: it hands on the w that it always did, and every way into the synthesis network meets the same redaction.

`python benchmarks/methods.py` sets it beside the methods that use a direction alone (fold, mapping, unlearn).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from stylegan_redact.losses.ms_ssim import ms_ssim
from stylegan_redact.losses.unlearn import UnlearnLoss
from stylegan_redact.network import broadcast_w, check_finite, copy_network, generate, rows_read, synthesize
from stylegan_redact.plugins import option
from stylegan_redact.training.distill import Extra, Pairs, distill_synthesis
from stylegan_redact.training.editor import BARELY, Editor, EditorLoss, Guide, train_editor
from stylegan_redact.training.pool import Pool, rare_weights
from stylegan_redact.training.schedule import Schedule
from stylegan_redact.types import Feature, LabelledLatents, Network, Progress, RedactError

EDITOR_LR = 0.001
ROUNDS = (0.6, 0.4)
"""Shares of the fine-tuning before and after looking which of the images still show the feature."""


@dataclass(frozen=True)
class Edit:
    """Guided edit of W, baked into the synthesis network."""

    margin: float = option(8.0, "how far below zero the detector's logit is pushed", low=0.0, high=20.0)
    edit_kimg: float = option(5.0, "thousands of images to train the editor of W on", low=0.0, high=1000.0)
    kimg: float = option(7.0, "thousands of images to fine-tune the synthesis network on", low=0.0, high=10000.0)
    strength: float = option(0.3, "weight of the removal against the reconstruction", low=0.0, high=1000.0)
    guidance: float = option(0.03, "weight of the detector's wish in the synthesis network", low=0.0, high=1000.0)
    hold: float = option(0.15, "weight of the other logits in the synthesis network", low=0.0, high=1000.0)
    still: float = option(0.3, "weight of 1 - MS-SSIM of images that are to stay", low=0.0, high=1000.0)
    batch: int = option(32, "images of a step", low=4, high=4096)
    lr: float = option(0.0007, "Adam's step for the synthesis network, falling to zero", low=0.0, high=1.0)
    batch_gpu: int | None = option(None, "images at a time, to save memory; None: the whole batch", low=1, high=4096)

    needs: ClassVar[tuple[str, ...]] = ("latents", "detector")

    def redact(self, network: Network, feature: Feature, keep: tuple[str, ...], seed: int, progress: Progress | None = None) -> Network:
        """A network that draws the same pictures without the feature. G becomes a copy of the redacted G_ema."""
        if feature.latents is None or feature.detector is None:
            raise RedactError(f"{feature.name} was to be redacted by edit - it needs labelled latents and a detector - give a classifier")
        if not feature.detector.differentiable:
            raise RedactError(f"{feature.name} was to be redacted by edit - its detector gives no gradients - use --method=unlearn, mapping or fold")
        guide = Guide(feature.detector, feature.detector.attributes.index(feature.name), self.margin)
        latents, G = feature.latents, network.G_ema
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            editor = Editor(latents.w, G.num_ws, rows_read(G)).to(latents.w.device)
        schedule = Schedule(self.steps(self.edit_kimg), self.batch, EDITOR_LR, seed)
        train_editor(editor, network, guide, latents, schedule, loss=EditorLoss(), progress=progress)
        editor.requires_grad_(False)
        after = copy_network(network)
        self.bake(after.G_ema, G, editor, guide, latents, seed + 1, progress)
        after.G.load_state_dict(after.G_ema.state_dict())
        check_finite(after)
        return after

    def steps(self, kimg: float) -> int:
        """Optimiser steps of so many thousand images."""
        return max(round(kimg * 1000 / self.batch), 1)

    def bake(self, student: Any, teacher: Any, editor: Editor, guide: Guide, latents: LabelledLatents, seed: int, progress: Progress | None) -> None:
        """The edit into the synthesis network, in two rounds: the second dwells on what still shows after the first."""
        extra = self.wish(guide)
        w, shows = latents.w, latents.score > BARELY
        if bool(shows.all()):
            raise RedactError(
                f"a network without the feature was asked - all of {len(w)} labelled images show it or nearly do - choose a rarer feature"
            )
        hard = w[shows]
        for part, share in enumerate(ROUNDS):
            tell = None if progress is None else _within(progress, sum(ROUNDS[:part]), share)
            schedule = Schedule(self.steps(self.kimg * share), self.batch, self.lr * (1 if part == 0 else 0.5), seed + part, self.batch_gpu)
            pairs = self.pairs(teacher, editor, guide, Pool(w[shows]), Pool(w[~shows], rare_weights(latents, ~shows)), Pool(hard))
            distill_synthesis(student.synthesis, teacher.synthesis, pairs, UnlearnLoss(self.strength), schedule, extra=extra, progress=tell)
            if part + 1 == len(ROUNDS):
                break
            still = torch.cat([guide.shows(img, BARELY) for img in generate(student, w[shows], batch=self.batch_gpu or self.batch)])
            hard = w[shows][still] if bool(still.any()) else w[shows]

    def wish(self, guide: Guide) -> Extra:
        """The detector's: the feature gone where it was, the other logits as in the target; and no new structure where nothing is to change."""

        def extra(img: torch.Tensor, target: torch.Tensor, moved: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
            left, change = guide.compare(img, target, generator)
            still = (1 - ms_ssim(img[~moved], target[~moved])).sum() / len(img) if not bool(moved.all()) else img.new_zeros([])
            return self.guidance * (left * moved).sum() / len(img) + self.hold * change + self.still * still

        return extra

    def pairs(self, teacher: Any, editor: Editor, guide: Guide, had: Pool, never: Pool, hard: Pool) -> Pairs:
        """What to feed and what to aim at: a quarter each of codes that showed the feature, of the hard ones among them, that did not, and mixed."""

        def some(pool: Pool, count: int, generator: torch.Generator) -> torch.Tensor:
            return broadcast_w(teacher, pool.draw(count, generator))

        def sample(n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
            quarter = n // 4
            row = torch.arange(teacher.num_ws).view(1, -1, 1)
            first = (row < torch.randint(1, teacher.num_ws, [quarter, 1, 1], generator=generator)).to(had.w.device)
            mixed = torch.where(first, some(had, quarter, generator), some(never, quarter, generator))
            with torch.no_grad():
                seen = guide.shows(synthesize(teacher, mixed), BARELY).view(-1, 1, 1)
            eighth = n // 8
            shown = torch.cat([some(had, eighth, generator), some(hard, eighth, generator)])
            free = some(never, n - 2 * eighth - quarter, generator)
            return torch.cat([shown, free, mixed]), torch.cat([editor(shown), free, torch.where(seen, editor(mixed), mixed)])

        return sample


def _within(progress: Progress, start: float, share: float) -> Progress:
    """A part of a stage as the part of the whole that it is."""
    return lambda stage, fraction, figures: progress(stage, start + share * fraction, figures)
