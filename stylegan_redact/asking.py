# SPDX-License-Identifier: Apache-2.0
"""What the command line may say. Needs no torch, so that `--help` does not wait for it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

METHODS = "stylegan_redact.methods"
ATTACKS = "stylegan_redact.attacks"
CONVERTS_TO = (".pkl", ".safetensors", ".pt")
"""Endings of what `redact.py convert` writes."""
SEEDS_PER_RUN = 10_000_000
"""--seed=0 labels seeds from 0 and is measured on seeds from 5,000,000; --seed=1 starts ten million later, and so on."""
MOST_SEEDS = SEEDS_PER_RUN // 2
LARGEST_SEED = 2**32 // SEEDS_PER_RUN - 1
_BUNDLED_DIR = Path(__file__).parent / "portraits"


@dataclass(frozen=True)
class Request:
    """What the command line says."""

    network: str
    feature: str
    """One, or several with commas between them."""
    outdir: str = "redact-runs"
    method: str = "edit"
    method_options: Mapping[str, Any] | None = None
    classifier: str | None = None
    judge: str | None = None
    keep: tuple[str, ...] = ()
    seed: int = 0
    batch_gpu: int | None = None
    num_images: int = 10_000
    num_latents: int = 6_000
    access: tuple[str, ...] = ("z",)
    device: str = "auto"
    classes: str | None = None
    """--class: which class of a conditional network, or all."""
    trust_source: tuple[str, ...] = ()
    decoder: str | None = None
    resume: str | None = None
    """latest, or a run directory."""
    checkpoint_every: float = 60.0
    """Seconds."""
    snap: int | None = None
    """Thousands of images between snapshots."""
    early_stop: float | None = None
    """Thousands of images between looks whether the targets hold."""
    labels: str | None = None
    """File of labelled latents."""
    delta: bool = True
    """Also write the edit apart from the network."""
    profile: bool = False
    """Also write where the time went."""


def bundled() -> dict[str, Path]:
    """Name -> file of every network that comes with the package."""
    return {path.stem: path for path in sorted(_BUNDLED_DIR.glob("*.pkl"))}


def at_home(word: str) -> str:
    """An option with the home folder in place of ~ at the beginning of a path: a shell does that only where a word begins with it."""
    if not word.startswith("--") or "://" in word:
        return word
    return re.sub(r"(?<=[=,:])~(?=/|$)", lambda _: os.path.expanduser("~"), word)
