# SPDX-License-Identifier: Apache-2.0
"""The command of the README on the bundled network, short, in processes of its own: what it leaves, its memory, the same bytes."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

REDACT = Path(__file__).parents[1] / "redact.py"
SHORT = ["--num-latents=400", "--num-images=300", "--kimg=0.16"]
MOST_MEMORY = 2 << 30
"""Bytes; images pass in batches, so that longer settings take no more."""


def main_job(outdir: Path) -> Path:
    command = [sys.executable, str(REDACT), "--network=portraits64", "--feature=beard", f"--outdir={outdir}", *SHORT]
    done = subprocess.run(command, capture_output=True, text=True, cwd=outdir, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""})
    assert done.returncode == 0, done.stderr
    (folder,) = outdir.glob("00000-*")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return main_job(tmp_path_factory.mktemp("first"))


def test_every_file_is_there_and_the_feature_falls(folder: Path) -> None:
    names = {"network-redacted.pkl", "before.png", "after.png", "diff.png", "redaction.json", "options.json", "log.txt", "stats.jsonl"}
    names |= {"redaction.safetensors"}
    assert {path.name for path in folder.iterdir()} == names
    estimates = json.loads((folder / "redaction.json").read_text())["estimates"]
    assert estimates["residual_rate/rate_after"]["value"] < estimates["residual_rate/rate_before"]["value"]


def test_memory_stays_under_two_gigabytes(folder: Path) -> None:
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < MOST_MEMORY


def test_the_same_command_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    again = main_job(tmp_path)
    for name in ("network-redacted.pkl", "before.png", "after.png", "diff.png"):
        assert (again / name).read_bytes() == (folder / name).read_bytes(), name
