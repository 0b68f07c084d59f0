# SPDX-License-Identifier: Apache-2.0
"""Invalid pictures of a generator that is being trained, sought anew at each step and kept: negatives that follow it to wherever it still errs.

The validity-based algorithm of Kong & Chaudhuri 2022 (arXiv 2206.14389) adds what the present generator draws invalidly to the redaction set. Ours:
half of the negatives are the newest ones, half are replayed; and when they grow rare, half of the latents looked at are near those that were
invalid, since a sample of a distribution that hardly errs hardly shows an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from stylegan_redact.network import sample_z
from stylegan_redact.training.streams import LOOKS, Images
from stylegan_redact.types import RedactError

KEPT = 2_000
"""Invalid pictures that are remembered at most, the oldest go first; and
KEPT_BYTES: of them at most, since they stay in the memory that they are drawn in, and are copied whenever a training is remembered."""
KEPT_BYTES = 2**30
RARE = 0.05
"""Below this share of invalid pictures, of the latest ones looked at, half of the latents are near past ones."""
NEARNESS = 0.3
"""Share of noise in such a latent: z' = sqrt(1 - s^2) z + s noise is again a standard normal one."""
FORGET = 0.1
"""Of the running share, at each step."""


@dataclass(frozen=True)
class Found:
    """An invalid picture."""

    img: torch.Tensor
    z: torch.Tensor
    c: torch.Tensor | None


class InvalidPictures:
    """A stream (n, generator) of invalid pictures of G as it is at the moment.

    Args:
        G:     The generator that is being trained.
        valid: (img, seeds) -> [n] bool.
        c:     [k, c_dim] labels to draw from, of a conditional network.
    """

    def __init__(self, G: Any, valid: Callable[[torch.Tensor, list[int]], torch.Tensor], c: torch.Tensor | None = None) -> None:
        self.G, self.valid, self.c = G, valid, c
        self.found: list[Found] = []
        self.share = 1.0

    def __call__(self, n: int, generator: torch.Generator, at_a_time: int | None = None) -> Images:
        """n invalid pictures, with repetitions; sought so many at a time, None: n.

        Raises:
            RedactError: none at all was found yet.
        """
        for _ in range(LOOKS):
            fresh = self._look(n, generator, at_a_time)
            if self.found:
                break
        if not self.found:
            raise RedactError(f"invalid pictures were sought - none of {LOOKS * n} that the network draws is - there is nothing to redact")
        newest = self.found[-max(fresh, 1) :]
        half = n // 2
        chosen = [pool[int(row)] for pool, count in ((newest, half), (self.found, n - half)) for row in _rows(len(pool), count, generator)]
        order = torch.randperm(n, generator=generator).tolist()
        labels = [chosen[row].c for row in order]
        return Images(torch.stack([chosen[row].img for row in order]), None if self.c is None else torch.stack(labels))

    def state_dict(self) -> dict[str, Any]:
        """What was found, and how much of late."""
        columns = {name: [getattr(each, name) for each in self.found] for name in ("img", "z", "c")}
        return {"share": self.share} | {name: torch.stack(column) if column and column[0] is not None else None for name, column in columns.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As it was when `state_dict` was made."""
        device, self.share = next(self.G.parameters()).device, state_dict["share"]
        img, z, c = ([] if state_dict[name] is None else [each.to(device).clone() for each in state_dict[name]] for name in ("img", "z", "c"))
        self.found = [Found(*each) for each in zip(img, z, c or [None] * len(img), strict=True)]

    def _look(self, n: int, generator: torch.Generator, at_a_time: int | None) -> int:
        """Draws n pictures and remembers the invalid ones; how many these are."""
        device = next(self.G.parameters()).device
        seeds = torch.randint(2**31, [n], generator=generator).tolist()
        z = sample_z(seeds, self.G.z_dim).to(device)
        c = None if self.c is None else self.c[_rows(len(self.c), n, generator).to(self.c.device)]
        if self.found and self.share < RARE:
            near = [self.found[int(row)] for row in _rows(len(self.found), n // 2, generator)]
            z[: len(near)] = (1 - NEARNESS**2) ** 0.5 * torch.stack([each.z for each in near]) + NEARNESS * z[: len(near)]
            if c is not None:
                c[: len(near)] = torch.stack([each.c for each in near if each.c is not None])
        count = 0
        for begin in range(0, n, at_a_time or n):
            rows = slice(begin, begin + (at_a_time or n))
            with torch.no_grad():
                img = self.G.synthesis(self.G.mapping(z[rows], None if c is None else c[rows]), noise_mode="const", force_fp32=True)
                bad = (~self.valid(img, seeds[rows])).nonzero().flatten().tolist()
            # Copies: a view would keep the whole batch in memory.
            self.found += [Found(img[row].clone(), z[begin + row].clone(), None if c is None else c[begin + row].clone()) for row in bad]
            count += len(bad)
            self.found = self.found[-min(KEPT, max(KEPT_BYTES // (img[0].numel() * img.element_size()), 1)) :]
        self.share += FORGET * (count / n - self.share)
        return count


def by_detector(score: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor, list[int]], torch.Tensor]:
    """Valid is what a detector's score [n], over 0 where the feature shows, finds none in."""
    return lambda img, seeds: score(img) <= 0


def _rows(k: int, n: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(k, [n], generator=generator)
