# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's `torch_utils.training_stats`: values reported anywhere, on any rank, gathered into mean and spread by name."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch

import dnnlib
from torch_utils import misc

_NUM_MOMENTS = 3  # Count, sum, sum of squares.
_REDUCE_DTYPE = torch.float32
_COUNTER_DTYPE = torch.float64

_rank = 0
_sync_device: torch.device | None = None
_sync_called = False
_counters: dict[str, dict[torch.device, torch.Tensor]] = {}
"""name => device => moments since the last sync, on that device, so that reporting never waits for a GPU."""
_cumulative: dict[str, torch.Tensor] = {}
"""name => moments up to the last sync, over all ranks, on the CPU."""


def init_multiprocessing(rank: int, sync_device: torch.device | None) -> None:
    """Tells which of several processes this is. Call it before any Collector.update().

    Args:
        rank:        Rank of this process.
        sync_device: Device that torch.distributed sums over; None for a single process.
    """
    global _rank, _sync_device
    assert not _sync_called, "init_multiprocessing() comes after the first exchange between processes"
    _rank = rank
    _sync_device = sync_device


@misc.profiled_function
def report(name: str, value: Any) -> Any:
    """Counts one or many numbers under a name, and returns `value` unchanged.

    All ranks must report the same names in the same order.

    Args:
        value: Number, list, array or tensor of any shape. With no elements it makes the name known and counts nothing.
    """
    counters = _counters.setdefault(name, {})
    elems = torch.as_tensor(value)
    if elems.numel() == 0:
        return value
    elems = elems.detach().flatten().to(_REDUCE_DTYPE)  # [n]
    moments = torch.stack([torch.ones_like(elems).sum(), elems.sum(), elems.square().sum()])  # [3]
    if moments.device.type == "mps":  # No float64 there.
        moments = moments.cpu()
    if moments.device not in counters:
        counters[moments.device] = torch.zeros([_NUM_MOMENTS], dtype=_COUNTER_DTYPE, device=moments.device)
    counters[moments.device].add_(moments.to(_COUNTER_DTYPE))
    return value


def report0(name: str, value: Any) -> Any:
    """report() of which only rank 0's numbers count. Call it on all ranks."""
    report(name, value if _rank == 0 else [])
    return value


class Collector:
    """Mean and spread, by name, of what all ranks reported between the last two updates.

    Several collectors do not disturb each other. What was reported before one is made, it never sees.

    Args:
        regex:         Names to collect, matched in full.
        keep_previous: Where nothing new was reported, keep showing the values of before instead of none.
    """

    def __init__(self, regex: str = ".*", keep_previous: bool = True) -> None:
        self._regex = re.compile(regex)
        self._keep_previous = keep_previous
        self._cumulative: dict[str, torch.Tensor] = {}
        self._moments: dict[str, torch.Tensor] = {}
        self.update()
        self._moments.clear()

    def names(self) -> list[str]:
        """Names reported so far, here or anywhere in the process, that the regex matches."""
        return [name for name in _counters if self._regex.fullmatch(name)]

    def update(self) -> None:
        """Takes in what was reported since the last update. With several processes, call it on all ranks at the same point."""
        if not self._keep_previous:
            self._moments.clear()
        for name, total in _sync(self.names()).items():
            delta = total - self._cumulative.get(name, torch.zeros_like(total))
            self._cumulative[name] = total
            if float(delta[0]) != 0:
                self._moments[name] = delta

    def num(self, name: str) -> int:
        """How many numbers; 0 if none."""
        return int(self._get(name)[0])

    def mean(self, name: str) -> float:
        """Their mean; NaN if there are none."""
        num, total, _ = self._get(name).tolist()
        return total / num if num else float("nan")

    def std(self, name: str) -> float:
        """Their standard deviation as a population; 0 for one number, NaN if there are none or they are not finite."""
        num, total, total_squares = self._get(name).tolist()
        if not num or not np.isfinite(total):
            return float("nan")
        if num == 1:
            return 0.0
        mean = total / num
        return float(np.sqrt(max(total_squares / num - mean * mean, 0)))

    def as_dict(self) -> dnnlib.EasyDict:
        """name => num, mean, std, as attributes or as items."""
        return dnnlib.EasyDict({name: dnnlib.EasyDict(num=self.num(name), mean=self.mean(name), std=self.std(name)) for name in self.names()})

    def __getitem__(self, name: str) -> float:
        return self.mean(name)

    def _get(self, name: str) -> torch.Tensor:
        """Moments [3] of one name."""
        assert self._regex.fullmatch(name), f"this collector leaves out {name!r}"
        return self._moments.get(name, torch.zeros([_NUM_MOMENTS], dtype=_COUNTER_DTYPE))


def _sync(names: list[str]) -> dict[str, torch.Tensor]:
    """Moments [3] over all ranks and all time, for each name."""
    global _sync_called
    if not names:
        return {}
    _sync_called = True
    device = _sync_device if _sync_device is not None else torch.device("cpu")
    deltas = torch.zeros([len(names), _NUM_MOMENTS], dtype=_COUNTER_DTYPE, device=device)
    for delta, name in zip(deltas, names, strict=True):
        for counter in _counters[name].values():
            delta.add_(counter.to(device))
            counter.zero_()
    if _sync_device is not None:
        torch.distributed.all_reduce(deltas)
    for delta, name in zip(deltas.cpu(), names, strict=True):
        _cumulative[name] = _cumulative.get(name, torch.zeros_like(delta)) + delta
    return {name: _cumulative[name] for name in names}


default_collector = Collector()
