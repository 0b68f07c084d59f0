# SPDX-License-Identifier: Apache-2.0
"""A GPU that is pretended: tensors that say they are on cuda:0, computed on the CPU, where operations that mix devices fail as on a GPU.

Once imported, "auto" and "cuda" mean that device. It shows tensors that are made or left on the wrong one, and what is read from a GPU without a
copy. What would give other digits each time fails, too. It shows no kernel, no memory, no stream and no rounding of a GPU.
"""

from __future__ import annotations

import atexit
import functools
import os
import types
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

_GIB = 1 << 30
_aten = torch.ops.aten
_MOVES = {_aten._to_copy.default, _aten.copy_.default, _aten.copy.default}
_INDEXED = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default, _aten._unsafe_index.Tensor}
"""Whose indices, the second argument, may be on the CPU."""

_IN_ANY_ORDER = {
    "grid_sampler_2d_backward", "grid_sampler_3d_backward", "upsample_linear1d_backward", "upsample_bilinear2d_backward",
    "_upsample_bilinear2d_aa_backward", "upsample_bicubic2d_backward", "_upsample_bicubic2d_aa_backward", "upsample_trilinear3d_backward",
    "_adaptive_avg_pool2d_backward", "_adaptive_avg_pool3d_backward", "adaptive_max_pool2d_backward", "adaptive_max_pool3d_backward",
    "fractional_max_pool2d_backward", "max_pool2d_with_indices_backward", "max_pool3d_with_indices_backward", "avg_pool3d_backward", "max_unpool2d",
    "reflection_pad1d_backward", "reflection_pad2d_backward", "replication_pad1d_backward", "replication_pad2d_backward",
    "replication_pad3d_backward", "nll_loss2d_forward", "_ctc_loss", "_embedding_bag", "embedding_dense_backward", "histc", "bincount", "kthvalue",
    "put_", "scatter_add", "scatter_add_", "scatter_reduce", "scatter_reduce_", "index_add", "index_add_", "index_reduce", "index_reduce_",
}  # fmt: skip
"""What a GPU sums in whatever order its threads come, so that floating point numbers get other last digits (torch.use_deterministic_algorithms)."""
LOG = "PRETENDED_GPU_LOG"
"""Environment: a file that gets a line when a process ends, how many operations ran on the GPU."""
_ran = [0]


class OnGpu(torch.Tensor):
    """`held` on the CPU, under the name of a GPU."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnGpu:
        kind = {"dtype": held.dtype, "layout": held.layout, "device": "cuda:0", "requires_grad": False}
        made: OnGpu = torch.Tensor._make_wrapper_subclass(cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), **kind)
        made.held = held
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        copied = OnGpu(self.held.clone())
        made = torch.nn.Parameter(copied, self.requires_grad) if isinstance(self, torch.nn.Parameter) else copied.requires_grad_(self.requires_grad)
        return memo.setdefault(id(self), made)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return OnGpu, (self.held,)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def tolist(self) -> Any:  # Which torch refuses for subclasses.
        return self.held.tolist()

    def numpy(self, **kwargs: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first.")


class _Pretended(TorchDispatchMode):
    """For operations that make tensors of none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
    there = any(isinstance(each, OnGpu) for each in given)
    if there and func.overloadpacket.__name__ in _IN_ANY_ORDER and given[0].is_floating_point():
        raise RuntimeError(f"{func} gives other last digits each time on a GPU")
    _ran[0] += there
    if func not in _MOVES:
        _refuse_mixed(func, args, given)
    asked = kwargs.get("device")
    on_gpu = torch.device(asked).type == "cuda" if asked is not None else there
    if asked is not None and on_gpu:
        kwargs = {**kwargs, "device": "cpu", **({"pin_memory": False} if kwargs.get("pin_memory") else {})}
    out = func(*tree_map(_held, args), **tree_map(_held, kwargs))
    if func is _aten.copy_.default:
        return args[0]
    if torch.Tag.inplace_view in func.tags:
        with no_dispatch():
            func(*args, **kwargs)  # So that its shape is known outside, too.
    own = {id(_held(each)): each for each in given}

    def returned(each: Any) -> Any:
        if not isinstance(each, torch.Tensor):
            return each
        if id(each) in own and isinstance(own[id(each)], OnGpu) == on_gpu:  # In place.
            return own[id(each)]
        return OnGpu(each) if on_gpu else each

    return tree_map(returned, out)


