# SPDX-License-Identifier: Apache-2.0
"""Suppress a feature in a pre-trained StyleGAN. The public API is what `__all__` names; each is imported when first used."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "apply": "stylegan_redact.api",
    "evaluate": "stylegan_redact.api",
    "find_subspace": "stylegan_redact.wspace.subspace",
    "label": "stylegan_redact.api",
    "load_network": "stylegan_redact.network",
    "read_snapshot": "stylegan_redact.network",
    "redact": "stylegan_redact.api",
    "save_network": "stylegan_redact.network",
    "RedactError": "stylegan_redact.types",
}

__all__ = ["RedactError", "apply", "evaluate", "find_subspace", "label", "load_network", "read_snapshot", "redact", "save_network"]  # noqa: F822 - see __getattr__


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
