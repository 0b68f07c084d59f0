# SPDX-License-Identifier: Apache-2.0
"""Networks of an architecture that is not known here, made by running the source in their file: no source but those that the user names by hash.

This is the one place where something of a file is run. Each source is compared with the user's list just before it runs, which happens by
`torch_utils.persistence`, in this process and with all its rights. Classes that the file only names, without a source, are imported from the
Python path, which is the user's.
"""

from __future__ import annotations

import collections
import importlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

import dnnlib
from stylegan_redact import pickle_tree, pickle_values, pickles
from stylegan_redact.pickle_stream import Global, Members, Object
from stylegan_redact.types import RedactError
from torch_utils import persistence


def checked(hashes: Sequence[str], snapshot: pickles.Snapshot) -> frozenset[str]:
    """The hashes in lower case.

    Raises:
        RedactError: one that is no sha256, or of no source in the file.
    """
    inside = {sha256: key for key in snapshot.modules for sha256 in pickles.embedded_sources(snapshot, key)}
    for sha256 in hashes:
        if not re.fullmatch(r"[0-9a-f]{64}", sha256.lower()):
            raise RedactError(f"the source {sha256[:80]!r} was to be trusted - that is no sha256 of 64 hexadecimal digits - give the whole of it")
        if sha256.lower() not in inside:
            there = ", ".join(f"{known} ({key})" for known, key in inside.items()) or "none"
            raise RedactError(f"the source {sha256} was to be trusted - the file holds other ones: {there} - give the hash of one that you have read")
    return frozenset(sha256.lower() for sha256 in hashes)


class Maker:
    """Live modules from a snapshot; what the file shares is shared among them."""

    def __init__(self, snapshot: pickles.Snapshot, trust: frozenset[str]) -> None:
        self.snapshot, self.trust = snapshot, trust
        self.ran: dict[str, None] = {}
        """Hashes of the sources that were run, in order."""
        self._made: dict[int, Any] = {}

    def untrusted(self, key: str) -> tuple[str, ...]:
        """Hashes of the sources that the network under that key needs and that nobody trusts."""
        return tuple(sha256 for sha256 in pickles.embedded_sources(self.snapshot, key) if sha256 not in self.trust)

    def make(self, key: str) -> torch.nn.Module:
        """The network under that key as its own source defines it, in eval mode, without gradients, on the CPU.

        Raises:
            RedactError: a source that is not trusted, or that fails to run or to make the object, or a class that cannot be imported.
        """
        try:
            with torch.random.fork_rng(devices=[]):
                net = self._live(self.snapshot._tree[key])
            if isinstance(net, torch.nn.Module):
                return net.eval().requires_grad_(False)
        except RedactError:
            raise
        except Exception as error:  # noqa: BLE001 - the trusted source raises whatever it likes
            raise RedactError(f"the source of {key} was run - it fails: {_line(error)} - put the fork's repository on the Python path") from None
        raise RedactError(f"the source of {key} was run - it makes a {type(net).__name__}, no network - give another file")

    def _live(self, node: Any) -> Any:
        """What the node stands for. `pickles` has checked it: no circles, bounded depth, no calls but those handled here."""
        if node is None or isinstance(node, (bool, int, float, str, bytes)):
            return node
        if id(node) not in self._made:
            self._made[id(node)] = self._container(node) if isinstance(node, (tuple, list, dict, Members)) else self._made_of(node)
        return self._made[id(node)]

    def _container(self, node: Any) -> Any:
        if isinstance(node, dict):
            return {key: self._live(value) for key, value in node.items()}
        if isinstance(node, Members):
            return frozenset(node.values) if node.frozen else set(node.values)
        return type(node)(self._live(item) for item in node)

    def _made_of(self, node: Object | Global) -> Any:
        if isinstance(node, Global):
            return pickle_values.TORCH_DTYPES.get(node) or _imported(node)
        reader = self.snapshot._reader
        if node.func == pickle_values.TENSOR:
            return reader.tensors[id(node)].clone()
        if node.func == pickle_values.PARAMETER:
            return torch.nn.Parameter(self._live(node.args[0]), requires_grad=False)
        if node.func == pickle_values.ORDERED_DICT or node.func in pickle_values.EASY_DICTS:
            kind = collections.OrderedDict if node.func == pickle_values.ORDERED_DICT else dnnlib.EasyDict
            return kind((key, self._live(value)) for key, value in node.items)
        if node.func == pickle_values.NP_ARRAY:
            return reader.arrays[id(node)].copy()
        if node.func == pickle_values.NP_DTYPE:
            return np.dtype(node.args[0])
        if node.func in (pickle_values.SIZE, pickle_values.DEVICE):
            return torch.Size(node.args[0]) if node.func == pickle_values.SIZE else torch.device(*node.args)
        return self._persistent(node) if pickle_tree.is_persistent(node) else self._filled(node)

    def _persistent(self, node: Object) -> Any:
        meta = node.args[0]
        sha256 = pickles.source_sha256(meta["module_src"])
        if sha256 not in self.trust:
            raise RedactError(f"the source {sha256} was to be run - it is not trusted - name it with --trust-source if you have read it")
        self.ran[sha256] = None
        return persistence._reconstruct_persistent_obj({**meta, "state": self._live(meta["state"])})

    def _filled(self, node: Object) -> Any:
        cls: Any = _imported(node.func)
        made = cls.__new__(cls)
        state = self._live(node.state)
        if callable(getattr(made, "__setstate__", None)):
            made.__setstate__(state)
        else:
            vars(made).update(state)
        return made


def _imported(found: Global) -> type:
    """The class of that name from the Python path."""
    try:
        cls = getattr(importlib.import_module(found.module), found.name)
    except (ImportError, AttributeError) as error:
        raise RedactError(
            f"the network needs {found}, which its file only names - the import fails ({_line(error)}) - put the fork's repository on the Python path"
        ) from None
    if not isinstance(cls, type):
        raise RedactError(f"the network needs {found} - that is no class - give another file")
    return cls


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
