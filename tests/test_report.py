# SPDX-License-Identifier: Apache-2.0
"""report.html and the model card: which pairs are shown, what is said of them, that names cannot break out, that a browser is content."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_run
import torch
from browser import CHROMIUM, Browser
from click.testing import CliRunner

from stylegan_redact import asking, cli, evaluation, job, reporting
from stylegan_redact.proof import plan
from stylegan_redact.report import card, charts, commands, facts, page, pairs
from stylegan_redact.types import Estimate

HOSTILE = 'glow"><script>alert(1)</script>'
AXE = Path(os.environ.get("AXE_CORE", Path(__file__).parents[1] / "node_modules" / "axe-core" / "axe.min.js"))

pytestmark = pytest.mark.usefixtures("one_thread")


class Page(html.parser.HTMLParser):
    """What the tests ask of a page."""

    VOID = {"meta", "link", "img", "input", "br"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.stack: list[str] = []
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.stack or self.stack[-1] not in ("script", "style"):
            self.text.append(data)

    @property
    def told(self) -> str:
        return " ".join("".join(self.text).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


def redact(outdir: Path, options: list[str]) -> Path:
    result = CliRunner().invoke(cli.command(), [*options, "--num-latents=300", "--num-images=150", f"--outdir={outdir}", "--strength=1.5"])
    assert result.exit_code == 0, result.output
    return Path(result.output.strip().splitlines()[-1]).parent


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that redacted a hostile name, with a method that takes no time."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(asking, "METHODS", "planted_methods")
        network, _, *classifiers = tiny_run.write_all(folder)
        yield redact(folder / "runs", [network, f"--feature={HOSTILE}", *classifiers, "--access=z,w"])


@pytest.fixture(scope="module")
def text(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


def seen(before: list[float], after: list[float], l1: list[float], other: list[tuple[float, float]] | None = None) -> evaluation.PairedImages:
    """Pairs whose judge knows glow and shine."""
    shine = torch.tensor(other or [(-1.0, -1.0)] * len(before))
    logits = [torch.stack([torch.tensor(side), shine[:, column]], 1) for column, side in enumerate((before, after))]
    n = len(before)
    return evaluation.PairedImages(("glow", "shine"), *logits, torch.tensor(l1), torch.zeros(n), torch.arange(n) + 100)


# ---------------------------------------------------------------------------------------------------------------------
# Which pairs


def test_failures_come_first() -> None:
    """Left by the judge's score, then what never had it by change, then the first seeds of either kind."""
    found = pairs.choose(seen([1, -1, -1, 1, -1, 1], [2, -1, 3, -1, -1, -1], [0.1, 0.5, 0.1, 0.3, 0.7, 0.2]), "glow")
    assert list(found) == [2, 0, 4, 1, 3, 5]
    assert found[2] == ("left", "free") and found[0] == ("left", "had") and found[4] == ("moved", "free") and found[5] == ("had",)


def test_what_did_not_change_is_no_failure_and_kinds_have_their_numbers() -> None:
    unchanged = pairs.choose(seen([-1.0] * 300, [-1.0] * 300, [0.0] * 300), "glow")
    assert len(unchanged) == pairs.MOST["free"] and set(unchanged.values()) == {("free",)}
    many = pairs.choose(seen([1.0] * 500 + [-1.0] * 500, [1.0] * 250 + [-1.0] * 750, [0.1] * 1000), "glow")
    assert len(many) <= sum(pairs.MOST.values()) and sum("left" in kinds for kinds in many.values()) == pairs.MOST["left"]


def test_images_that_nobody_judged_are_all_of_the_class() -> None:
    nothing = torch.zeros([3, 0])
    nobody = dataclasses.replace(seen([1.0] * 3, [1.0] * 3, [0.1, 0.3, 0.2]), attributes=(), logits_before=nothing, logits_after=nothing)
    assert pairs.choose(nobody, "class:1") == {1: ("had",), 2: ("had",), 0: ("had",)}


def test_a_pair_tells_what_flipped() -> None:
    said = seen([1, 1], [-1, -1], [0.1, 0.1], [(-1.0, 1.0), (1.0, -1.0)])
    img = torch.zeros([3, 8, 8])
    gained, lost = (pairs._pair(said, row, ("had",), "glow", img, img + 0.1, 8) for row in (0, 1))
    assert (gained.gained, gained.lost, lost.gained, lost.lost) == (("shine",), (), (), ("shine",))


