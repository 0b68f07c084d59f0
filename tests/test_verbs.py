# SPDX-License-Identifier: Apache-2.0
"""`redact.py inspect`, `redact.py doctor`, and that without a verb the command is what it was."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import hostile
import numpy as np
import pytest
import safetensors.torch
import tiny_run
import torch
from click.testing import CliRunner, Result
from tensorflow_variants import VARIANTS

import redact
from stylegan_redact import cli, verbs
from stylegan_redact.network import load_network, read_snapshot
from stylegan_redact.networks.export import write_network_pickle
from stylegan_redact.networks.stylegan2 import Discriminator, Generator
from stylegan_redact.verbs import _convert, _doctor, doctor


def run(*args: str) -> Result:
    chosen, verb = cli.choose(args)
    return CliRunner().invoke(chosen, list(args[1:] if verb else args))


def test_without_a_verb_it_redacts() -> None:
    assert verbs.names() == ("apply", "convert", "direction", "doctor", "evaluate", "fold", "inspect", "label", "video")
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


@pytest.mark.parametrize("verb", verbs.names())
def test_every_verb_takes_dashes_or_underscores_and_can_stay_offline(verb: str) -> None:
    command = verbs.load(verb)
    assert command.context_settings["token_normalize_func"]("--batch_gpu") == "--batch-gpu"
    assert verb == "doctor" or "--offline" in {option for param in command.params for option in param.opts}


def test_the_script_knows_the_verbs(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, redact.__file__, "inspect", "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.startswith("Usage: redact.py inspect [OPTIONS] NAME|PATH|URL")


def test_inspect_a_snapshot(tmp_path: Path) -> None:
    tiny_run.write_network(tmp_path / "tiny.pkl")
    found = json.loads(run("inspect", str(tmp_path / "tiny.pkl"), "--json").output)
    assert found["bytes"] == (tmp_path / "tiny.pkl").stat().st_size and len(found["sha256"]) == 64
    assert found["keys"] == ["G", "D", "G_ema", "training_set_kwargs", "augment_pipe"] and found["redaction"] is None
    G = found["networks"]["G"]
    assert (G["class"], G["architecture"], G["img_resolution"], G["z_dim"]) == ("Generator", "stylegan2", 16, 8)
    assert G["bytes"] == 4 * sum(tensor.numel() for tensor in tiny_run.generator().state_dict().values())
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
    assert result.exit_code == 3 and "it imports os.system" in result.output and not marker.exists()


def test_doctor_names_what_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    result = run("doctor")
    assert result.exit_code == 0, result.output
    words = ("torch:", "CUDA of torch:", "driver:", "none: no-such-compiler is not on the PATH", "bias_act not built, upfirdn2d not", "(empty)")
    for word in words:
        assert word in result.output
    assert "stale lock" not in result.output


def test_doctor_asks_programs_for_their_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nvcc, compiler = tmp_path / "bin" / "nvcc", tmp_path / "my-c++"
    nvcc.parent.mkdir()
    nvcc.write_text("#!/bin/sh\necho 'nvcc: a compiler'\necho 'Copyright 2005-2024'\necho 'tools, release 12.4, V12.4.131'\n")
    compiler.write_text("#!/bin/sh\necho 'my-c++ (Some) 13.2.0'\necho more 1.0\n")
    for program in (nvcc, compiler):
        program.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", f"{compiler} -O2")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    for name in ("upfirdn2d_plugin", "other"):
        (tmp_path / f"{name}.so").touch()
    told = run("doctor").output
    assert f"{nvcc} (tools, release 12.4, V12.4.131)" in told and f"{compiler} (my-c++ (Some) 13.2.0)" in told
    assert "bias_act not built, upfirdn2d built, filtered_lrelu not built; also built: other" in told


@pytest.mark.parametrize(("answer", "left"), [("n", True), ("y", False)])
def test_doctor_offers_to_clear(answer: str, left: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(doctor, "asks", lambda: True)
    lock = tmp_path / "lock"
    lock.touch()
    os.utime(lock, (0, 0))
    told = CliRunner().invoke(cli.choose(["doctor"])[0], [], input=f"{answer}\n").output
    assert "Delete it?" in told and lock.exists() is left


def test_doctor_finds_and_clears_stale_locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    (tmp_path / "plugin" / "new").mkdir(parents=True)
    stale, fresh = tmp_path / "plugin" / "lock", tmp_path / "plugin" / "new" / "lock"
    (tmp_path / "plugin" / "built_plugin.so").touch()
    for lock in (stale, fresh):
        lock.touch()
    old = time.time() - _doctor.STALE_SECONDS - 60
    os.utime(stale, (old, old))
    told = run("doctor").output
    assert str(stale) in told and str(fresh) not in told and "--clear-locks" in told and "also built: built_plugin" in told and stale.exists()
    assert "deleted" in run("doctor", "--clear-locks").output
    assert not stale.exists() and fresh.exists()


def tensors_of(path: Path) -> dict[str, dict[str, torch.Tensor]]:
    network = load_network(path)
    return {key: getattr(network, key).state_dict() for key in ("G", "D", "G_ema")}


def same(a: dict[str, dict[str, torch.Tensor]], b: dict[str, dict[str, torch.Tensor]]) -> bool:
    return all(list(a[key]) == list(b[key]) and all(torch.equal(a[key][name], b[key][name]) for name in a[key]) for key in ("G", "D", "G_ema"))


@pytest.mark.parametrize("kind", ["flat", "nested", "tensorflow"])
def test_convert_there_and_back(kind: str, tmp_path: Path) -> None:
    """`nested`: as stylegan2-ada-pytorch, whose defaults differ."""
    source, middle, back = tmp_path / "source.pkl", tmp_path / "middle.safetensors", tmp_path / "back.pkl"
    if kind == "tensorflow":
        VARIANTS["odd"].write(source, VARIANTS["odd"].networks())
    else:
        small = dict(channel_base=64, channel_max=4)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            G = Generator(5, 0, 6, 16, 3, **(dict(synthesis_kwargs=small) if kind == "nested" else small))
            D = Discriminator(0, 16, 3, **small)
        write_network_pickle(source, G=G, D=D, G_ema=G, training_set_kwargs={"max_size": 7}, redaction={"feature": "beard"})
    for first, second in ((source, middle), (middle, back)):
        result = run("convert", str(first), str(second))
        assert result.exit_code == 0 and f"Wrote {second}" in result.output, result.output
        assert ("of StyleGAN2-ADA for TensorFlow" in result.output) == (kind == "tensorflow" and first == source)
    assert same(tensors_of(source), tensors_of(back))
    before, after = load_network(source).G_ema, load_network(back).G_ema
    assert before.synthesis.b16.conv1.conv_clamp == after.synthesis.b16.conv1.conv_clamp == {"flat": 256, "nested": None, "tensorflow": 4}[kind]
    if kind != "tensorflow":
        written = read_snapshot(back)
        assert (written.training_set_kwargs, written.redaction) == ({"max_size": 7}, {"feature": "beard"})


def test_convert_refuses_in_a_sentence(tmp_path: Path) -> None:
    tiny_run.write_network(tmp_path / "tiny.pkl")
    safetensors.torch.save_file({"G.a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"x" * 100)
    cases = {
        ("tiny.pkl", "x.onnx"): "its ending must be .pkl or .safetensors or .pt",
        ("foreign.safetensors", "x.pkl"): "does not say which networks",
        ("broken.safetensors", "x.pkl"): "no whole safetensors file",
        ("absent.safetensors", "x.pkl"): "missing",
        ("absent.pkl", "x.pkl"): "no such file",
    }
    for (source, dest), told in cases.items():
        result = run("convert", str(tmp_path / source), str(tmp_path / dest))
        assert result.exit_code == 2 and told in result.output and not (tmp_path / dest).exists(), result.output


@pytest.mark.parametrize("verb", ["convert", "fold", "apply"])
def test_what_a_file_is_made_from_is_not_written_over(verb: str, tmp_path: Path) -> None:
    """The network as it was would be gone, by whatever name it is called; and a folder is told before anything is read."""
    source, link = tmp_path / "tiny.pkl", tmp_path / "link.pkl"
    tiny_run.write_network(source)
    link.symlink_to(source)
    np.save(tmp_path / "way.npy", np.eye(8)[0])
    before = source.read_bytes()
    words = {"convert": [str(source)], "fold": [f"--direction={tmp_path / 'way.npy'}", str(source)]}
    words["apply"] = [f"--network={source}", f"--delta={tmp_path / 'redaction.safetensors'}"]
    cases = {str(source): "would be written over", str(link): "would be written over", "": "that is a folder", str(tmp_path): "that is a folder"}
    if verb == "convert":  # Its ending is looked at first.
        cases = {dest: told for dest, told in cases.items() if dest.endswith(".pkl")}
    else:
        cases[str(tmp_path / "x.safetensors")] = "it would be a pickle - name it .pkl"
    cases[str(tmp_path / "none" / "x.pkl")] = "there is no such folder"
    for dest, told in cases.items():
        result = run(verb, *words[verb], dest)
        assert result.exit_code == 2 and told in result.output and source.read_bytes() == before, result.output


def test_labels_are_not_written_over_the_network(tmp_path: Path) -> None:
    tiny_run.write_network(tmp_path / "tiny.pkl")
    result = run("label", f"--network={tmp_path / 'tiny.pkl'}", "--feature=glow", f"--out={tmp_path / 'tiny.pkl'}", "--no-browser")
    assert result.exit_code == 2 and "would be written over" in result.output and len([*tmp_path.iterdir()]) == 1


def test_convert_leaves_private_paths_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_run.write_network(tmp_path / "tiny.pkl")
    snapshot = dataclasses.replace(read_snapshot(tmp_path / "tiny.pkl"), training_set_kwargs={"path": "/home/someone/faces.zip", "max_size": 7})
    monkeypatch.setattr(_convert, "read_snapshot", lambda path: snapshot)
    result = run("convert", str(tmp_path / "tiny.pkl"), str(tmp_path / "new.safetensors"))
    assert "Left out, a private path: training_set_kwargs.path" in result.output and b"faces.zip" not in (tmp_path / "new.safetensors").read_bytes()
