# SPDX-License-Identifier: Apache-2.0
"""The pages: no link is dead, no plug-in of methods/ is without a page, and all is Markdown that GitHub and the site read alike."""

import importlib.util
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from stylegan_redact import feature_requests, features, methods, plugins

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def without_code(text: str) -> str:
    """The text with code blanked out: what looks like a link in it is none."""
    text = re.sub(r"^(```|~~~).*?^\1", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "code", text, flags=re.DOTALL)


def headings(text: str) -> list[str]:
    """Anchors of the headings: words in lower case, joined by hyphens, as GitHub and the site make them."""
    found = re.findall(r"^#{1,6} +(.+?) *#*$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", re.sub(r"\[(.*?)\]\(.*?\)", r"\1", each).lower()) for each in found]
    return [re.sub(r"\s+", "-", each.strip()) for each in plain]


def dead(page: Path, text: str) -> Iterator[str]:
    """The links of a page that lead to no file, out of the repository, or to no heading of a page."""
    for link in re.findall(r"\]\(\s*<?([^)>\s]+)", without_code(text)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if name and not (target.is_relative_to(ROOT) and target.exists()):
            yield link
        elif anchor and (target.suffix != ".md" or anchor not in headings(target.read_text(encoding="utf-8") if name else text)):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_is_dead(page: Path) -> None:
    assert list(dead(page, page.read_text(encoding="utf-8"))) == []


def test_that_sees_each_way_to_be_dead() -> None:
    text = "## It's here, *too*\n\n[a](#its-here-too) [b](evaluation.md#attacks) ![c](images/label_page.jpg) [d](https://no.host) `[e](no.md)`\n"
    assert list(dead(DOCS / "page.md", text)) == []
    planted = ["no.md", "#nowhere", "evaluation.md#nowhere", "images/no.png", "../../outside.md", "images/label_page.jpg#part"]
    assert list(dead(DOCS / "page.md", text + "\n".join(f"[two\nlines]({link})" for link in planted))) == planted


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_both_readers_of_markdown_agree(page: Path) -> None:
    """No two headings of a page are alike (their anchors are numbered differently), and a list or table has a blank line before it."""
    text = page.read_text(encoding="utf-8")
    assert [each for each, count in Counter(headings(text)).items() if count > 1] == []
    blocks = re.split(r"\n\s*\n", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    begins = re.compile(r"^(\* |- |\d+\. |\|)")
    late = [
        line
        for block in blocks
        for first, *rest in [block.strip("\n").splitlines() or [""]]
        if not begins.match(first)
        for line in rest
        if begins.match(line)
    ]
    assert late == []


def test_every_method_has_its_page() -> None:
    table = (DOCS / "methods" / "index.md").read_text(encoding="utf-8").partition("## ")[0]
    rows = [(re.findall(r"`(\w+)`", line), re.findall(r"\]\((\w+\.md)", line)) for line in table.splitlines() if line.startswith("| [")]
    named = {name: pages[0] for names, pages in rows for name in names}
    assert set(named) == set(plugins.names(methods))
    assert {page.name for page in (DOCS / "methods").iterdir()} == {"index.md", "filter.md", *named.values()}
    for name, page in named.items():
        assert re.search(rf"^#+ .*\b{name}\b|`{name}`", (DOCS / "methods" / page).read_text(encoding="utf-8"), re.MULTILINE)


def test_every_source_has_its_page() -> None:
    """A how-to of one shape, in the table of all, which shows how each is written on the command line."""
    table = (DOCS / "features" / "index.md").read_text(encoding="utf-8").partition("\n## ")[0]
    named = dict(re.findall(r"^\| \[(`[^]]+`)\]\((\w+)\.md\)", table, re.MULTILINE))
    pages = {page.stem: page.read_text(encoding="utf-8") for page in (DOCS / "features").iterdir()}
    assert sorted(named.values()) == sorted(plugins.names(features)) == sorted(set(pages) - {"index"})
    assert {feature_requests.source_of(spelt.split("`")[1]) for spelt in named} == set(feature_requests.SOURCES)
    for name in named.values():
        for part in ("**You need**", "\n    python redact.py ", "**What comes out.**", "**How to check it.**", "**What goes wrong.**"):
            assert part in pages[name], (name, part)


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """As mkdocs loads it: from its file."""
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "site_hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_site_has_every_page_once() -> None:
    named = re.findall(r"^ +- (?:[^:\n]+: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(named) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_the_site_has_no_dead_link(page: Path, hooks: ModuleType) -> None:
    """With the README's text in its page, whose links must have been made to fit, and none that leads out of docs/."""
    shown = {path: hooks.rendered(path.read_text(encoding="utf-8"), path) for path in {page, DOCS / "index.md"}}
    links = re.findall(r"\]\(([^)\s]+)\)", without_code(shown[page]))
    assert "<!-- include" not in shown[page] and "<!-- reference" not in shown[page] and "<!-- help" not in shown[page]
    for link in links:
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not re.match(r"[a-z]+:", link):
            assert target.is_relative_to(DOCS) and target.is_file(), link
            assert not anchor or anchor in headings(shown.get(target) or target.read_text(encoding="utf-8")), link


def test_included_links_are_made_to_fit(hooks: ModuleType) -> None:
    text = "[a](docs/vae.md#limits) ![b](docs/images/label_page.jpg) `[c](docs/vae.md)` [`d`](stylegan_redact/types.py) [f](CONTRIBUTING.md)"
    fitted = hooks.fitted(text, ROOT / "README.md", DOCS / "methods" / "index.md")
    assert fitted == "[a](../vae.md#limits) ![b](../images/label_page.jpg) `[c](docs/vae.md)` `d` [f](../contributing.md)"


def test_the_reference_says_what_the_code_says(hooks: ModuleType, tmp_path: Path) -> None:
    """Of a file: its functions with all they say; of a plug-in: its class and options."""
    api = "\n".join(hooks.reference(ROOT / "stylegan_redact" / "api.py", whole=True))
    assert "### redact\n" in api and "* seed: Of all randomness; the same seed gives the same network." in api and "seed: int=0" in api
    edit = "\n".join(hooks.reference(ROOT / "stylegan_redact" / "methods" / "edit.py", whole=False))
    assert (
        "* `margin: float = 11.0` how far below zero" in edit and "### as_" not in edit and "_" not in re.sub(r"`[^`]*`", "", edit).replace("\\_", "")
    )
    folder = hooks.rendered("<!-- reference: stylegan_redact/methods -->", DOCS / "page.md")
    assert re.findall(r"^## (\w+)$", folder, re.MULTILINE) == list(plugins.names(methods))


def test_the_site_loads_nothing_from_elsewhere() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "  font: false" in text and "://" not in text


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="mkdocs is not installed: pip install -e '.[docs]'")
def test_the_site_is_built(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", f"--site-dir={tmp_path / 'site'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert "Every run has a folder of its own" in page and not re.search(r"(src|href)=.https?://[^'\" ]+\.(js|css|woff2?)", page)
