# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C before there is a run directory, and in verbs: a line, exit code 130; all else ends as click ends it. (Of runs: test_resume.py.)"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
import tiny_run

import redact
from stylegan_redact import cli, failures

SECONDS = 120


@contextmanager
def started(*words: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """`redact.py` in the folder. Ctrl-C is its to answer even where whoever runs the tests ignores it, as in the background of a shell."""
    direct = {name: "127.0.0.1" for name in ("no_proxy", "NO_PROXY")}
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        child = subprocess.Popen(
            [sys.executable, redact.__file__, *words],
            cwd=folder,
            env={**os.environ, **direct, "DNNLIB_CACHE_DIR": str(folder / "cache"), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("words", ["--feature=beard --network={}", "inspect {}", "evaluate --feature=beard --before={} --after={}"])
def test_ctrl_c_while_the_network_is_downloaded(words: str, tmp_path: Path) -> None:
    """The server accepts, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(SECONDS)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/x.pkl"
        with started(*words.format(url, url).split(), folder=tmp_path) as child:
            waiting, _ = server.accept()
            with waiting:
                waiting.settimeout(SECONDS)
                assert waiting.recv(4) == b"GET "
                child.send_signal(signal.SIGINT)
                out, err = child.communicate(timeout=SECONDS)
    assert (child.returncode, out, err) == (130, "", "\nAborted!\n")
    assert [path.name for path in tmp_path.iterdir()] in ([], ["cache"])


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_closes_the_page_for_labels(tmp_path: Path) -> None:
    tiny_run.write_network(tmp_path / "tiny.pkl")
    words = ("label", "--network=tiny.pkl", "--feature=glow", "--pool=48", "--no-browser", "--device=cpu")
    with started(*words, folder=tmp_path) as child:
        assert child.stdout is not None
        assert [child.stdout.readline() for _ in range(3)][2].startswith("Ctrl-C closes the page")
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=SECONDS)
    assert (child.returncode, out, err) == (130, "Closed. Every click is kept.\n", "")
    assert not (tmp_path / "labels.npz").exists()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--help"], 0, "Usage: redact.py [OPTIONS]"),
        (["inspect", "--help"], 0, "Usage: redact.py inspect [OPTIONS]"),
        (["--nonsense"], 2, "Usage: redact.py [OPTIONS]\nTry 'redact.py --help' for help.\n\nError: No such option"),
        (["inspect"], 2, "Usage: redact.py inspect [OPTIONS]"),
        (["inspect", "nowhere.pkl"], 2, "Error: "),
    ],
)
def test_all_else_ends_as_click_ends_it(
    words: list[str], code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["redact.py", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsys.readouterr()
    assert left.value.code == code and (err if code else out).startswith(told) and "" in (out, err)


def test_a_question_that_nobody_answers_is_no_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def ask() -> None:
        click.confirm("Delete it?")

    def answer(_: str) -> str:
        raise answers.pop()

    answers: list[BaseException] = [KeyboardInterrupt(), EOFError()]
    monkeypatch.setattr("click.termui.visible_prompt_func", answer)
    for code in (1, 130):
        with pytest.raises(SystemExit) as left:
            failures.run(click.Command("ask", callback=ask), [], "ask")
        assert left.value.code == code and capsys.readouterr().err == "Aborted!\n"


@pytest.mark.parametrize(("rank", "told"), [("0", "Aborted!\n"), ("1", "")])
def test_of_several_processes_one_tells_that_ctrl_c_came(
    rank: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    with pytest.raises(SystemExit) as left:
        failures.run(click.Command("work", callback=work), [], "work")
    assert left.value.code == 130 and capsys.readouterr().err.lstrip("\n") == told
