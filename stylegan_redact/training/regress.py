# SPDX-License-Identifier: Apache-2.0
"""Teaches a mapping network an edit of W by regression: z -> edit(w(z)). Draws no images; seconds on a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from stylegan_redact.training.checkpoint import Record, Training, Turn, train
from stylegan_redact.training.schedule import Schedule, falling
from stylegan_redact.types import Network, Progress

Edit = Callable[[torch.Tensor], torch.Tensor]
HELD_SHARE = 0.5
"""Of a batch: latents of classes that are to stay, where there are any."""


@dataclass(frozen=True)
class Conditions:
    """Which labels a conditional mapping network is trained on."""

    edited: torch.Tensor
    """c [n, c_dim], drawn from alike: of latents that the edit concerns."""
    held: torch.Tensor | None = None
    """c [m, c_dim]: of latents that are to stay; None: there are none."""

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """c [count, c_dim], and [count] bool: the edit concerns it."""
        num_held = 0 if self.held is None else int(count * HELD_SHARE)
        parts = [_some(self.edited, count - num_held, generator)]
        if self.held is not None:
            parts.append(_some(self.held, num_held, generator))
        return torch.cat(parts), (torch.arange(count) < count - num_held).to(self.edited.device)


def regress_mapping(
    mapping: Any,
    edit: Edit,
    schedule: Schedule,
    *,
    conditions: Conditions | None = None,
    emphasis: float = 4.0,
    progress: Progress | None = None,
    so_far: Callable[[], Network] | None = None,
) -> float:
    """Trains `mapping` in place so that it gives edit(w) where it gave w.

    Args:
        mapping:    Mapping network of a generator.
        edit:       [n, w_dim] -> [n, w_dim]; may be any function.
        schedule:   Its lr is for effective weights: a layer's stored ones are 1 / lr_multiplier times larger, which is taken into account.
        conditions: Labels, if the generator is conditional; where they are held, w stays.
        emphasis:   Weight of latents that the edit moves, against those that it leaves.
        progress:   Told (stage, share done, figures).
        so_far:     The network that the mapping network is of.

    Returns:
        Root mean square error left, relative to the spread of w, averaged over the last tenth of the steps.
    """
    device = next(mapping.parameters()).device
    frozen = {name: p.detach().clone() for name, p in mapping.named_parameters()}
    steps, lr = schedule.steps, schedule.lr
    generator = torch.Generator().manual_seed(schedule.seed)
    mapping.requires_grad_(True)
    groups = _layers(mapping)
    optimizer = torch.optim.Adam([{"params": group} for _, group in groups], lr=lr, betas=(0.9, 0.99), fused=True)
    spread, errors = Record(), Record()

    def step(turn: Turn) -> dict[str, float]:
        for (scale, _), group in zip(groups, optimizer.param_groups, strict=True):
            group["lr"] = turn.rate * lr * scale * min(1.0, (turn.step + 1) / 20) * falling(turn.step, steps)
        z = torch.randn([schedule.batch, mapping.z_dim], generator=generator).to(device)
        c, concerned = (None, None) if conditions is None else conditions.draw(schedule.batch, generator)
        with torch.no_grad():
            w = torch.func.functional_call(mapping, frozen, (z, c))[:, 0]
            goal = edit(w) if concerned is None else torch.where(concerned[:, None], edit(w), w)
            spread.values = spread.values or [float(w.var(dim=0).sum())]  # Of the first batch.
            weight = 1 + (emphasis - 1) * ((goal - w).square().sum(dim=1) > 1e-6 * spread.values[0]).float()
        error = (mapping(z, c)[:, 0] - goal).square().sum(dim=1) / spread.values[0]  # [n]
        loss = (weight * error).sum() / weight.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        errors.values.append(float(error.detach().mean()))
        return {"relative_error": math.sqrt(errors.values[-1])}

    parts = {"mapping": mapping, "optimizer": optimizer, "spread": spread, "errors": errors}
    train(Training("mapping", steps, schedule.batch, step, parts, generator, smallest=schedule.batch, so_far=so_far, told_every=50), progress)
    mapping.requires_grad_(False)
    tail = errors.values[-max(steps // 10, 1) :]
    return math.sqrt(sum(tail) / len(tail))


def _layers(mapping: Any) -> list[tuple[float, list[torch.nn.Parameter]]]:
    """How many times larger than in effect each layer's weights are stored, and its parameters: those of `embed` are of their size, others not."""
    found = [(1 / min(getattr(layer, "bias_gain", 1.0), 1.0), list(layer.parameters(recurse=False))) for layer in mapping.modules()]
    return [(scale, parameters) for scale, parameters in found if parameters]


def _some(c: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """[count, c_dim] rows of c, with repetitions."""
    return c[torch.randint(len(c), [count], generator=generator).to(c.device)]
