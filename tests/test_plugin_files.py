# SPDX-License-Identifier: Apache-2.0
"""Options read from files are those of the classes, and help needs nothing that is slow to import."""

import subprocess
import sys
from pathlib import Path

import click
import pytest

from stylegan_redact import asking, cli, plugin_files, plugins, verbs

ROOT = Path(__file__).parents[1]
SLOW = {"torch", "numpy", "scipy", "matplotlib", "jinja2", "PIL", "requests", "tqdm", "safetensors"}
RUN_AND_TELL = """
import runpy, sys
try:
    runpy.run_path("redact.py", run_name="__main__")
finally:
    sys.stderr.write(" ".join(sys.modules))
"""
PLUGIN = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar
from stylegan_redact.plugins import option
from made_up_files import _shared
from made_up_files._shared import KINDS, Shared as Base

LOWEST: float = -1.5

@dataclass(frozen=True)
class Plugin(Base):
    kind: str | None = option(None, "one " "of them", choices=KINDS)
    kimg: float = option(2.0, "more", low=LOWEST)
    plain: int = 3
    needs: ClassVar[tuple[str, ...]] = ("latents",)
"""
SHARED = """
from __future__ import annotations
import dataclasses
from stylegan_redact.plugins import option

KINDS = ("a", "b")

@dataclasses.dataclass(frozen=True)
class Shared:
    kimg: float = option(1.0, "thousands", low=0.0)
    files: str = option("x", "where", path=True)
"""


@pytest.mark.parametrize("verb", ["", *verbs.names()])
def test_help_imports_nothing_slow(verb: str) -> None:
    words = [*verb.split(), "--help"]
    done = subprocess.run([sys.executable, "-c", RUN_AND_TELL, *words], cwd=ROOT, capture_output=True, text=True)
    imported = set(done.stderr.split())
    assert done.returncode == 0 and {"stylegan_redact.cli", *(f"stylegan_redact.verbs.{name}" for name in verb.split())} <= imported
    command = cli.choose(words)[0]
    options = {option for parameter in command.params if isinstance(parameter, click.Option) for option in parameter.opts}
    assert options and {option for option in options if option not in done.stdout} == set()
    assert {name.partition(".")[0] for name in imported} & SLOW == set()


def test_what_is_read_is_what_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every method that there is, none of which has to be imported for it."""
    expected = {name: plugins.options(plugins.load(asking.METHODS, name)) for name in plugins.names(asking.METHODS)}
    monkeypatch.setattr(plugins, "load", lambda *_: pytest.fail("a method was imported"))
    assert plugin_files.options_of_all(asking.METHODS) == expected


def test_bases_constants_and_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "made_up_files"
    folder.mkdir()
    for name, text in {"__init__": "", "plugin": PLUGIN, "_shared": SHARED}.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    expected = {"plugin": plugins.options(plugins.load("made_up_files", "plugin"))}
    monkeypatch.setattr(plugins, "load", lambda *_: pytest.fail("the plug-in was imported"))
    assert plugin_files.options_of_all("made_up_files") == expected
    assert [option.name for option in expected["plugin"]] == ["kimg", "files", "kind", "plain"]


@pytest.mark.parametrize(
    "line",
    [
        'kimg: float = option(sum([1.0, 2.0]), "computed")',
        'kimg: float = option(1.0, f"{1}")',
        'kimg: "list[int]" = option(1.0, "another type")',
        "kimg: float = field(default=1.0)",
        'kimg: float = option(1.0, "more", low=math.pi)',
    ],
)
def test_what_only_python_can_say_is_imported(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path.name  # A name of its own for each, since Python remembers modules.
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("")
    imports = "import math\nfrom dataclasses import dataclass, field\nfrom stylegan_redact.plugins import option\n"
    (tmp_path / package / "plugin.py").write_text(f"{imports}\n@dataclass\nclass Plugin:\n    {line}\n")
    monkeypatch.syspath_prepend(tmp_path)
    expected = {"plugin": plugins.options(plugins.load(package, "plugin"))} if "list" not in line else None
    with pytest.raises(plugin_files.NotPlain):
        plugin_files.Reader(package).options(f"{package}.plugin")
    if expected is not None:
        assert plugin_files.options_of_all(package) == expected


def test_a_request_is_checked_without_what_only_later_steps_need() -> None:
    """Neither torch's compiler, which torch imports for some arithmetic without memory, nor SciPy's distributions, nor what draws charts."""
    code = "import sys; from stylegan_redact import job; job.prepare(job.Request('portraits64', 'beard')); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True)
    imported = set(done.stdout.split())
    assert "stylegan_redact.job" in imported, done.stderr
    assert imported & {"torch._dynamo", "scipy.stats", "scipy.optimize", "matplotlib"} == set()
