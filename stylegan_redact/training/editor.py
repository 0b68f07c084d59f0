# SPDX-License-Identifier: Apache-2.0
"""An amortised editor of W+: for each code that shows the feature, a near one of the same picture without it, at the price of one small MLP.

It learns through the frozen generator and the detector. Which codes are to be edited at all is not its business: whoever uses it asks the detector.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch.nn.functional import smooth_l1_loss, softplus

from stylegan_redact.network import broadcast_w, synthesize
from stylegan_redact.training.augment import random_view
from stylegan_redact.training.pool import Pool, rare_weights
from stylegan_redact.training.schedule import Schedule
from stylegan_redact.types import Detector, LabelledLatents, Network, Progress

BARELY = -1.0
"""A logit above this counts as showing the feature: what barely shows is edited too."""
LOGIT_RANGE = 5.0
"""Beyond this a logit says no more than "surely", and need not be copied."""


class Editor(torch.nn.Module):
    """ws [n, num_ws, w_dim] -> ws' of the same shape: every row by itself, each row of a code in its own way.

    A step of its own for each row lets the edit stay where the feature is drawn; the same step for all rows moves the whole picture. It starts as
    the identity: started from a step along the discriminant direction, it ends further away.

    Args:
        w:      [n, w_dim] latents of the network, for scales.
        num_ws: Rows of a code.
        rows:   Those to edit; None: all. StyleGAN3's first row steers the pose, and stays.
    """

    mean: torch.Tensor
    std: torch.Tensor
    edited: torch.Tensor

    def __init__(self, w: torch.Tensor, num_ws: int, rows: Collection[int] | None = None, hidden: int = 256) -> None:
        super().__init__()
        dim = w.shape[1]
        self.register_buffer("mean", w.mean(dim=0))
        self.register_buffer("std", w.std(dim=0))
        self.register_buffer("edited", torch.tensor([[float(rows is None or row in rows)] for row in range(num_ws)]))  # [num_ws, 1]
        layers = [torch.nn.Linear(dim, hidden), torch.nn.LeakyReLU(0.2), torch.nn.Linear(hidden, hidden), torch.nn.LeakyReLU(0.2)]
        self.trunk = torch.nn.Sequential(*layers)
        self.heads = torch.nn.Parameter(torch.zeros([num_ws, hidden, dim]))

    def forward(self, ws: torch.Tensor) -> torch.Tensor:
        hidden = self.trunk((ws - self.mean) / self.std)  # [n, num_ws, hidden]
        return ws + torch.einsum("nrh,rhd->nrd", hidden, self.heads) * self.std * self.edited


@dataclass(frozen=True)
class Guide:
    """The detector's wish, as losses: the feature's logit under -margin however one looks at the image, the other logits as they were."""

    detector: Detector
    column: int
    """Of the feature among the detector's logits."""
    margin: float = 4.0

    def known(self, img: torch.Tensor) -> torch.Tensor:
        """Logits [n, attributes] without gradients."""
        with torch.no_grad():
            return self.detector.logits(img)

    def shows(self, img: torch.Tensor, above: float = 0.0) -> torch.Tensor:
        """[n] bool."""
        return self.known(img)[:, self.column] > above

    def compare(self, img: torch.Tensor, target: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """[n]: what is left of the feature in img as it is and through a random view of it; and a scalar: how far the other logits of img are from
        those of target, as they are and through the same random view of both."""
        state = generator.get_state()
        now = self.detector.logits(torch.cat([img, random_view(img, generator)]))  # [2 n, attributes]
        generator.set_state(state)
        left = softplus(now[:, self.column] + self.margin).view(2, -1).sum(dim=0)
        rest = [index for index in range(now.shape[1]) if index != self.column]
        if not rest:
            return left, now.new_zeros([])
        with torch.no_grad():
            then = self.detector.logits(torch.cat([target, random_view(target, generator)]))
        return left, apart(now[:, rest], then[:, rest])

    def wish(self, img: torch.Tensor, known: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """What is left of the feature, and how far the other logits have moved from what is known of them [n, attributes]: two scalars.

        Both through random views as well: a logit that is held on the bare image alone is held for this detector alone.
        """
        now = self.detector.logits(torch.cat([img, random_view(img, generator)]))  # [2 n, attributes]
        feature = 2 * softplus(now[:, self.column] + self.margin).mean()
        rest = [index for index in range(known.shape[1]) if index != self.column]
        if not rest:
            return feature, feature.new_zeros([])
        return feature, apart(now[:, rest], known[:, rest].repeat(2, 1))


def apart(now: torch.Tensor, then: torch.Tensor) -> torch.Tensor:
    """Scalar: how far logits now [n, a] are from what they were, where what was beyond LOGIT_RANGE has only to be beyond it again.

    Only what they were is cut off. With both cut off, an attribute that is lost for certain would have no gradient to come back by.
    """
    sure = then.abs() >= LOGIT_RANGE
    low = torch.where(sure, torch.where(then > 0, LOGIT_RANGE, -math.inf), then)
    high = torch.where(sure, torch.where(then > 0, math.inf, -LOGIT_RANGE), then)
    return smooth_l1_loss(now, now.detach().clamp(low, high))


@dataclass(frozen=True)
class EditorLoss:
    """Weights of the terms against the feature's."""

    others: float = 7.0
    """Distance of the other logits."""
    realism: float = 1.5
    """The discriminator's verdict: what is neither with nor without the feature looks like nothing that it was trained on."""
    image: float = 4.0
    """Mean absolute change of the image."""
    step: float = 0.02
    """Mean square step in units of the spread of W."""


def train_editor(
    editor: Editor,
    network: Network,
    guide: Guide,
    latents: LabelledLatents,
    schedule: Schedule,
    *,
    loss: EditorLoss,
    progress: Progress | None = None,
) -> None:
    """Trains `editor` in place on the latents that show the feature, through the frozen generator.

    Args:
        editor:   Starts as the identity.
        network:  Its G_ema and D, both frozen; without a D, nobody judges how real the result is.
        guide:    With a differentiable detector.
        latents:  Those of score > BARELY are edited.
        schedule: Steps and sizes; the step falls to zero linearly.
        loss:     Weights.
    """
    G, D = network.G_ema, network.D
    shows = latents.score > BARELY
    pool = Pool(latents.w[shows], rare_weights(latents, shows))
    steps, lr = schedule.steps, schedule.lr
    generator = torch.Generator().manual_seed(schedule.seed)
    optimizer = torch.optim.Adam(editor.parameters(), lr=lr, betas=(0.9, 0.99))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = lr * min(1.0, 3 * (step + 1) / steps) * (1 - step / steps)
        picked = broadcast_w(G, pool.draw(schedule.batch, generator))
        with torch.no_grad():
            before = synthesize(G, picked)
        moved = editor(picked)
        after = synthesize(G, moved)
        feature, others = guide.wish(after, guide.known(before), generator)
        terms = {
            "feature": feature,
            "others": loss.others * others,
            "realism": after.new_zeros([]) if D is None else loss.realism * softplus(-D(whole_groups(D, after), None)).mean(),
            "image": loss.image * (after - before).abs().mean(),
            "step": loss.step * ((moved - picked) / editor.std).square().mean(),
        }
        optimizer.zero_grad(set_to_none=True)
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        if progress is not None and (step % 10 == 0 or step + 1 == steps):
            progress("edit", (step + 1) / steps, {name: float(value.detach()) for name, value in terms.items()})


def whole_groups(D: torch.nn.Module, img: torch.Tensor) -> torch.Tensor:
    """The first images, as many as fill groups: minibatch statistics refuse others."""
    size = next((getattr(layer, "group_size") for layer in D.modules() if hasattr(layer, "group_size")), None)  # noqa: B009 - Module's type
    return img if size is None or len(img) <= size else img[: len(img) // size * size]
