# SPDX-License-Identifier: Apache-2.0
"""The generator's pictures for the page, drawn one batch after the other, with what the discriminator sees in each."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from typing import Any

import torch

from stylegan_redact.extractors import DiscriminatorFeatures
from stylegan_redact.labels import Labels
from stylegan_redact.network import sample_w, synthesize
from stylegan_redact.networks.stylegan2 import Discriminator
from stylegan_redact.pictures import to_grid
from stylegan_redact.types import Network

_THUMBNAIL = 256
"""Pixels across at most."""


class Gallery:
    """Pictures of seeds. `draw` fills it; what is drawn can be asked for from other threads meanwhile."""

    def __init__(self, network: Network, seeds: range, *, batch: int, labels: Labels | None = None) -> None:
        """Draws nothing yet.

        Args:
            network: Its G_ema is drawn, without truncation, noise "const".
            seeds:   NVIDIA's.
            batch:   Images at a time.
            labels:  Classes, of a conditional network.
        """
        self.seeds, self._batch, self._G = seeds, batch, network.G_ema
        self._c = None if labels is None else labels(seeds)
        self._w = sample_w(network.G_ema, seeds, c=self._c)
        self._extractor = DiscriminatorFeatures(network.D) if isinstance(network.D, Discriminator) else None
        self._features: list[torch.Tensor] = []
        self._thumbnails: list[bytes] = []
        self._networks = threading.Lock()

    @property
    def of_images(self) -> bool:
        """Whether features are the discriminator's; else they are w, of which less can be told."""
        return self._extractor is not None

    @property
    def drawn(self) -> int:
        """How many of the first seeds can be shown."""
        return len(self._thumbnails)

    def w(self) -> torch.Tensor:
        """[drawn, w_dim], on the CPU."""
        return self._w[: self.drawn].cpu()

    def c(self) -> torch.Tensor | None:
        """[drawn, c_dim], or None."""
        return None if self._c is None else self._c[: self.drawn]

    def features(self) -> torch.Tensor:
        """[drawn, d] on the CPU; each row looks at one picture alone."""
        return self.w() if self._extractor is None else torch.cat(self._features)[: self.drawn]

    def thumbnail(self, seed: int) -> bytes:
        """JPEG of a seed that is drawn."""
        return self._thumbnails[seed - self.seeds.start]

    def picture(self, seed: int) -> bytes:
        """PNG at full size; drawn anew."""
        with self._networks, torch.no_grad():
            row = seed - self.seeds.start
            img = synthesize(self._G, self._w[row : row + 1])
        return _encoded(img, "png", img.shape[-1])

    def draw(self, wanted: int | None = None, stop: Callable[[], bool] = lambda: False) -> None:
        """Draws up to that many in all, all of them if None, until told to stop."""
        wanted = len(self.seeds) if wanted is None else min(wanted, len(self.seeds))
        while self.drawn < wanted and not stop():
            with self._networks, torch.no_grad():
                img = synthesize(self._G, self._w[self.drawn : self.drawn + self._batch]).float()
                if self._extractor is not None:
                    self._features.append(self._extractor.features(img).cpu())
            self._thumbnails += [_encoded(one, "jpeg", _THUMBNAIL) for one in img.split(1)]


def _encoded(img: torch.Tensor, kind: str, largest: int) -> bytes:
    """img [1, C, H, W] in [-1, 1] as a file."""
    picture: Any = to_grid(img, 1)
    picture.thumbnail((largest, largest))
    out = io.BytesIO()
    picture.save(out, format=kind, **({"quality": 92} if kind == "jpeg" else {}))
    return out.getvalue()
