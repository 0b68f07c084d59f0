# SPDX-License-Identifier: Apache-2.0
"""What words of a command line mean: which attribute, which device, how many images at a time."""

from __future__ import annotations

import difflib

import torch

from stylegan_redact.types import RedactError

_PIXELS_AT_A_TIME = {"cpu": 1 << 20, "cuda": 1 << 23}


def attribute_name(asked: str, known: tuple[str, ...], what: str, whose: str) -> str:
    """`asked` as the classifier spells it: `grey-hair` is grey_hair.

    Raises:
        RedactError: the classifier does not know it; lists what it knows.
    """
    name = asked.strip().lower().replace("-", "_").replace(" ", "_")
    for candidate in (asked, name):
        if candidate in known:
            return candidate
    close = difflib.get_close_matches(name, known)
    advice = f"did you mean {' or '.join(close)}?" if close else "take one of these"
    raise RedactError(f"the {what} {asked!r} was asked - {whose} knows: {', '.join(known)} - {advice}")


def default_batch(device: torch.device, img_resolution: int) -> int:
    """Images at a time that fit comfortably."""
    return max(1, min(64, _PIXELS_AT_A_TIME[device.type] // img_resolution**2))


def device_of(name: str) -> torch.device:
    """What --device means: auto is a GPU where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise RedactError("--device=cuda was asked - torch sees no CUDA device - use --device=cpu, or a torch built for your GPU")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and torch.cuda.is_available()) else "cpu")
