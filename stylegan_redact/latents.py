# SPDX-License-Identifier: Apache-2.0
"""Labelled latents in a file, `labels.npz`: which every way of labelling ends in, so that ways can be mixed. NumPy only, no pickle."""

from __future__ import annotations

import os
import uuid
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_redact.pipes import check_no_pipe
from stylegan_redact.types import LabelledLatents, RedactError

_NEEDED = ("seeds", "w", "scores", "source", "network_sha256", "feature")

SEEDS = 2**32
"""NumPy's RandomState, which NVIDIA's tools draw z with, takes so many."""


@dataclass(frozen=True)
class LabelFile:
    """What a `labels.npz` holds."""

    feature: str
    latents: LabelledLatents
    """With seeds; c, if the network is conditional."""
    source: tuple[str, ...]
    """[n] who said so, row by row: "person", "probe", a classifier's name."""
    network_sha256: str
    """Of the file that the latents are of; empty: unknown."""


def save_labels(path: str | os.PathLike[str], labels: LabelFile) -> None:
    """Writes seeds [n] int64, w [n, w_dim] and scores [n] float32, source [n] text, network_sha256, feature, and c [n, c_dim] if there is one.

    Raises:
        RedactError: latents without seeds, or the file cannot be written.
    """
    path, latents = Path(path), labels.latents
    if latents.seeds is None or not len(latents.seeds) == len(latents.w) == len(latents.score) == len(labels.source):
        raise RedactError(f"labels were to be written to {path} - they have no seeds, or not as many as latents - label latents drawn by seed")
    arrays: dict[str, Any] = {
        "seeds": latents.seeds.cpu().numpy().astype(np.int64),
        "w": latents.w.detach().cpu().float().numpy(),
        "scores": latents.score.detach().cpu().float().numpy(),
        "source": np.array(labels.source, dtype=np.str_),
        "network_sha256": np.array(labels.network_sha256, dtype=np.str_),
        "feature": np.array(labels.feature, dtype=np.str_),
    }
    if latents.c is not None:
        arrays["c"] = latents.c.cpu().float().numpy()
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(temporary, path)
    except OSError as error:
        raise RedactError(f"{path} was to be written - {error.strerror or error} - check the folder, its rights and the space left") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_labels(path: str | os.PathLike[str]) -> LabelFile:
    """What `save_labels` wrote.

    Raises:
        RedactError: no such file, another kind of file, or arrays that do not fit each other.
    """
    asked = f"labels were expected in {os.fspath(path)}"
    check_no_pipe(path)
    try:
        with Path(path).open("rb") as file:
            held = np.load(file, allow_pickle=False)
            arrays = {name: held[name] for name in held.files} if isinstance(held, np.lib.npyio.NpzFile) else {}
    except FileNotFoundError:
        raise RedactError(f"{asked} - there is no such file - make one with redact.py label") from None
    except (OSError, ValueError, EOFError, KeyError, AttributeError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise RedactError(f"{asked} - it cannot be read ({numpy_reason(error)}) - make one with redact.py label") from None
    missing = [name for name in _NEEDED if name not in arrays]
    if missing:
        raise RedactError(f"{asked} - it has no {', '.join(missing)} - make one with redact.py label, or as docs/labels.md says")
    seeds, w, scores, source = (arrays[name] for name in _NEEDED[:4])
    n, c = len(seeds) if seeds.ndim == 1 else -1, arrays.get("c")
    fits = w.ndim == 2 and scores.shape == source.shape == (n,) and len(w) == n and (c is None or (c.ndim == 2 and len(c) == n))
    numbers = seeds.dtype.kind in "iu" and all(each.dtype.kind == "f" for each in (w, scores, *([c] if c is not None else [])))
    if not fits or not numbers or not (np.isfinite(w).all() and np.isfinite(scores).all()):
        told = ", ".join(f"{name} {list(arrays[name].shape)} {arrays[name].dtype}" for name in _NEEDED[:4])
        raise RedactError(f"{asked} - it holds {told} - there must be one seed, w, score and source for each latent, w and scores finite floats")
    if n and not 0 <= int(seeds.min()) <= int(seeds.max()) < SEEDS:
        raise RedactError(f"{asked} - its seeds go from {seeds.min()} to {seeds.max()} - there are only seeds from 0 to {SEEDS - 1}")
    latents = LabelledLatents(
        torch.from_numpy(w).float(), torch.from_numpy(scores).float(), torch.from_numpy(seeds.astype(np.int64)),
        c=None if c is None else torch.from_numpy(c).float(),
    )  # fmt: skip
    return LabelFile(str(arrays["feature"]), latents, tuple(map(str, source)), str(arrays["network_sha256"]))


def numpy_reason(error: Exception) -> str:
    """Why NumPy could not read a file. Where it speaks of pickles, and how to run them, the file is of another kind, or would have to be run."""
    text = str(error)
    if "allow_pickle" in text:
        return "it holds Python objects, which are not read" if text.startswith("Object arrays") else "it is no file of NumPy"
    return text[:120]
