# SPDX-License-Identifier: Apache-2.0
"""Compiled code on a CPU (`cpu_*.cpp`): when it is used; derivatives of resampling of any order.

It is compiled when the first large image is to be resampled, once per machine (torch's folder for extensions keeps it). Where that cannot be, one
warning says why and what it costs, and torch's own operations do the work. The environment variable STYLEGAN_REDACT_KERNELS=off forbids it.

Source: Karras et al. 2021, arXiv 2106.12423, appendix D: two bits for each up-sampled sample are all that the gradient needs.
"""

from __future__ import annotations

import functools
import math
import os
import sys
import warnings
from typing import Any

import torch

from torch_utils import custom_ops
from torch_utils.ops import definitions
from torch_utils.ops.definitions import NO_SIGNS, READ_SIGNS, WRITE_SIGNS, Plan

LEAST_SAMPLES = 1 << 20
"""Up-sampled samples of a call below which nothing is compiled, and torch's operations do as well: a property of the call, not of the machine."""
SWITCH = "STYLEGAN_REDACT_KERNELS"
_FLAGS = {
    "AVX512": ["-DCPU_CAPABILITY=AVX512", "-DCPU_CAPABILITY_AVX512", "-mavx512f", "-mavx512dq", "-mavx512vl", "-mavx512bw", "-mavx2", "-mfma"],
    "AVX2": ["-DCPU_CAPABILITY=AVX2", "-DCPU_CAPABILITY_AVX2", "-mavx2", "-mfma"],
}
"""What torch's vector classes want to be told; else they are written out in plain C++."""


def switched_off() -> bool:
    """Whether the environment forbids compiled code, however "off" is spelt."""
    return os.environ.get(SWITCH, "").strip().lower() == "off"


def usable(x: torch.Tensor, samples: int) -> bool:
    """Whether the compiled code can resample x, of which `samples` samples are made in between, and is there; compiles it if need be."""
    return takes(x, samples) and _plugin() is not None


def takes(x: torch.Tensor, samples: int) -> bool:
    """Whether compiled code can be handed x, and the work is worth it."""
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64) or samples < max(LEAST_SAMPLES, 1):
        return False
    return plain(x)


def plain(*tensors: torch.Tensor) -> bool:
    """Whether compiled code can read these in memory, and nobody looks on who must see torch's own operations: a trace, a transform, a mode."""
    if torch.jit.is_tracing() or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
        return False
    if torch.autograd.forward_ad._current_level >= 0 or torch._C._len_torch_dispatch_stack() > 0:
        return False
    keys, key = [torch._C._dispatch_keys(tensor) for tensor in tensors], torch._C.DispatchKey
    return all(each.has(key.CPU) and not each.has(key.Python) and not each.has(key.Negative) for each in keys)


def takes_layout(x: torch.Tensor) -> bool:
    """Whether the compiled code takes x as it lies in memory: planes apart, or whole vectors of channels side by side."""
    return x.is_contiguous() or (x.is_contiguous(memory_format=torch.channels_last) and x.shape[1] % _plugin().lanes(x.dtype == torch.float64) == 0)


def activation(x: torch.Tensor, other: torch.Tensor | None) -> Any:
    """The module with `bias_act` and `gradient`, if x is for them, large and without gaps, and the other of their tensors too. Else None."""
    if other is not None and not plain(other):
        return None
    dense = x.is_contiguous() or (x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last))
    return _plugin() if dense and takes(x, x.numel()) else None


@functools.cache
def _plugin() -> Any:
    """The compiled module, or None after one warning."""
    if switched_off():
        return None
    try:
        if not sys.platform.startswith("linux"):
            raise RuntimeError(f"the compiled CPU kernels are written for Linux - this is {sys.platform} - nothing can be done")
        # Without -fopenmp for the linker: torch has loaded the one OpenMP that threads must share.
        flags = ["-O3", "-fopenmp", "-fno-math-errno", *_FLAGS.get(torch.backends.cpu.get_cpu_capability(), [])]
        sources = ["cpu_bindings.cpp", "cpu_winograd.cpp", "cpu_resample.cpp", "cpu_activation.cpp", "cpu_pointwise.cpp"]
        return custom_ops.get_plugin("cpu_kernels_plugin", sources, source_dir=os.path.dirname(__file__), extra_cflags=flags)
    except (RuntimeError, ImportError, OSError) as error:
        cost = f"StyleGAN takes longer with torch's operations, which are used instead, StyleGAN3 several times as long; {SWITCH}=off silences this"
        warnings.warn(f"{error} - {cost}", RuntimeWarning, stacklevel=2)
        return None


