# SPDX-License-Identifier: Apache-2.0
"""Hostile and broken files through the command: nothing runs, one sentence and the right exit code, little memory and time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import hostile_child
import hostile_files
import pytest

import redact
from stylegan_redact.network import read_snapshot

ROOT = Path(redact.__file__).parent
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="limits and measures memory as Linux does")


def child(command: list[str]) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=300)


def run(groups: list[list[list[str]]], folder: Path) -> list[dict[str, Any]]:
    """What came of each group of command lines."""
    asked, told = folder / "asked.json", folder / "told.json"
    asked.write_text(json.dumps(groups))
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, hostile_child.__file__, asked, told], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(told.read_text())


def commands(path: Path, number: int, entry: hostile_files.HostileFile) -> list[list[str]]:
    """The ways in; where reading alone decides, which is the same for all, the others are tried on every sixth file."""
    every = number % 6 == 0
    asked = [["inspect", str(path)]]
    if every or entry.inspect == 0 or entry.convert != entry.inspect or entry.ending != ".pkl":
        asked.append(["convert", str(path), str(path.with_suffix(".out.safetensors"))])
    return [*asked, [f"--network={path}", "--feature=beard", "--dry-run"]] if every else asked


def fault(result: dict[str, Any], allowed: set[int]) -> str | None:
    """What is wrong with the outcome of a command line."""
    output = result["output"]
    if result["code"] not in allowed:
        return f"exit code {result['code']}, not of {allowed}: {output[-300:]}"
    if not output.replace("\n", "").isprintable():
        return f"steers the terminal: {output[:300]!r}"
    if result["code"] in (2, 3) and (output.count("\n") != 1 or output.count(" - ") < 2 or not output.startswith("Error: ")):
        return f"not one sentence of three parts: {output[:300]!r}"
    if any(word in output for word in ("allocate", "MemoryError", "Traceback", "Warning")):
        return f"ran into a limit, or into a fault: {output[-300:]}"
    return None if result["seconds"] < hostile_child.SECONDS else f"took {result['seconds']} s"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def outcome(folder: Path) -> dict[str, dict[str, Any]]:
    """Of every file of the table."""
    table = hostile_files.table(folder / "ran")
    paths = {}
    for number, (name, entry) in enumerate(table.items()):
        paths[name] = folder / f"{number}{entry.ending}"
        paths[name].write_bytes(entry.make(folder / "ran"))
    asked = [commands(path, number, table[name]) for number, (name, path) in enumerate(paths.items())]
    return dict(zip(table, run(asked, folder), strict=True))


@pytest.mark.parametrize("name", hostile_files.table(Path("x")))
def test_each_is_refused_in_a_sentence(name: str, outcome: dict[str, dict[str, Any]], folder: Path) -> None:
    entry, found = hostile_files.table(folder / "ran")[name], outcome[name]
    assert "died" not in found, found
    codes = [{entry.inspect}, {entry.convert}, {entry.convert or 2}]
    if entry.ending == ".safetensors":
        codes[2] = {2}  # Only `convert` reads these.
    assert [why for result, allowed in zip(found["results"], codes, strict=False) if (why := fault(result, allowed))] == []
    assert found["results"] and found["peak"] < hostile_child.MEMORY and not (folder / "ran").exists()
    assert not list(folder.glob("*.partial"))


def test_the_worst_of_them(outcome: dict[str, dict[str, Any]]) -> None:
    """`-s` shows the figures of docs/security.md."""
    seconds = {name: max(result["seconds"] for result in found["results"]) for name, found in outcome.items()}
    peaks = {name: found["peak"] for name, found in outcome.items()}
    slowest, largest = max(seconds, key=seconds.__getitem__), max(peaks, key=peaks.__getitem__)
    print(f"\n{len(outcome)} files; most memory: {peaks[largest] >> 20} MiB ({largest}); longest: {seconds[slowest]:.1f} s of CPU ({slowest})")
    assert len(outcome) > 100 and peaks[largest] > 1 << 20 and seconds[slowest] > 0.1


def test_the_limits_bite() -> None:
    """What the tests above would see if a file filled the memory or took for ever."""
    greedy = ["len(bytes(2 << 30))", "[None for _ in iter(int, 1)]", "1"]
    code = "import hostile_child as child; child.SECONDS = 1"
    for expression in greedy:
        code += f"; child.run = lambda command: {expression}; print(child.forked([['x']]))"
    done = child([sys.executable, "-c", code])
    assert ["died" in line for line in done.stdout.splitlines()] == [True, True, False], done.stderr


def test_truncated_files(folder: Path) -> None:
    cuts = hostile_files.truncated(hostile_files.tiny_bytes(folder))
    assert len(cuts) == 50
    paths = [folder / f"cut{number}.pkl" for number in range(len(cuts))]
    for path, data in zip(paths, cuts.values(), strict=True):
        path.write_bytes(data)
    (found,) = run([[["inspect", str(path)] for path in paths]], folder)
    assert [why for result in found["results"] if (why := fault(result, {2}))] == []
    assert len(found["results"]) == 50 and found["peak"] < hostile_child.MEMORY


def test_flipped_bytes(folder: Path) -> None:
    """What can be told is told; a flip inside numbers or text gives another network of the same form."""
    good = hostile_files.tiny_bytes(folder)
    flips = hostile_files.flipped(good)
    paths = {name: folder / f"flip{number}.pkl" for number, name in enumerate(flips)}
    for name, data in flips.items():
        paths[name].write_bytes(data)
    (found,) = run([[["inspect", str(path)] for path in paths.values()]], folder)
    codes = dict(zip(flips, (result["code"] for result in found["results"]), strict=True))
    assert [why for result in found["results"] if (why := fault(result, {0, 2, 3}))] == []
    assert sum(code != 0 for code in codes.values()) > len(flips) / 3 and found["peak"] < hostile_child.MEMORY
    before = read_snapshot(folder / "legitimate.pkl")
    for name in (name for name, code in codes.items() if code == 0 and name.startswith("BINBYTES argument")):
        after = read_snapshot(paths[name])
        assert {key: sorted(net.tensors) for key, net in after.modules.items()} == {key: sorted(net.tensors) for key, net in before.modules.items()}


@pytest.mark.parametrize(("name", "code"), [("a milliard layers", 3), ("memo of nothing", 2)])
def test_the_script_exits_with_it(name: str, code: int, folder: Path) -> None:
    path = folder / "script.pkl"
    path.write_bytes(hostile_files.table(folder / "ran")[name].make(folder / "ran"))
    done = subprocess.run(
        [sys.executable, redact.__file__, f"--network={path}", "--feature=beard", f"--outdir={folder / 'runs'}"], capture_output=True, text=True
    )
    assert done.returncode == code and done.stderr.startswith("Error: ") and done.stderr.count("\n") == 1, done.stderr
    assert not (folder / "runs").exists() and not (folder / "ran").exists()
