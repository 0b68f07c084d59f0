# SPDX-License-Identifier: Apache-2.0
"""A training that is looked at ends at the first look at which the targets hold, also where it was stopped in between and resumed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_run
from click.testing import CliRunner, Result

from stylegan_redact import cli, evaluation, keeping, watching
from stylegan_redact.checkpoints import Checkpoints
from stylegan_redact.evaluation import Target
from stylegan_redact.measuring import Measurement
from stylegan_redact.network import load_network, read_snapshot
from stylegan_redact.types import Estimate, Network, RedactError

EASY = Target("removed: a tenth", "residual_rate/removed", "value", 10.0, at_least=True)
HARD = Target("removed: more than all", "residual_rate/removed", "value", 101.0, at_least=True)
SHORT = ["--num-latents=300", "--num-images=200", "--method=edit", "--kimg=1.6", "--batch=8", "--lr=0.01", "--guidance=1", "--early-stop=0.4"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return tiny_run.write_all(tmp_path_factory.mktemp("files"))


def run(files: list[str], outdir: Path, *options: str) -> Result:
    return CliRunner().invoke(cli.command(), [*files, *SHORT, f"--outdir={outdir}", *options])


def record_of(outdir: Path) -> dict[str, dict[str, object]]:
    (path,) = outdir.glob("*/redaction.json")
    record: dict[str, dict[str, object]] = json.loads(path.read_text())
    return record


def with_target(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "targets_of", lambda features: (target,))


def test_it_ends_at_the_first_look_that_meets_the_targets_resumed_or_not(files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_target(EASY, monkeypatch)
    result = run(files, tmp_path / "a")
    assert result.exit_code == 0, result.output
    record = record_of(tmp_path / "a")
    images = record["provenance"]["stopped_after_images"]
    assert isinstance(images, int) and images % 400 == 0 and images < 1600 and f"After {images / 1000:g} thousand images 1 of 1" in result.output
    assert record["seeds"]["looked"] == {"first": 9_999_800, "last": 9_999_999, "count": 200}
    (path,) = (tmp_path / "a").glob("*/network-redacted.pkl")
    snapshot = read_snapshot(path)
    assert snapshot.redaction is not None and snapshot.redaction["stopped_after_images"] == images
    assert not any(parameter.requires_grad for parameter in load_network(snapshot).G_ema.parameters())
    keep, steps = Checkpoints.keep, []

    def keep_and_stop(self: Checkpoints, at: keeping.Moment) -> None:
        if at.name == "edit":
            steps.append(at.images)
            if len(steps) == 7:
                os.kill(os.getpid(), signal.SIGTERM)
        keep(self, at)

    monkeypatch.setattr(Checkpoints, "keep", keep_and_stop)
    stopped, resumed = (run(files, tmp_path / "b", "--resume=latest") for _ in range(2))
    assert stopped.exit_code == 0 and "Unfinished" in stopped.output and "Resuming" in resumed.output and steps[7] == steps[6]
    one, other = (next((tmp_path / name).glob("*/network-redacted.pkl")).read_bytes() for name in "ab")
    assert one == other


def test_a_signal_during_a_look_and_a_kill_after_the_last_one_change_nothing(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_target(EASY, monkeypatch)
    look, answers, keep = watching._look, Measurement.answers, Checkpoints.keep
    looked, steps = [], []

    def look_and_stop(*args: Any) -> Any:
        looked.append(args)
        if len(looked) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return look(*args)

    def killed(self: Measurement, progress: Any, stage: str = "measure") -> Any:
        if stage == "measure" and len(looked) == 2:
            raise KeyError("killed")
        return answers(self, progress, stage)

    def counted(self: Checkpoints, at: keeping.Moment) -> None:
        if at.name == "edit":
            steps.append(at.images)
        keep(self, at)

    monkeypatch.setattr(watching, "_look", look_and_stop)
    monkeypatch.setattr(Measurement, "answers", killed)
    monkeypatch.setattr(Checkpoints, "keep", counted)
    first = run(files, tmp_path / "a", "--resume=latest")
    (folder,) = (tmp_path / "a").iterdir()
    assert first.exit_code == 130 and (folder / "network-unfinished.pkl").exists(), first.output
    assert isinstance(run(files, tmp_path / "a", "--resume=latest").exception, KeyError) and (folder / "network-redacted.pkl").exists()
    last, number = run(files, tmp_path / "a", "--resume=latest"), len(steps)
    assert last.exit_code == 0 and steps[number - 3 :] == [400, 400, 400] and len(looked) == 3, last.output  # Nothing is trained anew.
    assert run(files, tmp_path / "b").exit_code == 0
    one, other = (next((tmp_path / name).glob("*/network-redacted.pkl")).read_bytes() for name in "ab")
    assert one == other


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--method=fold"], "fold has no training"),
        (["--method=mapping", "--snap=1"], "mapping has no training"),
        (["--method=extrapolate"], "extrapolate has no training"),
        (["--kimg=0.3", "--batch=8"], "--early-stop=0.4 was asked - the training ends before that, at --kimg=0.3"),
        (["--early-stop=1", "--kimg=1", "--snap=2"], "--snap=2 was asked - the training ends before that, at --kimg=1"),
        (["--early-stop=0.0004"], "of one image"),
        (["--early-stop=nan"], "finite number"),
        (["--early-stop=inf"], "finite number"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(files: list[str], tmp_path: Path, options: list[str], told: str) -> None:
    result = CliRunner().invoke(cli.command(), [*files, "--early-stop=0.4", f"--outdir={tmp_path / 'runs'}", *options])
    assert result.exit_code == 2 and told in result.output and not (tmp_path / "runs").exists()


def test_where_the_targets_are_missed_it_goes_on_to_the_end(files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_target(HARD, monkeypatch)
    result = run(files, tmp_path, "--kimg=0.8")
    assert result.exit_code == 0 and "After 0.4 thousand images 0 of 1 targets are met; not: removed: more than all" in result.output
    assert "stopped_after_images" not in record_of(tmp_path)["provenance"]
    assert "0.8 thousand" not in result.output  # The end is measured anyway.


def test_it_looks_once_for_so_many_images() -> None:
    looked: list[int] = []
    network = Network(None, None, None)

    def measure(given: Network) -> dict[str, Estimate]:
        assert given is network
        looked.append(images)
        return {EASY.key: Estimate(20.0 if images > 200 else 0.0, 0.0, 100.0, 100, "%")}

    watch = watching.EarlyStop(100, measure, (EASY,), lambda text: None)
    with pytest.raises(watching.Enough) as enough:
        for images in range(30, 600, 30):
            watch(keeping.Moment("edit", dict, images / 600, images, 30, lambda: network))
    assert looked == [120, 210] and enough.value.images == 210 and enough.value.network is network


@pytest.mark.parametrize(("left_out", "more", "told"), [("--judge", ["--labels=X"], "no judge"), ("", ["--num-images=4999999"], "no seeds are left")])
def test_who_cannot_say_when_is_refused(files: list[str], tmp_path: Path, left_out: str, more: list[str], told: str) -> None:
    if left_out:
        assert run(files, tmp_path / "first", "--kimg=0.008", "--early-stop=0.008").exit_code == 0
        (labels,) = (tmp_path / "first").glob("*/labels.npz")
        more = [f"--labels={labels}", "--method=unlearn"]
        options = [option for option in files if not option.startswith(("--judge", "--classifier"))]
        result = CliRunner().invoke(cli.command(), [*options, *more, "--early-stop=1", f"--outdir={tmp_path / 'second'}"])
    else:
        result = run(files, tmp_path / "second", *more)
    assert result.exit_code == 2 and told in result.output and not (tmp_path / "second").exists()


def test_a_run_of_a_class_is_not_looked_at() -> None:
    who = type("Who", (), dict(class_index=3, sitting=None, features=(), judge=type("Judge", (), dict(attributes=()))))
    request, method = SimpleNamespace(early_stop=1.0, snap=None, num_images=100, method="edit"), SimpleNamespace(watched=True)
    with pytest.raises(RedactError, match="no judge rates"):
        watching.looked_seeds(request, method, who, range(10_000_000))
    request.early_stop = None
    assert watching.looked_seeds(request, method, who, range(10)) == range(0)
