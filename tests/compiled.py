# SPDX-License-Identifier: Apache-2.0
"""What tests of the operations that are compiled for CPUs share: whether they can be compiled here, and the module, its calls counted."""

import shutil
import sys
from typing import Any

import pytest

from torch_utils import custom_ops
from torch_utils.ops import cpu_kernels

missing = [program for program in ("ninja", "c++") if shutil.which(program) is None]
needed = pytest.mark.skipif(bool(missing) or not sys.platform.startswith("linux"), reason=f"needs Linux, ninja and a C++ compiler; lacks {missing}")


class Counted:
    """The compiled module; counts its calls."""

    def __init__(self, module: Any) -> None:
        self.module, self.calls = module, list[str]()

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self.module, name)


def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    """The module in its place; tensors of any size go to it."""
    monkeypatch.delenv(cpu_kernels.SWITCH, raising=False)
    monkeypatch.setattr(custom_ops, "verbosity", "none")
    monkeypatch.setattr(cpu_kernels, "LEAST_SAMPLES", 0)
    module = Counted(cpu_kernels._plugin())
    assert module.module is not None
    monkeypatch.setattr(cpu_kernels, "_plugin", lambda: module)
    return module
