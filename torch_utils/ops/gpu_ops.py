# SPDX-License-Identifier: Apache-2.0
"""bias_act, upfirdn2d and filtered_lrelu as operators of torch, so that torch.compile, CUDA graphs and profilers take each as one piece.

Their schemas, shapes (for tracing without data) and derivatives stand here; `gpu_kernels` says what computes them on a GPU. On a CPU an operator
computes its definition: the modules of the same names call them for CUDA tensors only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from torch_utils.ops import definitions, gpu_kernels
from torch_utils.ops.cpu_kernels import switched_off
from torch_utils.ops.definitions import GRADIENT, NO_SIGNS, READ_SIGNS, SECOND, STRAIGHT, VALUE, WRITE_SIGNS, Plan
from torch_utils.ops.gpu_launch import TYPES, layout_of

_NAME = "stylegan_redact"
_ops = getattr(torch.ops, _NAME)
_library = torch.library.Library(_NAME, "FRAGMENT")
_HOW = "int dim, str act, float alpha, float gain, float? clamp"


def usable(x: torch.Tensor) -> bool:
    """Whether x is for these operators: on a GPU, of a type that they know, and nobody looks on who must see torch's own operations."""
    if x.device.type != "cuda" or x.dtype not in TYPES or switched_off() or torch.jit.is_tracing():
        return False
    if torch.compiler.is_compiling():
        return True
    return not torch._C._are_functorch_transforms_active() and torch.autograd.forward_ad._current_level < 0


def _operator(schema: str, shapes: Callable, backward: Callable, setup: Callable) -> Callable[[Callable], Callable]:
    """Registers the function below it as the operator of that schema: its first argument is what computes, then those of the schema."""
    name = f"{_NAME}::{schema.partition('(')[0]}"

    def register(function: Callable) -> Callable:
        _library.define(schema)
        for key in ("CPU", "CUDA"):
            _library.impl(name, lambda x, *args: function(gpu_kernels.provider(x.device.type), x, *args), key)
        torch.library.register_fake(name, shapes, lib=_library)
        torch.library.register_autograd(name, backward, setup_context=setup, lib=_library)
        return function

    return register


def _like(x: torch.Tensor, *_: Any) -> torch.Tensor:
    return torch.empty_like(x, memory_format=layout_of(x))


def _options(dim: int, act: str, alpha: float, gain: float, clamp: float | None) -> dict[str, Any]:
    return {"dim": dim, "act": act, "alpha": alpha, "gain": gain, "clamp": clamp}


def _laid(y: torch.Tensor, leader: torch.Tensor) -> torch.Tensor:
    """y as the operator's shape function says that it lies."""
    return y.contiguous(memory_format=layout_of(leader))


def _of_bias(dx: torch.Tensor, dim: int) -> torch.Tensor:
    return dx.sum([axis for axis in range(dx.ndim) if axis != dim])


# bias_act: y, its gradient, and the gradient of that gradient.


