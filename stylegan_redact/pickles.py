# SPDX-License-Identifier: Apache-2.0
"""StyleGAN snapshot <-> tensors, without running anything in the file, and back with all else as it was."""

from __future__ import annotations

import hashlib
import io
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch

from stylegan_redact import pickle_file, pickle_tensorflow, pickle_tree
from stylegan_redact.pickle_compare import Comparison, same_bits
from stylegan_redact.pickle_encode import encode
from stylegan_redact.pickle_stream import TRUSTED, Refused, Untrusted
from stylegan_redact.pickle_tensorflow import TensorFlowPickle
from stylegan_redact.pickle_values import Reader
from stylegan_redact.types import RedactError

NETWORKS = ("G", "D", "G_ema")
_SNAPSHOT = "a StyleGAN snapshot"
_MAX_NETWORKS = 16
"""Each is walked through, and many keys may name the same."""


@dataclass(frozen=True)
class ModuleRecord:
    """A network as the snapshot describes it; nothing of its source was run."""

    class_name: str
    """Of the class in `module_src`; with the name of its module where the file has no source of it."""
    module_src: str
    """Source text stored with the network, verbatim; empty where the file only names the class."""
    source_sha256: str
    """Of `module_src` in UTF-8; empty likewise."""
    init_args: tuple[Any, ...]
    """What the constructor was called with; dict, list, tuple, numbers, text, tensors, and Opaque for all else."""
    init_kwargs: dict[str, Any]
    """Likewise, by name."""
    tensors: dict[str, torch.Tensor]
    """By dotted name: parameters and buffers, persistent or not, on the CPU."""
    parameter_names: tuple[str, ...]
    """Which of `tensors` are parameters."""


@dataclass(frozen=True)
class Snapshot:
    """What a StyleGAN pickle holds."""

    sha256: str
    """Of the file."""
    keys: tuple[str, ...]
    """Top-level keys, in order."""
    modules: dict[str, ModuleRecord]
    """By top-level key: G, D, G_ema, augment_pipe ... where these are networks, with embedded source or of a fork's class."""
    training_set_kwargs: dict[str, Any] | None
    """Description of the training set; may name a private path."""
    redaction: dict[str, Any] | None
    """Provenance that an earlier redaction wrote."""
    _tree: dict[str, Any] = field(repr=False, compare=False)
    _reader: Reader = field(repr=False, compare=False)
    opaque: tuple[str, ...] = ()
    """Classes not known here of which the file holds objects: never made here, but whoever loads the file makes them."""
    converted_from: str | None = None
    """What `sha256` is the hash of, where that is not a snapshot of PyTorch and the rest was converted from it."""
    remarks: tuple[str, ...] = ()
    """What the user should know of that conversion."""


def read_snapshot(source: str | os.PathLike[str] | BinaryIO) -> Snapshot:
    """The snapshot of PyTorch in the file; nothing in it is run, whatever it holds. `network.read_snapshot` takes TensorFlow's as well.

    Raises:
        RedactError: as `read_pickle`, or the file is of TensorFlow.
    """
    found = read_pickle(source)
    if isinstance(found, TensorFlowPickle):
        raise RedactError(f"a snapshot of PyTorch was to be read - it is one of {found.made_by} for TensorFlow - convert it with legacy.py")
    return found


def read_pickle(source: str | os.PathLike[str] | BinaryIO) -> Snapshot | TensorFlowPickle:
    """What the StyleGAN pickle holds; nothing in it is run, whatever it holds.

    Args:
        source: File name, or an open binary file, read from where it stands to its end.

    Raises:
        UntrustedFile: it has imports that a snapshot does not need, or wants more memory or time.
        RedactError:   missing, not a StyleGAN pickle, or damaged.
    """
    found: Snapshot | TensorFlowPickle
    if isinstance(source, (str, os.PathLike)):
        found = pickle_file.read_path(Path(source), _SNAPSHOT, _networks)
    elif isinstance(source, io.TextIOBase) or not hasattr(source, "read"):
        what = "a file opened as text" if isinstance(source, io.TextIOBase) else type(source).__name__
        raise RedactError(f"{what} was to be read as {_SNAPSHOT} - a path or a file opened for bytes is - give the path")
    else:
        found = pickle_file.read_open(io.BytesIO(source.read()), str(getattr(source, "name", "the open file")), _SNAPSHOT, _networks)
    return found


