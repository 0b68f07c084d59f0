# SPDX-License-Identifier: Apache-2.0
"""Attributes that were to stay as they are: kept, changed, or too few images to tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stylegan_redact.estimates import paired_rate_change, relative_change
from stylegan_redact.evaluation._paired import PairedImages
from stylegan_redact.evaluation._table import _aligned, _count, as_json, format_estimate
from stylegan_redact.paired_tests import MOST_TIMES, beyond_margins, holm, images_needed, within_margins
from stylegan_redact.types import Estimate

MARGIN_POINTS = 0.5
"""A rate may change by this many percentage points."""
MARGIN_SHARE = 0.15
"""It may lose this share of itself: of a rare attribute, half a point is most."""
LEVEL = 0.05
"""The chance that any attribute is called kept that is not, and the same for changed, over the whole list."""


@dataclass(frozen=True)
class KeepVerdict:
    """What became of one attribute that was to stay as it is."""

    attribute: str
    kept: bool | None
    """True: shown to be within the margins. False: shown to be beyond one. None: neither."""
    change: Estimate
    """Rate after - rate before, percentage points."""
    relative_change: Estimate
    """Rate after / rate before - 1, percent."""
    p_adjusted: float
    """Of what `kept` says, adjusted for the length of the list (Holm); for None, of "within the margins", which it does not show."""
    text: str
    """The reason, for people."""


def keep_verdicts(
    pairs: PairedImages, feature: str, keep: Sequence[str], margin_points: float = MARGIN_POINTS, margin_share: float = MARGIN_SHARE
) -> tuple[KeepVerdict, ...]:
    """A verdict for each attribute to keep: what was not shown either way is undecided, never passed.

    Kept is: changed by less than `margin_points`, up or down, *and* lost less than `margin_share` of its rate. The second holds for the rare: an
    attribute of 2 % that loses a fifth moves by 0.4 points. Changed is: beyond one of them.

    Args:
        pairs:         As `measure_pairs` gives them.
        feature:       That was redacted; the judge knows it.
        keep:          Attributes, in the order of the verdicts; one named twice counts once.
        margin_points: Percentage points, in (0, 100).
        margin_share:  Of the rate before, in (0, 1).

    Raises:
        RedactError: an attribute that the judge does not know, the feature among those to keep, or a margin out of its range.

    Source: `stylegan_redact.paired_tests` (score tests, two one-sided tests); Holm 1979 (over the list, apart for kept and for changed).
    """
    names = tuple(dict.fromkeys(keep))
    pairs.others(feature, names)  # refuses unknown names
    shows = [(pairs.shows_before(name), pairs.shows_after(name)) for name in names]
    margins = (margin_points, margin_share)
    within = holm([within_margins(before, after, *margins) for before, after in shows])
    beyond = holm([beyond_margins(before, after, *margins) for before, after in shows])
    points, share = f"{margin_points:g} points", f"{100 * margin_share:g} % of its rate"
    verdicts = []
    for name, (before, after), p_within, p_beyond in zip(names, shows, within, beyond, strict=True):
        kept = True if p_within <= LEVEL else False if p_beyond <= LEVEL else None
        p = p_beyond if kept is False else p_within
        if kept is None:
            text = _what_would_tell(before, after, margins, LEVEL / len(names))
        else:
            text = f"{f'within {points} and' if kept else f'beyond {points} or'} {share}, {_p(p)}"
        verdicts.append(KeepVerdict(name, kept, paired_rate_change(before, after), relative_percent(before, after), p, text))
    return tuple(verdicts)


def render_keep(verdicts: Sequence[KeepVerdict]) -> str:
    """One line per attribute: kept, CHANGED or undecided, its changes, the reason."""
    words = {True: "kept", False: "CHANGED", None: "undecided"}
    rows = [
        [
            words[verdict.kept],
            verdict.attribute.replace("_", " "),
            format_estimate(verdict.change),
            format_estimate(verdict.relative_change),
            _count(verdict.change),
            verdict.text,
        ]
        for verdict in verdicts
    ]
    return "\n".join(_aligned(rows)) + "\n"


def keep_as_json(verdict: KeepVerdict) -> dict[str, Any]:
    """Plain values for JSON: the fields of the verdict, its estimates as `as_json` has them."""
    return {
        "attribute": verdict.attribute,
        "kept": verdict.kept,
        **as_json({"change": verdict.change, "relative_change": verdict.relative_change}),
        "p_adjusted": verdict.p_adjusted,
        "text": verdict.text,
    }


def relative_percent(before: torch.Tensor, after: torch.Tensor, confidence: float = 0.95) -> Estimate:
    """Rate after / rate before - 1 of bool [n] and [n], in percent, with Bonett and Price's interval over pairs."""
    share = relative_change(before, after, confidence)
    return Estimate(100 * share.value, 100 * share.low, 100 * share.high, share.n, "%", share.confidence)


def _what_would_tell(before: torch.Tensor, after: torch.Tensor, margins: tuple[float, float], level: float) -> str:
    if not bool((before | after).any()):
        return "no image showed it, before or after: nothing can be told of its share"
    needed = images_needed(before, after, *margins, level)
    if needed is None:
        return f"what was seen lies at a margin: {MOST_TIMES:,} times as many images might not tell"
    more = int(float(f"{needed - len(before):.1e}"))  # two digits: it is no better known
    return f"too few images: about {more:,} more would tell, if the rates seen are the true ones"


def _p(p: float) -> str:
    return f"p = {p:.2g}" if p >= 0.0001 else "p < 0.0001"
