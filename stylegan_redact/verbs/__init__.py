# SPDX-License-Identifier: Apache-2.0
"""What the command does besides redacting: a file is a verb, `redact.py NAME ...`; its `command()` is what click runs.

NAME.py has the options and a short callback; the work is in _NAME.py, which the callback imports: `--help` answers without torch.
Other files that begin with _ are parts of such work.
"""

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
