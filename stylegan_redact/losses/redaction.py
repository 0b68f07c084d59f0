# SPDX-License-Identifier: Apache-2.0
"""Data redaction: the discriminator's objective of Kong & Chaudhuri 2022 (SaTML 2023; arXiv 2206.14389), on logits.

The discriminator is told that pictures from the redaction set are as fake as what the generator draws, with smoothed labels:

    L_D = E_real s(d, a+) + E_fake s(d, a-),   p_fake = lambda p_G + (1 - lambda) U(negatives),   L_G = E_G softplus(-d)

with s(d, a) = -a log D - (1 - a) log(1 - D), D = sigmoid(d). For every lambda in (0, 1] and a- < a+ the optimum is the same: the generator draws
the clean data and nothing of the redaction set. At lambda = 1, a+ = 1, a- = 0 this is the usual GAN. What the negatives buy is speed.

Where a classifier f says how likely a picture is allowed, generated pictures that it forbids are judged by a guided discriminator,

    D_f = a- + (1 - a-) f D where f < tau, else D.

The paper's exact form of D_f was not known to us: this is ours, of the same intent (the verdict falls to the fake label as f does, and the slope of
f reaches the generator). The loss is non-saturating as StyleGAN's is; all settings are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid, softplus

from stylegan_redact.types import RedactError


@dataclass(frozen=True)
class RedactionLoss:
    """The objective, as what the discriminator and the generator minimise. The default is the plain non-saturating GAN."""

    alpha_plus: float = 1.0
    """Label of real pictures."""
    alpha_minus: float = 0.0
    """Label of generated pictures and negatives."""
    generated: float = 1.0
    """lambda: the share of generated pictures among the fakes; the rest are negatives."""
    threshold: float = 0.5
    """tau: where f is below, a picture is forbidden."""

    def __post_init__(self) -> None:
        if not 0 <= self.alpha_minus < self.alpha_plus <= 1 or not 0 < self.generated <= 1 or not 0 < self.threshold < 1:
            raise RedactError(
                f"labels {self.alpha_plus} of real and {self.alpha_minus} of fake pictures, {self.generated} of the fakes generated and threshold "
                f"{self.threshold} were asked - 0 <= fake < real <= 1, the share is over 0 and at most 1, the threshold between 0 and 1 - give such"
            )

    def discriminator(
        self, real: torch.Tensor, fake: torch.Tensor, negative: torch.Tensor | None = None, allowed: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What the discriminator minimises, a scalar.

        Args:
            real:     [n] or [n, 1] logits of clean pictures.
            fake:     Likewise of generated ones.
            negative: Likewise of pictures of the redaction set; needed if not all fakes are generated.
            allowed:  Logits of f for the generated ones, shaped as theirs; None: plain D.

        Source: Kong & Chaudhuri 2022, the data-based objective; `allowed`: the module's docstring.
        """
        if (negative is None) != (self.generated == 1):
            raise RedactError(f"a share of {self.generated} generated fakes was asked - the rest must be negatives - give them, or a share of 1")
        loss = smoothed(fake, self.alpha_minus)
        if allowed is not None:
            shown, hidden = self._guided(fake, allowed)
            loss = torch.where(self._forbidden(allowed), -self.alpha_minus * shown - (1 - self.alpha_minus) * hidden, loss)
        total = smoothed(real, self.alpha_plus).mean() + self.generated * loss.mean()
        return total if negative is None else total + (1 - self.generated) * smoothed(negative, self.alpha_minus).mean()

    def generator(self, fake: torch.Tensor, allowed: torch.Tensor | None = None) -> torch.Tensor:
        """What the generator minimises, a scalar: -log D, or -log D_f. Arguments as above."""
        loss = softplus(-fake)
        if allowed is not None:
            loss = torch.where(self._forbidden(allowed), -self._guided(fake, allowed)[0], loss)
        return loss.mean()

    def _forbidden(self, allowed: torch.Tensor) -> torch.Tensor:
        return allowed < math.log(self.threshold / (1 - self.threshold))

    def _guided(self, fake: torch.Tensor, allowed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """log D_f and log(1 - D_f) of forbidden pictures."""
        product = logsigmoid(fake) + logsigmoid(allowed)  # log(f D)
        floor = torch.full_like(product, math.log(self.alpha_minus) if self.alpha_minus > 0 else -math.inf)
        shown = torch.logaddexp(floor, math.log1p(-self.alpha_minus) + product)
        # 1 - D_f = (1 - a-) (1 - f D). Rows that are not forbidden are not looked at; kept off 0 there, since a slope of infinity would spread.
        hidden = math.log1p(-self.alpha_minus) + torch.log1p(-product.exp().clamp(max=1 - 1e-7))
        return shown, hidden


def smoothed(logits: torch.Tensor, label: float) -> torch.Tensor:
    """s(d, a), shaped as the logits: cross-entropy of the label a in [0, 1] with sigmoid(d), stable at any d."""
    return label * softplus(-logits) + (1 - label) * softplus(logits)
