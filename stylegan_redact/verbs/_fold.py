# SPDX-License-Identifier: Apache-2.0
"""An edit of W along a direction that the user has, folded into a network that cannot be drawn here.

Every style layer is named `affine` and is found by that name, in the file as it is; nothing of it is run. Without a picture nothing is measured,
and without labels nobody knows where the feature ends: the direction and the place to move to are the user's.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_redact import network_files, pickle_tree, pickles, run_dir
from stylegan_redact.latents import numpy_reason
from stylegan_redact.pipes import check_no_pipe
from stylegan_redact.types import RedactError, Subspace
from stylegan_redact.version import VERSION
from stylegan_redact.wspace.affine import AffineEdit, fold_into_affine, move_to_quantile
from stylegan_redact.wspace.geometry import to_unit

GENERATORS = ("G", "G_ema")
FURTHEST = 1000.0
"""Times the square root of w_dim, which is about how long a w is."""
_LINEAR = "torch.nn.modules.linear.Linear"
_POSE = "input.affine"
"""StyleGAN3's, which steers the pose."""


def fold(source: str, dest: Path, direction: Path, target: float | None = None) -> tuple[str, ...]:
    """Writes `dest`; what to know of it comes back.

    Args:
        source:    As `--network` takes it; any snapshot with style layers named `affine`.
        dest:      The new pickle.
        direction: .npy file, in W; its length does not matter.
        target:    In units of w along the unit direction; None: where `mapping.w_avg` is.

    Raises:
        RedactError: files that are missing or do not fit each other, no style layers, or layers that say too little of themselves.
    """
    run_dir.check_pickle(dest, [network_files.locate(source), direction])
    unit = read_direction(direction)
    if target is not None and not abs(target) <= FURTHEST * len(unit) ** 0.5:
        raise RedactError(
            f"--target={target:g} was asked - of {len(unit)} numbers w has a length of {len(unit) ** 0.5:.3g} or so, and nothing is drawn so far "
            "away - leave it out for where the mean w is"
        )
    snapshot = network_files.find_network(source).snapshot
    tensors, counts, places = {}, {}, {}
    for key in GENERATORS:
        layers = style_layers(snapshot, key)
        places[key] = _place(snapshot, key, unit) if target is None else target
        edit = move_to_quantile(Subspace(unit[None], torch.zeros(1), float("nan")), torch.tensor([places[key]]))
        tensors[key] = folded(snapshot, key, layers, edit)
        counts[key] = len(tensors[key]) // 2
    record = {
        "tool": "stylegan-redact",
        "version": VERSION,
        "method": "fold of a given direction, not measured",
        "direction": [float(value) for value in unit],
        "target": places,
        "network_sha256": snapshot.sha256,
    } | ({"earlier": snapshot.redaction} if snapshot.redaction is not None else {})
    dropped = pickles.write_snapshot(snapshot, dest, tensors=tensors, redaction=record)
    told = [f"Folded into {counts[key]} style layers of {key}, to {places[key]:.4g} along the direction" for key in GENERATORS]
    told += [f"Left out, a private path: {name}" for name in dropped]
    told += [f"The file carries objects of classes not known here, which whoever loads it makes: {', '.join(snapshot.opaque)}"] * bool(
        snapshot.opaque
    )
    return (*told, "Nothing was drawn, so nothing was measured: look at its pictures with the code that it belongs to", f"Wrote {dest}")


def read_direction(path: Path) -> torch.Tensor:
    """The direction [w_dim] in the file, float64, of length 1.

    Raises:
        RedactError: no such file, not one .npy array of numbers, or all zero.
    """
    asked = f"a direction of W was expected in {path}"
    check_no_pipe(path)
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RedactError(f"{asked} - it cannot be read ({numpy_reason(error)}) - write it with numpy.save") from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu" or values.size not in values.shape or values.size < 2:
        there = f"an array of shape {list(values.shape)}, {values.dtype}" if isinstance(values, np.ndarray) else "several arrays"
        raise RedactError(f"{asked} - it holds {there} - it must be one of shape [w_dim] or [1, w_dim]")
    direction = torch.from_numpy(values.astype(np.float64)).flatten()
    if not bool(torch.isfinite(direction).all()) or not bool(direction.any()):
        raise RedactError(f"{asked} - it is zero or not finite - give one that points somewhere")
    return to_unit(direction)


def _place(snapshot: pickles.Snapshot, key: str, unit: torch.Tensor) -> float:
    """Where the mean w of the network is, along the direction."""
    names = [name for name in snapshot.modules[key].tensors if name.split(".")[-1] == "w_avg"]
    average = snapshot.modules[key].tensors[names[0]].double() if len(names) == 1 else None
    if average is None or average.shape != unit.shape:
        there = "several or no mean w" if average is None else f"a mean w of shape {list(average.shape)} for a direction of {len(unit)} numbers"
        raise RedactError(f"every w was to be moved to where the mean w is - {key} has {there} - give --target, or a direction of this network")
    return float(average @ unit)


def style_layers(snapshot: pickles.Snapshot, key: str) -> dict[str, tuple[float, float]]:
    """Dotted name of every layer of the network that is named `affine` -> what it multiplies its stored weight and bias with.

    Raises:
        RedactError: there is none, or one does not say how it computes.
    """
    modules = {name: module for name, module in pickle_tree.each_module(snapshot._tree[key]) if name.split(".")[-1] == "affine"}
    found = {name: _gains(module, f"{key}.{name}") for name, module in modules.items() if not name.endswith(_POSE)}
    if not found:
        what = f"a {snapshot.modules[key].class_name} without layers named affine, through which StyleGANs read w"
        raise RedactError(f"a fold into {key} was asked - it is {what} - give a StyleGAN")
    return found


def folded(snapshot: pickles.Snapshot, key: str, layers: dict[str, tuple[float, float]], edit: AffineEdit) -> dict[str, torch.Tensor]:
    """New weights and biases, by dotted name, of those layers.

    Raises:
        RedactError: one is of another width than the edit, or lacks a weight or bias.
    """
    there = snapshot.modules[key].tensors
    new: dict[str, torch.Tensor] = {}
    for name, (weight_gain, bias_gain) in layers.items():
        weight, bias = (there.get(f"{name}.{part}") for part in ("weight", "bias"))
        if weight is None or bias is None:
            raise RedactError(f"a fold into {key}.{name} was asked - it has no weight or no bias - this network cannot be folded")
        new[f"{name}.weight"], new[f"{name}.bias"] = fold_into_affine(weight, bias, edit, weight_gain=weight_gain, bias_gain=bias_gain)
    return new


def _gains(module: Any, name: str) -> tuple[float, float]:
    """What the layer multiplies its stored weight and bias with."""
    if not pickle_tree.is_persistent(module) and str(module.func) == _LINEAR:
        return 1.0, 1.0
    gains = [pickle_tree.attribute(module, gain) for gain in ("weight_gain", "bias_gain")]
    activation = pickle_tree.attribute(module, "activation")
    if not all(isinstance(gain, (int, float)) for gain in gains) or activation not in (None, "linear"):
        told = json.dumps({"weight_gain": gains[0], "bias_gain": gains[1], "activation": activation})
        raise RedactError(f"a fold into {name} was asked - it does not say that it is affine ({told}) - this network cannot be folded unseen")
    return float(gains[0]), float(gains[1])
