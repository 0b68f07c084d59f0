# SPDX-License-Identifier: Apache-2.0
"""The default: the same people without the feature, for whoever samples z and for whoever kept a w or W+ code alike.

1. An editor of W (training/editor.py) learns, through the frozen generator and the detector seen through random views, the nearest w of the same
   picture without the feature: other attributes and the image are held, latents without the feature stay.
2. The mapping network learns the edited w by regression (no images).
3. The synthesis network learns, by the objective of Moon, Cho & Kim 2024 (arXiv 2303.05699v4; L1 + MS-SSIM), to draw for every w, and for every
   row of a W+ code, what it drew for the edited one.

The direction alone (fold, mapping, unlearn) leaves more of the feature or moves more of what never had it: see the table in docs/methods.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from stylegan_redact.detectors import column
from stylegan_redact.losses.unlearn import UnlearnLoss
from stylegan_redact.network import broadcast_w, check_finite, copy_network
from stylegan_redact.plugins import option
from stylegan_redact.training.distill import distill_synthesis
from stylegan_redact.training.editor import Editor, EditorLoss, train_editor
from stylegan_redact.training.regress import regress_mapping
from stylegan_redact.types import Detector, Feature, LabelledLatents, Network, RedactError
from stylegan_redact.wspace.geometry import hinge_for

Progress = Callable[[str, float, dict[str, float]], None]


@dataclass(frozen=True)
class Edit:
    """Guided edit of W, baked into the mapping and the synthesis network."""

    margin: float = option(4.0, "how far below zero the detector's logit is pushed", low=0.0, high=20.0)
    edit_kimg: float = option(6.0, "thousands of images to train the editor of W on", low=0.0, high=1000.0)
    mapping_steps: int = option(1500, "optimiser steps of the mapping network; 0 leaves it as it was", low=0, high=1_000_000)
    kimg: float = option(6.0, "thousands of images to fine-tune the synthesis network on; 0 leaves it as it was", low=0.0, high=10000.0)
    strength: float = option(2.0, "weight of the removal against the reconstruction in the synthesis network", low=0.0, high=1000.0)
    batch: int = option(32, "images of a step", low=2, high=4096)
    lr: float = option(0.001, "Adam's step for the synthesis network, falling to zero", low=0.0, high=1.0)
    batch_gpu: int | None = option(None, "images at a time, to save memory; None: the whole batch", low=1, high=4096)

    needs: ClassVar[tuple[str, ...]] = ("latents", "subspace", "detector")

    def redact(self, network: Network, feature: Feature, keep: tuple[str, ...], seed: int, progress: Progress | None = None) -> Network:
        """A network that draws the same pictures without the feature. G becomes a copy of the redacted G_ema."""
        if feature.latents is None or feature.subspace is None or feature.detector is None:
            raise RedactError(f"{feature.name} was to be redacted by edit - it needs labelled latents and a detector - give a classifier")
        if not feature.detector.differentiable:
            raise RedactError(f"{feature.name} was to be redacted by edit - its detector gives no gradients - use --method=unlearn, mapping or fold")
        editor = self.learn_edit(network.G_ema, feature, feature.latents, feature.detector, seed, progress)
        after = copy_network(network)
        if self.mapping_steps:
            regress_mapping(after.G_ema.mapping, editor, steps=self.mapping_steps, batch=512, lr=0.001, seed=seed + 1, progress=progress)
        if self.kimg:
            self.bake(after.G_ema, network.G_ema, editor, feature.latents, seed + 2, progress)
        after.G.load_state_dict(after.G_ema.state_dict())
        check_finite(after)
        return after

    def learn_edit(
        self, G: torch.nn.Module, feature: Feature, latents: LabelledLatents, detector: Detector, seed: int, progress: Progress | None
    ) -> Editor:
        """The editor of W, trained and frozen."""
        assert feature.subspace is not None
        hinge = hinge_for(latents, feature.subspace, 0.5)
        along = latents.w.double() @ hinge.normal
        shows, may_show = latents.score > 0, latents.score > -3
        closed, opened = along[shows].quantile(0.002), along[shows].quantile(0.1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            editor = Editor(hinge, (min(float(closed), float(opened) - 1e-6), float(opened)), latents.w).to(latents.w.device)
        steps = max(round(self.edit_kimg * 1000 / self.batch), 1)
        train_editor(
            editor, G, detector, column(detector, feature.name), latents.w[may_show], latents.w[~may_show],
            loss=EditorLoss(margin=self.margin), steps=steps, batch=self.batch, lr=0.002, seed=seed, progress=progress,
        )  # fmt: skip
        return editor.requires_grad_(False)

    def bake(self, student: torch.nn.Module, teacher: torch.nn.Module, editor: Editor, latents: LabelledLatents, seed: int, progress: Progress | None) -> None:
        """The edit into the synthesis network: half of what it sees shows the feature, a quarter does not, a quarter are mixed codes."""
        w, shows = latents.w, latents.score > 0

        def pairs(n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
            def some(pool: torch.Tensor, count: int) -> torch.Tensor:
                return broadcast_w(teacher, pool[torch.randint(len(pool), [count], generator=generator).to(pool.device)])

            mixed = some(w, n // 4).clone()
            row = torch.arange(teacher.num_ws).view(1, -1, 1)
            cut = torch.randint(1, teacher.num_ws, [n // 4, 1, 1], generator=generator)
            mixed = torch.where((row < cut).to(w.device), mixed, some(w, n // 4))
            ws = torch.cat([some(w[shows], n - 2 * (n // 4)), some(w[~shows], n // 4), mixed])
            return ws, editor(ws)

        steps = max(round(self.kimg * 1000 / self.batch), 1)
        settings = dict(steps=steps, batch=self.batch, lr=self.lr, seed=seed, micro_batch=self.batch_gpu, progress=progress)
        distill_synthesis(student.synthesis, teacher.synthesis, pairs, UnlearnLoss(self.strength), **settings)