def _networks(root: Any, reader: Reader, sha256: str) -> Snapshot | TensorFlowPickle:
    if pickle_tensorflow.holds_networks(root):
        return TensorFlowPickle(sha256, pickle_tensorflow.read_networks(root, reader))
    if reader.has_tensorflow:
        raise Refused(f"it has networks of TensorFlow among other things, where StyleGAN pickles hold G, D and Gs alone - {TRUSTED}")
    return _snapshot(pickle_tree.top_level(root), reader, sha256)


def _snapshot(tree: dict[str, Any], reader: Reader, sha256: str) -> Snapshot:
    missing = [key for key in NETWORKS if key not in tree]
    if missing:
        there = ", ".join(map(str, tree)) or "nothing"
        raise Refused(
            f"it has {ascii(there)[1:-1][:200]} and lacks {', '.join(missing)}, and StyleGAN tools load only files with G, D and G_ema - "
            "ask its author for the full snapshot"
        )
    networks = [key for key, node in tree.items() if pickle_tree.is_network(node)]
    if len(networks) > _MAX_NETWORKS:
        raise Untrusted(f"it has {len(networks)} networks, no snapshot has - {TRUSTED}")
    walks = {key: pickle_tree.walk(tree[key]) for key in networks}
    for key in ("G", "G_ema"):
        if key not in walks:
            raise Refused(f"what it has as {key} is no network of StyleGAN or a fork - give a snapshot of StyleGAN2-ADA, StyleGAN3 or their forks")
    return Snapshot(
        sha256=sha256,
        keys=tuple(tree),
        modules={key: _record(tree[key], leaves, reader) for key, leaves in walks.items()},
        training_set_kwargs=_dict_or_none(tree, "training_set_kwargs", reader),
        redaction=_dict_or_none(tree, "redaction", reader),
        _tree=tree,
        _reader=reader,
        opaque=tuple(reader.opaque),
    )


def _record(node: Any, leaves: dict[str, pickle_tree.Leaf], reader: Reader) -> ModuleRecord:
    named: dict[str, Any] = {"class_name": str(node.func), "module_src": "", "state": None}
    meta = node.args[0] if pickle_tree.is_persistent(node) else named
    state = meta["state"] if isinstance(meta["state"], dict) else {}
    init_args, init_kwargs = pickle_tree.plain([state.get("_init_args"), state.get("_init_kwargs")], reader)
    return ModuleRecord(
        class_name=meta["class_name"],
        module_src=meta["module_src"],
        source_sha256=source_sha256(meta["module_src"]) if meta["module_src"] else "",
        init_args=tuple(init_args or ()),
        init_kwargs=dict(init_kwargs or {}),
        tensors={name: reader.tensors[id(leaf.node)] for name, leaf in leaves.items()},
        parameter_names=tuple(name for name, leaf in leaves.items() if leaf.is_parameter),
    )


def _dict_or_none(tree: dict[str, Any], key: str, reader: Reader) -> dict[str, Any] | None:
    value = pickle_tree.plain(tree.get(key), reader)
    if value is not None and not isinstance(value, dict):
        raise Refused(f"what it has as {key} is no dictionary - {TRUSTED}")
    return value


def embedded_sources(snapshot: Snapshot, key: str) -> dict[str, str]:
    """sha256 -> text of every source in the file that running what is under that key would run, the network's own first."""
    texts = dict.fromkeys(node.args[0]["module_src"] for node in pickle_tree.each_persistent(snapshot._tree[key]))
    return {source_sha256(text): text for text in texts}


