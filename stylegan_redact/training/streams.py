# SPDX-License-Identifier: Apache-2.0
"""Streams of pictures with their labels, to train on: what a network draws for given latents, pictures of files, and mixtures of streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch

from stylegan_redact.network import generate
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


class Stream(Protocol):
    """What gives pictures."""

    def __call__(self, n: int, generator: torch.Generator, at_a_time: int | None = None) -> Images:
        """n pictures, drawn or looked at so many at a time, to save memory; None: all at once. Which ones they are does not depend on it."""
        ...


Allowed = Callable[[torch.Tensor, torch.Tensor | None, torch.Generator], torch.Tensor]
"""(img [n, C, H, W], their labels c [n, c_dim] or None, generator) -> [n] logits, how likely each is allowed; differentiable."""

LOOKS = 200
"""Pictures looked at for each one wanted, until a set of files is said to have none."""


def stored(img: torch.Tensor, c: torch.Tensor | None = None) -> Stream:
    """Pictures img [k, C, H, W] with labels c [k, c_dim], drawn uniformly."""

    def draw(n: int, generator: torch.Generator, at_a_time: int | None = None) -> Images:
        rows = torch.randint(len(img), [n], generator=generator).to(img.device)
        return Images(img[rows], None if c is None else c[rows])

    return draw


def generated(G: Any, w: torch.Tensor, c: torch.Tensor | None = None) -> Stream:
    """What G draws for latents w [k, w_dim] with labels c [k, c_dim], drawn uniformly. Drawn anew each time: memory does not grow with k."""

    def draw(n: int, generator: torch.Generator, at_a_time: int | None = None) -> Images:
        rows = torch.randint(len(w), [n], generator=generator).to(w.device)
        return Images(torch.cat(list(generate(G, w[rows], batch=at_a_time or n))), None if c is None else c[rows])

    return draw


def mixed(streams: Sequence[Stream]) -> Stream:
    """Equal parts of each stream, shuffled, so that no group of a discriminator knows them apart."""
    return streams[0] if len(streams) == 1 else Mixed(tuple(streams))


@dataclass(frozen=True)
class Mixed:
    """Of several streams."""

    streams: tuple[Stream, ...]

    def __call__(self, n: int, generator: torch.Generator, at_a_time: int | None = None) -> Images:
        """n pictures. Where n does not divide, the remainder goes to other streams each time."""
        start = int(torch.randint(len(self.streams), [], generator=generator)) if n % len(self.streams) else 0
        order = [*self.streams[start:], *self.streams[:start]]
        edges = [n * i // len(order) for i in range(len(order) + 1)]
        parts = [stream(high - low, generator, at_a_time) for stream, low, high in zip(order, edges, edges[1:], strict=False) if high > low]
        shuffled = torch.randperm(n, generator=generator).to(parts[0].img.device)
        labels = [part.c for part in parts if part.c is not None]
        return Images(torch.cat([part.img for part in parts])[shuffled], torch.cat(labels)[shuffled] if labels else None)

    def state_dict(self) -> dict[str, Any]:
        """Of the streams that remember what they have seen, by number."""
        return {str(index): stream.state_dict() for index, stream in enumerate(self.streams) if hasattr(stream, "state_dict")}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As it was when `state_dict` was made."""
        for index, state in state_dict.items():
            stream: Any = self.streams[int(index)]
            stream.load_state_dict(state)


Wanted = Callable[[torch.Tensor], torch.Tensor]
"""img [n, C, H, W] -> [n] bool: is a picture to be shown?"""


@torch.no_grad()
def asked_of(wanted: Wanted, img: torch.Tensor, at_a_time: int | None) -> torch.Tensor:
    """[n] bool: what it says of img [n, C, H, W], asked of so many at a time; None: of all at once."""
    return torch.cat([wanted(some) for some in img.split(at_a_time or max(len(img), 1))])


def only(stream: Stream, wanted: Wanted, name: str) -> Stream:
    """What is wanted of a stream, as many as are asked for.

    Args:
        stream: Of all pictures.
        wanted: Which are wanted.
        name:   Of the stream, for messages.

    Raises:
        RedactError: when drawn, nearly none is.
    """

    def draw(n: int, generator: torch.Generator, at_a_time: int | None = None) -> Images:
        parts: list[Images] = []
        found = 0
        for _ in range(LOOKS):
            some = stream(n, generator, at_a_time)
            kept = asked_of(wanted, some.img, at_a_time).to(some.img.device)
            parts.append(Images(some.img[kept], None if some.c is None else some.c[kept]))
            found += int(kept.sum())
            if found >= n:
                labels = [part.c for part in parts if part.c is not None]
                return Images(torch.cat([part.img for part in parts])[:n], torch.cat(labels)[:n] if labels else None)
        raise RedactError(f"{n} pictures of {name} were wanted - of {LOOKS * n} looked at {found} will do - give a set that has more")

    return draw


def from_files(files: ImageFiles, c_dim: int, device: torch.device, wanted: Wanted | None = None) -> Stream:
    """Pictures of files, drawn uniformly among those that are wanted; each is asked about when it is first drawn.

    Args:
        files:  Where they are.
        c_dim:  Classes of the network.
        device: Where they go.
        wanted: Which are wanted; None: all.

    Raises:
        RedactError: labels are missing, or, when drawn, nearly none of many is wanted.
    """
    labels = files.one_hot(c_dim)
    known: dict[int, bool] = {}

    def read(rows: list[int], at_a_time: int | None) -> torch.Tensor:
        img = files.read(rows).to(device)
        fresh = [place for place, row in enumerate(rows) if row not in known]
        if fresh:
            said = torch.ones(len(fresh), dtype=torch.bool) if wanted is None else asked_of(wanted, img[fresh], at_a_time).cpu()
            known.update((rows[place], bool(one)) for place, one in zip(fresh, said, strict=True))
        return img[torch.tensor([known[row] for row in rows], device=device)]

    def draw(n: int, generator: torch.Generator, at_a_time: int | None = None) -> Images:
        parts: list[torch.Tensor] = []
        chosen: list[int] = []
        for _ in range(LOOKS):
            rows = [row for row in torch.randint(len(files), [n], generator=generator).tolist() if known.get(row, True)]
            if rows:
                parts.append(read(rows, at_a_time))
                chosen += [row for row in rows if known[row]]
            if len(chosen) >= n:
                return Images(torch.cat(parts)[:n], None if labels is None else labels[chosen[:n]].to(device))
        told = f"of {len(known)} looked at {sum(known.values())} will do"
        raise RedactError(f"{n} pictures of {files.name} were wanted - {told} - give a set that has more without the feature")

    return draw
