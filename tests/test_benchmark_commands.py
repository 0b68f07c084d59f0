# SPDX-License-Identifier: Apache-2.0
"""Commands of the benchmarks that the docs name: whoever copies one finds the program, and it knows the options."""

from __future__ import annotations

import importlib
import io
import re
from pathlib import Path

import click
import pytest

from benchmarks import start_up
from stylegan_redact.progress import Progress

ROOT = Path(__file__).parents[1]
TEXTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.py")])
COMMAND = re.compile(r"python -m benchmarks\.(\w+)((?:[ \\\n]+--[a-z][\w-]*(?:=[^\s`]+)?)*)")


def told() -> list[tuple[str, str, str]]:
    """(file, benchmark, options) of every command, each once."""
    found = {(path.relative_to(ROOT).as_posix(), *match.groups()) for path in TEXTS for match in COMMAND.finditer(path.read_text(encoding="utf-8"))}
    return sorted(found)


def test_commands_are_found() -> None:
    options = [words for _, _, words in told()]
    assert len(options) > 40 and any("--methods=" in words and "\n" in words for words in options), "those of several lines too"


@pytest.mark.parametrize(("file", "name", "options"), told())
def test_a_benchmark_knows_its_options(file: str, name: str, options: str) -> None:
    main = importlib.import_module(f"benchmarks.{name}").main
    assert isinstance(main, click.Command)
    known = {opt for param in main.params for opt in (*param.opts, *param.secondary_opts)}
    assert {word.split("=")[0] for word in re.findall(r"--[a-z]\S*", options)} <= known, f"in {file}"


def test_none_is_started_as_a_file() -> None:
    """Which would not find its neighbours."""
    assert not [path.name for path in TEXTS if "python benchmarks/" in path.read_text(encoding="utf-8")]


def test_what_a_user_waits_for_is_found(tmp_path: Path) -> None:
    lines: list[str] = []
    Progress(lines.append, out=io.StringIO())("label", 0.25, {"rate": 0.5})
    assert [bool(start_up.PROGRESS.match(line)) for line in lines] == [True]
    assert 0 < start_up.seconds_to(["--help"], None, str(tmp_path)) < 60
    with pytest.raises(click.ClickException, match="no such line"):
        start_up.seconds_to(["--help"], start_up.PROGRESS, str(tmp_path))
