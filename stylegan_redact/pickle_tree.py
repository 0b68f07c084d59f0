# SPDX-License-Identifier: Apache-2.0
"""The checked graph of a snapshot as networks: lists their tensors, replaces some, leaves private paths out."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from stylegan_redact import pickle_values as values
from stylegan_redact.pickle_compare import same_bits
from stylegan_redact.pickle_stream import TRUSTED, Global, Members, Object, Refused, Untrusted
from stylegan_redact.pickle_trust import is_opaque
from stylegan_redact.torch_storage import encode_storage
from stylegan_redact.types import RedactError, UntrustedFile

_MAPPINGS = frozenset((values.ORDERED_DICT, *values.EASY_DICTS))
_TENSORS = frozenset((values.TENSOR, values.PARAMETER))
_MAX_VALUES = 100_000
"""Tensors of one network, or values of one set of keyword arguments. Sharing could make a small file stand for 2^60 of them."""
_MAX_JSON_DEPTH = 32
_PRIVATE_PATH = re.compile(r"/|~|[A-Za-z]:[\\/]|\\\\|file:")


@dataclass(frozen=True)
class Opaque:
    """Something in a constructor's arguments that is neither number, text, tensor nor a container of these."""

    name: str


@dataclass(frozen=True)
class Leaf:
    """A tensor of a network, as node of the graph."""

    node: Object
    is_parameter: bool


def top_level(root: Any) -> dict[str, Any]:
    """The snapshot's keys and what they hold, as a dict of its own."""
    if is_persistent(root):
        raise Refused("it holds one network alone, and StyleGAN tools load only files with G, D and G_ema - ask its author for the full snapshot")
    items = items_of(root)
    if items is None or not all(isinstance(key, str) for key, _ in items):
        raise Refused("it is a pickle, but not of a StyleGAN snapshot - give the .pkl that StyleGAN2-ADA or StyleGAN3 training wrote")
    return dict(items)


def is_persistent(node: Any) -> bool:
    """Whether the node is an object with embedded source."""
    return isinstance(node, Object) and node.func == values.PERSISTENT


def is_network(node: Any) -> bool:
    """Whether the node is a module, with embedded source or of a fork's class that the file only names."""
    parts = _module_state(node) or {}
    return is_persistent(node) or (isinstance(node, Object) and is_opaque(node.func) and items_of(parts.get("_modules")) is not None)


def items_of(node: Any) -> list[tuple[Any, Any]] | None:
    """What a mapping holds, in order; None for all else."""
    if isinstance(node, dict):
        return list(node.items())
    return list(node.items) if isinstance(node, Object) and node.func in _MAPPINGS else None


def _with_items(node: Any, items: Iterable[tuple[Any, Any]]) -> Any:
    """A mapping of the same kind with these items."""
    return dict(items) if isinstance(node, dict) else Object(node.func, node.args, new=node.new, state=node.state, items=list(items))


def _module_state(node: Any) -> dict[str, Any] | None:
    state = node.args[0]["state"] if is_persistent(node) else node.state if isinstance(node, Object) else None
    return state if isinstance(state, dict) else None


def walk(module: Any) -> dict[str, Leaf]:
    """The module's parameters and buffers by dotted name, in the order of state_dict()."""
    leaves: dict[str, Leaf] = {}
    _walk(module, "", leaves, [0])
    return leaves


def _walk(module: Any, prefix: str, leaves: dict[str, Leaf], visits: list[int]) -> None:
    state = _module_state(module) or {}
    for part in ("_parameters", "_buffers", "_modules"):
        for name, child in items_of(state.get(part)) or ():
            if not isinstance(name, str) or "." in name:
                raise Refused(f"a network in it has parts with impossible names - {TRUSTED}")
            visits[0] += 1
            if visits[0] > _MAX_VALUES or len(prefix) > 1000:
                raise Untrusted(f"a network in it has more than {_MAX_VALUES} layers and tensors or endless names - {TRUSTED}")
            if part == "_modules":
                _walk(child, f"{prefix}{name}.", leaves, visits)
            elif isinstance(child, Object) and child.func in _TENSORS:
                leaves[prefix + name] = Leaf(child, part == "_parameters")
            elif child is not None:
                raise Refused(f"what it has as {ascii(prefix + name)} is not a tensor - {TRUSTED}")


