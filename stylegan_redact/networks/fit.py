# SPDX-License-Identifier: Apache-2.0
"""Whether the constructor arguments in a file can be those of the tensors there, found out before anything is allocated.

A few bytes can ask for a network of any size, and for layers without end. So the numbers are looked at first, and then the network is built
without memory, on torch's meta device, and compared with what the file has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from stylegan_redact.types import RedactError, UntrustedFile

MISFITS = (TypeError, AssertionError, KeyError, RuntimeError, ValueError, ArithmeticError, AttributeError, IndexError)
"""What constructors raise on arguments that make no sense."""
LIMITS: Mapping[str, int] = {
    "img_resolution": 8192,
    "num_layers": 256,
    "margin_size": 256,
    "filter_size": 64,
    "lrelu_upsampling": 16,
    "conv_kernel": 15,
    "num_fp16_res": 64,
}
"""Arguments that cost time or memory which no tensor of the file shows, and far more than any StyleGAN has."""
_LARGEST_NUMBER = 1 << 24
_MOST_VALUES = 1000
_LONGEST_FILTER = 64
_DEEPEST = 8
_MOST_EXPANDED = 4
"""Times the bytes in the file that the network may take; 1 if each tensor is stored, 2 if as float16."""
_SMALL = 1 << 24
_TRUSTED = "get it again, from a source that you trust"


def check_arguments(class_name: str, args: Iterable[Any], kwargs: Mapping[str, Any]) -> None:
    """Looks at the constructor arguments alone.

    Raises:
        UntrustedFile: a number, a list or their nesting is far beyond what any StyleGAN has.
        RedactError:   a value is neither number nor text nor a container of these.
    """
    named = {**{f"argument {place + 1}": value for place, value in enumerate(args)}, **kwargs}
    for count, (name, value, depth) in enumerate(_values("arguments", named, 0)):
        if count > _MOST_VALUES or depth > _DEEPEST:
            raise UntrustedFile(f"{_asked(class_name)} - it has more constructor arguments than any network has - {_TRUSTED}")
        if isinstance(value, (list, tuple)) and name == "resample_filter" and len(value) > _LONGEST_FILTER:
            _refuse(class_name, name, f"of {len(value)} taps")
        if isinstance(value, (int, float)) and abs(value) > LIMITS.get(name, _LARGEST_NUMBER):
            _refuse(class_name, name, f"of {value:.3g}" if abs(value) < 1e300 else "beyond 1e300")
        if value is not None and not isinstance(value, (int, float, str, list, tuple, Mapping)):
            raise RedactError(f"{_asked(class_name)} - its {name[:60]} is a {type(value).__name__} - is it a fork?")


def _values(name: str, value: Any, depth: int) -> Iterator[tuple[str, Any, int]]:
    """The value and all that it holds: name, value, how deep."""
    yield name, value, depth
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _values(str(key), each, depth + 1)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _values(name, each, depth + 1)


def without_memory(construct: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """The module with the shapes of its tensors, and no values."""
    with torch.device("meta"), _StaysWithoutMemory():
        return construct()


def check_size(class_name: str, net: torch.nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raises UntrustedFile where the network, built without memory, would take out of all proportion more than the tensors in the file do."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    wanted = sum(tensor.nbytes for tensor in net.state_dict().values())
    if wanted > _MOST_EXPANDED * sum(storages.values()) + _SMALL:
        _refuse(class_name, "size", f"of {wanted / (1 << 30):.3g} GiB for tensors of {sum(storages.values()) / (1 << 30):.3g} GiB in the file")
    resolution = getattr(net, "img_resolution", 0)
    if resolution > LIMITS["img_resolution"]:
        _refuse(class_name, "img_resolution", f"of {resolution}")


def _asked(class_name: str) -> str:
    return f"the {class_name[:60]} of this file was to be rebuilt"


def _refuse(class_name: str, name: str, what: str) -> None:
    raise UntrustedFile(f"{_asked(class_name)} - it declares a {name[:60]} {what}, no such network has: it is damaged or hostile - {_TRUSTED}")


_BY_ELEMENT = {torch.Tensor.mul, torch.Tensor.div, torch.Tensor.sub, torch.Tensor.pow, torch.Tensor.square, torch.Tensor.sqrt, torch.Tensor.exp}


class _StaysWithoutMemory(TorchFunctionMode):
    """Ignores `tensor.to(device)`: what has no values cannot move. Makes shapes of arithmetic itself: torch would import its compiler for them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.to and args[0].is_meta:
            kwargs.pop("device", None)
            args = (args[0], *(arg for arg in args[1:] if not isinstance(arg, (str, torch.device))))
            if len(args) == 1 and not kwargs:
                return args[0]
        tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
        if not kwargs and tensors and all(tensor.is_meta and tensor.dtype == torch.float32 for tensor in tensors):
            if func in _BY_ELEMENT:
                return torch.empty(torch.broadcast_shapes(*(tensor.shape for tensor in tensors)), device="meta")
            if func is torch.outer:
                return torch.empty([tensor.numel() for tensor in tensors], device="meta")
        return func(*args, **kwargs)
