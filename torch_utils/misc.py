# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's `torch_utils.misc`: constants, assertions, samplers, and copying and comparing of module contents."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
import torch

from torch_utils.module_summary import print_module_summary

__all__ = [
    "InfiniteSampler",
    "assert_shape",
    "check_ddp_consistency",
    "const_like",
    "constant",
    "copy_params_and_buffers",
    "ddp_sync",
    "named_params_and_buffers",
    "nan_to_num",
    "params_and_buffers",
    "print_module_summary",
    "profiled_function",
    "set_random_seed",
    "suppress_tracer_warnings",
    "symbolic_assert",
]

Function = TypeVar("Function", bound=Callable[..., Any])

nan_to_num = torch.nan_to_num
symbolic_assert = torch._assert

_constants: dict[Any, torch.Tensor] = {}


def constant(
    value: Any,
    shape: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    memory_format: torch.memory_format | None = None,
) -> torch.Tensor:
    """Tensor of the given value, made once: the same arguments return the same tensor. Never write to it.

    Args:
        value:         Number, list or array.
        shape:         What to broadcast to; default the value's own shape.
        dtype:         Default torch's default dtype, so that integers become floats.
        device:        Default the CPU.
        memory_format: Default contiguous.
    """
    value = np.asarray(value)
    shape = tuple(shape) if shape is not None else None
    dtype = dtype if dtype is not None else torch.get_default_dtype()
    device = torch.device(device if device is not None else "cpu")
    memory_format = memory_format if memory_format is not None else torch.contiguous_format

    key = (value.shape, value.dtype, value.tobytes(), shape, dtype, device, memory_format)
    tensor = _constants.get(key)
    if tensor is None:
        # A tensor born in inference mode could never enter autograd again, but the cache outlives that mode.
        with torch.inference_mode(False):
            tensor = torch.as_tensor(value.copy(), dtype=dtype, device=device)
            if shape is not None:
                tensor = tensor.broadcast_to(shape)
            tensor = tensor.contiguous(memory_format=memory_format)
        _constants[key] = tensor
    return tensor


def const_like(
    ref: torch.Tensor,
    value: Any,
    shape: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
    memory_format: torch.memory_format | None = None,
) -> torch.Tensor:
    """constant() with dtype and device of `ref` where they are not given. `ref` gives no shape."""
    return constant(
        value,
        shape=shape,
        dtype=dtype if dtype is not None else ref.dtype,
        device=device if device is not None else ref.device,
        memory_format=memory_format,
    )


def set_random_seed(*args: Any) -> None:
    """Seed the global generators of NumPy and torch from any values (a seed, a rank, an iteration, ...)."""
    seed = hash(args) % (1 << 31)
    torch.manual_seed(seed)
    np.random.seed(seed)


@contextmanager
def suppress_tracer_warnings() -> Iterator[None]:
    """Silences torch.jit.TracerWarning, and nothing else, while active."""
    # Not warnings.catch_warnings(): that would undo every other filter set inside, and resets "once" records.
    rule = ("ignore", None, torch.jit.TracerWarning, None, 0)
    warnings.filters.insert(0, rule)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if rule in warnings.filters:
            warnings.filters.remove(rule)  # type: ignore[attr-defined]


def assert_shape(tensor: torch.Tensor, ref_shape: Sequence[int | torch.Tensor | None]) -> None:
    """Raises AssertionError unless the tensor has this shape; None stands for any size.

    Under torch.jit.trace a size that is a tensor is asserted in the traced graph.
    """
    if tensor.ndim != len(ref_shape):
        raise AssertionError(f"Wrong number of dimensions: got {tensor.ndim}, expected {len(ref_shape)}")
    for dim, (size, ref_size) in enumerate(zip(tensor.shape, ref_shape, strict=True)):
        if ref_size is None:
            continue
        if isinstance(size, torch.Tensor) or isinstance(ref_size, torch.Tensor):
            with suppress_tracer_warnings():
                same = torch.equal(torch.as_tensor(size), torch.as_tensor(ref_size))
                symbolic_assert(same, f"Wrong size for dimension {dim}")
        elif size != ref_size:
            raise AssertionError(f"Wrong size for dimension {dim}: got {size}, expected {ref_size}")


