# SPDX-License-Identifier: Apache-2.0
"""Directions in files of other tools -> one direction of W: .npy, .npz, .pt, .json; of W, of W+ as far as its layers agree, of style channels.

What is known of such files: InterFaceGAN's boundaries are .npy [1, w_dim]; e4e and PTI keep them as tensors in .pt; components of GANSpace are
`lat_comp` (.npz) or `comp` (.pt) [k, 1, w_dim]; the eigenvectors of SeFa in rosinality's repository are the columns of `eigvec`. StyleCLIP and
StyleSpace name channels of style layers: [[layer, channel], ...] with layers counted as G.synthesis has them, or named.
"""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_redact.latents import numpy_reason
from stylegan_redact.network import style_layers
from stylegan_redact.pipes import check_no_pipe
from stylegan_redact.types import RedactError
from stylegan_redact.wspace.geometry import to_unit

ENDINGS = (".npy", ".npz", ".pt", ".pth", ".json")
SPACES = ("w", "w_plus", "s")
_ROWS = ("direction", "boundary", "w", "lat_comp", "comp", "components")
_COLUMNS = ("eigvec",)
_HASHES = ("network_sha256", "sha256")
LEAST_IN_COMMON = 0.9
"""Of the squared length of a direction of W+ that one direction of W must explain."""


@dataclass(frozen=True)
class FoundDirection:
    """A direction of W, and what to know of it."""

    unit: torch.Tensor
    """[w_dim] float64, of length 1."""
    space: str
    """Of SPACES: what the file was about."""
    notes: tuple[str, ...]
    """To be told: warnings, and what was made of the file."""


def read_direction(path: Path, G: Any, network_sha256: str = "", *, space: str | None = None, index: int | None = None) -> FoundDirection:
    """The direction of W that a file holds.

    Args:
        path:           One of ENDINGS; read without executing anything in it.
        G:              The generator that it is to move w of.
        network_sha256: Of its file; a file that names another one is taken with a warning. Empty: not compared.
        space:          Of SPACES; None: by the shape.
        index:          Which one, where the file holds several, from 0.

    Raises:
        RedactError: no such file, another kind of file, of another width, of z, or with layers that do not agree on one direction.
    """
    asked = f"a direction of W was expected in {path}"
    if space is not None and space not in SPACES:
        hint = ": a direction of z is none of w, the mapping network bends it" if space == "z" else ""
        raise RedactError(f"{asked} - the space {space!r} was asked, there is {', '.join(SPACES)}{hint} - give a direction of w")
    values = _read(path, asked)
    notes: list[str] = []
    if isinstance(values, Mapping):
        _refuse_space(values, asked)
        theirs = next((str(values[key]) for key in _HASHES if isinstance(values.get(key), str | np.ndarray)), "")
        if theirs and network_sha256 and theirs != network_sha256:
            notes.append(f"warning: {path.name} is a direction of the network {theirs[:12]}..., this one is {network_sha256[:12]}...")
        if values.get("channels") is not None:
            values = values["channels"]
            space = "s"
    if space == "s" or (not isinstance(values, Mapping) and _is_channels(values, G)):
        return FoundDirection(_of_channels(values, G, asked), "s", (*notes, "a direction of style channels: the direction of w that they read"))
    array = _array(values, asked)
    unit, space, more = _of_array(array, G, space, index, asked)
    return FoundDirection(unit, space, (*notes, *more))


