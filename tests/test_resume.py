# SPDX-License-Identifier: Apache-2.0
"""Runs that are killed, stopped, short of space or of rights, and gone on with."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_run
import torch
from click.testing import CliRunner

from stylegan_redact import casting, cli, evaluation, keeping, resuming, run_dir
from stylegan_redact.checkpoints import Checkpoints
from stylegan_redact.measuring import Measurement
from stylegan_redact.network import read_snapshot
from stylegan_redact.proof.pair_store import PairStore
from stylegan_redact.stopping import listening
from stylegan_redact.types import RedactError

TESTS = Path(__file__).parent
SHORT = ["--num-latents=300", "--num-images=100", "--batch=8", "--kimg=0.16", "--batch-gpu=4", "--checkpoint-every=0", "--method=edit"]


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


@pytest.mark.parametrize("moments", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_a_run_killed_at_any_moment_ends_in_the_same_bytes(made: list[str], tmp_path: Path, moments: int) -> None:
    found = killed(tmp_path, moments, [*made, *SHORT])
    assert found["unequal"] == [] and isinstance(found["killed"], int) and found["killed"] >= moments / 2


def checkpoints(folder: Path, every: float = 0.0) -> tuple[Checkpoints, list[str]]:
    told: list[str] = []
    return Checkpoints(folder / "checkpoint", every, told.append), told


def moment(value: float, share: float = 0.5) -> keeping.Moment:
    return keeping.Moment("edit", lambda: {"a": torch.tensor([value]), "n": 1}, share)


def kept(folder: Path) -> tuple[float | None, list[str]]:
    store, told = checkpoints(folder)
    _, state = store.begin("edit")
    return None if state is None else float(state["a"]), told


def test_states_come_back_and_names_are_counted(tmp_path: Path) -> None:
    store, _ = checkpoints(tmp_path)
    assert [store.begin(stage) for stage in ("edit", "edit", "fine-tune")] == [("edit", None), ("edit-2", None), ("fine-tune", None)]
    store.keep(moment(1.0))
    assert kept(tmp_path) == (1.0, [])
    store.remove()
    assert kept(tmp_path) == (None, [])


def test_states_are_kept_when_it_is_time(tmp_path: Path) -> None:
    store, _ = checkpoints(tmp_path, every=3600)
    store.keep(moment(1.0))
    assert kept(tmp_path) == (None, [])
    store.keep(moment(2.0, share=1.0))
    assert kept(tmp_path) == (2.0, [])


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[:-300] + b"\0" + data[-299:]])
def test_a_damaged_state_is_told_of_and_the_one_before_is_used(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    store, _ = checkpoints(tmp_path)
    for value in (1.0, 2.0):
        store.keep(moment(value))
    path = tmp_path / "checkpoint" / "edit.pt"
    path.write_bytes(damage(path.read_bytes()))
    value, told = kept(tmp_path)
    assert value == 1.0 and "is damaged" in told[0] and "the one before it is used" in told[0]
    path.with_name("edit.before.pt").write_bytes(b"")
    value, told = kept(tmp_path)
    assert value is None and "begins anew" in told[1]


def test_on_a_full_disk_the_run_goes_on_and_the_state_before_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, told = checkpoints(tmp_path)
    store.keep(moment(1.0))
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    store.keep(moment(2.0))
    assert "No space left" in told[0] and "goes on without" in told[0]
    assert kept(tmp_path) == (1.0, []) and [path.name for path in (tmp_path / "checkpoint").iterdir()] == ["edit.pt"]
    store.stop = True
    with pytest.raises(RedactError, match="No space left"):  # To be asked to stop and to lose everything is no clean end.
        store.keep(moment(3.0))


def test_a_run_outlives_a_disk_that_is_full_for_a_while(made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append, keep = run_dir.append, Checkpoints.keep

    def full(path: Path, data: bytes, *, sync: bool = False) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fill_and_free(self: Checkpoints, at: keeping.Moment) -> None:
        monkeypatch.setattr(run_dir, "append", append if at.name == "edit" else full)
        monkeypatch.setattr(os, "fsync", (lambda handle: None) if at.name == "edit" else lambda handle: full(Path(), b""))
        keep(self, at)

    monkeypatch.setattr(Checkpoints, "keep", fill_and_free)
    done = CliRunner().invoke(cli.command(), [*made, *SHORT, f"--outdir={tmp_path}"])
    (folder,) = tmp_path.iterdir()
    assert done.exit_code == 0 and done.output.count("log.txt was") + done.output.count("stats.jsonl was") == 1, done.output
    log = (folder / "log.txt").read_text()
    assert "No checkpoint" in log and [line for line in log.splitlines() if line.startswith("label ")]  # They waited.


def test_a_network_is_written_before_it_is_measured_and_a_disk_error_deletes_nothing(
    made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise RedactError("no")

    with monkeypatch.context() as patched:
        patched.setattr(Measurement, "answers", fails)
        assert CliRunner().invoke(cli.command(), [*made, *SHORT, f"--outdir={tmp_path / 'a'}"]).exit_code == 2
    assert len(list((tmp_path / "a").glob("*/network-redacted.pkl"))) == 1
    for error, left in ((OSError(), True), (None, False)):

        def gather(*args: object, cause: OSError | None = error, **kwargs: object) -> None:
            raise RedactError("no") from cause

        monkeypatch.setattr(casting.Cast, "gather", gather)
        assert CliRunner().invoke(cli.command(), [*made, *SHORT, f"--outdir={tmp_path / 'b'}"]).exit_code == 2
        assert (tmp_path / "b").exists() == left
        shutil.rmtree(tmp_path / "b", ignore_errors=True)


@pytest.mark.parametrize("attributes", [(), ("a", "b\nc")])
def test_measured_portions_come_back_and_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attributes: tuple[str, ...]) -> None:
    n, told = 4, list[str]()
    logits = [torch.zeros([n, len(attributes)]) for _ in range(2)]
    pairs = evaluation.PairedImages(attributes, *logits, torch.zeros(n), torch.ones(n), torch.arange(n))
    measured = []
    monkeypatch.setattr(evaluation, "measure_pairs", lambda **how: measured.append(how) or pairs)
    store = PairStore(tmp_path / "pairs", told.append)
    found = [store.measure(range(n), "z", None, 0, lambda *_: None) for _ in range(2)]
    assert len(measured) == 1 and all(each.attributes == attributes for each in found) and not told
    (tmp_path / "file").write_text("")
    PairStore(tmp_path / "file", told.append).measure(range(n), "z", None, 0, lambda *_: None)
    assert len(measured) == 2 and "not kept" in told[0]


def test_a_run_that_is_asked_to_stop_stops_with_its_state(tmp_path: Path) -> None:
    store, _ = checkpoints(tmp_path, every=3600)
    store.check()
    with listening(store) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        assert store.stop and signals.exit_code == 0
        with pytest.raises(keeping.Stopped):
            store.keep(moment(1.0))
        with pytest.raises(keeping.Stopped):
            store.check()
    assert kept(tmp_path) == (1.0, [])


def test_ctrl_c_twice_ends_at_once(tmp_path: Path) -> None:
    store, _ = checkpoints(tmp_path)
    with pytest.raises(KeyboardInterrupt), listening(store) as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert store.stop and signals.exit_code == 130
        os.kill(os.getpid(), signal.SIGINT)


SLOW_STEP = """
import os, signal, sys, time
from pathlib import Path
from stylegan_redact import checkpoints, stopping
stopping.PATIENCE = 0.1
with stopping.listening(checkpoints.Checkpoints(Path(sys.argv[1]), 60, lambda text: None)):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(300)
sys.exit(1)
"""


def test_a_step_that_outlasts_the_patience_is_given_up(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SLOW_STEP, str(tmp_path)], cwd=TESTS.parent, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and "stopped, with the last checkpoint" in done.stderr


def folder_of(where: Path, resume: str | None = "latest", **options: object) -> Path:
    with resuming.run_folder(resume, str(where), "redact-a", {"seed": 0, **options}) as (folder, _):
        return folder


def test_latest_is_the_newest_that_is_not_finished(tmp_path: Path) -> None:
    first = folder_of(tmp_path)
    assert folder_of(tmp_path) == first and folder_of(tmp_path, None) == tmp_path / "00001-redact-a" == folder_of(tmp_path)
    (tmp_path / "00001-redact-a" / "redaction.json").write_text("{}")
    assert folder_of(tmp_path) == first == folder_of(tmp_path, str(first))
    with pytest.raises(RedactError, match="is finished"):
        folder_of(tmp_path, str(tmp_path / "00001-redact-a"))
    with pytest.raises(RedactError, match="no run directory"):
        folder_of(tmp_path, str(tmp_path / "none"))


def test_other_options_are_refused_with_the_difference(tmp_path: Path) -> None:
    folder_of(tmp_path, None, method_options={"kimg": 16.0}, outdir="a")
    folder_of(tmp_path, method_options={"kimg": 16.0}, outdir="b")
    with pytest.raises(RedactError, match=r"method_options\.kimg: 16\.0 there, 8\.0 now; seed: 0 there, 1 now"):
        folder_of(tmp_path, method_options={"kimg": 8.0}, seed=1)


def test_a_dry_run_says_what_would_be_gone_on_with(tmp_path: Path) -> None:
    asked = (str(tmp_path), "redact-a", {"seed": 0})
    assert resuming.foreseen(None, *asked) == "" and resuming.foreseen("latest", *asked).startswith("There is no run to resume")
    folder = folder_of(tmp_path, None)
    assert resuming.foreseen("latest", *asked) == resuming.foreseen(str(folder), *asked) == f"It would go on with {folder}."
    with pytest.raises(RedactError, match="seed: 0 there, 1 now"):
        resuming.foreseen("latest", str(tmp_path), "redact-a", {"seed": 1})
    with pytest.raises(RedactError, match="no run directory"):
        resuming.foreseen(str(tmp_path), *asked)


@pytest.mark.parametrize(("resume", "code", "told"), [("latest", 0, "There is no run to resume in "), ("none", 2, "no run directory")])
def test_a_dry_run_looks_at_what_is_to_be_resumed(made: list[str], tmp_path: Path, resume: str, code: int, told: str) -> None:
    result = CliRunner().invoke(cli.command(), [*made, "--dry-run", f"--outdir={tmp_path / 'runs'}", f"--resume={resume}"])
    assert result.exit_code == code and told in result.output, result.output
    assert not (tmp_path / "runs").exists()


def test_two_at_once_get_two_folders(tmp_path: Path) -> None:
    with resuming.run_folder("latest", str(tmp_path), "redact-a", {}) as (first, _):
        with resuming.run_folder("latest", str(tmp_path), "redact-a", {}) as (second, _):
            assert first != second
        with pytest.raises(RedactError, match="another process is at it"), resuming.run_folder(str(first), str(tmp_path), "redact-a", {}):
            pass


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_rights_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    folder.chmod(0o500)
    with pytest.raises(RedactError, match="may not be written to"):
        folder_of(tmp_path, str(folder))
    folder.chmod(0o700)


def test_what_a_kill_left_half_written_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".x.pkl.0.partial").write_text("half")
    (tmp_path / "stats.jsonl").write_text('{"a": 1}\n{"b"')
    (tmp_path / "log.txt").write_text("torn")
    (tmp_path / "notes.txt").write_text("mine")
    run_dir.sweep(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"stats.jsonl": '{"a": 1}\n', "log.txt": "", "notes.txt": "mine"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_run_that_gets_a_signal_can_be_resumed(made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int) -> None:
    """The signal comes with the tenth step; snapshots are taken meanwhile."""
    options = [*made, *SHORT, f"--outdir={tmp_path / 'runs'}", "--snap=1", "--kimg=1.2", "--batch=40", "--batch-gpu=40", "--checkpoint-every=60"]
    keep = Checkpoints.keep

    def keep_and_kill(self: Checkpoints, at: keeping.Moment) -> None:
        if at.name == "edit" and at.images == 1080 and not resumed:
            os.kill(os.getpid(), number)
        keep(self, at)

    resumed = False
    monkeypatch.setattr(Checkpoints, "keep", keep_and_kill)
    stopped = CliRunner().invoke(cli.command(), options)
    (folder,) = (tmp_path / "runs").iterdir()
    assert stopped.exit_code == code and f"go on with --resume={folder}" in stopped.output, stopped.output
    assert (folder / "network-unfinished.pkl").exists() == (number == signal.SIGINT) and not (folder / "redaction.json").exists()
    if number == signal.SIGINT:
        record = read_snapshot(folder / "network-unfinished.pkl").redaction
        assert record is not None and record["unfinished"] == "90.0% of edit"
    resumed = True
    assert CliRunner().invoke(cli.command(), [*options, f"--resume={folder}"]).exit_code == 0
    names = {path.name for path in folder.iterdir()}
    assert {"redaction.json", "network-snapshot-000001.pkl", "fakes000001.png"} <= names and not {"checkpoint", "network-unfinished.pkl"} & names
    log = (folder / "log.txt").read_text()
    assert ("tensorboard" in log) == (importlib.util.find_spec("tensorboard") is None)
