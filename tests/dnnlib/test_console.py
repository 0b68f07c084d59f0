# SPDX-License-Identifier: Apache-2.0
"""Logger, durations, questions."""

import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnnlib import util

UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}


def read_back(text):
    parts = [re.fullmatch(r"(\d+)([dhms])", part) for part in text.split(" ")]
    assert all(parts) and all(len(part[1]) == 2 for part in parts[1:])
    return sum(int(part[1]) * UNITS[part[2]] for part in parts), parts[-1][2], len(parts)


@given(st.floats(0, 40 * 86400))
def test_durations_read_back_to_what_they_show(seconds):
    whole = round(seconds)
    value, smallest, _ = read_back(util.format_time(seconds))
    assert smallest == ("m" if whole >= 86400 else "s")
    assert value == whole // UNITS[smallest] * UNITS[smallest]
    brief, brief_smallest, parts = read_back(util.format_time_brief(seconds))
    assert parts == (1 if whole < 60 else 2)
    assert brief == whole // UNITS[brief_smallest] * UNITS[brief_smallest]


def test_durations_as_nvidia_prints_them():
    assert [util.format_time(s) for s in (0, 59.5, 3661, 90061)] == ["0s", "1m 00s", "1h 01m 01s", "1d 01h 01m"]
    assert [util.format_time_brief(s) for s in (0, 59.5, 3661, 90061)] == ["0s", "1m 00s", "1h 01m", "1d 01h"]


def test_logger_copies_both_streams_and_gives_them_back(tmp_path, capsys):
    stdout, stderr = sys.stdout, sys.stderr
    file = tmp_path / "log.txt"
    with util.Logger(str(file)) as logger:
        assert sys.stdout is logger and sys.stderr is logger
        print("one")
        print("two", file=sys.stderr)
        logger.write(b"three\xc3\xa9\n")
        logger.write("")
        assert file.read_text(encoding="utf-8") == "one\ntwo\nthreeé\n", "should_flush"
    assert sys.stdout is stdout and sys.stderr is stderr
    print("four")
    assert file.read_text(encoding="utf-8") == "one\ntwo\nthreeé\n"
    assert capsys.readouterr().out == "one\ntwo\nthreeé\nfour\n"


def test_logger_appends_and_leaves_streams_that_others_took(tmp_path, monkeypatch):
    file = tmp_path / "log.txt"
    file.write_text("old\n")
    monkeypatch.setattr(sys, "stdout", sys.stdout)  # Put back at the end of the test, whatever happens.
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    inner = util.Logger(str(file), file_mode="a", should_flush=False)
    outer = util.Logger()
    print("new")
    inner.close()
    assert sys.stdout is outer and sys.stderr is outer
    outer.close()
    assert file.read_text() == "old\nnew\n"


@pytest.mark.parametrize(("answers", "expected"), [(["y"], True), (["what?", "", "No"], False), (["1"], True), ([" off "], False)])
def test_asks_until_there_is_an_answer(monkeypatch, answers, expected):
    left = iter(answers)
    monkeypatch.setattr("builtins.input", lambda prompt: next(left))
    assert util.ask_yes_no("sure?") is expected
    assert list(left) == []
