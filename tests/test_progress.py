# SPDX-License-Identifier: Apache-2.0
"""What a person sees and what stays in the run directory."""

import io
import json

import pytest

from stylegan_redact import cli
from stylegan_redact.progress import Progress, figures_text, time_text


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0s"), (59.4, "59s"), (59.6, "1m 00s"), (185, "3m 05s"), (3723, "1h 02m 03s")])
def test_times_read_like_nvidias(seconds, text):
    assert time_text(seconds) == text


def test_figures_are_short():
    assert figures_text({"loss": 0.123456, "hits": 7}) == "loss 0.1235  hits 7"


def test_lines_come_every_few_seconds_and_at_the_end(tmp_path):
    lines, clock = [], Clock()
    progress = Progress(lines.append, out=io.StringIO(), clock=clock)
    for step in range(21):
        progress("label", step / 20, {"rate": 0.25})
        clock.now += 1
    assert [line.split()[1] for line in lines] == ["0.0%", "25.0%", "50.0%", "75.0%", "100.0%"]
    assert lines[1].split()[:6] == ["label", "25.0%", "time", "5s", "rate", "0.25"]


def test_nothing_steers_a_terminal_and_lines_stay_lines(tmp_path, capsys):
    lines = []
    progress = Progress(lines.append, out=io.StringIO())
    progress.keep_in(tmp_path)
    progress.tell("name: \x1b[2J\u202e\nnext é")
    assert lines == ["name: \\x1b[2J\\u202e\nnext é"] and (tmp_path / "log.txt").read_text(encoding="utf-8") == f"{lines[0]}\n"
    cli.echo("a\x1b[2J\nb")
    assert capsys.readouterr().out == "a\\x1b[2J\nb\n" and cli.printable("a\nb\x07") == "a\\nb\\x07"


def test_every_event_is_kept_also_from_before_there_was_a_folder(tmp_path):
    lines, clock = [], Clock()
    progress = Progress(lines.append, out=io.StringIO(), clock=clock)
    progress.tell("hello")
    for step in range(3):
        progress("label", step / 4)
    progress.keep_in(tmp_path)
    clock.now += 2.5
    progress("edit", 0.5, {"loss": float("nan")})
    events = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert [(event["stage"], event["fraction"], event["time"]) for event in events] == [
        ("label", 0, 0),
        ("label", 0.25, 0),
        ("label", 0.5, 0),
        ("edit", 0.5, 2.5),
    ]
    assert events[-1]["loss"] is None
    assert (tmp_path / "log.txt").read_text().splitlines() == lines
    progress.log_error("it broke")
    assert (tmp_path / "log.txt").read_text().endswith("Error: it broke\n")


def test_a_terminal_gets_a_bar_and_no_lines(tmp_path):
    lines, out = [], Terminal()
    progress = Progress(lines.append, out=out)
    progress.keep_in(tmp_path)
    for step in range(5):
        progress("label", step / 4, {"rate": 0.25})
    progress.tell("done")
    assert lines == ["done"]
    assert "label" in out.getvalue() and "100%" in out.getvalue()
    assert "100.0%" in (tmp_path / "log.txt").read_text()


def test_an_error_without_a_folder_is_kept_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Progress([].append, out=io.StringIO()).log_error("it broke")
    assert list(tmp_path.iterdir()) == []
