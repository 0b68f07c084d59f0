# SPDX-License-Identifier: Apache-2.0
"""Runs code inside a checkout of NVIDIA's, in a process of its own that knows nothing of ours."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
ON_CPU = Path(__file__).parent / "on_cpu"
"""On PYTHONPATH it lets NVIDIA's scripts run without a GPU."""
DROPPED_IN = ("stylegan_redact", "redact.py")
"""What README says to copy into a checkout."""
MADE_BY_PYTHON = ("__pycache__",)
EXACT_FLOAT32 = {"NVIDIA_TF32_OVERRIDE": "0"}
"""Environment: on a GPU float32 is rounded to ten bits by torch's default, and their pictures would be compared to within that alone."""

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


def dropped_into(root: Path, folder: Path) -> Path:
    """A copy of the checkout with our two things put in, as README says."""
    shutil.copytree(root, folder, ignore=shutil.ignore_patterns(".git", *DROPPED_IN, *MADE_BY_PYTHON))
    for name in DROPPED_IN:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns(*MADE_BY_PYTHON))
        else:
            shutil.copy(source, folder)
    return folder


def digests(folder: Path) -> dict[str, str]:
    """sha256 of every file by its name in the folder, without what Python compiles beside it."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not set(MADE_BY_PYTHON) & set(path.parts))
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def start_in(root: Path, *command: str, log: Path, **environ: str) -> subprocess.Popen[str]:
    """`python COMMAND` in the checkout, in a session of its own, as a user would start it; what it says goes to `log`."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | EXACT_FLOAT32 | environ
    with log.open("w") as file:
        return subprocess.Popen(
            [sys.executable, *command], cwd=root, env=env, stdout=file, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )


def said_in(root: Path, *command: str, log: Path, rc: int = 0, **environ: str) -> str:
    """What `python COMMAND` says in the checkout; it has to end with `rc`."""
    process = start_in(root, *command, log=log, **environ)
    try:
        assert process.wait(timeout=600) == rc, log.read_text()[-4000:]
    finally:
        process.kill()
    return log.read_text()


def commit_of(root: Path) -> str:
    """The first digits of the checkout's commit."""
    done = subprocess.run(["git", "rev-parse", "--short=8", "HEAD"], cwd=root, capture_output=True, text=True)
    return done.stdout.strip() or "unknown commit"