def _run(
    x: torch.Tensor, b: torch.Tensor | None, fu: torch.Tensor, fd: torch.Tensor, plan: Plan, mode: int, signs: torch.Tensor | None
) -> torch.Tensor:
    """Calls the compiled code. It trusts its arguments, so all that it relies on is checked here."""
    x = x if takes_layout(x) else x.contiguous()
    assert (x.shape[3], x.shape[2]) == plan.start and min(*plan.middle, *plan.size, *plan.up, *plan.down) >= 1
    assert all(f.dtype == x.dtype and f.ndim in (1, 2) and f.numel() > 0 for f in (fu, fd))
    assert b is None or (b.dtype == x.dtype and b.shape == x.shape[1:2])
    assert (signs is None) == (mode == NO_SIGNS) and (signs is None or signs.shape == _signs_shape(x, plan))
    b = None if b is None else b.contiguous()
    options = plan.up, plan.down, plan.up_offset, plan.down_offset, plan.middle, plan.size, plan.up_gain, plan.down_gain, plan.slope, plan.clamp
    return _plugin().resample(x, b, fu.contiguous(), fd.contiguous(), *options, mode, signs)


def _signs_shape(x: torch.Tensor, plan: Plan) -> tuple[int, ...]:
    """[groups of planes, h, w / 4, lanes]: four samples in a byte."""
    lanes = _plugin().lanes(x.dtype == torch.float64)
    return -(-x.shape[0] * x.shape[1] // lanes), plan.middle[1], -(-plan.middle[0] // 4), lanes


class Resample(torch.autograd.Function):
    """What a `Plan` says without its activation, or with the slopes that `signs` remembers: linear, so its gradient is its adjoint.

    Args: x [n, C, H, W]; fu, fd: taps of a correlation of x's dtype, [t] or [fh, fw]; plan; signs or None.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, fu: torch.Tensor, fd: torch.Tensor, plan: Plan, signs: torch.Tensor | None) -> torch.Tensor:
        ctx.plan = plan
        ctx.save_for_backward(fu, fd, signs)
        return _run(x, None, fu, fd, plan, NO_SIGNS if signs is None else READ_SIGNS, signs)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return _adjoint(ctx, dy), None, None, None, None


class FilteredLrelu(torch.autograd.Function):
    """What a `Plan` says, its activation included. Args: x, fu, fd, plan as in `Resample`; b: bias [C] or None."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, b: torch.Tensor | None, fu: torch.Tensor, fd: torch.Tensor, plan: Plan) -> torch.Tensor:
        ctx.plan = plan
        bends = (plan.slope != 1 or plan.clamp != math.inf) and any(ctx.needs_input_grad)
        signs = torch.empty(_signs_shape(x, plan), dtype=torch.uint8, device=x.device) if bends else None
        ctx.save_for_backward(fu, fd, signs)
        return _run(x, b, fu, fd, plan, WRITE_SIGNS if bends else NO_SIGNS, signs)

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        dx = _adjoint(ctx, dy)
        return dx, dx.sum([0, 2, 3]) if ctx.needs_input_grad[1] else None, None, None, None


def _adjoint(ctx: Any, dy: torch.Tensor) -> torch.Tensor:
    """The gradient of the images from that of the result."""
    fu, fd, signs = ctx.saved_tensors
    flipped = [f.flip(list(range(f.ndim))) for f in (fd, fu)]
    plan = ctx.plan.adjoint(fu, fd)
    if signs is None:
        plan = plan._replace(slope=1.0, clamp=math.inf)
    if plain(dy):
        return Resample.apply(dy, *flipped, plan, signs)
    if signs is not None:  # [groups, h, w / 4, lanes] => [n, C, h, w / 4]
        signs = signs.permute(0, 3, 1, 2).flatten(0, 1)[: dy.shape[0] * dy.shape[1]].unflatten(0, dy.shape[:2])
    return definitions.filtered(dy, None, flipped[0], flipped[1], plan, NO_SIGNS if signs is None else READ_SIGNS, signs)
