# SPDX-License-Identifier: Apache-2.0
"""What words of a command line mean: which device, how many images at a time, whose home."""

from __future__ import annotations

import os
import re

import torch

from stylegan_redact.types import RedactError

_PIXELS_AT_A_TIME = {"cpu": 1 << 20, "cuda": 1 << 23}


def default_batch(device: torch.device, img_resolution: int) -> int:
    """Images at a time that fit comfortably."""
    return max(1, min(64, _PIXELS_AT_A_TIME[device.type] // img_resolution**2))


def at_home(word: str) -> str:
    """An option with the home folder in place of ~ at the beginning of a path: a shell does that only where a word begins with it."""
    if not word.startswith("--") or "://" in word:
        return word
    return re.sub(r"(?<=[=,:])~(?=/|$)", lambda _: os.path.expanduser("~"), word)


def device_of(name: str) -> torch.device:
    """What --device means: auto is a GPU where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise RedactError("--device=cuda was asked - torch sees no CUDA device - use --device=cpu, or a torch built for your GPU")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")
