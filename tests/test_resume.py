# SPDX-License-Identifier: Apache-2.0
"""Runs that are killed, stopped, short of space or of rights, and gone on with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_run

TESTS = Path(__file__).parent
SHORT = ["--num-latents=300", "--num-images=100", "--batch=8", "--kimg=0.32", "--batch-gpu=4", "--checkpoint-every=0", "--method=edit"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return tiny_run.write_all(tmp_path_factory.mktemp("made"))


def killed(folder: Path, moments: int, options: list[str]) -> dict[str, object]:
    command = [sys.executable, "-W", "ignore", str(TESTS / "kill_child.py"), str(folder), str(moments), "1", *options]
    paths = {"PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=os.environ | paths)
    assert done.returncode == 0, done.stderr + (folder / "output.txt").read_text()[-3000:]
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("moments", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_a_run_killed_at_any_moment_ends_in_the_same_bytes(made: list[str], tmp_path: Path, moments: int) -> None:
    found = killed(tmp_path, moments, [*made, *SHORT])
    assert found["unequal"] == [] and isinstance(found["killed"], int) and found["killed"] >= moments / 2
