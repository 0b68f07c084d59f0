# SPDX-License-Identifier: Apache-2.0
"""A folder is a registry: names, loading, options and what is refused."""

import dataclasses
import importlib
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from stylegan_redact import plugins
from stylegan_redact.types import RedactError

FOLD = """
    from __future__ import annotations
    from dataclasses import dataclass
    from fractions import Fraction  # an imported class is not the plug-in
    from stylegan_redact.plugins import Option, option  # nor is an imported dataclass

    @dataclass(frozen=True)
    class Fold:
        strength: float = option(1.0, "how far", low=0, high=2)
        rank: int = option(1, "directions", low=1)
        where: str = option("all", "layers", choices=("all", "coarse"))
        seed: int | None = option(None, "of the noise")
        verbose: bool = option(False, "say more")
        layers: tuple[int, ...] = option((), "which")

    @dataclass
    class _Inner:
        x: int = 0

    def redact(): ...
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    folder = tmp_path / "made_up_methods"
    folder.mkdir()
    files = {"__init__": "", "fold": FOLD, "redact_data": "import dataclasses\n@dataclasses.dataclass\nclass RedactData:\n    kimg: int\n"}
    files |= {"_shared": "", "empty": "class NotOne: ...\n", "double": files["redact_data"] + "@dataclasses.dataclass\nclass Second: ...\n"}
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    (folder / "notes.txt").write_text("not a module")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder.name
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


def test_names_are_the_files(package: str) -> None:
    assert plugins.names(package) == ("double", "empty", "fold", "redact_data")
    assert plugins.names(importlib.import_module(package)) == plugins.names(package)
    with pytest.raises(ModuleNotFoundError):
        plugins.names("no_such_package")


def test_names_imports_no_plugin(package: str) -> None:
    plugins.names(package)
    assert f"{package}.fold" not in sys.modules


def test_a_new_file_is_a_new_plugin(package: str, tmp_path: Path) -> None:
    (tmp_path / package / "mapping.py").write_text("import dataclasses\n@dataclasses.dataclass\nclass Mapping: ...\n")
    assert "mapping" in plugins.names(package)
    assert plugins.load(package, "mapping").__name__ == "Mapping"


def test_load_gives_the_one_public_dataclass(package: str) -> None:
    assert plugins.load(package, "fold").__name__ == "Fold"
    assert plugins.load(sys.modules[package], "redact_data").__name__ == "RedactData"


def test_unknown_name_lists_the_names_and_the_close_one(package: str) -> None:
    with pytest.raises(RedactError, match=r"'redact_date' was asked - there is: double, empty, fold, redact_data - did you mean redact_data\?"):
        plugins.load(package, "redact_date")
    with pytest.raises(RedactError, match="take one of them"):
        plugins.load(package, "zzz")


@pytest.mark.parametrize(("name", "told"), [("empty", "none"), ("double", "RedactData, Second"), ("_shared", "there is")])
def test_other_files_are_refused(package: str, name: str, told: str) -> None:
    with pytest.raises(RedactError, match=told):
        plugins.load(package, name)


def test_options_tell_what_stands_at_the_field(package: str) -> None:
    strength, rank, where, seed, verbose, layers = plugins.options(plugins.load(package, "fold"))
    assert strength == plugins.Option("strength", float, 1.0, "how far", low=0, high=2)
    assert (rank.type, rank.low, rank.high, where.choices, seed.type, seed.default) == (int, 1, None, ("all", "coarse"), int | None, None)
    assert (verbose.default, layers.type) == (False, tuple[int, ...])
    assert plugins.options(plugins.load(package, "redact_data"))[0].default is dataclasses.MISSING


def test_build_takes_values_and_defaults(package: str) -> None:
    cls = plugins.load(package, "fold")
    built = plugins.build(cls, {"strength": 2, "rank": 3, "where": "coarse", "seed": 5, "verbose": True, "layers": (1, 2)})
    assert built == cls(2, 3, "coarse", 5, True, (1, 2))
    assert plugins.build(cls, {}) == cls() and plugins.build(cls, {"seed": None}).seed is None


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"strenght": 1.0}, r"did you mean strength\?"),
        ({"strength": 2.01}, r"strength=2.01 .* float, at least 0, at most 2"),
        ({"strength": -0.01}, "at least 0"),
        ({"strength": float("nan")}, "strength=nan"),
        ({"strength": "1"}, "takes float"),
        ({"strength": None}, "takes float"),
        ({"rank": 0}, "at least 1"),
        ({"rank": 1.5}, "takes int"),
        ({"rank": True}, "takes int"),
        ({"where": "fine"}, "one of all, coarse"),
        ({"seed": "x"}, "int or None"),
        ({"verbose": 1}, "takes bool"),
    ],
)
def test_build_refuses(package: str, values: dict, told: str) -> None:
    with pytest.raises(RedactError, match=told):
        plugins.build(plugins.load(package, "fold"), values)


def test_build_wants_what_has_no_default(package: str) -> None:
    cls = plugins.load(package, "redact_data")
    with pytest.raises(RedactError, match="kimg"):
        plugins.build(cls, {})
    assert plugins.build(cls, {"kimg": 3}).kimg == 3


def test_records_name_no_folder() -> None:
    @dataclasses.dataclass(frozen=True)
    class Plugin:
        rate: float = plugins.option(1.0, "how much", low=0.0)
        data: str | None = plugins.option(None, "pictures", path=True)

    assert plugins.record(Plugin(2.0, "secret/place/set.zip,elsewhere/more")) == {"rate": 2.0, "data": "set.zip,more"}
    assert plugins.record(Plugin()) == {"rate": 1.0, "data": None}
    assert [each.path for each in plugins.options(Plugin)] == [False, True]