def profiled_function(fn: Function) -> Function:
    """The function, shown under its own name in the autograd profiler."""

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        with torch.autograd.profiler.record_function(fn.__name__):
            return fn(*args, **kwargs)

    return wrapper  # type: ignore[return-value]


class InfiniteSampler(torch.utils.data.Sampler[int]):
    """Indices of a dataset without end, in an order that keeps changing; the ranks share one stream in turn.

    Args:
        dataset:      Anything with a length > 0.
        rank:         This process, in [0, num_replicas).
        num_replicas: Number of processes.
        shuffle:      False goes round in order.
        seed:         Of the shuffling; the same on all ranks.
        window_size:  Share of the dataset, in [0, 1], within which items change places after the first shuffle.
    """

    def __init__(self, dataset: Any, rank: int = 0, num_replicas: int = 1, shuffle: bool = True, seed: int = 0, window_size: float = 0.5) -> None:
        assert len(dataset) > 0
        assert num_replicas > 0
        assert 0 <= rank < num_replicas
        assert 0 <= window_size <= 1
        super().__init__()  # torch 2.13 no longer takes the dataset here.
        self.dataset = dataset
        self.rank = rank
        self.num_replicas = num_replicas
        self.shuffle = shuffle
        self.seed = seed
        self.window_size = window_size

    def __iter__(self) -> Iterator[Any]:
        order = np.arange(len(self.dataset))
        window = 0
        rnd = np.random.RandomState(self.seed)
        if self.shuffle:
            rnd.shuffle(order)
            window = int(np.rint(order.size * self.window_size))
        step = 0
        while True:
            here = step % order.size
            if step % self.num_replicas == self.rank:
                yield order[here]
            if window >= 2:
                earlier = (here - rnd.randint(window)) % order.size
                order[here], order[earlier] = order[earlier], order[here]
            step += 1


def params_and_buffers(module: torch.nn.Module) -> list[torch.Tensor]:
    """All parameters, then all buffers."""
    return [*module.parameters(), *module.buffers()]


def named_params_and_buffers(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """All parameters, then all buffers, each with its name."""
    return [*module.named_parameters(), *module.named_buffers()]


@torch.no_grad()
def copy_params_and_buffers(src_module: torch.nn.Module, dst_module: torch.nn.Module, require_all: bool = False) -> None:
    """Copies what has the same name into `dst_module`, whose dtypes, devices and requires_grad stay.

    Names that only `src_module` has are ignored; so are names that only `dst_module` has, unless `require_all`.

    Raises:
        AssertionError: require_all, and `src_module` lacks a name.
        RuntimeError:   two tensors of one name differ in shape.
    """
    src = dict(named_params_and_buffers(src_module))
    for name, tensor in named_params_and_buffers(dst_module):
        if name not in src:
            assert not require_all, f"{name} is missing in the source module"
            continue
        if src[name].shape != tensor.shape:  # copy_() alone would broadcast.
            raise RuntimeError(f"{name} has shape {list(src[name].shape)} in the source module, {list(tensor.shape)} in the destination")
        tensor.copy_(src[name])


def ddp_sync(module: torch.nn.Module, sync: bool) -> AbstractContextManager[Any]:
    """Context in which DistributedDataParallel exchanges gradients only if `sync`; any other module is left alone."""
    if sync or not isinstance(module, torch.nn.parallel.DistributedDataParallel):
        return nullcontext()
    return module.no_sync()


def check_ddp_consistency(module: torch.nn.Module, ignore_regex: str | None = None) -> None:
    """Raises AssertionError unless all ranks hold the values of rank 0. NaN equals NaN.

    Args:
        ignore_regex: Leaves out what matches in full, written `<type of the module>.<name of the tensor>`.
    """
    for name, tensor in named_params_and_buffers(module):
        full_name = f"{type(module).__name__}.{name}"
        if ignore_regex is not None and re.fullmatch(ignore_regex, full_name):
            continue
        own = tensor.detach()
        own = nan_to_num(own) if own.is_floating_point() else own
        other = own.clone()
        torch.distributed.broadcast(tensor=other, src=0)
        assert torch.equal(own, other), f"{full_name} differs between the ranks"
