# SPDX-License-Identifier: Apache-2.0
"""Calls of the compiled kernels for GPUs (`cuda/`): checks their arguments, which they trust, and hands over pointers.

The functions of `definitions`.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
from collections.abc import Sequence
from typing import Any

import torch

from torch_utils.ops import definitions
from torch_utils.ops.definitions import NO_SIGNS, SECOND, STRAIGHT, VALUE, Plan

TYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}
_POINTER, _NUMBER, _REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double


def _fields(text: str) -> list[tuple[str, Any]]:
    """Fields of a ctypes.Structure from "pointers; integers, with [length] for arrays; reals", in C's order."""
    fields: list[tuple[str, Any]] = []
    kinds: tuple[Any, ...] = (_POINTER, _NUMBER, _REAL)
    for part, kind in zip(text.split(";"), kinds, strict=True):
        for field in part.split():
            name, _, length = field.rstrip("]").partition("[")
            fields.append((name, kind * int(length) if length else kind))
    return fields


class _BiasAct(ctypes.Structure):
    _fields_ = _fields("x b r h y; type n stride channels mode act from_y; alpha gain clamp")


class _Upfirdn(ctypes.Structure):
    _fields_ = _fields("x f y; type by_pixel n channels in[2] out[2] x_stride[4] y_stride[4] up[2] down[2] taps[2] pad[2]; gain")


class _Filtered(ctypes.Structure):
    _fields_ = _fields(
        "x b fu fd y signs; type mode n channels in[2] middle[2] out[2] x_stride[4] y_stride[4] up[2] down[2] up_offset[2] down_offset[2]"
        " up_taps[2] down_taps[2] up_separable down_separable; up_gain down_gain slope clamp"
    )


def layout_of(x: torch.Tensor) -> torch.memory_format:
    """How a result lies in memory whose images lie as x does."""
    by_pixel = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if by_pixel else torch.contiguous_format


def _structure(kind: Any, **values: Any) -> Any:
    """A structure with tensors as their pointers, None as no pointer, sequences as arrays."""
    types = dict(kind._fields_)
    assert set(values) == set(types)
    made = {}
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            value = value.data_ptr()
        made[name] = types[name](*value) if isinstance(value, list | tuple) else value
    return kind(**made)


