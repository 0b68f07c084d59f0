# SPDX-License-Identifier: Apache-2.0
"""New snapshots from live networks of ours, in the form that NVIDIA's tools load."""

from __future__ import annotations

import copy
import os
import pickle
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_redact.types import RedactError
from torch_utils import persistence


def write_network_pickle(
    path: str | os.PathLike[str],
    *,
    G: torch.nn.Module,
    D: torch.nn.Module,
    G_ema: torch.nn.Module,
    training_set_kwargs: Mapping[str, Any] | None = None,
    augment_pipe: torch.nn.Module | None = None,
    redaction: Mapping[str, Any] | None = None,
) -> None:
    """Writes the networks as a snapshot: on the CPU, in eval mode, without gradients; the modules given stay as they are.

    NumPy's numbers among their attributes become Python's, which ties the file to no NumPy version. Where G is G_ema, one is written.

    Args:
        path:                Existing files are replaced at once or not at all.
        G:                   Persistent (`torch_utils.persistence.persistent_class`), so that the file carries its source; D and G_ema likewise.
        training_set_kwargs: Without private paths: the file is meant to be published.
        redaction:           Provenance of an earlier redaction, plain values; without it the file has no such key.

    Raises:
        RedactError: a module is not persistent, holds a NumPy array, training_set_kwargs names a path, or the file cannot be written.
    """
    path = Path(path)
    data = _checked(G=G, D=D, G_ema=G_ema, training_set_kwargs=training_set_kwargs, augment_pipe=augment_pipe, redaction=redaction)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with temporary.open("xb") as file:
            pickle.dump(data, file, protocol=4)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise RedactError(f"{path} was to be written - the system says: {error.strerror or error} - check the folder and the space left") from error
    finally:
        temporary.unlink(missing_ok=True)


def network_pickle(*, G: torch.nn.Module, D: torch.nn.Module, G_ema: torch.nn.Module) -> bytes:
    """What `write_network_pickle` would write."""
    return pickle.dumps(_checked(G=G, D=D, G_ema=G_ema, training_set_kwargs=None, augment_pipe=None, redaction=None), protocol=4)


def _checked(
    *, G: Any, D: Any, G_ema: Any, training_set_kwargs: Mapping[str, Any] | None, augment_pipe: Any, redaction: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The top level as it goes into the file."""
    kwargs = None if training_set_kwargs is None else dict(training_set_kwargs)
    data: dict[str, Any] = {"G": G, "D": D, "G_ema": G_ema, "training_set_kwargs": kwargs, "augment_pipe": augment_pipe}
    if redaction is not None:
        data["redaction"] = dict(redaction)
    for name, module in data.items():
        if isinstance(module, torch.nn.Module) and not persistence.is_persistent(module):
            raise RedactError(f"{name} was to be written - {type(module).__name__} is no persistent class - decorate it with persistent_class")
    for name, value in (training_set_kwargs or {}).items():
        if name == "path" or (isinstance(value, str) and value[:1] in ("/", "~", "\\")):
            raise RedactError(f"training_set_kwargs was to be written - {name} is a private path - leave it out")
    return _published(data)


def _published(data: dict[str, Any]) -> dict[str, Any]:
    """A copy of what goes into the file, as NVIDIA's scripts expect it: they never enter no_grad, and may have no GPU."""
    data = copy.deepcopy(data)
    for name in data.keys() & {"training_set_kwargs", "redaction"}:
        data[name] = _without_numpy(data[name], name)
    for name, module in data.items():
        if isinstance(module, torch.nn.Module):
            module.eval().requires_grad_(False).cpu()
            for part_name, part in module.named_modules(prefix=name):
                for attribute, value in vars(part).items():
                    vars(part)[attribute] = _without_numpy(value, f"{part_name}.{attribute}")
    return data


def _without_numpy(value: Any, where: str) -> Any:
    """The value with Python's numbers in place of NumPy's, in containers too."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        raise RedactError(f"{where} was to be written - it is a NumPy array, which ties the file to a NumPy version - keep it as a list or a buffer")
    if type(value) in (list, tuple):
        return type(value)(_without_numpy(item, where) for item in value)
    # Modules and tensors sit in dicts of torch's own, which stay the same objects.
    if isinstance(value, dict):
        for key, item in list(value.items()):
            if not isinstance(item, (torch.Tensor, torch.nn.Module)):
                value[key] = _without_numpy(item, where)
    return value
