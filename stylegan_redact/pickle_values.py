# SPDX-License-Identifier: Apache-2.0
"""What the few imports of a StyleGAN snapshot stand for: checks every recorded call, makes tensors, none of it by running the file."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

import numpy as np
import torch

from stylegan_redact import torch_storage
from stylegan_redact.pickle_stream import TRUSTED, Global, Members, Object, Refused, Untrusted, check_key
from stylegan_redact.pickle_trust import is_opaque, is_torch_layer

PERSISTENT = Global("torch_utils.persistence", "_reconstruct_persistent_obj")
TENSOR = Global("torch._utils", "_rebuild_tensor_v2")
PARAMETER = Global("torch._utils", "_rebuild_parameter")
STORAGE = Global("torch.storage", "_load_from_bytes")
ORDERED_DICT = Global("collections", "OrderedDict")
EASY_DICTS = (Global("dnnlib.util", "EasyDict"), Global("dnnlib", "EasyDict"))
DEVICE, SIZE = Global("torch", "device"), Global("torch", "Size")
SETS = (Global("builtins", "set"), Global("builtins", "frozenset"))
NP_DTYPE, NP_NDARRAY = Global("numpy", "dtype"), Global("numpy", "ndarray")
# NumPy 1 knows only this name, NumPy 2 still resolves it.
NP_SCALAR, NP_ARRAY = Global("numpy.core.multiarray", "scalar"), Global("numpy.core.multiarray", "_reconstruct")
NP_FROM_BUFFER = Global("numpy.core.numeric", "_frombuffer")
PROGAN_NETWORK = Global("tfutil", "Network")
TF_NETWORKS = (Global("dnnlib.tflib.network", "Network"), PROGAN_NETWORK)
"""Networks of NVIDIA's TensorFlow code."""
TORCH_DTYPES = {Global("torch", str(dtype).removeprefix("torch.")): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}

_CALLED = frozenset(
    (PERSISTENT, TENSOR, PARAMETER, STORAGE, ORDERED_DICT, *EASY_DICTS, DEVICE, SIZE, *SETS)
    + (NP_DTYPE, NP_NDARRAY, NP_SCALAR, NP_ARRAY, NP_FROM_BUFFER, *TF_NETWORKS)
)
_NUMPY_DTYPE = re.compile(r"b1|[iu][1248]|f[248]|c8|c16")
_NUMBERS = "it has NumPy data other than plain numbers"
_ARRAY = "it makes a NumPy array in an unusual way"
_NUMPY_DTYPE_STATE = (3, None, None, None, -1, -1, 0)
MAX_DEPTH = 120
"""Containers inside each other. A snapshot has about 35; the recursion takes two Python frames for each."""
_MAX_EXPANDED = 1 << 20
"""Elements that a tensor may have beyond what its storage holds, by strides of zero."""
_MAX_DIMENSIONS = 64
_MAX_STORAGES = 10_000
"""Each is five small pickles to read; a 1024x1024 snapshot has 700."""
_MAX_SET = 10_000
"""Members of all sets that are not text, as with keys of dictionaries."""


def resolve(module: str, name: str) -> Global:
    """The import of that name if a StyleGAN snapshot may have it, under the one spelling that every version knows."""
    module = re.sub(r"^numpy\._core\b", "numpy.core", module)
    found = Global("builtins" if module == "__builtin__" else module, name)
    if found in _CALLED or found in TORCH_DTYPES or is_torch_layer(found) or is_opaque(found):
        return found
    raise Untrusted(f"it imports {ascii(str(found))[1:-1][:200]}, which no StyleGAN snapshot needs; nothing was run - {TRUSTED}")


def _need(condition: object, what: str) -> None:
    if not condition:
        raise Refused(f"{what}: it is damaged or hostile - {TRUSTED}")


def _trust(condition: object, what: str) -> None:
    """As `_need`, for what does not come about by accident."""
    if not condition:
        raise Untrusted(f"{what}: it is damaged or hostile - {TRUSTED}")


