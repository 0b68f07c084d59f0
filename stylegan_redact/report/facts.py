# SPDX-License-Identifier: Apache-2.0
"""What a report says, drawn from what a run records: redaction.json or evaluation.json, and options.json. No pictures, no layout."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stylegan_redact import evaluation
from stylegan_redact.backends.find import was_steering
from stylegan_redact.person_requests import told as told_of_person
from stylegan_redact.report.commands import FILES
from stylegan_redact.types import Estimate

RARE_BELOW = 10.0
"""Percent, as the question `collateral` has it."""


@dataclass(frozen=True)
class Check:
    """Something that was promised or asked, and what became of it."""

    state: str
    """met, missed, undecided or told (nothing was promised)."""
    text: str
    estimate: Estimate
    reason: str = ""


@dataclass(frozen=True)
class Side:
    """One other attribute."""

    name: str
    before: Estimate
    after: Estimate
    change: Estimate
    """Percentage points."""
    relative: Estimate
    """Percent of the rate before."""
    kept: bool
    """Whether it was asked to be kept."""
    verdict: str
    """What the tests of an evaluation say, else empty."""


@dataclass(frozen=True)
class Way:
    """One way to sample, or another judge: how often the feature shows."""

    name: str
    before: Estimate
    after: Estimate


@dataclass(frozen=True)
class Facts:
    """What a report says."""

    kind: str
    """redact or evaluate."""
    feature: str
    network: str
    about: str
    """What the pictures are of: feature (a judge says which show it), class, person, pictures (nobody says what they show)."""
    judged: bool
    """Whether anybody said how often the feature shows."""
    headline: str
    scope: str
    asked: tuple[tuple[str, str], ...]
    estimates: Mapping[str, Estimate]
    targets: tuple[Check, ...]
    keep: tuple[Check, ...]
    sides: tuple[Side, ...]
    ways: tuple[Way, ...]
    curves: Mapping[str, Mapping[str, Any]]
    """Attack -> victim -> curve, as JSON has it."""
    settings: tuple[tuple[str, str], ...]
    hashes: tuple[tuple[str, str], ...]
    commands: tuple[str, ...]

    @property
    def worst_side(self) -> Side | None:
        """The other attribute whose rate moved farthest; None: nobody looked."""
        return max(self.sides, key=lambda side: abs(_finite(side.change.value)), default=None)

    @property
    def worst_rare(self) -> Side | None:
        """The rare attribute that lost the largest share of itself; None: none is rare."""
        rare = [side for side in self.sides if 0 < _finite(side.before.value) < RARE_BELOW]
        return min(rare, key=lambda side: _finite(side.relative.value), default=None)


def of_redaction(record: Mapping[str, Any], options: Mapping[str, Any], commands: Sequence[str]) -> Facts:
    """Of a run that redacted.

    Args:
        record:   What becomes redaction.json.
        options:  What is in options.json.
        commands: To do it again and to check it.
    """
    estimates = estimates_of(record["estimates"])
    feature, about = options["feature"], _about(estimates)
    targets = tuple(Check("met" if each["met"] else "missed", each["text"], estimates[each["key"]]) for each in record["targets"])
    sides = _sides(estimates, options["keep"], {})
    keep = tuple(Check("told", side.name, side.change, f"{_words(side.before)} → {_words(side.after)}") for side in sides if side.kept)
    seeds = options["seeds"]["measured"]
    asked = (
        ("Feature to remove", _plain(feature)),
        ("Network", options["network_name"]),
        *((("Class", str(options["classes"])),) if options["classes"] is not None else ()),
        ("Method", options["method"]),
        *_taught(options["classifiers"], record["judge"]),
        ("To be kept", ", ".join(map(_plain, options["keep"])) or "no attribute was named"),
        ("Measured on", f"{seeds['count']:,} fresh seeds from {seeds['first']}, by {_judge(record['judge'])}"),
    )
    hashes = (
        ("Network before", options["network_sha256"]),
        ("Network after", record["network_redacted_sha256"]),
        *_classifier_hashes(options["classifiers"]),
    )
    seen = "judged by nobody" if record["judge"] is None else f"as {_judge(record['judge'])} sees it"
    scope = (
        f"z ~ N(0, I), {seeds['count']:,} seeds from {seeds['first']} that the redaction never saw, psi 1, constant noise, "
        f"entering through {' and '.join(options['access'])}, {seen}."
    )
    hidden = ("brought", "photos", "versions", "classifiers", "seeds", "network_sha256", "outdir", "resume", "method_options", *FILES)
    settings = _settings(
        {**{key: value for key, value in options.items() if key not in hidden}, **record["provenance"]["options"], **options["versions"]}
        | {"labelled seeds": _span(options["seeds"]["labelled"]), "measured seeds": _span(seeds)}
    )
    judged = "residual_rate/rate_after" in estimates
    return Facts(
        "redact", feature, options["network_name"], about, judged, _HEADLINES[about](feature, estimates), scope, asked, estimates, targets, keep,
        sides, _ways(estimates), {}, settings, hashes, tuple(commands),
    )  # fmt: skip


def of_evaluation(record: Mapping[str, Any], options: Mapping[str, Any], commands: Sequence[str], network: str) -> Facts:
    """Of a run that measured two files.

    Args:
        record:   What becomes evaluation.json.
        options:  What is in options.json.
        commands: To do it again.
        network:  What the file before is called.
    """
    estimates = estimates_of(record["estimates"])
    feature, seeds = options["feature"], options["seeds"]
    first = options["cells"][0]
    targets = []
    for cell, found in record["targets"].items():
        for each in found:
            text = each["text"] if cell == first else f"{each['text']}, at {cell}"
            targets.append(Check("met" if each["met"] else "missed", text, estimates[each["key"]]))
    states = {True: "met", False: "missed", None: "undecided"}
    keep = tuple(Check(states[each["kept"]], each["attribute"], estimate_of(each["change"]), each["text"]) for each in record["keep_verdicts"])
    asked = (
        ("Feature removed", _plain(feature)),
        ("Before", network),
        ("To be kept", ", ".join(map(_plain, options["keep"])) or "no attribute was named"),
        ("Ways to sample", "; ".join(options["cells"])),
        ("Measured on", f"{seeds['count']:,} fresh seeds from {seeds['first']}"),
        ("Targets", "held against the worse end of each interval"),
    )
    hashes = (("Network before", options["before_sha256"]), ("Network after", options["after_sha256"]), *_classifier_hashes(options["judges"]))
    hidden = ("outdir", *FILES, "versions", "judges", "cells", "seeds", "before_sha256", "after_sha256", "device")
    settings = {key: value for key, value in options.items() if key not in hidden} | options["versions"] | {"measured seeds": _span(seeds)}
    headline, scope = _headline(feature, estimates), record["scope"].removeprefix("Scope: ")
    return Facts(
        "evaluate", feature, network, "feature", True, headline, scope, asked, estimates, tuple(targets), keep,
        _sides(estimates, options["keep"], record["tests"]), _ways(estimates), record["attacks"], _settings(settings), hashes, tuple(commands),
    )  # fmt: skip


def estimates_of(told: Mapping[str, Any]) -> dict[str, Estimate]:
    """What `evaluation.as_json` wrote."""
    return {key: estimate_of(each) for key, each in told.items()}


def estimate_of(told: Mapping[str, Any]) -> Estimate:
    """One of them; None is nan."""
    value, low, high = (math.nan if told[name] is None else float(told[name]) for name in ("value", "low", "high"))
    return Estimate(value, low, high, told["n"], told["unit"], told.get("confidence", 0.95))


def _headline(feature: str, estimates: Mapping[str, Estimate]) -> str:
    before, after = estimates["residual_rate/rate_before"], estimates["residual_rate/rate_after"]
    removed = estimates["residual_rate/removed"]
    share = f"{_words(removed)} of it is gone" if math.isfinite(removed.value) else "it was not there before"
    return f"The judge saw {_plain(feature)} in {_words(before)} of all pictures before, and in {_words(after)} after: {share}."


def _about(estimates: Mapping[str, Estimate]) -> str:
    keys = {"class": "class_change/l1", "person": "person/strangers_nearer_after", "feature": "residual_rate/rate_after"}
    return next((about for about, key in keys.items() if key in estimates), "pictures")


def _unjudged(feature: str, estimates: Mapping[str, Estimate]) -> str:
    visibly = _words(estimates["all/visibly_changed"])
    return (
        f"Nobody said which pictures show {_plain(feature)}. Of all pictures {visibly} changed visibly, on average by {_words(estimates['all/l1'])}."
    )


_HEADLINES: Mapping[str, Callable[[str, Mapping[str, Estimate]], str]] = {
    "feature": _headline,
    "class": lambda feature, estimates: evaluation.leak(_plain(feature), dict(estimates)),
    "person": lambda feature, estimates: told_of_person(estimates),
    "pictures": _unjudged,
}


def _sides(estimates: Mapping[str, Estimate], keep: Sequence[str], tests: Mapping[str, Any]) -> tuple[Side, ...]:
    """Every other attribute, the one that moved farthest first."""
    prefix, suffix = "collateral/", "/change"
    names = [key[len(prefix) : -len(suffix)] for key in estimates if key.startswith(prefix) and key.endswith(suffix)]
    parts = ("rate_before", "rate_after", "change", "relative_change")
    found = []
    for name in names:
        before, after, change, relative = (estimates[f"{prefix}{name}/{part}"] for part in parts)
        found.append(Side(name, before, after, change, relative, name in keep, _verdict(name, tests)))
    return tuple(sorted(found, key=lambda side: (-abs(_finite(side.change.value)), side.name)))


def _verdict(name: str, tests: Mapping[str, Any], level: float = 0.05) -> str:
    if f"{name}/changed" not in tests:
        return ""
    changed, within = (tests[f"{name}/{what}"]["p_adjusted"] <= level for what in ("changed", "within_margins"))
    told = "within margins" if within else "not shown to be within margins"
    return f"changed, {told}" if changed else told


def _ways(estimates: Mapping[str, Estimate]) -> tuple[Way, ...]:
    """Every rate of the feature that was measured."""
    suffix = "/rate_after"
    ways = []
    for key, after in estimates.items():
        question = key.removesuffix(suffix)
        if key.endswith(suffix) and "residual_rate" in question and "/" not in question and not math.isnan(after.value):
            name = question.replace("second_judge_residual_rate", "second judge").replace("residual_rate", "").replace("_", " ")
            ways.append(Way(" ".join(name.split()).removeprefix("at ") or "as judged above", estimates[f"{question}/rate_before"], after))
    return tuple(ways)


def _settings(told: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple((_plain(key), _setting(value)) for key, value in told.items())


def _setting(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def _classifier_hashes(told: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    found = []
    for role, each in told.items():
        if each is not None and "learned_from" not in each:  # Of which no file is left.
            embedder = each.get("embedder", each)
            by = embedder if isinstance(embedder, str) else was_steering(embedder) or f"comes with {embedder.get('bundled')}"
            found.append((_plain(role).capitalize(), by))
    return tuple(found)


def _judge(told: Mapping[str, Any] | None) -> str:
    if told is None:
        return "nobody"
    if "embedder" in told:
        return "likeness to the photographs"
    sha256 = was_steering(told)
    return f"the judge {sha256[:12]}" if sha256 is not None else "the bundled judge"


def _taught(classifiers: Mapping[str, Any], judge: Any) -> tuple[tuple[str, str], ...]:
    """Of a detector that was learned from labels: that it was, and that it does not judge."""
    by = (classifiers.get("detector") or {}).get("learned_from")
    alone = "" if judge is not None else "; no independent judge looked, so what is left of the feature was not measured"
    return () if by is None else (("Steered by", f"a detector learned from what the source '{by}' labelled{alone}"),)


def _span(told: Mapping[str, Any]) -> str:
    return f"{told['first']} to {told['last']}"


def _words(estimate: Estimate) -> str:
    return evaluation.format_estimate(estimate)


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _finite(number: float) -> float:
    return number if math.isfinite(number) else 0.0
