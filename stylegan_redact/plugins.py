# SPDX-License-Identifier: Apache-2.0
"""A folder is a registry: the name of a plug-in is the name of its file.

A plug-in file defines exactly one public dataclass, whose fields are its options. Adding a file adds a plug-in; nothing else is edited.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import importlib.util
import math
import pkgutil
import typing
from collections.abc import Mapping
from pathlib import PurePath
from types import ModuleType
from typing import Any

from stylegan_redact.types import RedactError


@dataclasses.dataclass(frozen=True)
class Option:
    """What there is to know about one option of a plug-in."""

    name: str
    type: Any
    """As annotated, resolved: int, float | None, ..."""
    default: Any
    """dataclasses.MISSING: must be given."""
    help: str
    low: float | None = None
    """Smallest value allowed."""
    high: float | None = None
    """Largest value allowed."""
    choices: tuple[Any, ...] | None = None
    """The only values allowed."""
    path: bool = False
    """It names files of this machine: records hold their names without folders."""


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] | None = None,
    path: bool = False,
) -> Any:
    """A dataclass field that carries its help text and range: `strength: float = option(1.0, "how far", low=0)`."""
    return dataclasses.field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices, "path": path})


def record(plugin: Any) -> dict[str, Any]:
    """Option name -> value, for what is handed on: of paths, which may be private, only the last part of each."""
    values = dataclasses.asdict(plugin)
    paths = {each.name for each in options(type(plugin)) if each.path and values[each.name] is not None}
    return values | {name: ",".join(PurePath(part).name for part in values[name].split(",")) for name in paths}


def names(package: ModuleType | str) -> tuple[str, ...]:
    """The plug-ins of a package folder, sorted: its modules without a leading underscore."""
    spec = importlib.util.find_spec(package) if isinstance(package, str) else package.__spec__  # Not imported: its __init__.py may need torch.
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"{package} is no package")
    return tuple(sorted(found.name for found in pkgutil.iter_modules(spec.submodule_search_locations) if not found.name.startswith("_")))


def name_of(plugin: Any) -> str:
    """The name of a plug-in, of its instance: that of its file."""
    return type(plugin).__module__.rpartition(".")[2]


def with_options(text: str) -> tuple[str, dict[str, Any]]:
    """What `NAME:OPTION=VALUE:OPTION=VALUE` says, as command lines name a plug-in: its name, and option -> int, float, bool (true, false) or text."""
    name, *pairs = text.split(":")
    return name, {key: _value(value) for key, _, value in (pair.partition("=") for pair in pairs)}


def _value(text: str) -> int | float | bool | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)


def load(package: ModuleType | str, name: str) -> type:
    """The one public dataclass that the plug-in's file defines.

    Args:
        package: Folder of plug-ins, as a module or its dotted name.
        name: Of the plug-in: its file's name without `.py`.

    Raises:
        RedactError: no such file, or a file that does not define exactly one public dataclass. What importing the file raises is passed on.
    """
    folder = package if isinstance(package, str) else package.__name__
    _refuse_unknown(name, names(package), f"{folder.rpartition('.')[2]} plug-in")
    module = importlib.import_module(f"{folder}.{name}")
    found = [
        value
        for label, value in vars(module).items()
        if isinstance(value, type) and dataclasses.is_dataclass(value) and value.__module__ == module.__name__ and not label.startswith("_")
    ]
    if len(found) != 1:
        told = ", ".join(cls.__name__ for cls in found) or "none"
        raise RedactError(f"{folder}.{name} was asked - its public dataclasses are: {told} - a plug-in file defines exactly one")
    return found[0]


def options(cls: type) -> tuple[Option, ...]:
    """The options of a plug-in class in the order of its fields."""
    hints = typing.get_type_hints(cls)
    limits = ("low", "high", "choices")
    return tuple(
        Option(
            field.name,
            hints[field.name],
            field.default,
            field.metadata.get("help", ""),
            **{limit: field.metadata.get(limit) for limit in limits},
            path=field.metadata.get("path", False),
        )
        for field in dataclasses.fields(cls)
        if field.init
    )


def build(cls: type, values: Mapping[str, Any]) -> Any:
    """An instance of a plug-in class from option values.

    Args:
        cls: As `load` returns it.
        values: Option name -> value; options left out take their defaults.

    Raises:
        RedactError: an option that the class does not have, a value of another type or outside its range, or a needed one left out.
    """
    owner = cls.__module__.rpartition(".")[2]  # Its file, which people know it by.
    known = {each.name: each for each in options(cls)}
    for name, value in values.items():
        _refuse_unknown(name, tuple(known), f"option of {owner}")
        _refuse_value(known[name], value, owner)
    missing = [each.name for each in known.values() if each.default is dataclasses.MISSING and each.name not in values]
    if missing:
        raise RedactError(f"{owner} was asked without {', '.join(missing)} - these options have no default - give them")
    return cls(**values)


def _refuse_unknown(name: str, known: tuple[str, ...], kind: str) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known)
        advice = f"did you mean {' or '.join(close)}?" if close else "take one of them"
        raise RedactError(f"{kind} {name!r} was asked - there is: {', '.join(known) or 'none'} - {advice}")


def _refuse_value(known: Option, value: Any, owner: str) -> None:
    """Checks numbers, bool and str by type; other annotations are the class's own to check."""
    allowed = typing.get_args(known.type) or (known.type,)
    plain = {int, float, bool, str, type(None)}
    fits = not set(allowed) <= plain or type(value) in allowed or (type(value) is int and float in allowed)
    if fits and isinstance(value, int | float):
        fits = not math.isnan(value) and (known.low is None or value >= known.low) and (known.high is None or value <= known.high)
    if not fits or (known.choices is not None and value not in known.choices):
        kind = " or ".join(getattr(each, "__name__", str(each)) for each in allowed).replace("NoneType", "None")
        limits = "".join(f", at {side} {limit}" for side, limit in (("least", known.low), ("most", known.high)) if limit is not None)
        choices = f", one of {', '.join(map(str, known.choices))}" if known.choices is not None else ""
        raise RedactError(f"{known.name}={value!r} was asked of {owner} - it takes {kind}{limits}{choices} - give such a value")
