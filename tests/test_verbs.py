# SPDX-License-Identifier: Apache-2.0
"""`redact.py inspect`, `redact.py doctor`, and that without a verb the command is what it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import hostile
import pytest
import tiny_run
from click.testing import CliRunner, Result
from tensorflow_variants import VARIANTS

import redact
from stylegan_redact import cli, verbs
from stylegan_redact.verbs import doctor


def run(*args: str) -> Result:
    chosen, verb = cli.choose(args)
    return CliRunner().invoke(chosen, list(args[1:] if verb else args))


def test_without_a_verb_it_redacts() -> None:
    assert verbs.names() == ("doctor", "inspect")
    assert [cli.choose(args)[1] for args in ([], ["--help"], ["--network=inspect"], ["inspect"], ["doctor", "-x"])] == [
        "",
        "",
        "",
        "inspect",
        "doctor",
    ]
    for args in ([], ["--help"], ["--network=inspect", "inspect"]):
        chosen, _ = cli.choose(args)
        assert chosen.name == "redact" and isinstance(chosen, click.Command) and not isinstance(chosen, click.Group)
    assert "unexpected extra argument" in run("--network=a", "--feature=b", "inspect").output.lower()


def test_the_script_knows_the_verbs(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, redact.__file__, "inspect", "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.startswith("Usage: redact.py inspect [OPTIONS] NAME|PATH|URL")


def test_inspect_a_snapshot(tmp_path: Path) -> None:
    tiny_run.write_network(tmp_path / "tiny.pkl")
    found = json.loads(run("inspect", str(tmp_path / "tiny.pkl"), "--json").output)
    assert found["bytes"] == (tmp_path / "tiny.pkl").stat().st_size and len(found["sha256"]) == 64
    assert found["keys"] == ["G", "D", "G_ema", "training_set_kwargs", "augment_pipe"] and found["redaction"] is None
    G = found["networks"]["G"]
    assert (G["class"], G["architecture"], G["img_resolution"], G["z_dim"]) == ("Generator", "stylegan2", 16, 8)
    assert G["parameters"] == sum(p.numel() for p in tiny_run.generator().parameters())
    assert len(G["source_sha256"]) == 64 and "torch_utils.persistence._reconstruct_persistent_obj" in found["imports"]
    text = run("inspect", str(tmp_path / "tiny.pkl")).output
    assert [line.split() for line in text.splitlines() if "architecture" in line] == [["architecture:", "stylegan2"]] * 3
    assert f"{G['parameters']}" in text


def test_inspect_a_pickle_of_tensorflow(tmp_path: Path) -> None:
    path = VARIANTS["skip"].write(tmp_path / "tf.pkl", VARIANTS["skip"].networks())
    found = json.loads(run("inspect", str(path), "--json").output)
    assert found["format"] == "pickle of StyleGAN2 for TensorFlow (format 4)" and found["networks"]["G_ema"]["resolution"] == 32
    assert "dnnlib.tflib.network.Network" in found["imports"]


def test_inspect_says_what_an_unknown_network_is_and_keeps_the_terminal_safe(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(hostile.dumps(hostile.snapshot(redaction={"feature": "\x1b[31mred"})))
    result = run("inspect", str(tmp_path / "x.pkl"))
    assert result.exit_code == 0 and "not known here" in result.output and "\x1b" not in result.output and "faces.zip" in result.output


def test_inspect_runs_nothing(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "bad.pkl").write_bytes(hostile.hostile_streams(marker)["os.system"])
    result = run("inspect", str(tmp_path / "bad.pkl"))
    assert result.exit_code == 2 and "it imports os.system" in result.output and not marker.exists()


def test_doctor_names_what_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    result = run("doctor")
    assert result.exit_code == 0, result.output
    for word in ("torch:", "CUDA of torch:", "driver:", "none: no-such-compiler is not on the PATH", "nothing needs to be compiled", "(empty)"):
        assert word in result.output
    assert "stale lock" not in result.output


def test_doctor_finds_and_clears_stale_locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    (tmp_path / "plugin" / "new").mkdir(parents=True)
    stale, fresh = tmp_path / "plugin" / "lock", tmp_path / "plugin" / "new" / "lock"
    (tmp_path / "plugin" / "built_plugin.so").touch()
    for lock in (stale, fresh):
        lock.touch()
    old = time.time() - doctor.STALE_SECONDS - 60
    os.utime(stale, (old, old))
    told = run("doctor").output
    assert str(stale) in told and str(fresh) not in told and "--clear-locks" in told and "built_plugin" in told and stale.exists()
    assert "deleted" in run("doctor", "--clear-locks").output
    assert not stale.exists() and fresh.exists()