def each_module(module: Any) -> Iterator[tuple[str, Any]]:
    """The module and all those inside it, with their dotted names; one that sits in several places comes with each of its names."""
    waiting, met = [("", module)], 0
    while waiting:
        name, node = waiting.pop()
        yield name, node
        met += 1
        if met > _MAX_VALUES:
            raise Refused(f"a network in it has more than {_MAX_VALUES} parts - {TRUSTED}")
        children = [child for child in items_of((_module_state(node) or {}).get("_modules")) or () if child[1] is not None]
        waiting += [(f"{name}.{part}" if name else str(part), child) for part, child in reversed(children)]


def each_persistent(node: Any) -> Iterator[Object]:
    """Every object with embedded source that the node consists of, wherever in it, each once."""
    waiting, seen = [node], set()
    while waiting:
        part = waiting.pop()
        if not isinstance(part, (tuple, list, dict, Object)) or id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            waiting += part.values()
        elif isinstance(part, Object):
            if is_persistent(part):
                yield part
            waiting += [part.args, part.state, part.items]
        else:
            waiting += part


def attribute(module: Any, name: str) -> Any:
    """A number or text that the module has under that name; None for all else."""
    value = (_module_state(module) or {}).get(name)
    return value if isinstance(value, (int, float, str)) else None


def plain(node: Any, reader: values.Reader) -> Any:
    """The node as Python's own containers, numbers and text; tensors as tensors, all else as Opaque."""
    budget = [_MAX_VALUES]

    def convert(node: Any) -> Any:
        budget[0] -= _num_values(node)
        if budget[0] < 0:
            raise Untrusted(f"it describes something with more than {_MAX_VALUES} values - {TRUSTED}")
        items = items_of(node)
        if items is not None:
            return {key: convert(value) for key, value in items}
        if isinstance(node, (list, tuple)):
            return type(node)(convert(item) for item in node)
        if isinstance(node, Members):
            return frozenset(node.values) if node.frozen else set(node.values)
        return _plain_object(node, reader) if isinstance(node, (Object, Global)) else node

    return convert(node)


def _num_values(node: Any) -> int:
    """How many values the node itself comes to; arrays without elements can have as many rows as they like."""
    if isinstance(node, Object) and node.func == values.NP_ARRAY:
        return 1 + math.prod(max(1, n) for n in node.state[1])
    return 1 + len(node.values) if isinstance(node, Members) else 1


def _plain_object(node: Object | Global, reader: values.Reader) -> Any:
    if isinstance(node, Global):
        return values.TORCH_DTYPES.get(node, Opaque(str(node)))
    if node.func in _TENSORS:
        return reader.tensors[id(node)]
    if node.func == values.SIZE:
        return node.args[0]
    if node.func == values.DEVICE:
        return ":".join(map(str, node.args))
    if node.func == values.NP_ARRAY:
        _, shape, dtype, fortran, data = node.state
        return np.frombuffer(data, dtype.args[0]).reshape(shape, order="F" if fortran else "C").tolist()
    return Opaque(node.args[0]["class_name"] if is_persistent(node) else str(node.func))