def _keep_for_gradient(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    x, b, *ctx.how = inputs
    ctx.save_for_backward(*([output, None] if ctx.how[1] in STRAIGHT else [x, b]))


def _gradient(ctx: Any, dy: torch.Tensor) -> tuple:
    dx = _ops.bias_act_gradient(dy, *ctx.saved_tensors, *ctx.how)
    return dx, _of_bias(dx, ctx.how[0]) if ctx.needs_input_grad[1] else None, *[None] * 5


def _keep_for_second(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    dy, r, b, *ctx.how = inputs
    ctx.save_for_backward(dy, r, b)


def _second(ctx: Any, ddx: torch.Tensor) -> tuple:
    dy, r, b = ctx.saved_tensors
    ddy = _ops.bias_act_gradient(ddx, r, b, *ctx.how)
    if ctx.how[1] in STRAIGHT or not any(ctx.needs_input_grad[1:3]):
        return ddy, *[None] * 7
    dr = _ops.bias_act_second(dy, ddx, r, b, *ctx.how)
    return ddy, dr, _of_bias(dr, ctx.how[0]) if ctx.needs_input_grad[2] else None, *[None] * 5


def _third(ctx: Any, *_: torch.Tensor) -> tuple:
    raise RuntimeError(f"a third derivative of {ctx.act} was asked for - the kernels have two - call bias_act with impl='ref'")


def _keep_name(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    ctx.act = inputs[5]


@_operator(f"bias_act(Tensor x, Tensor? b, {_HOW}) -> Tensor", _like, _gradient, _keep_for_gradient)
def _bias_act(kernels: Any, x: torch.Tensor, b: torch.Tensor | None, *how: Any) -> torch.Tensor:
    return _laid(kernels.bias_act(x, b, None, None, mode=VALUE, **_options(*how)), x)


@_operator(f"bias_act_gradient(Tensor dy, Tensor r, Tensor? b, {_HOW}) -> Tensor", lambda dy, r, *_: _like(r), _second, _keep_for_second)
def _bias_act_gradient(kernels: Any, dy: torch.Tensor, r: torch.Tensor, b: torch.Tensor | None, *how: Any) -> torch.Tensor:
    return _laid(kernels.bias_act(dy, b, r, None, mode=GRADIENT, **_options(*how)), r)


@_operator(f"bias_act_second(Tensor dy, Tensor ddx, Tensor r, Tensor? b, {_HOW}) -> Tensor", lambda dy, ddx, r, *_: _like(r), _third, _keep_name)
def _bias_act_second(kernels: Any, dy: torch.Tensor, ddx: torch.Tensor, r: torch.Tensor, b: torch.Tensor | None, *how: Any) -> torch.Tensor:
    return _laid(kernels.bias_act(dy, b, r, ddx, mode=SECOND, **_options(*how)), r)


def bias_act(x: torch.Tensor, b: torch.Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float | None) -> torch.Tensor:
    """`clamp(gain * act(x + b), -clamp, clamp)`; gain above 0, alpha at least 0, b [x.shape[dim]] of x's type. Two derivatives."""
    return _ops.bias_act(x, b, dim, act, alpha, gain, None if clamp is None else float(clamp))


# upfirdn2d: linear, so its gradient is its adjoint.


def _resized(x: torch.Tensor, f: torch.Tensor, up: Sequence[int], down: Sequence[int], pads: Sequence[int], _gain: float) -> torch.Tensor:
    width, height = ((x.shape[3 - i] * up[i] + pads[2 * i] + pads[2 * i + 1] - f.shape[-1 if i == 0 else 0]) // down[i] + 1 for i in (0, 1))
    return torch.empty([x.shape[0], x.shape[1], height, width], dtype=x.dtype, device=x.device, memory_format=layout_of(x))


def _keep_resampling(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    x, f, ctx.up, ctx.down, pads, ctx.gain = inputs
    ctx.save_for_backward(f)
    ctx.pads = []
    for i in (0, 1):
        first = f.shape[-1 if i == 0 else 0] - 1 - pads[2 * i]
        ctx.pads += [first, x.shape[3 - i] * ctx.up[i] - output.shape[3 - i] * ctx.down[i] + pads[2 * i] - ctx.up[i] + 1]


def _adjoint_resampling(ctx: Any, dy: torch.Tensor) -> tuple:
    (f,) = ctx.saved_tensors
    return _ops.upfirdn2d(dy, f.flip(list(range(f.ndim))), ctx.down, ctx.up, ctx.pads, ctx.gain), *[None] * 5


@_operator(
    "upfirdn2d(Tensor x, Tensor f, SymInt[] up, SymInt[] down, SymInt[] pads, float gain) -> Tensor",
    _resized,
    _adjoint_resampling,
    _keep_resampling,
)
def _upfirdn2d(kernels: Any, x: torch.Tensor, f: torch.Tensor, *how: Any) -> torch.Tensor:
    return _laid(kernels.upfirdn2d(x, f, *how), x)


def upfirdn2d(x: torch.Tensor, f: torch.Tensor, up: Sequence[int], down: Sequence[int], pads: Sequence[int], gain: float) -> torch.Tensor:
    """`definitions.upfirdn2d`, differentiable to any order by x. f: float32 taps of a correlation, [t] or [fh, fw]."""
    return _ops.upfirdn2d(x, f, list(up), list(down), list(pads), float(gain))


# filtered_lrelu: its gradient is the same with slopes that signs remember, which is linear.


def _planned(numbers: Sequence[int], scales: Sequence[float]) -> Plan:
    pairs = [(numbers[i], numbers[i + 1]) for i in range(0, len(numbers), 2)]
    return Plan(*pairs, *scales)  # type: ignore[arg-type]


def _written(plan: Plan) -> tuple[list[int], list[float]]:
    return [number for pair in plan[:7] for number in pair], [float(scale) for scale in plan[7:]]


def _filtered_shapes(x: torch.Tensor, _b: Any, _fu: Any, _fd: Any, numbers: Sequence[int], scales: Sequence[float], keep: bool) -> tuple:
    plan = _planned(numbers, scales)
    y = torch.empty([x.shape[0], x.shape[1], plan.size[1], plan.size[0]], dtype=x.dtype, device=x.device, memory_format=layout_of(x))
    return y, torch.empty(definitions.signs_shape(x, plan) if keep else [0], dtype=torch.uint8, device=x.device)


def _keep_signs(ctx: Any, inputs: tuple, output: tuple) -> None:
    _, _, fu, fd, *ctx.how, keep = inputs
    ctx.save_for_backward(fu, fd, output[1] if keep else None)
    ctx.mark_non_differentiable(output[1])
    ctx.straight = _planned(*ctx.how).slope == 1 and _planned(*ctx.how).clamp == math.inf
    assert keep or ctx.straight or not any(ctx.needs_input_grad), "a gradient without signs"


def _adjoint(ctx: Any, dy: torch.Tensor) -> torch.Tensor:
    """The gradient of the images from that of the result."""
    fu, fd, signs = ctx.saved_tensors
    flipped = [f.flip(list(range(f.ndim))) for f in (fd, fu)]
    return _ops.filtered_lrelu_gradient(dy, *flipped, signs, *_written(_planned(*ctx.how).adjoint(fu, fd)))


def _filtered_gradient(ctx: Any, dy: torch.Tensor, _: Any) -> tuple:
    dx = _adjoint(ctx, dy)
    return dx, _of_bias(dx, 1) if ctx.needs_input_grad[1] else None, *[None] * 5


def _keep_slopes(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
    _, fu, fd, signs, *ctx.how = inputs
    ctx.save_for_backward(fu, fd, signs)


@_operator(
    "filtered_lrelu(Tensor x, Tensor? b, Tensor fu, Tensor fd, SymInt[] numbers, float[] scales, bool keep) -> (Tensor, Tensor)",
    _filtered_shapes,
    _filtered_gradient,
    _keep_signs,
)
def _filtered(kernels: Any, x: torch.Tensor, b: torch.Tensor | None, fu: torch.Tensor, fd: torch.Tensor, *how: Any) -> tuple:
    *numbers, keep = how
    plan = _planned(*numbers)
    signs = torch.empty(definitions.signs_shape(x, plan) if keep else [0], dtype=torch.uint8, device=x.device)
    y = kernels.filtered(x, b, fu, fd, plan, WRITE_SIGNS if keep else NO_SIGNS, signs if keep else None)
    return _laid(y, x), signs


@_operator(
    "filtered_lrelu_gradient(Tensor dy, Tensor fu, Tensor fd, Tensor? signs, SymInt[] numbers, float[] scales) -> Tensor",
    lambda dy, fu, fd, _signs, numbers, scales: _filtered_shapes(dy, None, fu, fd, numbers, scales, False)[0],
    lambda ctx, ddx: (_adjoint(ctx, ddx), *[None] * 5),
    _keep_slopes,
)
def _filtered_lrelu_gradient(kernels: Any, dy: torch.Tensor, fu: torch.Tensor, fd: torch.Tensor, signs: Any, *how: Any) -> torch.Tensor:
    plan = _planned(*how)
    if signs is None:
        plan = plan._replace(slope=1.0, clamp=math.inf)
    return _laid(kernels.filtered(dy, None, fu, fd, plan, NO_SIGNS if signs is None else READ_SIGNS, signs), dy)


def filtered_lrelu(x: torch.Tensor, b: torch.Tensor | None, fu: torch.Tensor, fd: torch.Tensor, plan: Plan) -> torch.Tensor:
    """What a `Plan` says, differentiable to any order by x and b. fu, fd: float32 taps of correlations, [t] or [h, w]."""
    bends = plan.slope != 1 or plan.clamp != math.inf
    keep = bends and torch.is_grad_enabled() and (x.requires_grad or (b is not None and b.requires_grad))
    return _ops.filtered_lrelu(x, b, fu, fd, *_written(plan), keep)[0]
