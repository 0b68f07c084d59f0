# SPDX-License-Identifier: Apache-2.0
"""What people call an attribute and what a classifier calls it: `glasses` is `Eyeglasses`, `beard` is not `No_Beard`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from stylegan_redact.backends.celeba import ABSENT, ATTRIBUTES, SAME

BESIDE: dict[str, tuple[str, ...]] = {
    "beard": ("goatee", "mustache", "sideburns", "5_o_clock_shadow"),
    "no_beard": ("goatee", "mustache", "sideburns", "5_o_clock_shadow"),
    "bald": ("receding_hairline",),
    "smiling": ("mouth_slightly_open", "high_cheekbones"),
    "heavy_makeup": ("wearing_lipstick", "rosy_cheeks"),
}
"""Attribute -> others of CelebA that a person may mean along with it; they are reported beside it, and are not redacted."""


@dataclass(frozen=True)
class Match:
    """Which of a classifier's attributes a word means."""

    attribute: str
    """As the classifier spells it."""
    present: bool
    """False: the word says that this attribute is absent, as beard says of No_Beard."""


def spelt(name: str) -> str:
    """Small letters, with _ for blanks and dashes."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def find(asked: str, known: Sequence[str]) -> Match | None:
    """The attribute that the word means, or None: by its own spelling first, then by what CelebA calls the same or its opposite.

    Args:
        asked: As somebody wrote it.
        known: Attributes, as a classifier spells them.
    """
    if asked in known:
        return Match(asked, True)
    for name in known:
        if spelt(name) == spelt(asked):
            return Match(name, True)
    attribute, present = _meaning(asked)
    for name in known:
        of, shown = _meaning(name)
        if of == attribute:
            return Match(name, shown == present)
    return None


def advice(asked: str, known: Sequence[str]) -> str:
    """What to tell somebody whose word means nothing here: names that look like it, everyday words among them."""
    words = {word: found.attribute for word in (*ATTRIBUTES, *SAME, *ABSENT) if (found := find(word, known)) is not None}
    words |= {spelt(name): name for name in known}
    close = difflib.get_close_matches(spelt(asked), words, cutoff=0.7)
    return f"did you mean {' or '.join(dict.fromkeys(close))}?" if close else "take one of these"


def beside(feature: str, known: Sequence[str]) -> tuple[str, ...]:
    """Those of a classifier's attributes that are to be reported beside the feature, as it spells them."""
    wanted = BESIDE.get(spelt(feature), BESIDE.get(_meaning(feature)[0], ()))
    found = (find(name, known) for name in wanted)
    return tuple(match.attribute for match in found if match is not None and match.present)


def _meaning(word: str) -> tuple[str, bool]:
    """CelebA's attribute, and whether the word says that it is there; of any other word itself."""
    name = spelt(word)
    if name in ABSENT:
        return ABSENT[name], False
    return SAME.get(name, name), True