def _held(each: Any) -> Any:
    return each.held if isinstance(each, OnGpu) else each


def _refuse_mixed(func: Any, args: Any, given: list[torch.Tensor]) -> None:
    """As a GPU: numbers without dimensions may come from the CPU, and indices of what is on the GPU."""
    looked_at = [args[0], *args[2:3]] if func in _INDEXED else given
    tensors = [each for each in looked_at if isinstance(each, torch.Tensor)]
    if func in _INDEXED and not isinstance(args[0], OnGpu):
        tensors += [each for each in args[1] if each is not None]
    elsewhere = [each for each in tensors if not isinstance(each, OnGpu) and each.dim()]
    if elsewhere and any(isinstance(each, OnGpu) for each in tensors):
        shapes = ", ".join(str(tuple(each.shape)) for each in elsewhere)
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu in {func} ({shapes} on the CPU)")


class _Script(torch.nn.Module):
    """TorchScript, whose own tensors stay where they are: what it is called with has to be on the GPU, and its answers are."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.__dict__["net"] = net
        self.__dict__["forward"] = forward = functools.partial(_through, net)
        forward.schema = net.forward.schema  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["net"], name)


def _through(net: Any, *args: Any) -> Any:
    if not all(isinstance(each, OnGpu) for each in args if isinstance(each, torch.Tensor)):
        raise RuntimeError("Expected all tensors to be on the same device, but found cuda:0 and cpu in a TorchScript module")
    out = net(*(each.to("cpu") if isinstance(each, torch.Tensor) else each for each in args))
    return tree_map(lambda each: each.to("cuda:0") if isinstance(each, torch.Tensor) else each, out)


def _loading(load: Callable[..., Any], moved: Callable[[Any], Any]) -> Callable[..., Any]:
    def loaded(*args: Any, map_location: Any = None, **kwargs: Any) -> Any:
        if map_location is None or callable(map_location) or torch.device(map_location).type != "cuda":
            return load(*args, map_location=map_location, **kwargs)
        return moved(load(*args, map_location="cpu", **kwargs))

    return loaded


def _switch_on() -> None:
    about = types.SimpleNamespace(name="a pretended GPU", total_memory=80 * _GIB, major=9, minor=0, multi_processor_count=1)
    told: dict[str, Any] = {
        "_lazy_init": None, "set_device": None, "synchronize": None, "empty_cache": None, "is_available": True, "device_count": 1,
        "current_device": 0, "max_memory_allocated": 3 * _GIB, "get_device_name": about.name, "get_device_capability": (9, 0),
        "get_rng_state": torch.zeros(16, dtype=torch.uint8), "set_rng_state": None,
        "mem_get_info": (64 * _GIB, 80 * _GIB), "get_device_properties": about,
    }  # fmt: skip
    for name, value in told.items():
        setattr(torch.cuda, name, lambda *args, value=value: value)
    torch.jit.load = _loading(torch.jit.load, _Script)  # type: ignore[assignment]
    torch.load = _loading(torch.load, lambda all: tree_map(lambda each: each.to("cuda:0") if isinstance(each, torch.Tensor) else each, all))
    torch.serialization.add_safe_globals([OnGpu])
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    torch._C._set_only_lift_cpu_tensors(True)  # type: ignore[attr-defined]
    torch.autograd.set_multithreading_enabled(False)  # A thread for the device would outlive Python, and abort it as it ends.
    _Pretended().__enter__()
    if LOG in os.environ:
        atexit.register(_log)


def _log() -> None:
    with open(os.environ[LOG], "a") as file:
        file.write(f"{_ran[0]}\n")


_switch_on()
