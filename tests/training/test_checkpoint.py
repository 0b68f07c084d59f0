# SPDX-License-Identifier: Apache-2.0
"""The loop of all trainings on a toy: one number that is to become 3, by noisy steps."""

from __future__ import annotations

import io
import math
from typing import Any

import pytest
import torch

from stylegan_redact import keeping
from stylegan_redact.training.checkpoint import Record, Training, Turn, train
from stylegan_redact.types import RedactError

STEPS = 40


class Toy:
    """A training; `broken` says of (step, micro, rate) what happens instead of the step."""

    def __init__(self, broken: Any = lambda turn: None) -> None:
        self.model = torch.nn.Linear(1, 1, bias=False)
        self.model.weight.data.fill_(0.0)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)
        self.generator, self.record, self.broken, self.turns = torch.Generator().manual_seed(0), Record(), broken, list[Turn]()

    def step(self, turn: Turn) -> dict[str, float]:
        self.turns.append(turn)
        noise = torch.randn([8, 1], generator=self.generator)
        happens = self.broken(turn)
        if isinstance(happens, Exception):
            raise happens
        self.optimizer.param_groups[0]["lr"] = 0.1 * turn.rate
        self.optimizer.zero_grad()
        total = 0.0
        for part in noise.split(turn.micro):
            loss = (self.model(torch.ones(len(part), 1)) - 3 - 0.1 * part).square().sum() / 8
            loss.backward()
            total += float(loss.detach())
        self.optimizer.step()
        self.record.values.append(total)
        return {"loss": total if happens is None else happens}

    def training(self) -> Training:
        parts = {"model": self.model, "optimizer": self.optimizer, "record": self.record}
        return Training("toy", STEPS, 8, self.step, parts, self.generator)


class Memory:
    """A store that keeps every state, as it is written and read."""

    def __init__(self, stop_at: int | None = None, last: Any = None) -> None:
        self.stop_at, self.last, self.told, self.moments = stop_at, last, list[str](), 0

    def begin(self, stage: str) -> tuple[str, Any]:
        return stage, self.last

    def keep(self, moment: keeping.Moment) -> None:
        self.moments += 1
        if self.moments == self.stop_at:
            file = io.BytesIO()
            torch.save(moment.state(), file)
            file.seek(0)
            self.last = torch.load(file, weights_only=True)
            raise keeping.Stopped(moment)

    def check(self) -> None:
        return

    def tell(self, text: str) -> None:
        self.told.append(text)


def result(toy: Toy) -> tuple[float, list[float]]:
    return float(toy.model.weight.detach()), toy.record.values


def trained(toy: Toy, store: Memory | None = None) -> Toy:
    with keeping.kept_by(store or Memory()):
        train(toy.training())
    return toy


@pytest.mark.parametrize("stop_at", [1, 4, 23, STEPS])
def test_gone_on_with_it_ends_as_if_it_had_not_stopped(stop_at: int) -> None:
    alone = trained(Toy())
    assert abs(result(alone)[0] - 3) < 0.5
    store = Memory(stop_at)
    with pytest.raises(keeping.Stopped):
        trained(Toy(), store)
    after = trained(Toy(), Memory(last=store.last))
    assert result(after) == result(alone) and [turn.step for turn in after.turns] == list(range(stop_at, STEPS))


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()])
def test_what_does_not_fit_is_done_in_smaller_portions(error: Exception) -> None:
    store, figures = Memory(), list[dict[str, float]]()
    toy = Toy(lambda turn: error if turn.micro > 2 and turn.step == 10 else None)
    with keeping.kept_by(store):
        train(toy.training(), lambda stage, share, told: figures.append(told))
    assert result(toy)[0] == pytest.approx(result(trained(Toy()))[0], abs=1e-5) and len(toy.record.values) == STEPS
    assert {turn.micro for turn in toy.turns} == {8, 4, 2} and len(store.told) == 2 and "8 images at a time" in store.told[0]
    assert figures[-1]["images_at_a_time"] == 2 and "images_at_a_time" not in figures[0]
    with pytest.raises(RedactError, match="memory does not hold 1 at a time"):
        trained(Toy(lambda turn: error))


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="bug"):
        trained(Toy(lambda turn: RuntimeError("bug")))


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e9])
def test_a_loss_that_runs_away_goes_back_once_with_half_the_rate(loss: float) -> None:
    store = Memory()
    toy = trained(Toy(lambda turn: loss if turn.rate == 1 and turn.step == 17 else None), store)
    assert [turn.step for turn in toy.turns if turn.rate == 0.5] == list(range(16, STEPS)) and "ran away" in store.told[0]
    assert len(toy.record.values) == STEPS and math.isfinite(result(toy)[0])
    with pytest.raises(RedactError, match=r"at step 17 the loss ran away \(loss .*\), a second time"):
        trained(Toy(lambda turn: loss if turn.step == 17 else None))


def test_weights_that_are_not_finite_are_not_gone_back_to() -> None:
    """The loss of step 15 is finite, what the step makes of the weights is not; they would be remembered after it."""

    class Spoilt(Toy):
        def step(self, turn: Turn) -> dict[str, float]:
            figures = super().step(turn)
            if turn.rate == 1 and turn.step == 15:
                self.model.weight.data.fill_(math.nan)
            return figures

    toy = trained(Spoilt())
    assert [turn.step for turn in toy.turns if turn.rate == 0.5] == list(range(12, STEPS)) and math.isfinite(result(toy)[0])


def test_gone_on_with_after_stepping_back() -> None:
    def broken(turn: Turn) -> Any:
        return math.nan if turn.rate == 1 and turn.step == 17 else None

    store = Memory(16)
    with pytest.raises(keeping.Stopped):
        trained(Toy(broken), store)
    assert result(trained(Toy(broken), Memory(last=store.last))) == result(trained(Toy(broken)))
