# SPDX-License-Identifier: Apache-2.0
"""report.html: facts and pairs of images through a template, with the style, the script and all pictures inside."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from stylegan_redact import evaluation
from stylegan_redact.pictures import AMPLIFIED
from stylegan_redact.report import charts, pairs
from stylegan_redact.report.facts import Check, Facts
from stylegan_redact.run_dir import write_text
from stylegan_redact.types import Estimate
from stylegan_redact.version import VERSION

NAME = "report.html"
TEMPLATES = Path(__file__).parent / "templates"
KINDS = {
    pairs.LEFT: "Still shows it",
    pairs.MOVED: "Should not have changed",
    pairs.HAD: "Had it, first seeds",
    pairs.FREE: "Never had it, first seeds",
}
OTHERWISE = {
    "class": {pairs.HAD: "Of the class, first seeds"},
    "person": {pairs.MOVED: "Somebody else, changed most", pairs.FREE: "Somebody else, first seeds"},
    "pictures": {pairs.HAD: "First seeds"},
}
"""What kinds are called, and which there are, where no judge tells pictures apart; of a class there may be one who does."""
OPENED_BY = {
    "feature": "the first measured seed that showed it, not chosen",
    "class": "the first measured seed of the class, not chosen",
    "person": "of other people the one that changed most",
    "pictures": "the first measured seed, not chosen",
}
_STATES = {"met": ("✓", "met"), "missed": ("✗", "missed"), "undecided": ("?", "undecided"), "told": ("·", "measured")}


def write_page(folder: Path, facts: Facts, shown: Sequence[pairs.Pair]) -> None:
    """report.html in the folder, whole or not there. The same facts and pairs give the same bytes.

    Args:
        folder: The run directory.
        facts:  What to say.
        shown:  Pairs of images, worst first.
    """
    write_text(folder / NAME, render(facts, shown))


def render(facts: Facts, shown: Sequence[pairs.Pair]) -> str:
    """The page as text."""
    style, script = ((TEMPLATES / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment().get_template("report.html.j2").render(
        facts=facts,
        pairs=shown,
        opening=shown[pairs.opening(list(range(len(shown))), {row: pair.kinds for row, pair in enumerate(shown)})] if shown else None,
        counts={kind: sum(kind in pair.kinds for pair in shown) for kind in KINDS},
        moved=("never had it" if facts.judged else "somebody else"),
        kinds=KINDS if facts.judged else OTHERWISE[facts.about],
        opened_by=OPENED_BY[facts.about],
        flipped=sum(bool(pair.gained or pair.lost) for pair in shown),
        verdict=verdict(facts.targets),
        states=_STATES,
        collateral=Markup(charts.collateral(facts.sides)) if facts.sides else None,
        ways=Markup(charts.ways(facts.ways)) if facts.ways else None,
        attacks={name: Markup(charts.attack(name, curves)) for name, curves in facts.curves.items()},
        amplified=AMPLIFIED,
        margins=(evaluation.MARGIN_POINTS, 100 * evaluation.MARGIN_SHARE),
        version=VERSION,
        style=Markup(style),
        script=Markup(script),
        digest=digest,
    )  # fmt: skip


def verdict(targets: Sequence[Check]) -> tuple[str, str]:
    """State and words for the top of the page."""
    met = sum(each.state == "met" for each in targets)
    if not targets:
        return "told", "No target applies"
    return ("met" if met == len(targets) else "missed"), f"{met} of {len(targets)} targets met"


def environment() -> jinja2.Environment:
    """Templates that escape whatever is put into them, and fail for what is not there."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters |= {"figure": evaluation.format_estimate, "short": short, "interval": interval, "plain": plain, "md": markdown, "code": code}
    return made


def short(estimate: Estimate) -> str:
    """`12.9 %`: the value without its interval, with the decimals that the interval leaves meaning to."""
    return evaluation.format_estimate(estimate).rpartition(" (")[0]


def interval(estimate: Estimate) -> str:
    """`12.2 to 13.6`."""
    return re.sub(r"(?<=\d)-(?=\d)", " to ", evaluation.format_estimate(estimate).rpartition(" (")[2].rstrip(")"))


def plain(name: Any) -> str:
    """grey_hair -> grey hair."""
    return str(name).replace("_", " ")


def markdown(text: Any) -> Markup:
    """Text that Markdown shows as it is."""
    escaped = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Markup(re.sub(r"([\\`*_\[\]|~])", r"\\\1", " ".join(escaped.split())))


def code(text: Any) -> Markup:
    """One line of an indented block of code, in which Markdown takes nothing for anything."""
    return Markup(" ".join(str(text).splitlines()))
