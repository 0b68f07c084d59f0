# SPDX-License-Identifier: Apache-2.0
"""How long work hands over what it would need to go on after a kill, without knowing where that is kept, if anywhere.

Whoever runs a redaction may put a store around it (`kept_by`); labelling and training offer it their state after every step. Without one, as in a
program that calls `redact`, nothing is kept and nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from stylegan_redact.types import Network

State = Mapping[str, Any]
"""Tensors, numbers, text, None, and dictionaries, lists and tuples of these: what `torch.load(weights_only=True)` reads."""


@dataclass(frozen=True)
class Moment:
    """A piece of work after one of its steps."""

    name: str
    """As `begin` gave it."""
    state: Callable[[], State]
    """All that it needs to go on from here; asked for only if it is kept."""
    share: float
    """Done, in [0, 1]; at 1 the state is the result."""
    images: int = 0
    """That were trained on so far."""
    step_images: int = 0
    """Of these, in this step."""
    so_far: Callable[[], Network] | None = None
    """The redacted network as it would be if the training ended now; None: there is none yet. To be used before the next step."""


class Stopped(Exception):
    """The run was asked to stop, and has: at `moment`, whose state is kept, or between such pieces of work."""

    def __init__(self, moment: Moment | None = None) -> None:
        super().__init__("stopped")
        self.moment = moment


class Over(Exception):
    """Raised by who is told of moments, to end the work at one of them, whose state is kept."""


class Store(Protocol):
    """Where states go."""

    def begin(self, stage: str) -> tuple[str, State | None]:
        """A name for this piece of work, the same in every run of the same request, and the state that was kept of it last, if any."""
        ...

    def keep(self, moment: Moment) -> None:
        """Keeps the state if it is time to. Raises Stopped if the run was asked to stop, after keeping it."""
        ...

    def check(self) -> None:
        """Raises Stopped if the run was asked to stop."""
        ...

    def tell(self, text: str) -> None:
        """What the user should know."""
        ...


_STORE: ContextVar[Store | None] = ContextVar("store", default=None)


@contextmanager
def kept_by(store: Store) -> Iterator[None]:
    """Within the block, work offers its state to `store`."""
    token = _STORE.set(store)
    try:
        yield
    finally:
        _STORE.reset(token)


def begin(stage: str) -> tuple[str, State | None]:
    """As `Store.begin`; without a store, the stage and None."""
    store = _STORE.get()
    return (stage, None) if store is None else store.begin(stage)


def keep(moment: Moment) -> None:
    """As `Store.keep`; without a store, nothing."""
    store = _STORE.get()
    if store is not None:
        store.keep(moment)


def check() -> None:
    """As `Store.check`; without a store, nothing."""
    store = _STORE.get()
    if store is not None:
        store.check()


def tell(text: str) -> None:
    """As `Store.tell`; without a store, nothing: figures of the progress say it too."""
    store = _STORE.get()
    if store is not None:
        store.tell(text)
