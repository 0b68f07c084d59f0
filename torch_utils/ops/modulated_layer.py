# SPDX-License-Identifier: Apache-2.0
"""A layer of StyleGAN2's synthesis network on a CPU, compiled: what scales, adds and bends is done while the convolution has its values in the cache.

Between two layers only images are in memory, and for a gradient no others: what lies between is computed back from the result.

Source: Karras et al. 2020, arXiv 1912.04958, section 2.2, equations 1 and 3; figure 2(d).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from torch_utils.ops import bias_act, cpu_kernels, cpu_winograd, upfirdn2d

Steps = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, "torch.Tensor | None", torch.Tensor], torch.Tensor]


class _Options(NamedTuple):
    up: int
    resample_filter: torch.Tensor | None
    pads: tuple[int, int, int, int]
    """What the filter is to add to the convolution's results, (x0, x1, y0, y1)."""
    gain: float
    slope: float
    clamp: float


def modulated_layer(
    steps: Steps,
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    noise: torch.Tensor | None,
    bias: torch.Tensor,
    *,
    up: int,
    resample_filter: torch.Tensor,
    padding: int,
    act: str,
    gain: float,
    clamp: float | None,
) -> torch.Tensor:
    """`steps(x, weight, styles, noise, bias)`, but for rounding: by the compiled code, if it takes these and is faster, else by calling it.

    Args:
        steps:           Modulated convolution with demodulation, noise, bias, activation, gain and clamp, by differentiable operations.
        x:               Images [n, I, h, w].
        weight:          [O, I, k, k], stored as NVIDIA's layers do: flipped where they enlarge.
        styles:          [n, I], factors of x's channels.
        noise:           Added, [H, W] or [1 or n, 1, H, W]; or None.
        bias:            [O].
        up:              1, or 2: enlarged, with resample_filter of `upfirdn2d.setup_filter`.
        padding:         Of the convolution.
        act, gain, clamp: As of `bias_act`.

    Returns:
        Images [n, O, h * up, w * up].
    """
    inputs = x, weight, styles, noise, bias
    if not _suits(x, weight, styles, noise, bias, up, padding, act, gain):
        return steps(*inputs)
    if up == 1:
        pads = (0, 0, 0, 0)
    else:
        width, height = upfirdn2d._get_filter_size(resample_filter)
        pads = ((width - 1) // 2, width // 2 - 1, (height - 1) // 2, height // 2 - 1)  # one less where the transposed convolution is one larger
    slope = 1.0 if act == "linear" else float(bias_act.activation_funcs[act].def_alpha)
    return _Layer.apply(steps, _Options(up, resample_filter, pads, gain, slope, float("inf") if clamp is None else clamp), *inputs)


def _suits(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    noise: torch.Tensor | None,
    bias: torch.Tensor,
    up: int,
    padding: int,
    act: str,
    gain: float,
) -> bool:
    """Whether the compiled code takes these."""
    if padding != 1 or act not in ("lrelu", "linear") or gain <= 0 or any(t.dtype != torch.float32 for t in (styles, bias)):
        return False
    if x.ndim != 4 or not all(t.is_contiguous() for t in (x, weight, styles, bias)) or styles.shape != x.shape[:2] or bias.shape != weight.shape[:1]:
        return False
    if not cpu_kernels.plain(styles, bias, *([] if noise is None else [noise])):
        return False
    if noise is not None:
        sizes = (x.shape[2] * up, x.shape[3] * up)
        if noise.dtype != torch.float32 or noise.shape not in (sizes, (1, 1, *sizes), (x.shape[0], 1, *sizes)):
            return False
    if up == 1:
        return cpu_winograd.suits(x, weight, 1, padding, 1, 1)
    return up == 2 and cpu_winograd.suits_transposed(x, weight.transpose(0, 1), 2, 0, 0, 1, 1)


def _grain(noise: torch.Tensor | None) -> torch.Tensor | None:
    """Noise as the compiled code takes it, [1 or n, 1, H, W]."""
    return None if noise is None else noise.reshape(-1, 1, *noise.shape[-2:]).contiguous()


class _Layer(torch.autograd.Function):
    """The layer. A gradient that is itself to be differentiated is that of `steps`, which are then taken again."""

    @staticmethod
    def forward(  # noqa: PLR0913 - the tensors
        ctx: Any,
        steps: Steps,
        options: _Options,
        x: torch.Tensor,
        weight: torch.Tensor,
        styles: torch.Tensor,
        noise: torch.Tensor | None,
        bias: torch.Tensor,
    ) -> torch.Tensor:
        plugin = cpu_kernels._plugin()
        grain = _grain(noise)
        bend = options.gain, options.slope, options.clamp
        if options.up == 1:
            y, norms, energies = plugin.winograd(x, weight, 1, 1, 1, False, styles, True, grain, bias, *bend)
        else:
            y, norms, energies = plugin.winograd(x, weight.transpose(0, 1), 0, 0, 2, True, styles, True)
            y = upfirdn2d.upfirdn2d(y, options.resample_filter, padding=list(options.pads), gain=4).contiguous()
            plugin.finish_layer(y, grain, bias, *bend)
        ctx.steps, ctx.options = steps, options
        ctx.save_for_backward(x, weight, styles, noise, bias, y, norms, energies)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors  # Once: what a checkpoint computes again may be asked for once.
        inputs = list(saved[:5])
        wanted = ctx.needs_input_grad[2:]
        again = torch.is_grad_enabled()
        if again or not cpu_kernels.plain(dy):
            # By other names: who hooks an input, or makes one of another, does so once, outside of here.
            with torch.enable_grad():
                inputs = [None if tensor is None else tensor.view_as(tensor) for tensor in inputs]
                chosen = [tensor for tensor, asked in zip(inputs, wanted, strict=True) if asked]
                found = iter(torch.autograd.grad(ctx.steps(*inputs), chosen, dy, create_graph=again))
            return None, None, *(next(found) if asked else None for asked in wanted)
        return None, None, *_gradients(ctx.options, dy.contiguous(), *saved, wanted=wanted)


def _gradients(  # noqa: PLR0913 - the tensors
    options: _Options,
    dy: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    noise: torch.Tensor | None,
    bias: torch.Tensor,
    y: torch.Tensor,
    norms: torch.Tensor,
    energies: torch.Tensor,
    *,
    wanted: tuple[bool, ...],
) -> tuple[torch.Tensor | None, ...]:
    """Those by x, weight, styles, noise and bias, of which are wanted."""
    plugin = cpu_kernels._plugin()
    grain = _grain(noise)
    dv, sums, dnoise = plugin.layer_gradient(dy, y, grain, options.gain, options.slope, options.clamp, wanted[3])
    by_bias, by_value, by_noise = sums.unbind(2)  # [n, O]
    # v = norm u + noise + bias: sum of dv u = (sum of dv (v - noise - bias)) / norm, and norm = (styles^2 energies + eps)^(-1/2).
    dsquare = -0.5 * norms.square() * (by_value - by_noise - bias * by_bias)  # by norm^-2
    if options.up == 2:
        dv = _adjoint_resample(dv, options, (2 * x.shape[2] + 1, 2 * x.shape[3] + 1))
    dx = dweight = dstyles = None
    if wanted[0] or wanted[2]:
        if options.up == 1:
            dx = plugin.winograd(dv, weight, 1, 1, 1, True, norms)[0]
        else:
            dx = plugin.winograd(dv, weight.transpose(0, 1), 0, 0, 2, False, norms)[0]
        dstyles = plugin.scale_and_dot(dx, x, styles) + 2 * styles * (dsquare @ energies.t())
    if wanted[1]:
        if options.up == 1:
            dweight = plugin.winograd_kernels(x, dv, 1, 1, 1, False, styles, norms)
        else:
            dweight = plugin.winograd_kernels(dv, x, 0, 0, 2, True, norms, styles).transpose(0, 1)
        plugin.add_scaled(dweight, weight, 2 * dsquare.t() @ styles.square())
    if dnoise is not None and noise is not None:
        dnoise = dnoise.sum_to_size(noise.shape if noise.ndim == 4 else (1, 1, *noise.shape)).reshape(noise.shape)
    return dx if wanted[0] else None, dweight, dstyles if wanted[2] else None, dnoise, by_bias.sum(0) if wanted[4] else None


def _adjoint_resample(dy: torch.Tensor, options: _Options, size: tuple[int, int]) -> torch.Tensor:
    """Takes gradients of enlarged images back to those of the convolution's results, whose sides are `size`."""
    width, height = upfirdn2d._get_filter_size(options.resample_filter)
    x0, _, y0, _ = options.pads
    left, top = width - 1 - x0, height - 1 - y0
    pads = [left, size[1] + width - 1 - left - dy.shape[3], top, size[0] + height - 1 - top - dy.shape[2]]
    return upfirdn2d.upfirdn2d(dy, options.resample_filter, padding=pads, flip_filter=True, gain=4).contiguous()
