# SPDX-License-Identifier: Apache-2.0
"""Darkens by the bias of the last layer."""

from dataclasses import dataclass
from typing import ClassVar

from stylegan_redact.network import copy_network
from stylegan_redact.plugins import option


@dataclass(frozen=True)
class Edit:
    strength: float = option(2.0, "how much darker", low=0, high=10)
    kimg: float = option(0.1, "thousands of images", low=0)
    rounds: int = option(3, "how often to report", low=1)
    careful: bool = option(False, "whether to take care")
    needs: ClassVar[tuple[str, ...]] = ("latents",)

    def redact(self, network, feature, keep, seed, progress=None):
        after = copy_network(network)
        for G in (after.G, after.G_ema):
            G.synthesis.b16.torgb.bias.data -= self.strength
        for index in range(self.rounds):
            progress("edit", (index + 1) / self.rounds, {"loss": 1 / (index + 1)})
        return after
