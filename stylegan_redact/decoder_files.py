# SPDX-License-Identifier: Apache-2.0
"""Files of a decoder's weights, .pt or .safetensors: read without running anything in them, and written with the same keys."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from stylegan_redact import decoders
from stylegan_redact.run_dir import whole_file
from stylegan_redact.types import Network, RedactError

TORCH_ENDINGS = (".pt", ".pth", ".bin")
SAFE_ENDING = ".safetensors"
_RECORD = "redaction"


@dataclass(frozen=True)
class Weights:
    """A file of weights; says of itself what `pickles.Snapshot` does, as far as a run asks."""

    tensors: Mapping[str, torch.Tensor]
    """As the file has them, in its order."""
    sha256: str
    ending: str
    metadata: Mapping[str, str] | None = None
    """Of a .safetensors file."""
    prefix: str = ""
    """What the names of the decoder's tensors begin with."""
    remarks: tuple[str, ...] = ()
    opaque: tuple[str, ...] = ()
    converted_from: str | None = None

    @property
    def redaction(self) -> Any:
        """The record of an earlier redaction; None if there is none, or in a .pt, which has no place for it."""
        try:
            return json.loads((self.metadata or {}).get(_RECORD, "null"))
        except ValueError:
            return None


@dataclass(frozen=True)
class DecoderFile:
    """Weights of a decoder and where they come from; `network_files.NetworkFile` is its like for StyleGANs."""

    name: str
    """Short, for the name of the run directory."""
    snapshot: Weights
    bundled: None = None
    """No classifiers come with it."""


def load(path: Path, sha256: str, factory: str, device: torch.device) -> tuple[Weights, Network]:
    """The file and its decoder as a network.

    Args:
        path:    .pt or .safetensors.
        sha256:  Of the file.
        factory: FILE.py:NAME, which is run.
        device:  Where it goes.

    Raises:
        RedactError: no such file, a file of another kind, or a factory that is not of these weights.
    """
    weights = read(path, sha256)
    decoder = decoders.from_factory(factory)
    prefix = decoders.place_of(decoder, weights.tensors)
    own = {name: weights.tensors[prefix + name] for name in decoder.state_dict()}
    network, told = decoders.as_network(decoder, own, device)
    rest = len(weights.tensors) - len(own)
    more = (f"{rest} tensors of the file are not the decoder's and stay as they are",) if rest else ()
    return replace(weights, prefix=prefix, remarks=(told, *more)), network


def read(path: Path, sha256: str = "") -> Weights:
    """The tensors in the file."""
    asked = f"weights were to be read from {path}"
    if path.suffix not in (*TORCH_ENDINGS, SAFE_ENDING):
        raise RedactError(
            f"{asked} - with --decoder its ending must be {', '.join([*TORCH_ENDINGS, SAFE_ENDING])} - leave --decoder out for a StyleGAN"
        )
    if not os.path.isfile(path):
        raise RedactError(f"{asked} - there is no such file - check the name")
    metadata = None
    try:
        if path.suffix == SAFE_ENDING:
            with safetensors.safe_open(path, framework="pt") as file:
                tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises a dozen kinds for damaged files
        detail = f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise RedactError(
            f"{asked} - it is damaged, or holds more than tensors ({detail}) - write it with torch.save(module.state_dict(), path)"
        ) from None
    plain = isinstance(tensors, dict) and all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in tensors.items())
    if not plain or not tensors:
        raise RedactError(f"{asked} - it is no dictionary of tensors by name - write it with torch.save(module.state_dict(), path)")
    return Weights(tensors, sha256, path.suffix, metadata)


def save(network: Network, path: Path, original: Weights, record: Mapping[str, Any]) -> None:
    """Writes the file `original` with the decoder's tensors replaced: the same keys, shapes and types.

    A .safetensors file also gets the record, in its metadata; a .pt has no place for it beside its keys.

    Raises:
        RedactError: nothing changed, a number that the file's type cannot hold, or the file cannot be written.
    """
    tensors = copy.copy(original.tensors)
    assert isinstance(tensors, dict)
    for name, tensor in decoders.tensors_of(network).items():
        stored = tensor.to(tensors[original.prefix + name].dtype)
        if not bool(torch.isfinite(stored).all()):
            raise RedactError(f"{name} was to be written as {stored.dtype} - it has numbers that are not finite - use a smaller step or strength")
        tensors[original.prefix + name] = stored
    if all(torch.equal(tensor, original.tensors[name]) for name, tensor in tensors.items()):
        raise RedactError("redacted weights were to be written - nothing in them changed - raise --kimg or --strength")
    with whole_file(path) as temporary:
        if original.ending == SAFE_ENDING:
            metadata = {**(original.metadata or {}), _RECORD: json.dumps(record)}
            safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, temporary, metadata=metadata)
        else:
            with temporary.open("wb") as file:
                torch.save(tensors, file)  # Given a name, it would put that into the file.
