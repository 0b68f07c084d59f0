# SPDX-License-Identifier: Apache-2.0
"""Bias, activation function, gain and clamp in one step."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch

import dnnlib
from torch_utils.ops import cpu_kernels, definitions, gpu_ops


def _activation(name: str, *, alpha: float = 0, gain: float = 1, ref: str = "y", second: bool = False) -> dnnlib.EasyDict:
    """One entry of `activation_funcs`, under NVIDIA's field names."""
    func, cuda_idx = definitions.ACTIVATIONS[name], list(definitions.ACTIVATIONS).index(name) + 1
    return dnnlib.EasyDict(func=func, def_alpha=alpha, def_gain=gain, cuda_idx=cuda_idx, ref=ref, has_2nd_grad=second)


_SQRT2 = math.sqrt(2)

activation_funcs = {
    "linear": _activation("linear", ref=""),
    "relu": _activation("relu", gain=_SQRT2),
    "lrelu": _activation("lrelu", alpha=0.2, gain=_SQRT2),
    "tanh": _activation("tanh", second=True),
    "sigmoid": _activation("sigmoid", second=True),
    "elu": _activation("elu", second=True),
    "selu": _activation("selu", second=True),
    "softplus": _activation("softplus", second=True),
    "swish": _activation("swish", gain=_SQRT2, ref="x", second=True),
}


def bias_act(
    x: torch.Tensor,
    b: torch.Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "cuda",
) -> torch.Tensor:
    """`clamp(gain * act(x + b), -clamp, clamp)`.

    Args:
        x:     Tensor of any shape.
        b:     Bias [x.shape[dim]], or None.
        dim:   Axis of x that the bias belongs to.
        act:   Name in `activation_funcs`.
        alpha: Slope of 'lrelu' below zero; None: the activation's default. Other activations ignore it.
        gain:  Factor after the activation; None: the activation's default.
        clamp: Largest magnitude of the result, at least 0; None: no limit.
        impl:  'ref': the definition. 'cuda': whatever is fastest for the device of x.

    Returns:
        Tensor of the shape of x.

    Raises:
        KeyError: unknown activation.
    """
    assert isinstance(x, torch.Tensor)
    assert impl in ("ref", "cuda"), impl
    assert clamp is None or clamp >= 0, clamp
    spec = activation_funcs[act]
    alpha = float(spec.def_alpha if alpha is None else alpha)
    gain = float(spec.def_gain if gain is None else gain)
    if b is not None:
        assert isinstance(b, torch.Tensor) and b.ndim == 1 and 0 <= dim < x.ndim and b.shape[0] == x.shape[dim]
    if impl == "cuda" and gpu_ops.usable(x) and _pays(x, b, act, alpha, gain, clamp):
        return gpu_ops.bias_act(x, b, dim, act, alpha, gain, clamp)
    if b is not None:
        b = b.reshape([-1 if axis == dim else 1 for axis in range(x.ndim)])
    if impl == "cuda" and x.device.type == "cpu" and gain > 0 and x.is_floating_point() and not torch.jit.is_tracing():
        if act == "lrelu" and alpha >= 0:
            return _LeakyRelu.apply(x, b, alpha, gain, clamp)
        if act == "linear" and clamp is not None:
            return _LeakyRelu.apply(x, b, 1.0, gain, clamp)
    return _definition(x, b, functools.partial(spec.func, alpha=alpha), gain, clamp)


def _pays(x: torch.Tensor, b: torch.Tensor | None, act: str, alpha: float, gain: float, clamp: float | None) -> bool:
    """Whether a GPU's kernel computes just this, and there are steps to join."""
    steps = (b is not None) + (act != "linear") + (gain != 1) + (clamp is not None)
    return steps > 1 and gain > 0 and alpha >= 0 and x.ndim > 0 and (b is None or b.dtype == x.dtype)


