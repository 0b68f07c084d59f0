# SPDX-License-Identifier: Apache-2.0
"""What NVIDIA's users grep for: a tick line for every piece of a training, in log.txt and stats.jsonl, once each, and not on the screen."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_run
from click.testing import CliRunner

from stylegan_redact import cli, keeping
from stylegan_redact.checkpoints import Checkpoints
from stylegan_redact.progress import Progress
from stylegan_redact.ticks import Ticks, events_in

SHORT = ["--num-latents=300", "--num-images=100", "--batch=8", "--kimg=0.08", "--method=edit"]
LINE = re.compile(
    r"^tick (\d+) +kimg ([\d.]+) +time [\dhms ]+sec/tick ([\d.]+) +sec/kimg ([\d.]+) +maintenance ([\d.]+) +cpumem ([\d.]+) +gpumem [\d.]+", re.M
)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def trained(folder: Path, *, steps: int = 200, batch: int = 10, begin: int = 1, end: int | None = None, back: int | None = None) -> list[str]:
    """The log of a training of so many steps of a second each, from one to another; `back` is a step that is gone back on from, ten steps."""
    folder.mkdir(exist_ok=True)
    lines, clock = [], Clock()
    progress = Progress(lines.append, out=io.StringIO(), clock=clock)
    progress.keep_in(folder)
    ticks = Ticks(folder, progress, clock=clock)
    order = [*range(begin, (end or steps) + 1)]
    if back is not None:
        order = [*range(begin, back), *range(back - 10, steps + 1)]
    for step in order:
        clock.now += 1
        if step % 10 == 1:
            progress("edit", step / steps, {"loss": float(step)})
        ticks(keeping.Moment("edit", dict, step / steps, step * batch, batch))
        with ticks.maintaining():
            clock.now += 0.25
    assert not any("tick" in line for line in lines)
    return (folder / "log.txt").read_text().splitlines()


def ticks_in(log: list[str]) -> list[int]:
    return [int(found[1]) for line in log if (found := LINE.match(line))]


def test_fifty_ticks_and_the_first_with_the_first_step(tmp_path: Path) -> None:
    log = trained(tmp_path)
    assert ticks_in(log) == [*range(51)]
    first, second = [line for line in log if line.startswith("tick ")][:2]
    assert first.startswith("tick 0     kimg 0.0      time 1s           sec/tick 1.0     sec/kimg 100.00  maintenance 0.0    cpumem ")
    assert second.startswith("tick 1     kimg 0.1      time 6s           sec/tick 4.0     sec/kimg 100.00  maintenance 1.0    cpumem ")
    assert first.endswith("edit loss 1")
    events = [event for line in (tmp_path / "stats.jsonl").read_text().splitlines() if "Progress/tick" in (event := json.loads(line))]
    assert [event["Progress/kimg"]["mean"] for event in events][:3] == [0.01, 0.05, 0.09] and len(events) == 51
    assert events[0]["Loss/edit/loss"] == {"num": 1, "mean": 1.0, "std": 0.0} and events[1]["Timing/sec_per_kimg"]["mean"] == 100.0
    assert "Loss/edit/loss" not in events[1] and events[3]["Loss/edit/loss"]["mean"] == 11.0


def test_a_long_training_ticks_every_four_thousand_images(tmp_path: Path) -> None:
    assert ticks_in(trained(tmp_path, steps=220, batch=2000)) == [*range(111)]


def test_a_training_that_was_resumed_repeats_what_was_lost_and_no_more(tmp_path: Path) -> None:
    whole = ticks_in(trained(tmp_path / "a"))
    for stopped in (33, 35):  # One is the step of a tick, one is not. The state after step 33 and 35 was kept; it is offered once more.
        one = ticks_in(trained(tmp_path / f"b{stopped}", end=stopped))
        other = ticks_in(trained(tmp_path / f"c{stopped}", begin=stopped))
        assert one + other == whole


def test_a_step_back_repeats_nothing(tmp_path: Path) -> None:
    assert ticks_in(trained(tmp_path, back=100)) == [*range(51)]


def test_a_second_training_counts_from_zero(tmp_path: Path) -> None:
    progress = Progress(lambda text: None, out=io.StringIO())
    progress.keep_in(tmp_path)
    ticks = Ticks(tmp_path, progress)
    for name in ("mapping", "distil"):
        for step in (1, 2):
            progress(name, step / 2, {"loss": 0.5})
            ticks(keeping.Moment(name, dict, step / 2, 8 * step, 8))
    found = [line for line in (tmp_path / "log.txt").read_text().splitlines() if line.startswith("tick")]
    assert ticks_in(found) == [0, 1, 0, 1] and [line.endswith("distil loss 0.5") for line in found] == [False, False, True, True]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return tiny_run.write_all(tmp_path_factory.mktemp("files"))


def test_every_run_ticks_in_its_log_and_not_on_the_screen_also_resumed(files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep, stopped = Checkpoints.keep, []

    def keep_and_stop(self: Checkpoints, at: keeping.Moment) -> None:
        if at.name == "edit" and at.images == 40 and not stopped:
            stopped.append(os.kill(os.getpid(), signal.SIGTERM))
        keep(self, at)

    alone = CliRunner().invoke(cli.command(), [*files, *SHORT, f"--outdir={tmp_path / 'a'}"])
    monkeypatch.setattr(Checkpoints, "keep", keep_and_stop)
    both = [CliRunner().invoke(cli.command(), [*files, *SHORT, f"--outdir={tmp_path / 'b'}", "--resume=latest"]) for _ in range(2)]
    assert stopped and not any(result.exit_code or "sec/tick" in result.output for result in (alone, *both))
    one, other = (next((tmp_path / name).iterdir()) for name in "ab")
    assert ticks_in((one / "log.txt").read_text().splitlines()) == ticks_in((other / "log.txt").read_text().splitlines()) == [*range(10)]
    assert (one / "network-redacted.pkl").read_bytes() == (other / "network-redacted.pkl").read_bytes()


def test_a_closed_form_has_no_ticks(files: list[str], tmp_path: Path) -> None:
    options = [option for option in SHORT if not option.startswith(("--kimg", "--batch", "--method"))]
    assert CliRunner().invoke(cli.command(), [*files, *options, "--method=fold", f"--outdir={tmp_path}"]).exit_code == 0
    (folder,) = tmp_path.iterdir()
    assert not ticks_in((folder / "log.txt").read_text().splitlines()) and not list(folder.glob("events.out*"))


def test_what_a_look_tells_is_no_figure_of_the_training(tmp_path: Path) -> None:
    progress = Progress(lambda text: None, out=io.StringIO())
    progress.keep_in(tmp_path)
    ticks = Ticks(tmp_path, progress)
    for step in range(1, 201):
        if step % 4 == 2:
            progress("edit", step / 200, {"loss": float(step)})
        ticks(keeping.Moment("edit", dict, step / 200, 10 * step, 10))
        if step == 3:  # After one that told figures, before the tick that they are of.
            with ticks.maintaining():
                progress("look", 1.0, {"rate": 0.5})
    events = [event for line in (tmp_path / "stats.jsonl").read_text().splitlines() if "Progress/tick" in (event := json.loads(line))]
    assert [event["stage"] for event in events[1:]] == ["edit"] * 50 and events[1]["Loss/edit/loss"]["mean"] == 2.0


def test_a_disk_that_is_full_ends_the_events_and_not_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            self.written = 0

        def add_scalar(self, *scalar: Any) -> None:
            self.written += 1

        def flush(self) -> None:
            if self.written == 2:
                raise OSError(28, "No space left on device")
            assert self.written < 2

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))
    said: list[str] = []
    progress = Progress(said.append, out=io.StringIO())
    progress.keep_in(tmp_path)
    ticks = Ticks(tmp_path, progress)
    for step in (1, 2, 3, 4):
        progress("edit", step / 4, {"loss": step})
        ticks(keeping.Moment("edit", dict, step / 4, 20 * step, 20))
    assert [line for line in said if "TensorBoard" in line] == ["No more TensorBoard events: No space left on device. The run goes on"]
    assert ticks_in((tmp_path / "log.txt").read_text().splitlines()) == [0, 1, 2, 3]


def test_a_tensorboard_that_is_out_of_order_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise TypeError("Descriptors cannot be created directly.\nIf this call came from a _pb2.py file")

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", Broken())  # type: ignore[arg-type]
    said: list[str] = []
    assert events_in(tmp_path, said.append) is None
    assert said == ["No TensorBoard events: tensorboard cannot be imported (Descriptors cannot be created directly.)"]


def test_events_go_to_tensorboard_with_the_images_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scalars: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            assert folder == str(tmp_path)

        def add_scalar(self, *scalar: Any) -> None:
            scalars.append(scalar)

        def flush(self) -> None:
            return

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=SummaryWriter))
    progress = Progress(lambda text: None, out=io.StringIO())
    progress.keep_in(tmp_path)
    ticks = Ticks(tmp_path, progress)
    progress("label", 1.0, {"rate": 0.5})
    for step in (1, 2):
        progress("edit", step / 2, {"loss": step})
        ticks(keeping.Moment("edit", dict, step / 2, 20 * step, 20))
    assert scalars == [("edit/loss", 1.0, 20), ("edit/loss", 2.0, 40)]