def json_like(value: Any, where: str, depth: int = 0) -> Any:
    """A copy of the value in dict, list, text, int, float, bool and None, which every pickle reader knows.

    Raises:
        RedactError: anything else in it, numbers that are not finite, keys that are not text.
    """
    if depth > _MAX_JSON_DEPTH:
        raise RedactError(f"{where[:60]}... was to be recorded - its values are nested more than {_MAX_JSON_DEPTH} deep - flatten them")
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [json_like(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, Mapping) and all(type(key) is str for key in value):
        return {key: json_like(item, f"{where}.{key}", depth + 1) for key, item in value.items()}
    what = repr(value) if isinstance(value, float) else f"a {type(value).__name__}" + " with keys that are not text" * isinstance(value, Mapping)
    raise RedactError(f"{where} was to be recorded - it is {what} - use dict, list, text, finite numbers, bool or None")


def without_paths(tree: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The top level without private paths in any `..._kwargs`, and the names of what is gone."""
    dropped: list[str] = []
    budget = [_MAX_VALUES]

    def keeps(name: Any, value: Any, where: str) -> bool:
        private = name == "path" or (isinstance(value, str) and _PRIVATE_PATH.match(value) is not None)
        if private:
            dropped.append(where)
        return not private

    def clean(node: Any, where: str) -> Any:
        budget[0] -= 1
        if budget[0] < 0:
            raise UntrustedFile(f"{where[:60]}... was to be written - it has more than {_MAX_VALUES} values - {TRUSTED}")
        items = items_of(node)
        if items is not None:
            kept = [(name, value) for name, value in items if keeps(name, value, f"{where}.{name}")]
            return _with_items(node, [(name, clean(value, f"{where}.{name}")) for name, value in kept])
        if isinstance(node, (list, tuple)):
            return type(node)(clean(item, f"{where}[{i}]") for i, item in enumerate(node) if keeps(None, item, f"{where}[{i}]"))
        return node

    cleaned = {key: clean(value, key) if key.endswith("_kwargs") else value for key, value in tree.items()}
    return cleaned, tuple(dropped)


class Replacer:
    """Copies of modules with other tensors. What is not replaced is shared; what was shared and gets the same tensors stays shared."""

    def __init__(self) -> None:
        self._made: dict[int, list[tuple[dict[str, torch.Tensor], Object]]] = {}

    def module(self, node: Object, wanted: dict[str, torch.Tensor]) -> Object:
        """The module with these tensors by dotted name; itself if there are none."""
        earlier = self._earlier(node, wanted)
        if not wanted or earlier is not None:
            return earlier or node
        state = dict(_module_state(node) or {})
        for part in ("_parameters", "_buffers", "_modules"):
            items = items_of(state.get(part))
            if items is not None:
                state[part] = _with_items(state[part], [(name, self._part(name, child, wanted)) for name, child in items])
        if is_persistent(node):
            result = Object(node.func, (node.args[0] | {"state": state},))
        else:
            result = Object(node.func, node.args, new=node.new, state=state)
        self._made.setdefault(id(node), []).append((wanted, result))
        return result

    def _part(self, name: str, child: Any, wanted: dict[str, torch.Tensor]) -> Any:
        if name in wanted:
            return self._tensor(child, wanted[name])
        inner = {rest.removeprefix(f"{name}."): tensor for rest, tensor in wanted.items() if rest.startswith(f"{name}.")}
        return self.module(child, inner) if inner else child

    def _tensor(self, node: Object, tensor: torch.Tensor) -> Object:
        earlier = self._earlier(node, {"": tensor})
        if earlier is not None:
            return earlier
        if node.func == values.PARAMETER:
            result = Object(node.func, (self._tensor(node.args[0], tensor), *node.args[1:]))
        else:
            stride = torch.empty(tensor.shape, device="meta").stride()
            storage = Object(values.STORAGE, (encode_storage(tensor),))
            result = Object(node.func, (storage, 0, tuple(tensor.shape), stride, *node.args[4:]))
        self._made.setdefault(id(node), []).append(({"": tensor}, result))
        return result

    def _earlier(self, node: Object, wanted: dict[str, torch.Tensor]) -> Object | None:
        for tensors, result in self._made.get(id(node), ()):
            if tensors.keys() == wanted.keys() and all(same_bits(tensors[name], wanted[name]) for name in wanted):
                return result
        return None
