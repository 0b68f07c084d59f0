# SPDX-License-Identifier: Apache-2.0
"""Options of plug-ins, read from their files without importing them: `--help` has no need of torch, which takes longer than all else it does.

Read are dataclass fields whose defaults, texts and ranges are written out or named by a constant, in the file or in one of the package that it
imports from. Whoever writes them otherwise loses nothing but time: then the class is imported.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib.util
import operator
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any

from stylegan_redact import plugins
from stylegan_redact.plugins import Option

_PLAIN = {"int": int, "float": float, "bool": bool, "str": str}
_KEYWORDS = {"low", "high", "choices", "path"}


class NotPlain(Exception):
    """Only Python itself can say what is meant."""


def options_of_all(package: str) -> Mapping[str, tuple[Option, ...]]:
    """Plug-in name -> what `plugins.options` says of it, in the order of names.

    Args:
        package: Dotted name of a folder of plug-ins.

    Raises:
        RedactError: as `plugins.load` does.
    """
    reader, found = Reader(package.partition(".")[0]), {}
    for name in plugins.names(package):
        try:
            found[name] = reader.options(f"{package}.{name}")
        except NotPlain:
            found[name] = plugins.options(plugins.load(package, name))
    return found


class Reader:
    """Reads modules of one package, each once.

    Args:
        top: Its name; what other packages define is not plain.
    """

    def __init__(self, top: str) -> None:
        self._top = top
        self._trees: dict[str, ast.Module] = {}

    def options(self, module: str) -> tuple[Option, ...]:
        """Those of the one public dataclass that the module defines.

        Raises:
            NotPlain: it has to be imported.
        """
        classes = [node for node in self._tree(module).body if isinstance(node, ast.ClassDef) and _is_dataclass(node)]
        public = [node for node in classes if not node.name.startswith("_")]
        if len(public) != 1:
            raise NotPlain(module)
        return tuple(self._fields(module, public[0]).values())

    def _tree(self, module: str) -> ast.Module:
        if module.partition(".")[0] != self._top:
            raise NotPlain(module)
        if module not in self._trees:
            spec = importlib.util.find_spec(module)
            if spec is None or spec.origin is None:
                raise NotPlain(module)
            self._trees[module] = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        return self._trees[module]

    def _fields(self, module: str, node: ast.ClassDef) -> dict[str, Option]:
        """Name -> option; those of the base first, as dataclasses have them."""
        if len(node.bases) > 1 or not _is_dataclass(node):
            raise NotPlain(node.name)
        found: dict[str, Option] = {}
        for base in node.bases:
            home, definition = self._defined(module, base)
            if not isinstance(definition, ast.ClassDef):
                raise NotPlain(node.name)
            found |= self._fields(home, definition)
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and not ast.unparse(statement.annotation).startswith("ClassVar"):
                option = self._option(module, statement)
                found[option.name] = option
        return found

    def _option(self, module: str, field: ast.AnnAssign) -> Option:
        if not isinstance(field.target, ast.Name):
            raise NotPlain(ast.unparse(field))
        name, kind, value = field.target.id, _type(field.annotation), field.value
        if value is None:
            return Option(name, kind, dataclasses.MISSING, "")
        if not isinstance(value, ast.Call):
            return Option(name, kind, self._value(module, value), "")
        keywords = {keyword.arg: keyword.value for keyword in value.keywords}
        if ast.unparse(value.func) != "option" or len(value.args) != 2 or not set(keywords) <= _KEYWORDS:
            raise NotPlain(ast.unparse(field))
        default, told = (self._value(module, each) for each in value.args)
        return Option(name, kind, default, told, **{str(key): self._value(module, each) for key, each in keywords.items()})

    def _value(self, module: str, node: ast.expr) -> Any:
        if isinstance(node, ast.Name):
            home, definition = self._defined(module, node)
            if isinstance(definition, ast.expr):
                return self._value(home, definition)
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise NotPlain(ast.unparse(node)) from None

    def _defined(self, module: str, name: ast.expr) -> tuple[str, ast.expr | ast.ClassDef]:
        """Where the name is defined, and as what."""
        if isinstance(name, ast.Name):
            for node in self._tree(module).body:
                if isinstance(node, ast.ClassDef) and node.name == name.id:
                    return module, node
                if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name.id]:
                    return module, node.value
                if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == name.id and node.value is not None:
                    return module, node.value
                if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    for alias in node.names:
                        if (alias.asname or alias.name) == name.id:
                            return self._defined(node.module, ast.Name(alias.name))
        raise NotPlain(ast.unparse(name))


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any(ast.unparse(decorator).partition("(")[0] in ("dataclass", "dataclasses.dataclass") for decorator in node.decorator_list)


def _type(annotation: ast.expr) -> type | UnionType:
    """int, float, bool, str, or several with | between them, None among them."""
    kinds: list[Any] = []
    for text in ast.unparse(annotation).split(" | "):
        if text != "None" and text not in _PLAIN:
            raise NotPlain(text)
        kinds.append(_PLAIN.get(text))
    return functools.reduce(operator.or_, kinds)
