# SPDX-License-Identifier: Apache-2.0
"""The loop of every training: steps that can be gone on with after a kill, and gone back on when memory or the loss runs away.

A training says what one step does and which parts change; `train` does the rest. Ten times in a training its parts are remembered. A step that does
not fit into memory goes back to that point with half as many images at a time; a loss that is not finite or explodes goes back once, with half the
rate. Where to go back to depends on the number of the step alone, never on the clock, so that a run that was killed and resumed ends in the same
bytes as one left alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from stylegan_redact import keeping, ranks
from stylegan_redact.types import Network, Progress, RedactError

REMEMBERED = 10
"""Times in a training."""
EXPLODED = 1e4
"""A loss is out of hand at so many times what it was at the first step, or 1 if that was less."""
TOLD_EVERY = 10
"""Steps."""


class Turn(NamedTuple):
    """What a step is told."""

    step: int
    """From 0."""
    micro: int
    """Images at a time; gradients add up."""
    rate: float
    """Factor of the learning rate: 1, or 1/2 after the loss ran away once."""


@dataclass(frozen=True)
class Training:
    """One training, as `train` needs to know it."""

    stage: str
    """For the progress."""
    steps: int
    batch: int
    """Images of a step."""
    step: Callable[[Turn], dict[str, float]]
    """Does one step; figures of it, means over the batch."""
    parts: Mapping[str, Any]
    """All that changes, but the generator: each has `state_dict` and `load_state_dict`. One that has `micro` works in portions, too: it is set."""
    generator: torch.Generator
    """Of all randomness."""
    micro: int | None = None
    """Images at a time to begin with; None: the whole batch."""
    smallest: int = 1
    """Images at a time at least."""
    so_far: Callable[[], Network] | None = None
    """The redacted network if the training ended now; None: it makes none by itself."""
    told_every: int = TOLD_EVERY
    split: bool = False
    """A step shares its portions out among the ranks that there are (`portions.descend`); else all do the same."""


def train(training: Training, progress: Progress | None = None) -> None:
    """Does all steps that are left: all of them, unless the store around it (`keeping.kept_by`) knows this training.

    Args:
        training: What to do.
        progress: Told (stage, share done, figures); figures have `images_at_a_time` and `rate` once these were halved.

    Raises:
        RedactError: the loss runs away again with half the rate, or the smallest portion does not fit into memory.
    """
    name, kept = keeping.begin(training.stage)
    size = ranks.world().size
    if size > 1 and not training.split:
        keeping.tell(f"{training.stage} is not shared out: all {size} ranks do the same, which takes as long as with one")
    run = _Run(training)
    if kept is not None:
        run.load(kept)
    if kept is not None and progress is not None and run.done:
        progress(training.stage, run.done / training.steps, {})
    if kept is not None and 0 < run.done < training.steps:
        keeping.keep(run.moment(name))  # Whoever was to look at it may have been kept from it.
    while run.done < training.steps:
        figures = run.advance()
        if figures is None:
            continue
        if progress is not None and ((run.done - 1) % training.told_every == 0 or run.done == training.steps):
            progress(training.stage, run.done / training.steps, figures | run.halved())
        keeping.keep(run.moment(name))


class Record:
    """A list of numbers that is a part of a training."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def state_dict(self) -> dict[str, Any]:
        """All numbers."""
        return {"values": list(self.values)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Those of `state_dict`."""
        self.values = list(state_dict["values"])


class _Run:
    """A training on its way."""

    def __init__(self, training: Training) -> None:
        self.training, self.done, self.rate = training, 0, 1.0
        self.micro = min(training.micro or training.batch, training.batch)
        if training.split:
            self.micro = min(self.micro, max(-(-training.batch // ranks.world().size), training.smallest))
        self.asked = self.micro
        self._tell_parts()
        self.limit: float | None = None
        """Of the loss; None before the first step."""
        self.good = self._remembered()

    def advance(self) -> dict[str, float] | None:
        """Does a step, figures of it; None if it went back instead."""
        known = False
        try:
            figures = self.training.step(Turn(self.done, self.micro, self.rate))
        except (RuntimeError, MemoryError) as error:
            if not ranks.is_out_of_memory(error):
                raise
            known = isinstance(error, ranks.OutOfMemory)
            figures = None  # Only outside of this block are the tensors of the step set free.
        if not known:
            figures = self._of_all(figures)
        if figures is None:
            self._with_less_memory()
            return None
        size = sum(abs(value) for value in figures.values())
        if self.limit is None and math.isfinite(size):
            self.limit = EXPLODED * max(1.0, size)
        if self.limit is None or not size <= self.limit:
            self._with_half_the_rate(figures)
            return None
        self.done += 1
        if self.done % max(self.training.steps // REMEMBERED, 1) == 0 and self.done < self.training.steps:
            now = self._remembered()
            self.good = now if is_finite(now) else self.good  # The loss was finite before the step; what it did may not be.
            if self.training.split:
                ranks.world().check_alike(f"weights after step {self.done} of {self.training.stage}", _tensors(now))
        return figures

    def _of_all(self, figures: dict[str, float] | None) -> dict[str, float] | None:
        """The figures, if no rank ran out of memory after its last exchange with the others."""
        try:
            ranks.world().settle(figures is None)
        except ranks.OutOfMemory:
            return None
        return figures

    def halved(self) -> dict[str, float]:
        """Figures of what is not as it was asked."""
        asked = self.asked
        return ({"images_at_a_time": self.micro} if self.micro < asked else {}) | ({"rate": self.rate} if self.rate < 1 else {})

    def moment(self, name: str) -> keeping.Moment:
        """What is offered to whoever keeps it."""
        of = self.training
        return keeping.Moment(name, self.state, self.done / of.steps, self.done * of.batch, of.batch, of.so_far)

    def state(self) -> dict[str, Any]:
        """All that it takes to go on; of a training at its end, that to go back is left out."""
        whole = {"done": self.done, "micro": self.micro, "rate": self.rate, "limit": self.limit, "now": self._parts()}
        return whole if self.done == self.training.steps else whole | {"good": self.good}

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from there."""
        self.done, self.rate, self.limit = (state[key] for key in ("done", "rate", "limit"))
        self.micro = min(self.micro, state["micro"])
        self.good = state.get("good", {})
        self._restore(state["now"])

    def _parts(self) -> dict[str, Any]:
        parts = {name: part.state_dict() for name, part in self.training.parts.items()}
        return {"parts": parts, "generator": self.training.generator.get_state()}

    def _remembered(self) -> dict[str, Any]:
        copy: dict[str, Any] = copied({"done": self.done, **self._parts()})
        return copy

    def _restore(self, state: Mapping[str, Any]) -> None:
        for name, part in self.training.parts.items():
            part.load_state_dict(copied(state["parts"][name]))  # An optimiser would go on in the very tensors that it is given.
        self._tell_parts()
        self.training.generator.set_state(state["generator"].clone())

    def _tell_parts(self) -> None:
        for part in self.training.parts.values():
            if hasattr(part, "micro"):
                part.micro = min(part.micro, self.micro)

    def _with_less_memory(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        stage, before = self.training.stage, self.micro
        if before <= self.training.smallest:
            raise RedactError(
                f"{stage} was to train on {self.training.batch} images a step - the memory does not hold {before} at a time, the fewest possible - "
                "use a machine with more memory, or --device=cpu"
            )
        self.micro = max(before // 2, self.training.smallest)
        self.done = self.good["done"]
        self._restore(self.good)
        keeping.tell(f"The memory does not hold {before} images at a time: {stage} goes on from step {self.done} with {self.micro}")

    def _with_half_the_rate(self, figures: Mapping[str, float]) -> None:
        stage, step, told = self.training.stage, self.done, ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        if self.rate < 1:
            raise RedactError(
                f"{stage} was to take {self.training.steps} steps - at step {step} the loss ran away ({told}), a second time, with half the rate - "
                "use a smaller --lr"
            )
        self.rate, self.done = 0.5, self.good["done"]
        self._restore(self.good)
        keeping.tell(f"At step {step} of {stage} the loss ran away ({told}): it goes on from step {self.done} with half the rate")


def is_finite(value: Any) -> bool:
    """Whether all tensors of a state are."""
    if isinstance(value, torch.Tensor):
        return bool(torch.isfinite(value).all())
    each = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return all(is_finite(one) for one in each)


def copied(value: Any) -> Any:
    """A copy of a state, its tensors on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, Mapping):
        return {key: copied(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copied(each) for each in value)
    return value


def _tensors(value: Any, name: str = "") -> dict[str, torch.Tensor]:
    """All tensors of a state, by their place in it."""
    if isinstance(value, torch.Tensor):
        return {name: value}
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {path: each for key, part in pairs for path, each in _tensors(part, f"{name}/{key}").items()}
