# SPDX-License-Identifier: Apache-2.0
"""Classes of conditional networks: which label c goes with which seed, and how a user names a class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from stylegan_redact.types import RedactError

ALL = "all"
"""What a user writes for every class."""
PREFIX = "class:"
"""Of a feature that is a whole class: class:3."""
_STREAM = 1
"""Told apart from NVIDIA's stream of the seed, which z is drawn from."""


@dataclass(frozen=True)
class Labels:
    """One-hot labels by seed: of one class, or drawn uniformly among several. The class of a seed is a function of the seed alone."""

    c_dim: int
    """Classes that the network knows."""
    classes: tuple[int, ...]
    """Those that are drawn, each once, in order."""

    def indices(self, seeds: Sequence[int]) -> torch.Tensor:
        """[n] int64: the class that goes with each seed."""
        if len(self.classes) == 1:
            return torch.full([len(seeds)], self.classes[0], dtype=torch.int64)
        drawn = [self.classes[np.random.RandomState([seed, _STREAM]).randint(len(self.classes))] for seed in seeds]
        return torch.tensor(drawn, dtype=torch.int64)

    def __call__(self, seeds: Sequence[int]) -> torch.Tensor:
        """c [n, c_dim] float32, as NVIDIA's tools hand it to the network."""
        return torch.nn.functional.one_hot(self.indices(seeds), self.c_dim).float()

    def others(self) -> Labels | None:
        """Labels of the classes that these leave out, or None if they leave out none."""
        rest = tuple(index for index in range(self.c_dim) if index not in set(self.classes))
        return Labels(self.c_dim, rest) if rest else None


def all_of(c_dim: int) -> Labels:
    """Every class, drawn uniformly by seed."""
    return Labels(c_dim, tuple(range(c_dim)))


def of_class(text: str | None, c_dim: int, name: str) -> Labels | None:
    """What `--class` means for this network; None for an unconditional one.

    Args:
        text:  The index of a class, "all", or None if nothing was said.
        c_dim: Classes that the network knows; 0: it is unconditional.
        name:  Of the network, for messages.

    Raises:
        RedactError: a class that there is not, a class of an unconditional network, or none of a conditional one.
    """
    if c_dim == 0:
        if text is None:
            return None
        raise RedactError(f"--class={text} was asked - {name} is unconditional and has no classes - leave out --class")
    if text is None:
        raise RedactError(
            f"{name} was to be redacted - it is conditional, with classes {_range(c_dim)}, and none was named - "
            f"give --class=N for one class, or --class={ALL} for all of them, drawn uniformly"
        )
    if text == ALL:
        return all_of(c_dim)
    return Labels(c_dim, (_index(text, c_dim, f"--class={text}", name),))


def class_feature(feature: str, c_dim: int, name: str) -> int | None:
    """The class that a feature such as class:3 names; None for a feature that is no whole class.

    Raises:
        RedactError: a class that there is not, or an unconditional network.
    """
    if not feature.startswith(PREFIX):
        return None
    if c_dim == 0:
        raise RedactError(f"--feature={feature} was asked - {name} is unconditional and has no classes - name an attribute that a classifier knows")
    return _index(feature.removeprefix(PREFIX), c_dim, f"--feature={feature}", name)


def needed(c: torch.Tensor | None, c_dim: int, what: str) -> torch.Tensor | None:
    """`c` [n, c_dim], which must be there if the network is conditional, and must not if it is not.

    Raises:
        RedactError: it is missing, superfluous or of another width.
    """
    width = 0 if c is None else c.shape[1]
    if width != c_dim:
        there = "no labels are there" if c is None else f"labels [n, {width}] are there"
        raise RedactError(f"{what} - the network has {c_dim} classes and {there} - hand on labels [n, {c_dim}]" if c_dim else f"{what} - the "
                          f"network is unconditional and {there} - leave them out")  # fmt: skip
    return c


def _index(text: str, c_dim: int, asked: str, name: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) >= c_dim:
        raise RedactError(f"{asked} was asked - the classes of {name} are {_range(c_dim)} - give the number of one")
    return int(text)


def _range(c_dim: int) -> str:
    """0, 1, 2 or, of many, 0 to 999."""
    return ", ".join(map(str, range(c_dim))) if c_dim <= 10 else f"0 to {c_dim - 1}"