def _definition(x: torch.Tensor, b: torch.Tensor | None, func: Callable, gain: float, clamp: float | None) -> torch.Tensor:
    """The steps of `bias_act` one after the other."""
    if b is not None:
        x = x + b
    x = func(x)
    if gain != 1:
        x = x * gain
    if clamp is not None:
        x = x.clamp(-clamp, clamp)
    return x


def _side_by_side(x: torch.Tensor, b: torch.Tensor) -> int:
    """How many values with one bias lie side by side in a dense tensor: the axis of the bias is the one along which b is longer than 1."""
    axis = next((axis for axis in range(x.ndim) if b.shape[axis] != 1), None)
    if axis is None:  # of one channel
        return x.numel()
    inside = range(axis + 1, x.ndim) if x.is_contiguous() else {0: (1, 2, 3), 1: (), 2: (1, 3), 3: (1,)}[axis]
    return math.prod(x.shape[other] for other in inside)


class _LeakyRelu(torch.autograd.Function):
    """Bias, leaky ReLU, gain and clamp, in place on one new tensor, which is also all that the gradient needs.

    With a positive gain the steps commute: leaky_relu(gain * x + gain * b), and y > 0 exactly where x + b > 0.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, b: torch.Tensor | None, alpha: float, gain: float, clamp: float | None) -> torch.Tensor:
        kernels = cpu_kernels.activation(x, b)
        if kernels is not None and (b is None or b.dtype == x.dtype):
            inner = x.numel() if b is None else _side_by_side(x, b)
            return kernels.bias_act(x, None if b is None else b.reshape(-1).contiguous(), inner, gain, alpha, math.inf if clamp is None else clamp)
        y = x * gain if b is None else torch.add(b * gain, x, alpha=gain)
        if alpha != 1:
            y = torch.nn.functional.leaky_relu_(y, alpha)
        return y if clamp is None else y.clamp_(-clamp, clamp)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
        _, b, *ctx.options = inputs
        ctx.bias_shape = None if b is None else b.shape
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple:
        (y,) = ctx.saved_tensors
        dx = _LeakyReluGradient.apply(dy, y, *ctx.options)
        db = dx.sum_to_size(ctx.bias_shape) if ctx.needs_input_grad[1] else None
        return dx, db, None, None, None

    @staticmethod
    def jvp(ctx: Any, dx: torch.Tensor, db: torch.Tensor | None, *_: None) -> torch.Tensor:
        (y,) = ctx.saved_tensors
        return _LeakyReluGradient.apply(dx if db is None else dx + db, y, *ctx.options)


class _LeakyReluGradient(torch.autograd.Function):
    """`dy` times the slope of `_LeakyRelu` at the result y: linear in dy, so it is its own derivative, and constant around y."""

    generate_vmap_rule = True

    @staticmethod
    def forward(dy: torch.Tensor, y: torch.Tensor, alpha: float, gain: float, clamp: float | None) -> torch.Tensor:
        kernels = cpu_kernels.activation(y, dy)
        if kernels is not None and dy.dtype == y.dtype and dy.stride() == y.stride():
            return kernels.gradient(dy, y, gain, alpha, math.inf if clamp is None else clamp)
        dx = dy if clamp is None else torch.ops.aten.hardtanh_backward(dy, y, -clamp, clamp)  # 0 where |y| >= clamp
        if alpha == 1:
            return dx * gain
        return torch.ops.aten.leaky_relu_backward(dx, y, alpha, True).mul_(gain)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: torch.Tensor) -> None:
        _, y, *ctx.options = inputs
        ctx.save_for_backward(y)
        ctx.save_for_forward(y)

    @staticmethod
    def backward(ctx: Any, ddx: torch.Tensor) -> tuple:
        (y,) = ctx.saved_tensors
        return _LeakyReluGradient.apply(ddx, y, *ctx.options), None, None, None, None

    @staticmethod
    def jvp(ctx: Any, ddy: torch.Tensor, *_: None) -> torch.Tensor:
        (y,) = ctx.saved_tensors
        return _LeakyReluGradient.apply(ddy, y, *ctx.options)
