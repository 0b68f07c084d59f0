# SPDX-License-Identifier: Apache-2.0
"""Modules of an NVIDIA checkout in the same process as ours of the same name, so that both are timed in turn under the same conditions."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stylegan_redact.host import install_shims

_TOPS = ("torch_utils", "dnnlib", "training")


def _taken_out() -> dict[str, Any]:
    return {key: sys.modules.pop(key) for key in list(sys.modules) if key.split(".")[0] in _TOPS}


class Host:
    """A checkout.

    Args:
        checkout: Folder with their `torch_utils`, `dnnlib` and `training`.
    """

    def __init__(self, checkout: Path) -> None:
        self._checkout = str(checkout.resolve())
        self._theirs: dict[str, Any] = {}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Their modules stand where ours do, as what makes their networks expects."""
        ours = _taken_out()
        install_shims()
        sys.modules.update(self._theirs)
        sys.path.insert(0, self._checkout)
        try:
            yield
        finally:
            sys.path.remove(self._checkout)
            self._theirs = _taken_out()
            sys.modules.update(ours)

    def module(self, name: str) -> Any:
        """Their module of that dotted name, for example torch_utils.ops.bias_act."""
        with self.in_place():
            return importlib.import_module(name)
