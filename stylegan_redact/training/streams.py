# SPDX-License-Identifier: Apache-2.0
"""Streams of pictures with their labels, to train on: what a network draws for given latents, pictures of files, and mixtures of streams."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from stylegan_redact.network import synthesize
from stylegan_redact.training.images import ImageFiles
from stylegan_redact.types import RedactError


class Images(NamedTuple):
    """Some pictures."""

    img: torch.Tensor
    """[n, C, H, W] in [-1, 1]."""
    c: torch.Tensor | None = None
    """[n, c_dim] labels, of a conditional network."""

    def split(self, size: int) -> list[Images]:
        """The same in portions."""
        labels = [None] * -(-len(self.img) // size) if self.c is None else self.c.split(size)
        return [Images(*parts) for parts in zip(self.img.split(size), labels, strict=True)]


Stream = Callable[[int, torch.Generator], Images]
"""(n, generator) -> n pictures."""

LOOKS = 200
"""Pictures looked at for each one wanted, until a set of files is said to have none."""


def stored(img: torch.Tensor, c: torch.Tensor | None = None) -> Stream:
    """Pictures img [k, C, H, W] with labels c [k, c_dim], drawn uniformly."""

    def draw(n: int, generator: torch.Generator) -> Images:
        rows = torch.randint(len(img), [n], generator=generator).to(img.device)
        return Images(img[rows], None if c is None else c[rows])

    return draw


def generated(G: Any, w: torch.Tensor, c: torch.Tensor | None = None) -> Stream:
    """What G draws for latents w [k, w_dim] with labels c [k, c_dim], drawn uniformly. Drawn anew each time: memory does not grow with k."""

    def draw(n: int, generator: torch.Generator) -> Images:
        rows = torch.randint(len(w), [n], generator=generator).to(w.device)
        with torch.no_grad():
            return Images(synthesize(G, w[rows]), None if c is None else c[rows])

    return draw


def mixed(streams: Sequence[Stream]) -> Stream:
    """Equal parts of each stream, shuffled, so that no group of a discriminator knows them apart."""
    if len(streams) == 1:
        return streams[0]

    def draw(n: int, generator: torch.Generator) -> Images:
        edges = [n * i // len(streams) for i in range(len(streams) + 1)]
        parts = [stream(high - low, generator) for stream, low, high in zip(streams, edges, edges[1:], strict=False) if high > low]
        order = torch.randperm(n, generator=generator).to(parts[0].img.device)
        labels = [part.c for part in parts if part.c is not None]
        return Images(torch.cat([part.img for part in parts])[order], torch.cat(labels)[order] if labels else None)

    return draw


def from_files(files: ImageFiles, c_dim: int, device: torch.device, score: Callable[[torch.Tensor], torch.Tensor] | None, below: float) -> Stream:
    """Pictures of files, drawn uniformly among those that score below a line; each is scored when it is first drawn.

    Args:
        files: Where they are.
        c_dim: Classes of the network.
        device: Where they go.
        score: img [n, C, H, W] -> [n]; None: all are wanted.
        below: The line.

    Raises:
        RedactError: labels are missing, or, when drawn, nearly none of many scores below.
    """
    labels = files.one_hot(c_dim)
    wanted: dict[int, bool] = {}

    def read(rows: list[int]) -> torch.Tensor:
        img = files.read(rows).to(device)
        fresh = [place for place, row in enumerate(rows) if row not in wanted]
        if fresh:
            with torch.no_grad():
                said = torch.ones(len(fresh), dtype=torch.bool) if score is None else (score(img[fresh]) < below).cpu()
            wanted.update((rows[place], bool(one)) for place, one in zip(fresh, said, strict=True))
        return img[[place for place, row in enumerate(rows) if wanted[row]]]

    def draw(n: int, generator: torch.Generator) -> Images:
        parts: list[torch.Tensor] = []
        chosen: list[int] = []
        looked = 0
        while len(chosen) < n:
            rows = [row for row in torch.randint(len(files), [n], generator=generator).tolist() if wanted.get(row, True)]
            looked += n
            if rows:
                parts.append(read(rows))
                chosen += [row for row in rows if wanted[row]]
            if len(chosen) < n and looked > LOOKS * n:
                raise RedactError(
                    f"{n} pictures without the feature were wanted of {files.name} - of {len(wanted)} looked at {sum(wanted.values())} are free of it "
                    "by the detector - give a set that has more"
                )
        return Images(torch.cat(parts)[:n], None if labels is None else labels[chosen[:n]].to(device))

    return draw