def source_sha256(text: str) -> str:
    """The name by which a source is trusted or known: sha256 of the text in UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def write_snapshot(
    snapshot: Snapshot,
    path: str | os.PathLike[str],
    *,
    tensors: Mapping[str, Mapping[str, torch.Tensor]],
    redaction: Mapping[str, Any],
) -> tuple[str, ...]:
    """Names of what was left out of the file, such as `training_set_kwargs.path`; the file is the snapshot with these tensors replaced.

    What is not replaced keeps its bits, its order and its sharing. NumPy numbers become Python's, storages are tagged `cpu`. The file
    takes its name only after it was read back and compared.

    Args:
        snapshot:  As read; stays as it is.
        path:      Existing files are replaced at once or not at all.
        tensors:   By top-level key and dotted name, of the shape and type there; others stay as they are.
        redaction: Provenance for the top-level key `redaction`: dict, list, tuple, text, finite numbers, bool, None.

    Raises:
        RedactError: a name, shape or type that the snapshot does not have, a value that is not plain, or the file cannot be written.
    """
    path = Path(path)
    if not path.name:
        raise RedactError(f"{path} was to be written - that is a folder - give the name of a file in it")
    _check_request(snapshot, tensors)
    changed = {key: _changed(snapshot.modules[key].tensors, wanted) for key, wanted in tensors.items()}
    tree, dropped = pickle_tree.without_paths(snapshot._tree)
    expected = tree | {"redaction": pickle_tree.json_like(redaction, "redaction")}
    replacer = pickle_tree.Replacer()
    replaced = {key: replacer.module(expected[key], wanted) for key, wanted in changed.items()}
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with temporary.open("xb") as file:
            encode(expected | replaced, file.write)
            file.flush()
            os.fsync(file.fileno())
        _check_written(temporary, snapshot, expected, changed)
        os.replace(temporary, path)
    except OSError as error:
        raise RedactError(
            f"{path} was to be written - the system says: {error.strerror or error} - check the folder, its rights and the space left"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return dropped


def _check_request(snapshot: Snapshot, tensors: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
    for key, wanted in tensors.items():
        if key not in snapshot.modules:
            raise RedactError(
                f"tensors of {key} were to be replaced - the snapshot has networks under {', '.join(snapshot.modules)} - use one of these"
            )
        there = snapshot.modules[key].tensors
        for name, tensor in wanted.items():
            if name not in there:
                raise RedactError(
                    f"{key}.{name} was to be replaced - {key} has no tensor of that name - use one that `modules[{key!r}].tensors` lists"
                )
            old = f"{there[name].dtype} {list(there[name].shape)}"
            new = f"{tensor.dtype} {list(tensor.shape)}" if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            if new != old:
                raise RedactError(f"{key}.{name} was to be replaced by {new} - it is {old} - shapes and types must stay as they are")


def _changed(there: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    on_cpu = {name: tensor.detach().cpu().resolve_conj().resolve_neg() for name, tensor in wanted.items()}
    return {name: tensor for name, tensor in on_cpu.items() if not same_bits(tensor, there[name])}


def _check_written(temporary: Path, snapshot: Snapshot, expected: dict[str, Any], changed: dict[str, dict[str, torch.Tensor]]) -> None:
    """Raises RedactError unless the file holds what was asked for, and otherwise what the snapshot held."""
    written = read_snapshot(temporary)
    leaves = [pickle_tree.walk(written._tree[key]) for key in written.modules]
    skipped = frozenset(id(leaf.node) for of_module in leaves for leaf in of_module.values())
    right = Comparison(snapshot._reader.tensors, written._reader.tensors, skipped).same(expected, written._tree)
    for key, record in snapshot.modules.items():
        for name, before in record.tensors.items():
            right = right and same_bits(written.modules[key].tensors[name], changed.get(key, {}).get(name, before))
    if not right:
        raise RedactError(f"{temporary.name} was to be written - it does not read back the same, nothing was replaced - check the disk")
