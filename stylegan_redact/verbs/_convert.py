# SPDX-License-Identifier: Apache-2.0
"""Pickles of PyTorch or TensorFlow, safetensors files and rosinality's checkpoints -> any of these but TensorFlow's.

A safetensors file holds the tensors as `G_ema.synthesis.b4.const`, and in its metadata, as JSON, what the networks were built with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from stylegan_redact import asking, network_files, pickle_tree
from stylegan_redact.foreign import released
from stylegan_redact.network import load_network, read_snapshot
from stylegan_redact.networks import build, export, rosinality
from stylegan_redact.pickles import NETWORKS
from stylegan_redact.pipes import check_no_pipe
from stylegan_redact.run_dir import check_file, whole_file
from stylegan_redact.types import RedactError, UntrustedFile

METADATA = "stylegan-redact"
_LONGEST_DESCRIPTION = 1 << 22


@dataclass(frozen=True)
class Networks:
    """What a file holds, wherever it comes from."""

    description: dict[str, Any]
    """`networks`: key -> [class name, positional arguments, keyword arguments]; `ada`; `training_set_kwargs`; `redaction`."""
    tensors: dict[str, dict[str, torch.Tensor]]
    """By key and name."""
    told: tuple[str, ...]
    """What the user should know."""
    nets: dict[str, Any] | None = None
    """Live, where they had to be built already."""


def convert(source: str, dest: Path, trust_source: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Writes `dest`, in the format that its ending names, with the networks of `source`; what to know of it comes back.

    Raises:
        RedactError: another ending, no networks in the source, networks that the format cannot hold, or the file cannot be written.
    """
    if dest.suffix not in asking.CONVERTS_TO:
        raise RedactError(f"{dest} was to be written - its ending must be {' or '.join(asking.CONVERTS_TO)} - choose one of these")
    path = network_files.locate(source)
    check_file(dest, [path])
    if trust_source:
        return _convert_trusted(path, dest, trust_source)
    found = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    description, dropped = pickle_tree.without_paths(found.description)
    # Built in either case: what does not fit together must not be written.
    nets = found.nets or {key: _built(description, key, found.tensors[key]) for key in NETWORKS}
    told = [*found.told, *(f"Left out, a private path: {name}" for name in dropped)]
    if dest.suffix == ".pkl":
        rest = {key: description[key] for key in ("training_set_kwargs", "redaction")}
        export.write_network_pickle(dest, G=nets["G"], D=nets["D"], G_ema=nets["G_ema"], **rest)
    elif dest.suffix == ".pt":
        told += _write_checkpoint(dest, nets, description)
    else:
        tensors = {f"{key}.{name}": tensor.clone().contiguous() for key in NETWORKS for name, tensor in found.tensors[key].items()}
        with whole_file(dest) as temporary:
            safetensors.torch.save_file(tensors, temporary, metadata={METADATA: json.dumps(pickle_tree.json_like(description, "the networks"))})
    return (*told, f"Wrote {dest}")


def _write_checkpoint(dest: Path, nets: Mapping[str, Any], description: Mapping[str, Any]) -> tuple[str, ...]:
    checkpoint, told = rosinality.to_checkpoint(nets["G"], nets["D"], nets["G_ema"])
    if description["redaction"] is not None:
        # A dictionary of plain values under a name of its own, which that code does not look at.
        checkpoint["redaction"] = pickle_tree.json_like(description["redaction"], "redaction")
    with whole_file(dest) as temporary, temporary.open("wb") as file:
        torch.save(checkpoint, file)  # Given a name, it would put that into the file.
    return told


