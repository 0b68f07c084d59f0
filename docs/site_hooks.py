# SPDX-License-Identifier: Apache-2.0
"""What `mkdocs build` does to a page on top of Markdown: README.md and CONTRIBUTING.md become pages, the reference is made from the code.

A page may have these lines, each alone:

    <!-- include: ../README.md -->                   that file in the place of the page, its links made to fit
    <!-- reference: stylegan_redact/api.py -->       signatures and docstrings of the public names of a file, or of every plug-in of a folder
    <!-- help -->                                    `redact.py --help`, and that of each verb

Links to files of the repository that are no pages become plain text: the site stands alone, offline too.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PAGES_OF = {ROOT / "README.md": DOCS / "index.md", ROOT / "CONTRIBUTING.md": DOCS / "contributing.md"}
"""Files outside of docs/ -> the page that includes them."""
_HELP = "<!-- help -->"
_MARKER = re.compile(rf"^(?:<!-- reference: (\S+) -->|{_HELP})$", re.MULTILINE)
_CODE = r"^```.*?^```|(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)"
_LINK = re.compile(rf"{_CODE}|(?P<open>!?)\[(?P<text>(?:[^\[\]`]|`[^`]*`)*)\]\((?P<to>[^)\s]+)\)", re.MULTILINE | re.DOTALL)
_SECTIONS = ("Args", "Returns", "Raises", "Source", "Yields")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """mkdocs calls this with the text of each page; what it should read comes back."""
    return rendered(markdown, DOCS / page.file.src_uri)


def rendered(text: str, page: Path) -> str:
    """The text of a page with its markers filled in and its links made to fit the site."""
    included = re.search(r"^<!-- include: (\S+) -->$", text, re.MULTILINE)
    if included:
        path = (page.parent / included[1]).resolve()
        return fitted(path.read_text(encoding="utf-8"), path, page)
    return fitted(_MARKER.sub(_filled, text), page, page)


def fitted(text: str, written: Path, page: Path) -> str:
    """The text with links that hold from `page`, though it was written in the file `written`."""

    def link(found: re.Match[str]) -> str:
        to = found["to"]
        if to is None or to.startswith("#") or re.match(r"[a-z]+:", to):
            return found[0]
        name, mark, anchor = to.partition("#")
        target = (written.parent / name).resolve()
        target = PAGES_OF.get(target, target)
        if not target.is_relative_to(DOCS):
            return found["text"]
        target = target / "index.md" if target.is_dir() else target
        return f"{found['open']}[{found['text']}]({Path(os.path.relpath(target, page.parent)).as_posix()}{mark}{anchor})"

    return _LINK.sub(link, text)


def _filled(found: re.Match[str]) -> str:
    if found[0] == _HELP:
        return "\n".join(help_of_commands())
    path = ROOT / found[1]
    files = sorted(path.glob("[!_]*.py")) if path.is_dir() else [path]
    return "\n".join(line for file in files for line in reference(file, whole=path.is_file()))


def help_of_commands() -> Iterator[str]:
    """Markdown: what --help of the command and of each verb prints."""
    import click

    from stylegan_redact import cli, verbs

    for verb in ("", *verbs.names()):
        command = verbs.load(verb) if verb else cli.command()
        name = f"redact.py {verb}".strip()
        with click.Context(command, info_name=name, terminal_width=110, max_content_width=110) as context:
            yield from (f"## {name}", "", "```text", command.get_help(context), "```", "")


def reference(path: Path, *, whole: bool) -> Iterator[str]:
    """Markdown: the docstring of a file, then its public classes and functions; of a plug-in (not `whole`) only its class and options."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    yield from (f"## {module if whole else path.stem}", "", *_prose(ast.get_docstring(tree)))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from (f"### class {node.name}", "", *_prose(ast.get_docstring(node)), *_fields(node), "")
            yield from (line for part in node.body if whole and _public(part) for line in _function(part, f"{node.name}."))
        elif whole and _public(node):
            yield from _function(node, "")


def _public(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and not node.name.startswith("_")


def _function(node: Any, owner: str) -> Iterator[str]:
    is_property = any(getattr(each, "id", "") == "property" for each in node.decorator_list)
    arguments = "" if is_property else f"({ast.unparse(node.args)})"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns is not None else ""
    yield from (f"### {owner}{node.name}", "", "```python", f"{owner}{node.name}{arguments}{returns}", "```", "", *_prose(ast.get_docstring(node)))


def _fields(node: ast.ClassDef) -> Iterator[str]:
    """A list entry for each annotated field: its type, its default or help text, and the docstring that follows it."""
    for part, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and not part.target.id.startswith("_"):
            about = following.value.value if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant) else ""
            value, helped = part.value, ""
            if isinstance(value, ast.Call) and ast.unparse(value.func).endswith("option"):
                value, helped = (
                    value.args[0],
                    ast.literal_eval(value.args[1]) if isinstance(value.args[1], ast.Constant) else ast.unparse(value.args[1]),
                )
            default = f" = {ast.unparse(value)}" if value is not None else ""
            yield f"* `{part.target.id}: {ast.unparse(part.annotation)}{default}` {_escaped(' '.join(f'{about} {helped}'.split()))}".rstrip()


def _prose(docstring: str | None) -> Iterator[str]:
    """Markdown of a docstring in the style of this project: paragraphs, then sections whose entries become lists."""
    for block in (docstring or "").split("\n\n"):
        title, *lines = block.splitlines() or [""]
        if title.rstrip(":") in _SECTIONS and title.endswith(":"):
            entries = re.split(r"\n(?! )", "\n".join(line[4:] for line in lines))
            yield from (f"**{title}**", "", *(f"* {_escaped(' '.join(entry.split()))}" for entry in entries), "")
        elif all(line.startswith("    ") for line in (title, *lines)) and title:
            yield from ("```text", *(line[4:] for line in (title, *lines)), "```", "")
        else:
            yield from (*map(_escaped, (title, *lines)), "")


def _escaped(text: str) -> str:
    """The text, with nothing in it that Markdown would take for more than text, code in backticks apart."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if index % 2 else re.sub(r"([\\*_\[\]])", r"\\\1", part).replace("<", "&lt;") for index, part in enumerate(parts))
