# SPDX-License-Identifier: Apache-2.0
"""What the command does besides redacting: a file is a verb, `redact.py NAME ...`; its `command()` is what click runs."""

from __future__ import annotations

import importlib
import pkgutil

import click


def names() -> tuple[str, ...]:
    """Every verb, in alphabetical order."""
    return tuple(sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_")))


def load(name: str) -> click.Command:
    """The command of that verb."""
    return importlib.import_module(f"{__name__}.{name}").command()