def _convert_trusted(path: Path, dest: Path, trust_source: tuple[str, ...]) -> tuple[str, ...]:
    """A pickle of a network that is not known here, written anew with its own source: on the CPU, without gradients, without NumPy's numbers."""
    if dest.suffix != ".pkl":
        raise RedactError(f"{dest} was to be written - {dest.suffix} holds no source, and nobody here could build its networks again - write a .pkl")
    snapshot = read_snapshot(path)
    network = load_network(snapshot, trust_source=trust_source)
    if network.D is None:
        raise RedactError(f"{path} was to be converted - its D is not known here - add its source to --trust-source")
    rest, dropped = pickle_tree.without_paths({"training_set_kwargs": snapshot.training_set_kwargs})
    nets = {key: released(getattr(network, key)) for key in NETWORKS}
    export.write_network_pickle(dest, G=nets["G"], D=nets["D"], G_ema=nets["G_ema"], redaction=snapshot.redaction, **rest)
    told = ["Left out, only training needs it: augment_pipe"] if "augment_pipe" in snapshot.modules else []
    return (*told, *(f"Left out, a private path: {name}" for name in dropped), f"Wrote {dest}")


def _read_pickle(path: Path) -> Networks:
    snapshot = read_snapshot(path)
    if "D" not in snapshot.modules:
        raise RedactError(f"{path} was to be converted - its D is no network - give a full snapshot")
    network = load_network(snapshot)
    if network.D is None:
        raise RedactError(f"{path} was to be converted - its D, a {snapshot.modules['D'].class_name}, is not known here - redact it as it is")
    records = {key: snapshot.modules[key] for key in NETWORKS}
    description = {
        "networks": {key: [record.class_name, list(record.init_args), record.init_kwargs] for key, record in records.items()},
        "ada": any(build.of_ada_layout(record.class_name, record.init_kwargs) for record in records.values()),
        "training_set_kwargs": snapshot.training_set_kwargs,
        "redaction": snapshot.redaction,
    }
    told = [f"The source is of {snapshot.converted_from}"] if snapshot.converted_from else []
    told += snapshot.remarks
    told += ["Left out, only training needs it: augment_pipe"] if "augment_pipe" in snapshot.modules else []
    tensors = {key: record.tensors for key, record in records.items()}
    return Networks(description, tensors, tuple(told), {key: getattr(network, key) for key in NETWORKS})


def _read_safetensors(path: Path) -> Networks:
    asked = f"{path} was to be read"
    tensors: dict[str, dict[str, torch.Tensor]] = {key: {} for key in NETWORKS}
    check_no_pipe(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA, "null")
            if len(text) > _LONGEST_DESCRIPTION:
                raise UntrustedFile(f"{asked} - its description has {len(text)} characters, no networks need as many - get it again, where you trust")
            description = pickle_tree.json_like(json.loads(text), "the description in it")
            for full in file.keys():
                key, _, name = full.partition(".")
                tensors.setdefault(key, {})[name] = file.get_tensor(full)
    except RedactError:
        raise
    except (OSError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise RedactError(f"{asked} - it is missing or no whole safetensors file ({str(error)[:120]}) - check the name, or get it again") from None
    if not _is_description(description) or set(tensors) != set(NETWORKS):
        raise RedactError(f"{asked} - it does not say which networks its tensors are of - give one that `redact.py convert` wrote")
    return Networks(description, tensors, ())


def _is_description(value: Any) -> bool:
    if (
        not isinstance(value, dict)
        or set(value) != {"networks", "ada", "training_set_kwargs", "redaction"}
        or not isinstance(value["networks"], dict)
    ):
        return False
    kinds = [[type(part) for part in net] if isinstance(net, list) else None for net in value["networks"].values()]
    rest = all(isinstance(value[key], (dict, type(None))) for key in ("training_set_kwargs", "redaction"))
    return rest and isinstance(value["ada"], bool) and set(value["networks"]) == set(NETWORKS) and kinds == [[str, list, dict]] * len(NETWORKS)


def _built(description: Mapping[str, Any], key: str, tensors: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    class_name, args, kwargs = description["networks"][key]
    return build.build_module(class_name, tuple(args), kwargs, tensors, ada=description["ada"])
