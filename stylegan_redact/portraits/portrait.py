# SPDX-License-Identifier: Apache-2.0
"""Who is to be drawn: attributes with exact truth, correlated as in life, and the continuous rest."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from stylegan_redact.types import RedactError

ATTRIBUTES: tuple[str, ...] = (
    "male",
    "beard",
    "mustache",
    "eyeglasses",
    "hat",
    "smile",
    "bald",
    "grey_hair",
    "blond_hair",
    "long_hair",
    "lipstick",
    "earrings",
    "bushy_eyebrows",
    "dark_skin",
)

# What cannot be seen together, or would make one of the two undecidable: (attribute, value) pairs.
_EXCLUDED: tuple[tuple[tuple[str, bool], tuple[str, bool]], ...] = (
    (("beard", True), ("male", False)),
    (("mustache", True), ("male", False)),
    (("mustache", True), ("beard", True)),
    (("bald", True), ("hat", True)),
    (("bald", True), ("long_hair", True)),
    (("grey_hair", True), ("blond_hair", True)),
)

_OLD_RATE = 0.12


@dataclass(frozen=True, kw_only=True)
class Portrait:
    """One person: what shows (the booleans) and how it shows (numbers in [0, 1], 0.5 being the middle)."""

    male: bool = False
    beard: bool = False
    mustache: bool = False
    eyeglasses: bool = False
    hat: bool = False
    smile: bool = False
    bald: bool = False
    grey_hair: bool = False
    blond_hair: bool = False
    long_hair: bool = False
    lipstick: bool = False
    earrings: bool = False
    bushy_eyebrows: bool = False
    dark_skin: bool = False

    skin_tone: float = 0.5
    """From light to dark within the class that dark_skin names."""
    hair_tone: float = 0.5
    """From dark to light within the class of the hair."""
    face_width: float = 0.5
    eye_spacing: float = 0.5
    eye_colour: float = 0.5
    """From brown over green to blue."""
    parting: float = 0.5
    """Where the hairline is highest, from left to right."""
    cloth_hue: float = 0.5
    cloth_value: float = 0.5
    hat_hue: float = 0.5
    background_hue: float = 0.5
    background_value: float = 0.5
    shift_x: float = 0.5
    shift_y: float = 0.5

    def __post_init__(self) -> None:
        for (first, first_value), (second, second_value) in _EXCLUDED:
            if getattr(self, first) == first_value and getattr(self, second) == second_value:
                raise RedactError(
                    f"a portrait with {first}={first_value} and {second}={second_value} was asked - the two exclude each other -"
                    " change one of them, or use with_attribute(), which does"
                )

    @property
    def truth(self) -> np.ndarray:
        """What shows: bool [len(ATTRIBUTES)]."""
        return np.array([getattr(self, name) for name in ATTRIBUTES], dtype=bool)


def with_attribute(portrait: Portrait, name: str, value: bool) -> Portrait:
    """The same person with one attribute switched, and with it only what excludes the new value.

    Args:
        portrait: Left as it is.
        name:     One of ATTRIBUTES.
        value:    Whether it shall show.

    Returns:
        A portrait whose other fields are equal, except where two attributes exclude each other: switching `hat` on switches `bald` off.

    Raises:
        RedactError: there is no such attribute.
    """
    if name not in ATTRIBUTES:
        raise RedactError(f"attribute {name!r} was asked - portraits have {', '.join(ATTRIBUTES)} - choose one of these")
    changes = {name: value}
    for first, second in _EXCLUDED:
        for one, other in ((first, second), (second, first)):
            if one == (name, value) and getattr(portrait, other[0]) == other[1]:
                changes[other[0]] = not other[1]
    return replace(portrait, **changes)


def sample_portrait(rng: np.random.Generator) -> Portrait:
    """A random person; rates and correlations are roughly those of portrait photographs.

    Args:
        rng: Source of randomness; a fixed number of values is drawn from it.

    Returns:
        A portrait without excluded combinations.
    """
    below = iter(rng.random(15))

    def happens(rate: float) -> bool:
        return bool(next(below) < rate)

    old = happens(_OLD_RATE)  # the latent cause that grey hair, baldness and glasses share
    male = happens(0.5)
    dark_skin = happens(0.25)
    beard = happens(0.30) and male
    mustache = happens(0.17) and male and not beard
    bald = happens((0.36 if old else 0.035) if male else 0.002)
    grey_hair = happens((0.6 if bald else 0.32) if old else 0.006)
    blond_hair = happens(0.04 if dark_skin else 0.20) and not grey_hair
    long_hair = happens(0.08 if male else 0.65) and not bald
    numbers = (rng.random(13)).tolist()
    return Portrait(
        male=male,
        beard=beard,
        mustache=mustache,
        eyeglasses=happens(0.30 if old else 0.13),
        hat=happens(0.105) and not bald,
        smile=happens(0.40 if male else 0.50),
        bald=bald,
        grey_hair=grey_hair,
        blond_hair=blond_hair,
        long_hair=long_hair,
        lipstick=happens(0.02 if male else 0.48),
        earrings=happens(0.04 if male else 0.20),
        bushy_eyebrows=happens(0.30 if male else 0.10),
        dark_skin=dark_skin,
        **dict(zip(_NUMBERS, numbers, strict=True)),
    )


_NUMBERS = tuple(name for name, kind in Portrait.__annotations__.items() if kind == "float")
