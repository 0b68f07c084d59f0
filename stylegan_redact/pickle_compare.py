# SPDX-License-Identifier: Apache-2.0
"""Whether two graphs of pickles mean the same."""

from __future__ import annotations

import struct
from typing import Any

import torch

from stylegan_redact.pickle_stream import Global, Members, Object


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether shape, type and every bit agree; NaN equals the same NaN."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return a.numel() == 0 or torch.equal(a.contiguous().reshape(-1).view(torch.uint8), b.contiguous().reshape(-1).view(torch.uint8))


class Comparison:
    """Compares two graphs: kinds, order, text and numbers to the bit. How they share their parts is not compared."""

    def __init__(self, tensors_a: dict[int, torch.Tensor], tensors_b: dict[int, torch.Tensor], skipped: frozenset[int]) -> None:
        """
        Args:
            tensors_a: By id of node, of the first graph.
            tensors_b: Of the second graph.
            skipped:   Ids of nodes of the second graph of whose values only shape and type are compared.
        """
        self._tensors_a, self._tensors_b, self._skipped = tensors_a, tensors_b, skipped
        self._met: set[tuple[int, int]] = set()

    def same(self, a: Any, b: Any) -> bool:
        """Whether the two graphs mean the same."""
        if type(a) is not type(b):
            return False
        if isinstance(a, float):
            return struct.pack("<d", a) == struct.pack("<d", b)
        if a is None or isinstance(a, (bool, int, str, bytes, Global)):
            return a == b
        if (id(a), id(b)) in self._met:
            return True
        self._met.add((id(a), id(b)))
        if isinstance(a, dict):
            return self._all(list(a), list(b)) and self._all(list(a.values()), list(b.values()))
        if isinstance(a, (list, tuple)):
            return self._all(a, b)
        if isinstance(a, Members):
            return a.frozen == b.frozen and self._all(a.values, b.values)
        assert isinstance(a, Object), type(a)
        if (id(a) in self._tensors_a) != (id(b) in self._tensors_b):
            return False
        if id(a) in self._tensors_a:
            return a.func == b.func and self._same_tensor(a, b)
        return (a.func, a.new) == (b.func, b.new) and self._all((a.args, a.state, a.items), (b.args, b.state, b.items))

    def _all(self, a: Any, b: Any) -> bool:
        return len(a) == len(b) and all(self.same(x, y) for x, y in zip(a, b, strict=True))

    def _same_tensor(self, a: Object, b: Object) -> bool:
        x, y = self._tensors_a[id(a)], self._tensors_b[id(b)]
        if id(b) in self._skipped:
            return x.shape == y.shape and x.dtype == y.dtype
        return same_bits(x, y)