def _is_size(value: Any) -> bool:
    # The product of a million numbers takes hours.
    return isinstance(value, tuple) and len(value) <= _MAX_DIMENSIONS and all(type(n) is int and 0 <= n < 1 << 48 for n in value)


class Reader:
    """Checks a decoded graph, brings it to its lasting form, and keeps the tensors that its nodes stand for.

    The lasting form does not depend on versions: NumPy's scalars are Python's, its arrays have the name that all versions know,
    storages are tagged `cpu`.
    """

    def __init__(self, max_bytes: int) -> None:
        """
        Args:
            max_bytes: That all data together may have: no more than the file, which could name one piece a thousand times.
        """
        self.tensors: dict[int, torch.Tensor] = {}
        """By id of a TENSOR or PARAMETER node; the graph keeps the nodes alive."""
        self.arrays: dict[int, np.ndarray] = {}
        """By id of an NP_ARRAY node."""
        self.has_tensorflow = False
        """Whether a network of TensorFlow code is among the nodes."""
        self.opaque: dict[str, None] = {}
        """Names of classes that are carried along unread, in order."""
        self._storages: dict[int, torch.Tensor] = {}
        self._bytes_left = max_bytes
        self._members_left = _MAX_SET
        self._done: dict[int, tuple[Any, Any]] = {}
        self._handlers = {
            PERSISTENT: self._persistent,
            TENSOR: self._tensor,
            PARAMETER: self._parameter,
            STORAGE: self._storage,
            ORDERED_DICT: self._mapping,
            **dict.fromkeys(EASY_DICTS, self._mapping),
            **dict.fromkeys(SETS, self._set),
            DEVICE: self._device,
            SIZE: self._size,
            NP_DTYPE: self._numpy_dtype,
            NP_SCALAR: self._numpy_scalar,
            NP_ARRAY: self._numpy_array,
            NP_FROM_BUFFER: self._numpy_from_buffer,
            **dict.fromkeys(TF_NETWORKS, self._tensorflow),
        }

    def check(self, node: Any, depth: int = 0) -> Any:
        """The node in its lasting form; containers and Objects are changed in place where they can be."""
        if node is None or isinstance(node, (bool, int, float, str, bytes)):
            return node
        if isinstance(node, Global):
            _trust(node in TORCH_DTYPES or is_torch_layer(node) or self._is_opaque(node), f"it has {node} as a value")
            return node
        if id(node) in self._done:
            result = self._done[id(node)][1]
            _trust(result is not self, "it contains itself")
            return result
        _trust(depth < MAX_DEPTH, f"its values are nested more than {MAX_DEPTH} deep")
        # Holding the node keeps its id from being given to another one.
        self._done[id(node)] = (node, self)
        result = self._checked(node, depth + 1)
        self._done[id(node)] = (node, result)
        return result

    def _checked(self, node: Any, depth: int) -> Any:
        if isinstance(node, tuple):
            items = tuple(self.check(item, depth) for item in node)
            return node if all(a is b for a, b in zip(items, node, strict=True)) else items
        if isinstance(node, list):
            node[:] = [self.check(item, depth) for item in node]
            return node
        if isinstance(node, dict):
            for key in node:
                node[key] = self.check(node[key], depth)
            return node
        if isinstance(node, Members):
            for value in node.values:
                check_key(value)
            self._members_left -= sum(type(value) is not str for value in node.values)
            _trust(self._members_left >= 0, f"its sets have more than {_MAX_SET} members that are not text")
            return node
        _need(isinstance(node, Object), f"it has a {type(node).__name__} where no snapshot has one")
        if is_torch_layer(node.func) or (node.func not in self._handlers and self._is_opaque(node.func)):
            return self._layer(node, depth)
        _trust(node.func in self._handlers, f"it calls {node.func}")
        return self._handlers[node.func](node, depth)

    def _bare(self, node: Object, *, new: bool = False, items: bool = False, state: bool = False) -> None:
        _trust(node.new == new and (items or not node.items) and (state or node.state is None), f"it calls {node.func} in an unusual way")

    def _spend(self, num_bytes: int) -> None:
        self._bytes_left -= num_bytes
        _trust(self._bytes_left >= 0, "it asks for more data than the file has")

    def _persistent(self, node: Object, depth: int) -> Object:
        self._bare(node)
        _need(len(node.args) == 1 and isinstance(node.args[0], dict), "it holds a network without a description")
        meta = node.args[0]
        complete = set(meta) == {"type", "version", "module_src", "class_name", "state"} and meta["type"] == "class"
        _need(complete, "its description of a network is incomplete")
        if meta["version"] != 6 or type(meta["version"]) is not int:
            version = ascii(meta["version"])[:20]
            raise Refused(f"it has a network of format {version}, only format 6 is known - get a file written by StyleGAN2-ADA, StyleGAN3 or a fork")
        _need(isinstance(meta["module_src"], str) and isinstance(meta["class_name"], str), "its source or class name of a network is not text")
        node.args = self.check(node.args, depth)
        return node

    def _is_opaque(self, found: Global) -> bool:
        if found in _CALLED or not is_opaque(found):
            return False
        self.opaque[str(found)] = None
        return True

    def _layer(self, node: Object, depth: int) -> Object:
        """Made empty and then filled, which runs no constructor: the only way in which classes that are not known here may occur."""
        self._bare(node, new=True, state=True)
        _need(node.args == () and isinstance(node.state, dict), f"it makes {node.func} in an unusual way")
        node.state = self.check(node.state, depth)
        return node

    def _mapping(self, node: Object, depth: int) -> Object:
        self._bare(node, new=node.func in EASY_DICTS, items=True, state=node.func in EASY_DICTS)
        _need(node.args == () and node.state in (None, {}), f"it makes {node.func} in an unusual way")
        node.items = [(key, self.check(value, depth)) for key, value in node.items]
        return node

    def _set(self, node: Object, depth: int) -> Members:
        self._bare(node)
        _need(len(node.args) <= 1 and all(isinstance(arg, list) for arg in node.args), "it makes a set in an unusual way")
        return self.check(Members([value for arg in node.args for value in arg], frozen=node.func.name == "frozenset"), depth)

    def _device(self, node: Object, _: int) -> Object:
        self._bare(node)
        kinds = [type(arg) for arg in node.args]
        _need(kinds in ([str], [str, int]), "it names a device in an unusual way")
        return node

    def _size(self, node: Object, _: int) -> Object:
        self._bare(node)
        _need(len(node.args) == 1 and _is_size(node.args[0]), "it has a torch.Size that is none")
        return node

    def _storage(self, node: Object, _: int) -> Object:
        self._bare(node)
        _need(len(node.args) == 1 and isinstance(node.args[0], bytes), "it has a tensor storage that is not bytes")
        self._spend(len(node.args[0]))
        _trust(len(self._storages) < _MAX_STORAGES, f"it has more than {_MAX_STORAGES} tensor storages")
        values, on_cpu = torch_storage.decode_storage(node.args[0])
        if not on_cpu:
            node.args = (torch_storage.encode_storage(values),)
        self._storages[id(node)] = values
        return node

    def _tensor(self, node: Object, depth: int) -> Object:
        self._bare(node)
        _need(len(node.args) in (6, 7) and node.args[6:] in ((), ({},)), "it has a tensor of an unknown form")
        node.args = (*self.check(node.args[:6], depth), *node.args[6:])
        storage, offset, size, stride, requires_grad, hooks = node.args[:6]
        if isinstance(size, Object) and size.func == SIZE:
            size = size.args[0]
        _need(id(storage) in self._storages and isinstance(requires_grad, bool) and _is_no_hooks(hooks), "it has a tensor of an unknown form")
        _need(_is_size(size) and _is_size(stride) and len(size) == len(stride) and _is_size((offset,)), "it has a tensor of impossible shape")
        values = self._storages[id(storage)]
        numel = math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        _trust(numel == 0 or last < values.numel(), "it has a tensor that is larger than its storage")
        _trust(numel <= max(values.numel(), _MAX_EXPANDED), "it has a tensor that is larger than its storage")
        self.tensors[id(node)] = values.as_strided(size, stride, offset if numel else 0)
        return node

    def _parameter(self, node: Object, depth: int) -> Object:
        self._bare(node)
        node.args = self.check(node.args, depth)
        _need(len(node.args) == 3 and isinstance(node.args[1], bool) and _is_no_hooks(node.args[2]), "it has a parameter of an unknown form")
        _need(isinstance(node.args[0], Object) and node.args[0].func == TENSOR, "it has a parameter that is not a tensor")
        self.tensors[id(node)] = self.tensors[id(node.args[0])]
        return node

    def _numpy_dtype(self, node: Object, _: int) -> Object:
        self._bare(node, state=True)
        name = node.args[0] if node.args else None
        _trust(isinstance(name, str) and _NUMPY_DTYPE.fullmatch(name), _NUMBERS)
        _need(all(type(arg) in (bool, int) for arg in node.args[1:]), _NUMBERS)
        state = node.state
        _need(isinstance(state, tuple) and len(state) == 8 and state[1] in ("<", "|") and (state[0], *state[2:]) == _NUMPY_DTYPE_STATE, _NUMBERS)
        return node

    def _numpy_scalar(self, node: Object, depth: int) -> Any:
        self._bare(node)
        _need(len(node.args) == 2, "it has a NumPy number of an unknown form")
        return self._numpy_values(node.args[0], (), node.args[1], depth).item()

    def _numpy_array(self, node: Object, depth: int) -> Object:
        self._bare(node, state=True)
        state = node.state
        _trust(len(node.args) == 3 and node.args[0] == NP_NDARRAY and node.args[1:] == ((0,), b"b"), _ARRAY)
        _need(isinstance(state, tuple) and len(state) == 5 and state[0] == 1 and isinstance(state[3], bool), _ARRAY)
        self.arrays[id(node)] = self._numpy_values(state[2], state[1], state[4], depth, order="F" if state[3] else "C")
        return node

    def _numpy_from_buffer(self, node: Object, depth: int) -> Object:
        self._bare(node)
        _need(len(node.args) == 4 and node.args[3] in ("C", "F") and isinstance(node.args[0], (bytes, bytearray)), _ARRAY)
        data, dtype, shape, order = node.args
        self._spend(len(data))
        state = (1, shape, dtype, order == "F", bytes(data))
        return self.check(Object(NP_ARRAY, (NP_NDARRAY, (0,), b"b"), state=state), depth)

    def _numpy_values(self, dtype: Any, shape: Any, data: Any, depth: int, *, order: Literal["C", "F"] = "C") -> np.ndarray:
        _need(isinstance(dtype, Object) and dtype.func == NP_DTYPE and _is_size(shape), _ARRAY)
        _trust(isinstance(data, bytes), _NUMBERS)  # What arrays of objects have is a list, of anything.
        kind = np.dtype(self.check(dtype, depth).args[0])
        _need(math.prod(shape) * kind.itemsize == len(data), "it has NumPy data shorter or longer than its shape")
        return np.frombuffer(data, kind).reshape(shape, order=order)

    def _tensorflow(self, node: Object, depth: int) -> Object:
        self._bare(node, new=True, state=True)
        _need(node.args == () and isinstance(node.state, dict), f"it makes {node.func} in an unusual way")
        node.state = self.check(node.state, depth)
        self.has_tensorflow = True
        return node


def _is_no_hooks(node: Any) -> bool:
    return isinstance(node, Object) and node.func == ORDERED_DICT and not node.items
