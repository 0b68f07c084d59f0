# SPDX-License-Identifier: Apache-2.0
"""What people call an attribute and what a classifier calls it: `glasses` is `Eyeglasses`, `beard` is not `No_Beard`; CelebA's 40 attributes."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stylegan_redact.types import RedactError

ATTRIBUTES = tuple(
    """5_o_clock_shadow arched_eyebrows attractive bags_under_eyes bald bangs big_lips big_nose black_hair blond_hair
    blurry brown_hair bushy_eyebrows chubby double_chin eyeglasses goatee gray_hair heavy_makeup high_cheekbones
    male mouth_slightly_open mustache narrow_eyes no_beard oval_face pale_skin pointy_nose receding_hairline rosy_cheeks
    sideburns smiling straight_hair wavy_hair wearing_earrings wearing_hat wearing_lipstick wearing_necklace wearing_necktie young""".split()
)
"""In CelebA's order (Liu et al. 2015, list_attr_celeba.txt), in small letters."""
SAME: Mapping[str, str] = {
    "stubble": "5_o_clock_shadow",
    "five_o_clock_shadow": "5_o_clock_shadow",
    "bags_under_the_eyes": "bags_under_eyes",
    "baldness": "bald",
    "fringe": "bangs",
    "blonde_hair": "blond_hair",
    "glasses": "eyeglasses",
    "spectacles": "eyeglasses",
    "grey_hair": "gray_hair",
    "makeup": "heavy_makeup",
    "man": "male",
    "men": "male",
    "open_mouth": "mouth_slightly_open",
    "mouth_open": "mouth_slightly_open",
    "moustache": "mustache",
    "smile": "smiling",
    "earrings": "wearing_earrings",
    "hat": "wearing_hat",
    "lipstick": "wearing_lipstick",
    "necklace": "wearing_necklace",
    "necktie": "wearing_necktie",
    "tie": "wearing_necktie",
}
"""Everyday word -> attribute."""
ABSENT: Mapping[str, str] = {"beard": "no_beard", "female": "male", "woman": "male", "women": "male", "old": "young"}
"""Everyday word -> attribute whose absence it is."""
BESIDE: dict[str, tuple[str, ...]] = {
    "beard": ("goatee", "mustache", "sideburns", "5_o_clock_shadow"),
    "no_beard": ("goatee", "mustache", "sideburns", "5_o_clock_shadow"),
    "bald": ("receding_hairline",),
    "smiling": ("mouth_slightly_open", "high_cheekbones"),
    "heavy_makeup": ("wearing_lipstick", "rosy_cheeks"),
}
"""Attribute -> others of CelebA that a person may mean along with it; they are reported beside it, and are not redacted."""


@dataclass(frozen=True)
class Recipe:
    """How a word is seen in the attributes."""

    attribute: str
    present: bool
    """False: the word is the absence of the attribute, as beard is of no_beard."""

    @property
    def index(self) -> int:
        """Of the attribute, in CelebA's order."""
        return ATTRIBUTES.index(self.attribute)

    @property
    def sign(self) -> float:
        """What turns the attribute's logit into that of the word."""
        return 1.0 if self.present else -1.0

    def __str__(self) -> str:
        return self.attribute if self.present else f"not {self.attribute}"


@dataclass(frozen=True)
class Match:
    """Which of a classifier's attributes a word means."""

    attribute: str
    """As the classifier spells it."""
    present: bool
    """False: the word says that this attribute is absent, as beard says of No_Beard."""


def recipe(asked: str) -> Recipe:
    """The attribute that a word means.

    Raises:
        RedactError: none; lists what there is.
    """
    attribute, present = _meaning(asked)
    if attribute in ATTRIBUTES:
        return Recipe(attribute, present)
    close = difflib.get_close_matches(attribute, [*ATTRIBUTES, *SAME, *ABSENT])
    hint = f"did you mean {' or '.join(close)}?" if close else "take one of these, or another classifier"
    raise RedactError(f"the attribute {asked!r} was asked - CelebA has beard, {', '.join(ATTRIBUTES)} - {hint}")


def spelt(name: str) -> str:
    """Small letters, with _ for blanks and dashes."""
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def slug(text: str, longest: int = 40) -> str:
    """A name made of a sentence or a file's name: small letters, digits and _."""
    return re.sub("[^0-9a-z]+", "_", text.lower()).strip("_")[:longest].rstrip("_") or "feature"


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
