# SPDX-License-Identifier: Apache-2.0
"""Several processes at one run: who does which part, and how the parts come together so that the result is that of one process.

Work is dealt out in portions; what comes of them is put together in the order of the portions, never in that of arrival, on every rank alike. All
ranks draw the same random numbers and take the same decisions. A rank without memory, or at its end, says so before the others wait for its part.

Without `joined` around it, as in a program that calls `redact`, there is one rank and nothing is sent anywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from stylegan_redact.types import Network, RedactError

T = TypeVar("T")
R = TypeVar("R")
TIMEOUT = "STYLEGAN_REDACT_RANK_TIMEOUT"
"""Environment: seconds that a rank waits for the others. One that dies is noticed at once, one that hangs or whose machine vanishes after so long."""
LONGEST_WAIT, FOREVER = 1800.0, 1e9
PAUSE = 0.1
"""Seconds before ranks part, in which torch's threads drop what was sent last. They need the interpreter for that, and torch 2.4 waits for them
without letting go of it: for ever."""
CHUNK = 1 << 22
"""Numbers of a gradient that all ranks send each other at a time."""
_WELL, _NO_MEMORY, _OVER = 0, 1, 2


class OutOfMemory(MemoryError):
    """Some rank had no more memory to give; every rank knows."""


class ToldElsewhere(RedactError):
    """An error that rank 0 tells; the others keep silent."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU or the system had no more memory to give."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


