# SPDX-License-Identifier: Apache-2.0
"""Runs code inside a checkout of NVIDIA's, in a process of its own that knows nothing of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# setuptools 82 removed pkg_resources, which NVIDIA's code imports for this function.
PKG_RESOURCES = "import re\ndef parse_version(v):\n    return tuple(int(x) for x in re.findall(r'\\d+', v)[:3])\n"


def checkout(variable: str) -> Path:
    """The checkout that the environment variable names; without it the test is skipped."""
    if variable not in os.environ:
        pytest.skip(f"{variable} does not name a checkout of NVIDIA's code")
    return Path(os.environ[variable]).resolve()


def run_in(root: Path, stub: Path, code: str, *args: str) -> list[str]:
    """Lines that `code` prints when it runs in the checkout; `stub` is a folder for the module that today's setuptools lacks."""
    (stub / "pkg_resources.py").write_text(PKG_RESOURCES)
    env = os.environ | {"PYTHONPATH": os.pathsep.join((str(root), str(stub))), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code, *args], cwd=root, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