def test_two_hundred_pairs_of_1024_pixels_are_a_few_megabytes() -> None:
    """Of waves and noise, which compress worse than faces."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.nn.functional.interpolate(torch.rand([1, 3, 24, 24], generator=generator), size=1024, mode="bicubic")[0]
    img = (coarse * 2 - 1 + 0.05 * torch.randn([3, 1024, 1024], generator=generator)).clamp(-1, 1)
    size = 2 * len(pairs.thumbnail(img, pairs.SIDE)) + len(pairs.thumbnail(img[:1], pairs.SIDE, 50))
    assert 200 * size < 6e6, size


# ---------------------------------------------------------------------------------------------------------------------
# What the page says


def test_the_page_has_the_figures_of_the_record(run: Path, text: str) -> None:
    record = json.loads((run / "redaction.json").read_text())["estimates"]
    found = Page(text)
    rows = {attrs["data-key"]: float(str(attrs["data-value"])) for attrs in found.all("tr") if "data-key" in attrs}
    assert rows.keys() == record.keys() and len(rows) > 10
    for key, value in rows.items():
        told = record[key]["value"]
        assert value == told or (told is None and value != value), key
    for key in ("rate_before", "rate_after", "removed"):
        value = facts.estimate_of(record[f"residual_rate/{key}"])
        assert page.short(value) in found.told and page.interval(value) in found.told


def test_a_page_asks_nobody_for_anything(text: str) -> None:
    found = Page(text)
    used = [attrs[name] for _, attrs in found.elements for name in ("src", "href", "xlink:href", "action", "srcset") if name in attrs]
    assert used and all(str(each).startswith(("data:", "#")) for each in used)
    assert re.findall(r"@import|url\((?!#)", text) == []
    (policy,) = [attrs["content"] for attrs in found.all("meta") if attrs.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in str(policy)


def test_a_hostile_name_stays_text(run: Path, text: str) -> None:
    found = Page(text)
    assert len(found.all("script")) == 1 and HOSTILE in found.told and "<script>alert" not in text
    assert "<script>" not in (run / "README.md").read_text().partition("    python redact.py")[0].partition("---\n\n")[2]


def test_every_picture_of_a_pair_says_what_it_is(text: str) -> None:
    images = Page(text).all("img")
    assert all("alt" in attrs for attrs in images)
    named = [attrs["alt"] for attrs in images if attrs["alt"]]
    assert "Seed 5000000 before" in named and "Seed 5000000 after" in named


def test_nothing_of_the_machine_and_no_time(run: Path, text: str) -> None:
    for told in (text, (run / "README.md").read_text()):
        assert str(run.parent.parent) not in told and not re.search(r"\b202\d-\d\d-\d\d", told)
    assert "--classifier=detector.pt" in Page(text).told and "--outdir" not in text


def test_the_same_run_gives_the_same_bytes(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "METHODS", "planted_methods")
    made = run.parent.parent
    options = [f"--network={made / 'tiny.pkl'}", f"--feature={HOSTILE}", f"--classifier={made / 'detector.pt'}", f"--judge={made / 'judge.pt'}"]
    again = redact(tmp_path, [*options, "--access=z,w"])
    for name in ("report.html", "README.md"):
        assert (again / name).read_bytes() == (run / name).read_bytes(), name


def test_a_missed_target_is_no_success() -> None:
    def check(state: str) -> facts.Check:
        return facts.Check(state, "", Estimate(0, 0, 0, 1))

    assert page.verdict([check("met")] * 2) == ("met", "2 of 2 targets met")
    assert page.verdict([check("met"), check("missed")]) == ("missed", "1 of 2 targets met")
    assert page.verdict([])[0] == "told"


def test_the_worst_side_effects_are_named() -> None:
    def side(name: str, before: float, change: float) -> facts.Side:
        each = [Estimate(value, value, value, 9) for value in (before, before + change, change, 100 * change / before)]
        return facts.Side(name, *each, kept=False, verdict="")

    told = dataclasses.replace(EMPTY, sides=(side("common", 50.0, -2.0), side("rare", 2.0, -1.0), side("less", 5.0, -1.5), side("gone", 0.001, 0.0)))
    assert told.worst_side is not None and told.worst_side.name == "common"
    assert told.worst_rare is not None and told.worst_rare.name == "rare"
    assert EMPTY.worst_side is None and EMPTY.worst_rare is None


EMPTY = facts.Facts(
    "redact", "glow", "net", "feature", True, "", "", (), {}, (), (), (), (), {}, (), (("Network before", "a"), ("Network after", "b")), ()
)


def test_charts_take_the_colours_of_the_page_and_repeat() -> None:
    rate = Estimate(1.0, 0.5, 2.0, 9)
    nothing = Estimate(float("nan"), float("nan"), float("nan"), 0)
    sides = (facts.Side("a<b", rate, rate, rate, nothing, kept=True, verdict=""),)
    curve = {"unit": "steps", "what": "starts", "points": {"1": {"value": None, "low": None, "high": None, "n": 0}, "9": dataclasses.asdict(rate)}}
    drawn = charts.collateral(sides), charts.ways([facts.Way("z", rate, rate)]), charts.attack("moon", {"after": curve, "stranger": curve})
    for svg in drawn:
        assert "var(--chart-ink)" in svg and "var(--chart-after)" in svg and not re.search(r"#0[0-9a-f]{5}|<style|DejaVu", svg)
        Page(svg)
    assert "a&lt;b (keep)" in drawn[0] and drawn[0] == charts.collateral(sides)
    ids = [set(re.findall(r'id="([^"]+)"', svg)) for svg in drawn]
    assert not ids[0] & ids[1] and not ids[1] & ids[2]


def test_commands_name_no_folders_and_no_secrets() -> None:
    request = job.Request(
        "https://me:secret@example.org/a/net.pkl?token=1", "grey hair", outdir="/private", classifier="/private/c.pt", seed=3, classes="all"
    )
    assert commands.command(request, given={"kimg": 0.5}) == (
        "python redact.py --network=https://example.org/a/net.pkl '--feature=grey hair' --classifier=c.pt --seed=3 --class=all --kimg=0.5"
    )
    assert commands.name_of("file:///private/net.pkl") == "net.pkl"
    evaluated = plan.Request("/private/a.pkl", "b.pkl", "glow", extractor="/private/inception.pt")
    assert commands.command(evaluated, "evaluate") == (
        "python redact.py evaluate --before=a.pkl --after=b.pkl --feature=glow --extractor=inception.pt"
    )
    trusting = job.Request("net.pkl", "glow", judge="/private/j.pt", trust_source=("ab", "cd"), delta=False)
    assert commands.command(trusting).endswith("--judge=j.pt --trust-source=ab,cd --no-delta")
    assert commands.check_command(trusting, "glow", ()).endswith("--feature=glow --judge=j.pt --trust-source=ab,cd")


@pytest.mark.parametrize(
    ("change", "runs"),
    [
        ({}, True),
        ({"features": ("glow", "shine"), "feature": "glow,shine"}, False),
        ({"request": SimpleNamespace(judge="j.pt", decoder="d.py:make")}, False),
        ({"request": SimpleNamespace(judge=None, decoder=None)}, False),
        ({"request": SimpleNamespace(judge=None, decoder=None), "file": SimpleNamespace(bundled="portraits64")}, True),
        ({"judge": SimpleNamespace(attributes=("shine",))}, False),
        ({"class_index": 0}, False),
        ({"sitting": object()}, False),
    ],
)
def test_a_check_is_named_where_it_would_run(change: dict[str, Any], runs: bool) -> None:
    planned = dict(features=("glow",), feature="glow", class_index=None, sitting=None, judge=SimpleNamespace(attributes=("glow",)))
    planned |= dict(file=SimpleNamespace(bundled=None), request=SimpleNamespace(judge="j.pt", decoder=None))
    assert reporting._checks(SimpleNamespace(**(planned | change))) == runs


def test_a_judge_in_a_file_is_called_by_its_hash() -> None:
    told = {"file_sha256": "ab" * 32, "kind": "celebahq"}
    assert facts._judge(told) == "the judge abababababab" and facts._judge({"bundled": "portraits64", "role": "judge"}) == "the bundled judge"
    assert facts._classifier_hashes({"judge": told, "detector": {"bundled": "portraits64"}}) == (
        ("Judge", "ab" * 32), ("Detector", "comes with portraits64"),
    )  # fmt: skip


def test_a_card_says_whose_terms_hold_and_what_undoes_it(run: Path) -> None:
    told = (run / "README.md").read_text()
    front = dict(line.split(": ", 1) for line in told.split("---\n")[1].splitlines())
    values = {key: json.loads(value) for key, value in front.items()}
    assert values["license"] == "other" and values["base_model_sha256"] == tiny_run.sha256(run.parent.parent / "tiny.pkl")
    assert values["model_sha256"] == tiny_run.sha256(run / "network-redacted.pkl") and f"removed:{HOSTILE}" in values["tags"]
    assert "should no longer draw" in told and "nearly the same" not in told  # What was reached, the figures say.
    assert "it undoes the redaction" in told and "does not guarantee" in told and "*that* network's terms" in told
    bundled = card.render(EMPTY, bundled=True)
    assert 'license: "apache-2.0"' in bundled and "under Apache-2.0" in bundled and "A StyleGAN network, fine-tuned" in bundled
    decoder = card.render(EMPTY, bundled=False, decoder=True)
    assert "The decoder of a VAE, fine-tuned" in decoder and '"vae"' in decoder and '"stylegan"' not in decoder


# ---------------------------------------------------------------------------------------------------------------------
# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium (Debian: apt-get install chromium)")
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (390, 844)])
def test_a_page_is_opened_scrolled_and_slid(run: Path, browser: Browser, width: int, height: int) -> None:
    browser.errors.clear(), browser.requests.clear()
    browser.open(run / "report.html", width, height)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value("document.querySelector('.verdict').getBoundingClientRect().bottom") < height
    browser.value("scrollTo({top: 1e6, behavior: 'instant'})")
    assert browser.value("scrollY") > 500

    browser.value("document.querySelector('#hero input').focus()")
    browser.press("ArrowLeft", 10)
    assert browser.value("document.querySelector('#hero input').value") == "40"
    clipped = "getComputedStyle(document.querySelector('#hero .stage .before')).clipPath"
    assert browser.value(clipped) == "inset(0px calc(60%) 0px 0px)" or "60%" in browser.value(clipped)
    browser.value("document.querySelector('#hero [data-mode=map]').click()")
    assert browser.value("getComputedStyle(document.querySelector('#hero .stage .map')).display") == "block"
    assert not [each for each in browser.requests if not each.startswith(("data:", "file:"))] and browser.errors == []


def test_the_gallery_is_filtered_sorted_and_walked(run: Path, browser: Browser) -> None:
    browser.open(run / "report.html", 1280, 900)
    everything = browser.value("document.querySelectorAll('#gallery li:not([hidden])').length")
    browser.value("document.querySelector('[data-kind=free]').click()")
    few = browser.value("[...document.querySelectorAll('#gallery li:not([hidden])')].map(each => each.dataset.kinds)")
    assert 0 < len(few) < everything and all("free" in kinds for kinds in few)
    changes = "[...document.querySelectorAll('#gallery li:not([hidden])')].map(each => +each.dataset.change)"
    browser.value("(order => { order.value = 'change'; order.dispatchEvent(new Event('change')); })(document.querySelector('#order'))")
    assert (found := browser.value(changes)) == sorted(found, reverse=True)

    browser.value("document.querySelector('#gallery li:not([hidden]) button').focus()")
    browser.press("ArrowRight")
    seed = browser.value("document.activeElement.closest('li').dataset.seed")
    assert seed == browser.value("document.querySelectorAll('#gallery li:not([hidden])')[1].dataset.seed")
    browser.press("Enter")
    assert browser.value("document.querySelector('#dialog').open") and browser.value("document.querySelector('#of').textContent") == f"Seed {seed}"
    browser.press("End")
    assert browser.value("document.querySelector('#dialog .viewer').style.getPropertyValue('--at')") == "100%"
    browser.press("Escape")
    assert browser.value("document.activeElement.closest('li').dataset.seed") == seed
    assert browser.errors == []


def test_the_theme_is_the_systems_until_it_is_chosen(run: Path, browser: Browser) -> None:
    browser.open(run / "report.html", 1280, 900)
    paper = "getComputedStyle(document.body).backgroundColor"
    light = browser.value(paper)
    browser.media(scheme="dark")
    assert browser.value(paper) != light
    browser.value("document.querySelector('#theme').click()")
    assert browser.value(paper) == light and browser.value("document.documentElement.dataset.theme") == "light"
    browser.media("print", "dark")
    assert browser.value(paper) == "rgb(255, 255, 255)" and browser.value("getComputedStyle(document.querySelector('.viewer')).display") == "none"
    browser.media()


@pytest.mark.skipif(not AXE.is_file(), reason="there is no axe-core (npm install axe-core, or AXE_CORE=path of axe.min.js)")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_fault(run: Path, browser: Browser, theme: str) -> None:
    browser.open(run / "report.html", 1280, 900)
    browser.value(f"document.documentElement.dataset.theme = '{theme}'")
    browser.value(AXE.read_text(encoding="utf-8") + ";0")
    asked = "axe.run().then(found => found.violations.map(each => [each.id, each.impact, each.nodes[0].html]))"
    found: list[Any] = browser.value(asked)
    assert [each for each in found if each[1] in ("serious", "critical")] == []
