# SPDX-License-Identifier: Apache-2.0
"""What words of a command line mean: which device, how many images at a time."""

from __future__ import annotations

import torch

from stylegan_redact.types import RedactError

_PIXELS_AT_A_TIME = {"cpu": 1 << 20, "cuda": 1 << 23}


def default_batch(device: torch.device, img_resolution: int) -> int:
    """Images at a time that fit comfortably."""
    return max(1, min(64, _PIXELS_AT_A_TIME[device.type] // img_resolution**2))


def device_of(name: str) -> torch.device:
    """What --device means: auto is a GPU where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise RedactError("--device=cuda was asked - torch sees no CUDA device - use --device=cpu, or a torch built for your GPU")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")