def _read(path: Path, asked: str) -> Any:
    if path.suffix not in ENDINGS:
        raise RedactError(f"{asked} - its name ends in {path.suffix or 'nothing'} - read are {', '.join(ENDINGS)}")
    check_no_pipe(path)
    try:
        if path.suffix == ".json":
            return json.loads(path.read_text(encoding="utf-8"))
        if path.suffix in (".pt", ".pth"):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Detected pickle protocol", category=UserWarning)  # What it cannot read it refuses.
                return torch.load(path, map_location="cpu", weights_only=True)
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return {name: loaded[name] for name in loaded.files} if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except FileNotFoundError:
        raise RedactError(f"{asked} - there is no such file - check the name") from None
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error) as error:
        reason = numpy_reason(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise RedactError(f"{asked} - it cannot be read without running code in it ({reason}) - write it with numpy.save") from None


def _refuse_space(values: Mapping[str, Any], asked: str) -> None:
    told = str(values.get("space", "w")).lower().replace("+", "_plus")
    if told not in (*SPACES, "w+"):
        raise RedactError(f"{asked} - it says that it is of the space {told} - give a direction of w, w_plus or style channels (s)")


def _is_channels(values: Any, G: Any) -> bool:
    """[[layer, channel], ...] with a layer's name, or whole numbers in pairs or with a weight, that are no direction by their shape."""
    if not isinstance(values, list) or not values or not all(isinstance(row, list) and len(row) in (2, 3) for row in values):
        return False
    return all(isinstance(row[0], str | int) and isinstance(row[1], int) for row in values) and G.w_dim not in (2, 3)


def _of_channels(values: Any, G: Any, asked: str) -> torch.Tensor:
    """The gradient of sum(weight * style) with respect to w: a style is A w + b, so that this is sum(weight * row of A)."""
    layers = style_layers(G)
    if not _is_channels(values, G):
        raise RedactError(f"{asked} - its channels are no list of [layer, channel] or [layer, channel, weight] - write them so")
    total = torch.zeros(G.w_dim, dtype=torch.float64)
    for layer, channel, *weight in values:
        name = list(layers)[layer] if isinstance(layer, int) and 0 <= layer < len(layers) else layer
        if name not in layers:
            there = f"{len(layers)} style layers, from 0: {', '.join(list(layers)[:3])}, ..." if layers else "no style layers that are known here"
            raise RedactError(f"{asked} - layer {layer!r} was named, the network has {there} - name one of these")
        affine: Any = layers[name][1]
        rows = affine.weight.detach().double().cpu() * float(getattr(affine, "weight_gain", 1.0))
        if not 0 <= channel < len(rows):
            raise RedactError(f"{asked} - channel {channel} of {name} was named, it has {len(rows)} - name one of these")
        total += float(weight[0] if weight else 1.0) * rows[channel]
    return _unit(total, asked)


def _array(values: Any, asked: str) -> np.ndarray:
    """The numbers, of mappings under a key that is known, or the only ones that there are; components always in rows."""
    if isinstance(values, Mapping):
        known = [key for key in (*_ROWS, *_COLUMNS) if key in values]
        key = known[0] if known else next(iter(values)) if len(values) == 1 else None
        if key is None:
            raise RedactError(
                f"{asked} - it holds several arrays ({', '.join(map(str, list(values)[:8]))}) - keep the direction alone, as `direction`"
            )
        found = _array(values[key], asked)
        return found.T if key in _COLUMNS else found
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    try:
        array = np.asarray(values)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "fiu" or array.size < 2:
        raise RedactError(
            f"{asked} - it holds an array of shape {list(array.shape)}, {array.dtype} - it must be numbers of shape [w_dim] or [1, w_dim]"
        )
    return array.astype(np.float64)


def _of_array(array: np.ndarray, G: Any, space: str | None, index: int | None, asked: str) -> tuple[torch.Tensor, str, tuple[str, ...]]:
    rows = array.reshape(-1, array.shape[-1])
    if rows.shape[1] != G.w_dim:
        raise RedactError(
            f"{asked} - its last dimension is {rows.shape[1]}, this network's w has {G.w_dim} - it belongs to another network: find one here"
        )
    if index is not None:
        if not 0 <= index < len(rows):
            raise RedactError(f"{asked} - number {index} was asked of {len(rows)} - give index=0 to index={len(rows) - 1}")
        return _unit(torch.from_numpy(rows[index]), asked), "w", ()
    if len(rows) == 1:
        return _unit(torch.from_numpy(rows[0]), asked), "w", ()
    if len(rows) == G.num_ws and space in (None, "w_plus"):
        unit, note = _common(torch.from_numpy(rows), asked)
        return unit, "w_plus", (note,)
    raise RedactError(
        f"{asked} - it holds {len(rows)} of them, shape {list(array.shape)}; one for each layer would be {G.num_ws} - choose one with index=N, from 0"
    )


def _common(rows: torch.Tensor, asked: str) -> tuple[torch.Tensor, str]:
    """The direction that the layers share, [w_dim], and what to tell of it: methods here move w as a whole."""
    _unit(rows.flatten(), asked)
    _, sizes, directions = torch.linalg.svd(rows, full_matrices=False)
    share = float(sizes[0] ** 2 / (sizes**2).sum())
    if share < LEAST_IN_COMMON:
        raise RedactError(
            f"{asked} - it is of W+, and one direction of w makes up {100 * share:.0f} % of it, less than {100 * LEAST_IN_COMMON:.0f} % - methods "
            "here move all layers alike: give a direction of w, or one layer's with index=N"
        )
    unit = directions[0] * (1.0 if float((rows @ directions[0]).sum()) >= 0 else -1.0)
    moved = int((rows.norm(dim=1) > 1e-6 * rows.norm()).sum())
    return (
        unit / unit.norm(),
        f"a direction of W+ that moves {moved} of {len(rows)} layers ({100 * share:.0f} % in common): here it moves w, hence all",
    )


def _unit(direction: torch.Tensor, asked: str) -> torch.Tensor:
    if not bool(torch.isfinite(direction).all()) or not bool(direction.any()):
        raise RedactError(f"{asked} - it is zero or not finite - give one that points somewhere")
    return to_unit(direction)
