# SPDX-License-Identifier: Apache-2.0
"""An amortised editor of W: for each w that shows the feature, the nearest w of the same picture without it, at the price of one small MLP.

It starts from the hinge along the discriminant direction and learns a correction through the frozen generator and the detector. Latents
that the hinge's gate does not reach are returned bit for bit, so whoever never had the feature is not touched.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import smooth_l1_loss, softplus

from stylegan_redact.network import synthesize
from stylegan_redact.training.augment import random_view
from stylegan_redact.training.regress import Progress
from stylegan_redact.types import Detector
from stylegan_redact.wspace.hinge import HingeEdit


class Editor(torch.nn.Module):
    """w [..., w_dim] -> w' [..., w_dim].

    Args:
        hinge: Where to start from; its direction is also the gate's.
        gate:  (closed, open): where u . w stops an edit altogether, and from where it is done in full.
        w:     [n, w_dim] latents of the network, for scales.
    """

    def __init__(self, hinge: HingeEdit, gate: tuple[float, float], w: torch.Tensor, hidden: int = 256) -> None:
        super().__init__()
        dim = w.shape[1]
        self.closed, self.open, self.target = gate[0], gate[1], hinge.target
        self.register_buffer("normal", hinge.normal.float())
        self.register_buffer("shift", hinge.shift.float())
        self.register_buffer("mean", w.mean(dim=0))
        self.register_buffer("std", w.std(dim=0))
        layers = [torch.nn.Linear(dim + 1, hidden), torch.nn.LeakyReLU(0.2), torch.nn.Linear(hidden, hidden), torch.nn.LeakyReLU(0.2)]
        last = torch.nn.Linear(hidden, dim)
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
        self.correction = torch.nn.Sequential(*layers, last)

    def gate(self, w: torch.Tensor) -> torch.Tensor:
        """[...] in [0, 1]: how much of the edit is done."""
        return ((w @ self.normal - self.closed) / (self.open - self.closed)).clamp(0, 1)

    def forward(self, w: torch.Tensor) -> torch.Tensor:
        along = w @ self.normal - self.target  # [...]
        normalized = torch.cat([(w - self.mean) / self.std, along.unsqueeze(-1)], dim=-1)
        step = self.correction(normalized) * self.std - along.clamp(min=0).unsqueeze(-1) * self.shift
        return w + self.gate(w).unsqueeze(-1) * step


@dataclass(frozen=True)
class EditorLoss:
    """What an edit costs; every term is a mean over images.

    The feature's logit, seen through random views, shall be under -margin; the other logits and the image shall stay; and the step in W
    shall be short in units of the spread of W.
    """

    margin: float = 4.0
    keep: float = 0.5
    image: float = 3.0
    step: float = 0.02
    stay: float = 5.0
    """Weight of the steps of latents that do not show the feature, which should be none."""

    def __call__(self, detector: Detector, column: int, before: torch.Tensor, after: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            known = detector.logits(before)
        now = detector.logits(after)
        seen = detector.logits(random_view(after, generator))[:, column]
        others = [index for index in range(known.shape[1]) if index != column]
        terms = {"feature": softplus(seen + self.margin).mean() + softplus(now[:, column] + self.margin).mean()}
        if others:  # Beyond +-5 a logit says no more than "surely", and need not be copied.
            terms["keep"] = self.keep * smooth_l1_loss(now[:, others].clamp(-5, 5), known[:, others].clamp(-5, 5))
        terms["image"] = self.image * (after - before).abs().mean()
        return terms


def train_editor(  # noqa: PLR0913 - keyword-only from `loss` on
    editor: Editor, G: torch.nn.Module, detector: Detector, column: int, w: torch.Tensor, rest: torch.Tensor, *, loss: EditorLoss, steps: int,
    batch: int, lr: float, seed: int, progress: Progress | None = None,
) -> None:  # fmt: skip
    """Trains `editor` in place on latents that show the feature.

    Args:
        editor:   Starts as the hinge.
        G:        Frozen generator.
        detector: Differentiable; its logit `column` is the feature.
        w:        [n, w_dim] latents to edit: those that show the feature, or may.
        rest:     [m, w_dim] latents that surely do not show it.
        loss:     Weights.
        steps:    Optimiser steps of `batch` images each.
        lr:       Adam's, falling to zero.
        seed:     Of the choice of latents and of the views.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(editor.correction.parameters(), lr=lr, betas=(0.9, 0.99))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min(1.0, (step + 1) / 10) * (1 - step / steps)
        picked = w[torch.randint(len(w), [batch], generator=generator).to(w.device)]
        with torch.no_grad():
            before = synthesize(G, picked)
        moved = editor(picked)
        after = synthesize(G, moved)
        terms = loss(detector, column, before, after, generator)
        terms["step"] = loss.step * ((moved - picked) / editor.std).square().mean(dim=1).mean()
        still = rest[torch.randint(len(rest), [8 * batch], generator=generator).to(w.device)]
        terms["stay"] = loss.stay * ((editor(still) - still) / editor.std).square().mean(dim=1).mean()
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        if progress is not None and (step % 10 == 0 or step + 1 == steps):
            progress("edit", (step + 1) / steps, {name: float(value) for name, value in terms.items()})