class Kernels:
    """The compiled kernels in one shared library.

    Raises:
        OSError: it does not load.
        RuntimeError: it is another version's.
    """

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._library.stylegan_error.restype = ctypes.c_char_p
        self._library.stylegan_size_of.restype = _NUMBER
        sizes = [self._library.stylegan_size_of(_NUMBER(which)) for which in range(3)]
        if sizes != [ctypes.sizeof(kind) for kind in (_BiasAct, _Upfirdn, _Filtered)]:
            raise RuntimeError(f"the kernels of {path} are another version's - their structures have {sizes} bytes - delete that folder")

    def _launch(self, name: str, structure: Any, device: torch.device) -> None:
        """Runs a kernel on the device's current stream."""
        stream: int | None = None
        there: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if device.type == "cuda":
            stream = torch.cuda.current_stream(device).cuda_stream
            if device.index != torch.cuda.current_device():
                there = torch.cuda.device(device)
        with there:
            code = getattr(self._library, name)(ctypes.byref(structure), _POINTER(stream))
        if code != 0:
            raise RuntimeError(f"{name} did not start - {self._library.stylegan_error(code).decode()}")

    def bias_act(
        self,
        x: torch.Tensor,
        b: torch.Tensor | None,
        r: torch.Tensor | None,
        h: torch.Tensor | None,
        *,
        mode: int,
        dim: int,
        act: str,
        alpha: float,
        gain: float,
        clamp: float | None,
    ) -> torch.Tensor:
        """See `definitions.bias_act`."""
        leader = x if r is None else r
        layout = layout_of(leader)
        assert (r is None) == (mode == VALUE) and (h is None) == (mode != SECOND) and 0 <= dim < x.ndim
        assert mode == VALUE or (act not in STRAIGHT or (gain > 0 and alpha >= 0))
        for other in (x, r, h):
            assert other is None or (other.dtype == x.dtype and other.device == x.device and other.shape == x.shape)
        assert b is None or (b.dtype == x.dtype and b.device == x.device and b.shape == x.shape[dim : dim + 1])
        x = x.contiguous(memory_format=layout)
        r, h = (other if other is None else other.contiguous(memory_format=layout) for other in (r, h))
        b = None if b is None else b.contiguous()
        y = torch.empty_like(x, memory_format=layout)
        if x.numel() == 0:
            return y
        numbers = {"type": TYPES[x.dtype], "n": x.numel(), "stride": max(y.stride(dim), 1), "channels": x.shape[dim], "mode": mode}
        numbers |= {"act": list(definitions.ACTIVATIONS).index(act) + 1, "from_y": act in STRAIGHT}
        reals = {"alpha": alpha, "gain": gain, "clamp": math.inf if clamp is None else clamp}
        self._launch("stylegan_bias_act", _structure(_BiasAct, x=x, b=b, r=r, h=h, y=y, **numbers, **reals), x.device)
        return y

    def upfirdn2d(self, x: torch.Tensor, f: torch.Tensor, up: Sequence[int], down: Sequence[int], pads: Sequence[int], gain: float) -> torch.Tensor:
        """See `definitions.upfirdn2d`. A separable filter is two of them, along x and along y."""
        if f.ndim == 1:
            x = self.upfirdn2d(x, f[None, :], (up[0], 1), (down[0], 1), (pads[0], pads[1], 0, 0), gain)
            return self.upfirdn2d(x, f[:, None], (1, up[1]), (1, down[1]), (0, 0, pads[2], pads[3]), 1.0)
        f = _taps(f, x)
        size = [(x.shape[3 - i] * up[i] + pads[2 * i] + pads[2 * i + 1] - f.shape[1 - i]) // down[i] + 1 for i in (0, 1)]
        assert x.ndim == 4 and min(size) >= 1 and min(*up, *down) >= 1
        layout = layout_of(x)
        y = torch.empty([x.shape[0], x.shape[1], size[1], size[0]], dtype=x.dtype, device=x.device, memory_format=layout)
        if x.numel() == 0:
            return y.zero_()
        numbers = {"type": TYPES[x.dtype], "by_pixel": layout is torch.channels_last, "n": x.shape[0], "channels": x.shape[1]}
        pairs = {"in": (x.shape[3], x.shape[2]), "out": size, "up": tuple(up), "down": tuple(down), "taps": (f.shape[1], f.shape[0])}
        pairs |= {"pad": (pads[0], pads[2]), "x_stride": x.stride(), "y_stride": y.stride()}
        self._launch("stylegan_upfirdn2d", _structure(_Upfirdn, x=x, f=f, y=y, **numbers, **pairs, gain=gain), x.device)
        return y

    def filtered(
        self,
        x: torch.Tensor,
        b: torch.Tensor | None,
        fu: torch.Tensor,
        fd: torch.Tensor,
        plan: Plan,
        mode: int = NO_SIGNS,
        signs: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """See `definitions.filtered`. What a tile does not fit for is done step by step, with the same signs."""
        fu, fd = _taps(fu, x), _taps(fd, x)
        b = None if b is None else b.contiguous()
        assert x.ndim == 4 and (x.shape[3], x.shape[2]) == plan.start and min(*plan.middle, *plan.size, *plan.up, *plan.down) >= 1
        assert b is None or (b.dtype == x.dtype and b.device == x.device and b.shape == x.shape[1:2])
        assert (signs is None) == (mode == NO_SIGNS)
        assert signs is None or (signs.shape == definitions.signs_shape(x, plan) and signs.dtype == torch.uint8 and signs.is_contiguous())
        layout = layout_of(x)
        y = torch.empty([x.shape[0], x.shape[1], plan.size[1], plan.size[0]], dtype=x.dtype, device=x.device, memory_format=layout)
        if x.numel() == 0:
            return y.zero_()
        taps = {"up_taps": (fu.shape[-1], fu.shape[0]), "down_taps": (fd.shape[-1], fd.shape[0])}
        numbers: dict[str, Any] = {"type": TYPES[x.dtype], "mode": mode, "n": x.shape[0], "channels": x.shape[1], "up_separable": fu.ndim == 1}
        numbers |= {"down_separable": fd.ndim == 1, "x_stride": x.stride(), "y_stride": y.stride(), "in": plan.start, "out": plan.size}
        options = plan._asdict()
        shared = {name: options[name] for name in ("middle", "up", "down", "up_offset", "down_offset", "up_gain", "down_gain", "slope", "clamp")}
        structure = _structure(_Filtered, x=x, b=b, fu=fu, fd=fd, y=y, signs=signs, **taps, **numbers, **shared)
        if not self._library.stylegan_filtered_lrelu_fits(ctypes.byref(structure)):
            return definitions.filtered(x, b, fu, fd, plan, mode, signs, self.upfirdn2d)
        self._launch("stylegan_filtered_lrelu", structure, x.device)
        return y


def _taps(f: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Taps as the kernels read them: of the type that they compute in, one after the other."""
    assert f.device == x.device and f.ndim in (1, 2) and f.numel() > 0 and x.dtype in TYPES
    return f.to(torch.float64 if x.dtype == torch.float64 else torch.float32).contiguous()
