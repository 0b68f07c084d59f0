# SPDX-License-Identifier: Apache-2.0
"""What the README tells people to type: its examples run, and the options that it and all other pages name are those that exist."""

import importlib.util
import re
import sys
import warnings
from pathlib import Path
from types import ModuleType

import click
import pytest
import tiny_run
import torch

from stylegan_redact import cli, read_snapshot, verbs

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CLASSIFIER, LIBRARY = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
PAGES = ["README.md", "CONTRIBUTING.md", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md")))]


def replaced(text: str, **changes: str) -> str:
    """The example at the size of a test: each change must be one."""
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    return text


def run_example(text: str, folder: Path, name: str) -> ModuleType:
    """From a file, since TorchScript reads the source of what it compiles."""
    path = folder / f"{name}.py"
    path.write_text(text)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        spec.loader.exec_module(module)
    return module


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a tiny network, with the mean of the image for a beard classifier; what comes out is a redacted pickle."""
    monkeypatch.chdir(tmp_path)
    G = tiny_run.write_network(tmp_path / "ffhq.pkl")
    with torch.no_grad():
        bright = tiny_run.synthesize(G, tiny_run.sample_w(G, range(300))).mean([1, 2, 3]) * 0.5 + 0.5
    mine = ModuleType("my_project")
    linear = torch.nn.Linear(1, 1)
    linear.weight.data.fill_(1.0)
    linear.bias.data.fill_(-float(bright.quantile(0.8)))
    mine.beard_classifier = lambda: torch.nn.Sequential(torch.nn.AvgPool3d([3, 32, 32]), torch.nn.Flatten(), linear)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_project", mine)
    run_example(replaced(CLASSIFIER, size=("size=[224, 224]", "size=[32, 32]")), tmp_path, "classifier_example")
    run_example(
        replaced(LIBRARY, shape=("(3, 1024, 1024)", "(3, 16, 16)"), seeds=("range(10_000)", "range(300)"), method=('"edit"', '"fold"')),
        tmp_path,
        "library",
    )
    assert read_snapshot(tmp_path / "redacted.pkl").redaction == {"feature": "beard"}


def test_the_two_commands_are_there_once() -> None:
    lines = [line.strip() for line in README.splitlines() if line.startswith("    python3 -m venv")]
    start = "python3 -m venv .venv && .venv/bin/pip install -q -e "
    assert lines == [
        f"{start}. && .venv/bin/python redact.py --network=portraits64 --feature=beard",
        f"{start}'.[dev]' && .venv/bin/python -m pytest",
    ]


def test_every_option_that_a_page_names_exists() -> None:
    commands = [cli.command(), *map(verbs.load, verbs.names())]
    options = [parameter for each in commands for parameter in each.params if isinstance(parameter, click.Option)]
    known = {option for parameter in options for option in parameter.opts} | {"--help"}
    named = {
        option
        for page in PAGES
        for line in (ROOT / page).read_text().splitlines()
        if "redact.py" in line
        for option in re.findall(r"--[a-z][\w-]*", line[line.index("redact.py") :])  # Before it: torchrun's.
    }
    assert named and named <= known