class World:
    """All ranks of a run, as one of them sees them. Every method but `spread` of one rank is to be called by all, in the same order."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self._turn, self._apart = 0, False

    def spread(self, work: Callable[[T], R], portions: Sequence[T]) -> Iterator[R]:
        """What work gives for each portion, in their order; each is done by one rank, and all ranks get all.

        Args:
            work:     Gives tensors, numbers, text, None, or tuples, lists and dictionaries of these.
            portions: The same on all ranks.

        Raises:
            OutOfMemory: of one of several ranks.
        """
        if self.size == 1:
            yield from map(work, portions)
            return
        for start in range(0, len(portions), self.size):
            some = portions[start : start + self.size]
            found, failed = None, False
            try:
                found = work(some[self.rank]) if self.rank < len(some) else None
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                failed = True
            yield from self.gathered(found, failed)[: len(some)]

    def gathered(self, value: Any, failed: bool = False) -> list[Any]:
        """The value of each rank, in their order, on the CPU. Raises OutOfMemory on all if one of them failed for want of memory."""
        if self.size == 1:
            return [value]
        mine = torch.frombuffer(bytearray(_packed(value)), dtype=torch.uint8)
        sizes = self._settled(len(mine), _NO_MEMORY if failed else _WELL)
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(mine)] = mine
        return [_unpacked(each[:size]) for each, size in zip(self._all(padded), sizes, strict=True)]

    def from_first(self, value: R) -> R:
        """Rank 0's value, on all ranks; there it is handed back as it is."""
        if self.size == 1:
            return value
        mine = torch.frombuffer(bytearray(_packed(value)), dtype=torch.uint8) if self.rank == 0 else torch.zeros(0, dtype=torch.uint8)
        size = self._settled(len(mine), _WELL)[0]
        content = self._from_first(mine if self.rank == 0 else torch.zeros(size, dtype=torch.uint8))
        return value if self.rank == 0 else _unpacked(content)

    def settle(self, failed: bool) -> None:
        """Raises OutOfMemory on all ranks if one of them failed for want of memory."""
        if self.size > 1:
            self._settled(0, _NO_MEMORY if failed else _WELL)

    def any(self, wish: bool) -> bool:
        """Whether it is a rank's wish."""
        return wish if self.size == 1 else any(self._settled(int(wish), _WELL))

    def added(self, mine: torch.Tensor, so_far: torch.Tensor | None) -> torch.Tensor:
        """so_far + the tensors [n] of all ranks, added one after the other in their order: the same bits on every rank, and as one rank adds them."""
        total = torch.empty_like(mine)
        for start in range(0, len(mine), CHUNK):
            some = slice(start, start + CHUNK)
            first, *rest = [*([] if so_far is None else [so_far[some]]), *self._all(mine[some].contiguous())]
            total[some] = first
            for each in rest:
                total[some] += each
        return total

    def check_alike(self, what: str, content: Mapping[str, Any]) -> None:
        """Raises RedactError unless the content, tensors or what has a text, is the same on all ranks."""
        if self.size == 1:
            return
        found = self.gathered({name: _digest(value) for name, value in content.items()})
        for rank, each in enumerate(found):
            names = [name for name in sorted({*found[0], *each}) if found[0].get(name) != each.get(name)]
            if names:
                raise RedactError(
                    f"{self.size} ranks were to do the same - {what} of rank {rank} differ from those of rank 0: {', '.join(names)[:300]} - "
                    "give all the same options, files, software and kind of machine"
                )

    def alike(self, network: Network) -> Network:
        """The network, with rank 0's tensors in G and G_ema on every rank."""
        if self.size > 1:
            modules = {name: getattr(network, name) for name in ("G", "G_ema")}
            states = self.from_first({name: {key: each.cpu() for key, each in module.state_dict().items()} for name, module in modules.items()})
            for name, module in modules.items() if self.rank else ():
                module.load_state_dict(states[name])
        return network

    def part_ways(self) -> bool:
        """Says that this rank ends with an error. Returns whether rank 0 does so, too, which then tells it."""
        if self.size == 1 or self._apart:
            return False
        try:
            return self._codes(0, _OVER)[0] == _OVER
        except RedactError:  # Nobody is there any more to be told.
            return False

    def _settled(self, number: int, code: int) -> list[int]:
        """Every rank's number, once all are well."""
        codes = self._codes(number, code)
        if _OVER in codes:
            self._apart = True
            raise (ToldElsewhere if codes[0] == _OVER else RedactError)(
                f"{self.size} ranks were at this run - rank {codes.index(_OVER)} ended with an error, which it has told - "
                "mend that, and go on with --resume=latest, with as many ranks as you like"
            )
        if _NO_MEMORY in codes:
            raise OutOfMemory(f"rank {codes.index(_NO_MEMORY)} has no more memory")
        return self._numbers

    def _codes(self, number: int, code: int) -> list[int]:
        self._turn += 1
        told = [each.tolist() for each in self._all(torch.tensor([self._turn, code, number]))]
        turns, codes, self._numbers = ([int(each[index]) for each in told] for index in range(3))
        if len(set(turns)) > 1 and _OVER not in codes:
            self._apart = True
            raise RedactError(
                f"{self.size} ranks were to work in step - they are at turns {turns} - start the run on machines of one kind and software"
            )
        return codes

    def _all(self, mine: torch.Tensor) -> list[torch.Tensor]:
        found = [torch.empty_like(mine) for _ in range(self.size)]
        with self._answered():
            distributed.all_gather(found, mine)
        return found

    def _from_first(self, content: torch.Tensor) -> torch.Tensor:
        with self._answered():
            distributed.broadcast(content, 0)
        return content

    @contextmanager
    def _answered(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            self._apart = True
            raise RedactError(
                f"{self.size} ranks were at this run - another one has died or does not answer ({str(error).splitlines()[0][:160]}) - "
                "see what it or its machine says, and go on with --resume=latest, with as many ranks as you like"
            ) from None


_WORLD: ContextVar[World] = ContextVar("world", default=World())  # noqa: B039 - a world of one rank never changes.


def world() -> World:
    """The ranks that there are: one, unless `joined` is around."""
    return _WORLD.get()


@contextmanager
def alone() -> Iterator[None]:
    """Within the block this process is the only rank: for what one of several does by itself, while the others are done or wait."""
    token = _WORLD.set(World())
    try:
        yield
    finally:
        _WORLD.reset(token)


def asked(environ: Mapping[str, str]) -> int:
    """Ranks that were started, by whatever sets torchrun's variables; 1 without."""
    return int(environ["WORLD_SIZE"]) if {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= environ.keys() else 1


def longest_wait(environ: Mapping[str, str]) -> float:
    """Seconds that a rank waits for the others before it gives them up, at the start and whenever they exchange something.

    Raises:
        RedactError: the environment names no such number.
    """
    text = environ.get(TIMEOUT, str(LONGEST_WAIT))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= FOREVER:
        raise RedactError(
            f"{TIMEOUT}={text!r} was asked - it takes seconds, more than 0, at most {FOREVER:.0f} - give such a number, or leave it out"
        )
    return seconds


@contextmanager
def joined(cuda: bool) -> Iterator[World]:
    """Within the block this process is the rank that its environment names (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT).

    Args:
        cuda: The ranks of a machine compute on a GPU each, by LOCAL_RANK, and talk by NCCL; else by gloo.

    Raises:
        RedactError:   more ranks than GPUs on this machine, or the others are not found.
        ToldElsewhere: this rank has an error, and so has rank 0.
    """
    size = asked(os.environ)
    if size == 1:
        yield World()
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if cuda:
        if local >= torch.cuda.device_count():
            raise RedactError(
                f"a GPU was wanted for rank {local} of this machine - torch sees {torch.cuda.device_count()} - start fewer, or give --device=cpu"
            )
        torch.cuda.set_device(local)
    wait = timedelta(seconds=longest_wait(os.environ))
    try:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=wait)
    except (RuntimeError, ValueError) as error:
        raise RedactError(f"{size} ranks were to meet at {os.environ['MASTER_ADDR']} - {str(error).splitlines()[0]} - start them all") from None
    found = World(rank, size)
    token = _WORLD.set(found)
    try:
        yield found
    except Exception as error:
        if found.part_ways() and rank:
            raise ToldElsewhere(str(error)) from error
        raise
    finally:
        _WORLD.reset(token)
        time.sleep(PAUSE)
        with contextlib.suppress(RuntimeError):  # The others may be gone.
            distributed.destroy_process_group()


def _digest(value: Any) -> str:
    plain = isinstance(value, torch.Tensor)
    return hashlib.sha256(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes() if plain else str(value).encode()).hexdigest()


def _packed(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def _unpacked(content: torch.Tensor) -> Any:
    return torch.load(io.BytesIO(content.numpy().tobytes()), map_location="cpu", weights_only=True)
