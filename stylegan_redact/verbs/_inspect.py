# SPDX-License-Identifier: Apache-2.0
"""What a network pickle holds. Executes nothing of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylegan_redact import pickle_stream, pickle_torch, pickles, source_hashes
from stylegan_redact.failures import printable
from stylegan_redact.network import read_snapshot
from stylegan_redact.networks import build
from stylegan_redact.pickle_tensorflow import TensorFlowPickle
from stylegan_redact.types import RedactError

_SHAPE = ("img_resolution", "img_channels", "z_dim", "w_dim", "c_dim")


def describe(path: Path) -> dict[str, Any]:
    """Format, hash, networks with their shapes and sizes, imports and provenance of the pickle.

    Raises:
        RedactError: it is no StyleGAN pickle, damaged, or hostile.
    """
    if pickle_torch.is_torch_file(path):
        return _checkpoint(path)
    found = pickles.read_pickle(path)
    with path.open("rb") as file:
        imports = pickle_stream.imported_names(file)
    head: dict[str, Any] = {"file": path.name, "bytes": path.stat().st_size, "sha256": found.sha256}
    if isinstance(found, TensorFlowPickle):
        head["format"] = f"pickle of {found.made_by} for TensorFlow (format {found.networks['G'].format})"
        networks: dict[str, Any] = {
            key: {"variables": len(net.variables), "numbers": sum(values.size for values in net.variables.values()), **net.static_kwargs}
            for key, net in found.networks.items()
        }
        return head | {"networks": networks, "imports": imports}
    head |= {"format": "snapshot of PyTorch (persistence format 6)", "keys": found.keys}
    ada = any(build.of_ada_layout(record.class_name, record.init_kwargs) for record in found.modules.values())
    head["networks"] = {key: _described(record, ada) for key, record in found.modules.items()}
    if found.opaque:
        head["carried_unread"] = found.opaque
    return head | {"training_set_kwargs": found.training_set_kwargs, "redaction": found.redaction, "imports": imports}


def _checkpoint(path: Path) -> dict[str, Any]:
    held = pickle_torch.read_torch_file(path, ())
    snapshot = read_snapshot(path)
    head = {"file": path.name, "bytes": path.stat().st_size, "sha256": snapshot.sha256, "format": snapshot.converted_from, "keys": tuple(held)}
    converted = {key: _described(record) for key, record in snapshot.modules.items()}
    for net in converted.values():
        del net["source_sha256"], net["source"]  # Of ours, into which they were converted.
    return head | {"networks": converted, "remarks": snapshot.remarks}


def source_text(path: Path, sha256: str) -> str:
    """The embedded source with that hash, with signs that would steer a terminal spelt out.

    Raises:
        RedactError: it is no StyleGAN pickle, or has no such source.
    """
    snapshot = pickles.read_snapshot(path)
    texts = {known: text for key in snapshot.modules for known, text in pickles.embedded_sources(snapshot, key).items()}
    if sha256.lower() not in texts:
        raise RedactError(f"the source {sha256[:80]!r} of {path} was asked - it has: {', '.join(texts) or 'none'} - take one of these")
    return "\n".join("".join(c if c.isprintable() or c == "\t" else ascii(c)[1:-1] for c in line) for line in texts[sha256.lower()].split("\n"))


def _architecture(record: pickles.ModuleRecord, ada: bool) -> str:
    """The one of ours that computes the network, tried by building it."""
    known = [name for name, module in build.architectures().items() if module.RECOGNISED_BY.get(record.class_name) in record.tensors]
    if not known:
        return "not known here"
    try:
        build.build_module(record.class_name, record.init_args, record.init_kwargs, record.tensors, ada=ada)
    except RedactError:
        return f"a variant of {known[0]}, not known here"
    return known[0]


def _described(record: pickles.ModuleRecord, ada: bool = False) -> dict[str, Any]:
    sizes = {name: record.init_kwargs[name] for name in _SHAPE if name in record.init_kwargs}
    parameters = [record.tensors[name] for name in record.parameter_names]
    return {
        "class": record.class_name,
        "architecture": _architecture(record, ada),
        **sizes,
        "tensors": len(record.tensors),
        "parameters": sum(tensor.numel() for tensor in parameters),
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in record.tensors.values()),
        "source_sha256": record.source_sha256 or None,
        "source": source_hashes.describe(record.source_sha256) if record.source_sha256 else "not in the file, which only names the class",
    }


def lines(value: Mapping[str, Any], indent: str = "") -> list[str]:
    """What `describe` says, for a person; nothing in it steers the terminal."""
    told: list[str] = []
    for key, each in value.items():
        label = printable(f"{indent}{key}:").ljust(22)
        if isinstance(each, Mapping):
            told += [label.rstrip(), *lines(each, f"{indent}  ")]
        else:
            text = ", ".join(map(str, each)) if isinstance(each, (list, tuple)) else "-" if each is None else str(each)
            told.append(f"{label} {printable(text)}")
    return told
