# SPDX-License-Identifier: Apache-2.0
"""The direction of W that a feature lies along -> files for other tools, with pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_redact import asking, feature_requests, given, job, pictures
from stylegan_redact.backends import described
from stylegan_redact.network import generate
from stylegan_redact.run_dir import check_file, check_outdir, whole_file, write_json
from stylegan_redact.types import Feature, Network, RedactError, Subspace
from stylegan_redact.version import VERSION
from stylegan_redact.wspace.geometry import shift_along

ENDINGS = (".npy", ".pt", ".json", ".png")
_ROWS = 4
"""People that the strip shows."""


def find(request: asking.Request, out: Path, *, steps: int = 7, reach: float = 2.0) -> tuple[str, ...]:
    """Writes `out`.npy, .pt, .json and .png; what to know of them comes back.

    Args:
        request: Network, feature and who knows it, as the main command takes them.
        out:     Path without ending.
        steps:   Pictures of each person in the strip.
        reach:   From -reach to reach standard deviations of w along the direction.

    Raises:
        RedactError: as the main command, several features, or one without a direction.
    """
    if not out.name:
        raise RedactError(f"a direction was to go to {out} - that is a folder - give the name of files without ending, such as {out / 'direction'}")
    check_outdir(out.parent)
    _refuse_sources(out, request)
    replaced = [path.name for path in _files(out) if os.path.exists(path)]
    plan = job.prepare(request)
    feature = plan.gather(plan.network, plan.labelled_seeds, batch=plan.batch, half=plan.precision.half, progress=None)
    subspace, latents = feature.subspace, feature.latents
    if subspace is None or latents is None:
        raise RedactError(f"the direction of {request.feature} was asked - it has none of its own - name one attribute, a file of labels, or sefa:N")
    unit = subspace.basis[:1].float().cpu()
    for ending, write in ((".npy", lambda path: _save_npy(path, unit)), (".pt", lambda path: torch.save(unit.clone(), path))):
        with whole_file(out.with_name(out.name + ending)) as temporary:
            write(temporary)
    ws = strip(plan.network, feature, subspace, steps=steps, reach=reach)
    images = torch.cat([img.cpu() for img in generate(plan.network.G_ema, ws, batch=plan.batch)])
    with whole_file(out.with_name(f"{out.name}.png")) as temporary:
        pictures.to_grid(images, steps).save(temporary, format="png")
    write_json(out.with_name(f"{out.name}.json"), _record(plan, feature, subspace, unit))
    accuracy = "nobody said what shows" if subspace.accuracy != subspace.accuracy else f"balanced accuracy {subspace.accuracy:.3f}"
    notes = () if plan.brought is None else plan.brought.notes
    told = f"{feature.name}: past {float(subspace.threshold[0]):.4g} along the direction, of {len(latents.w)} latents ({accuracy})"
    return (
        *notes,
        *(f"Warning: {text}" for text in given.doubts(feature)),
        told,
        f"Wrote {', '.join(str(path) for path in _files(out))}",
        *([f"What was there before was replaced: {', '.join(replaced)}"] if replaced else []),
    )


def _files(out: Path) -> list[Path]:
    """What is written."""
    return [out.with_name(out.name + ending) for ending in ENDINGS]


def _refuse_sources(out: Path, request: asking.Request) -> None:
    """Raises RedactError if a file that is read would be written over."""
    asked = feature_requests.asked(request.feature)
    classifiers = [Path(text) for text in (request.classifier, request.judge) if text is not None]
    read = [Path(text) for text in (request.network, request.labels) if text is not None] + classifiers + [*map(described.beside, classifiers)]
    read += [Path(asked.value)] if asked.source in (feature_requests.DIRECTION, feature_requests.LABELS) else []
    for path in _files(out):
        check_file(path, read)


def strip(network: Network, feature: Feature, subspace: Subspace, *, steps: int, reach: float) -> torch.Tensor:
    """[people * steps, w_dim]: the first labelled latents, each moved the natural way to the same places along the direction, from left to right."""
    latents = feature.latents
    assert latents is not None
    w = latents.w[:_ROWS].double()
    position = latents.w.double() @ subspace.basis[0]
    places = position.mean() + position.std() * torch.linspace(-reach, reach, steps, dtype=torch.float64, device=w.device)
    shift = shift_along(latents, subspace)[0]
    return (w[:, None] + (places - (w @ subspace.basis[0])[:, None])[..., None] * shift).flatten(0, 1).float()


def _record(plan: job.Plan, feature: Feature, subspace: Subspace, unit: torch.Tensor) -> dict[str, Any]:
    assert feature.latents is not None
    return {
        "tool": "stylegan-redact",
        "version": VERSION,
        "feature": feature.name,
        "space": "w",
        "direction": unit[0].tolist(),
        "threshold": float(subspace.threshold[0]),
        "accuracy": subspace.accuracy,
        "num_latents": len(feature.latents.w),
        "network_sha256": plan.file.snapshot.sha256,
        "detector": plan.classifiers["detector"],
    }


def _save_npy(path: Path, unit: torch.Tensor) -> None:
    with path.open("wb") as file:
        np.save(file, unit.numpy())
