# SPDX-License-Identifier: Apache-2.0
"""The table of a module's layers that training scripts print; part of NVIDIA's `torch_utils.misc`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class _Call:
    """One call of one module while the summary was taken. Holding on to the outputs keeps their id() their own."""

    module: torch.nn.Module
    outputs: list[torch.Tensor]
    new_outputs: list[torch.Tensor] = field(default_factory=list)
    params: list[torch.Tensor] = field(default_factory=list)
    buffers: list[torch.Tensor] = field(default_factory=list)


def print_module_summary(module: torch.nn.Module, inputs: Sequence[Any], max_nesting: int = 3, skip_redundant: bool = True) -> Any:
    """Runs the module once, prints a table of its layers, and returns its outputs.

    Args:
        inputs:         List or tuple of positional arguments.
        max_nesting:    How deep calls within calls are listed.
        skip_redundant: Leave out layers that hold nothing of their own and give nothing new out.
    """
    assert isinstance(module, torch.nn.Module)
    assert not isinstance(module, torch.jit.ScriptModule)
    assert isinstance(inputs, (tuple, list))
    calls, outputs = _trace(module, inputs, max_nesting)
    _attribute_tensors(calls)
    if skip_redundant:
        calls = [call for call in calls if call.params or call.buffers or call.new_outputs]
    _print_table(_rows(module, calls))
    return outputs


def _trace(module: torch.nn.Module, inputs: Sequence[Any], max_nesting: int) -> tuple[list[_Call], Any]:
    """The calls of sub-modules in the order in which they return, and what the module returns."""
    calls: list[_Call] = []
    depth = 0

    def before(_module: torch.nn.Module, _inputs: Any) -> None:
        nonlocal depth
        depth += 1

    def after(called: torch.nn.Module, _inputs: Any, outputs: Any) -> None:
        nonlocal depth
        depth -= 1
        if depth <= max_nesting:
            items = outputs if isinstance(outputs, (tuple, list)) else [outputs]
            calls.append(_Call(called, [item for item in items if isinstance(item, torch.Tensor)]))

    hooks: list[Any] = []
    for part in module.modules():
        hooks += [part.register_forward_pre_hook(before), part.register_forward_hook(after)]
    try:
        outputs = module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return calls, outputs


def _attribute_tensors(calls: list[_Call]) -> None:
    """Counts each parameter, buffer and output for the first call that returned with it: the innermost one."""
    seen: set[int] = set()

    def new(tensors: Iterable[torch.Tensor]) -> list[torch.Tensor]:
        fresh = []
        for tensor in tensors:
            if id(tensor) not in seen:
                seen.add(id(tensor))
                fresh.append(tensor)
        return fresh

    for call in calls:
        call.params = new(call.module.parameters())
        call.buffers = new(call.module.buffers())
        call.new_outputs = new(call.outputs)


def _rows(module: torch.nn.Module, calls: list[_Call]) -> list[list[str]]:
    """Head, one row for each output of each call, and the totals."""
    names = {part: name for name, part in module.named_modules()}
    rows = [[type(module).__name__, "Parameters", "Buffers", "Output shape", "Datatype"]]
    for call in calls:
        name = "<top-level>" if call.module is module else names[call.module]
        params, buffers = sum(t.numel() for t in call.params), sum(t.numel() for t in call.buffers)
        shapes = [str(list(t.shape)) for t in call.outputs] or ["-"]
        dtypes = [str(t.dtype).split(".")[-1] for t in call.outputs] or ["-"]
        for index, (shape, dtype) in enumerate(zip(shapes, dtypes, strict=True)):
            label = f"{name}:{index}" if len(shapes) > 1 else name
            counts = (params, buffers) if index == 0 else (0, 0)
            rows.append([label, *(str(count) if count else "-" for count in counts), shape, dtype])
    total_params, total_buffers = sum(t.numel() for c in calls for t in c.params), sum(t.numel() for c in calls for t in c.buffers)
    rows.append(["Total", str(total_params), str(total_buffers), "-", "-"])
    return rows


def _print_table(rows: list[list[str]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    rule = ["---"] * len(widths)
    print()
    for row in [rows[0], rule, *rows[1:-1], rule, rows[-1]]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    print()
