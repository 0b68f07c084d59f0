# SPDX-License-Identifier: Apache-2.0
"""The gradient of a batch that does not fit into memory, or that several processes share: portion by portion, added in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from stylegan_redact import ranks

Portion = TypeVar("Portion")


def descend(
    parameters: Sequence[torch.nn.Parameter],
    portions: Sequence[tuple[Portion, float]],
    work: Callable[[Portion], tuple[torch.Tensor, dict[str, torch.Tensor]]],
) -> dict[str, float]:
    """Sets the gradients to those of the whole batch; means over it of the figures.

    Each portion is done by one rank and the gradients are added in the order of the portions, wherever they were done: on a CPU, the bits that one
    rank gets from the same portions. Not DistributedDataParallel: it adds means of ranks, in an order of its own, all ranks must have as many
    images, and it hooks into the module's forward, which here is called by hand, on a part of the network.

    Args:
        parameters: Of the gradients.
        portions:   Portions of the batch, with their shares of it; the same on all ranks.
        work:       Gives the mean of the loss over a portion, and figures of it, scalars.

    Raises:
        ranks.OutOfMemory: of one of several ranks.
    """
    for parameter in parameters:
        parameter.grad = None
    figures: dict[str, float] = {}
    for found in _alone(portions, work) if ranks.world().size == 1 else _shared(parameters, portions, work):
        for name, value in found.items():
            figures[name] = figures.get(name, 0.0) + value
    return figures


def _back(portion: tuple[Portion, float], work: Callable[[Portion], tuple[torch.Tensor, dict[str, torch.Tensor]]]) -> dict[str, float]:
    """Adds the gradients of a portion to those that there are; its part of the figures."""
    some, share = portion
    loss, terms = work(some)
    (loss * share).backward()
    return {name: float(value.detach()) * share for name, value in terms.items()}


def _alone(
    portions: Sequence[tuple[Portion, float]], work: Callable[[Portion], tuple[torch.Tensor, dict[str, torch.Tensor]]]
) -> list[dict[str, float]]:
    return [_back(portion, work) for portion in portions]


def _shared(
    parameters: Sequence[torch.nn.Parameter],
    portions: Sequence[tuple[Portion, float]],
    work: Callable[[Portion], tuple[torch.Tensor, dict[str, torch.Tensor]]],
) -> list[dict[str, float]]:
    """In rounds of a portion for each rank."""
    world = ranks.world()
    figures: list[dict[str, float]] = []
    total: torch.Tensor | None = None

    def mine(portion: tuple[Portion, float]) -> dict[str, float]:
        for parameter in parameters:
            parameter.grad = None
        return _back(portion, work)

    for start in range(0, len(portions), world.size):
        some = portions[start : start + world.size]
        figures += world.spread(mine, some)
        total = world.added(_flat(parameters, world.rank < len(some)), total)
    assert total is not None
    reached = total[-len(parameters) :] > 0
    for parameter, values, there in zip(parameters, total.split([*(each.numel() for each in parameters), len(parameters)]), reached, strict=False):
        parameter.grad = values.view_as(parameter).clone() if bool(there) else None
    return figures


def _flat(parameters: Sequence[torch.nn.Parameter], drawn: bool) -> torch.Tensor:
    """All gradients in one row, those of a rank without a portion 0, and then which of the parameters have one."""
    grads = [parameter.grad if drawn else None for parameter in parameters]
    reached = torch.tensor([float(grad is not None) for grad in grads]).to(parameters[0])
    return torch.cat(
        [*(torch.zeros_like(each).flatten() if grad is None else grad.flatten() for each, grad in zip(parameters, grads, strict=True)), reached]
    )
