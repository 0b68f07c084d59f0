# SPDX-License-Identifier: Apache-2.0
"""The 40 attributes of CelebA, what people call them, and which of them say that something is absent."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
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


def recipe(asked: str) -> Recipe:
    """The attribute that a word means.

    Raises:
        RedactError: none; lists what there is.
    """
    name = asked.strip().lower().replace("-", "_").replace(" ", "_")
    if name in ABSENT:
        return Recipe(ABSENT[name], present=False)
    name = SAME.get(name, name)
    if name in ATTRIBUTES:
        return Recipe(name, present=True)
    close = difflib.get_close_matches(name, [*ATTRIBUTES, *SAME, *ABSENT])
    advice = f"did you mean {' or '.join(close)}?" if close else "take one of these, or another classifier"
    raise RedactError(f"the attribute {asked!r} was asked - CelebA has beard, {', '.join(ATTRIBUTES)} - {advice}")
