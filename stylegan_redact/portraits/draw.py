# SPDX-License-Identifier: Apache-2.0
"""Portraits with known truth: a small renderer whose every attribute can be read with certainty at 64 x 64.

All lengths are in 64ths of the image side, x to the right and y downwards; the face is centred at (32, 31).
"""

from __future__ import annotations

import numpy as np

from stylegan_redact.portraits.canvas import HALF_TURN, Canvas, Colour, arc, darker, hsv, mirrored, mix
from stylegan_redact.portraits.portrait import ATTRIBUTES, Portrait, sample_portrait, with_attribute

__all__ = ["ATTRIBUTES", "Portrait", "draw_portrait", "draw_portraits", "sample_portrait", "with_attribute"]

_BACKGROUND_HUES = (0.09, 0.36, 0.56, 0.63, 0.80)
_EYE_COLOURS = ((74, 44, 26), (70, 110, 66), (52, 104, 168))
_RIM: Colour = (24, 24, 30)
_RED: Colour = (205, 22, 48)
_EARRING: Colour = (0, 170, 165)


def _skin_colour(person: Portrait) -> Colour:
    if person.dark_skin:
        return mix((156, 104, 72), (112, 73, 51), person.skin_tone)
    return mix((253, 224, 203), (236, 193, 163), person.skin_tone)


def _hair_colour(person: Portrait) -> Colour:
    if person.grey_hair:
        return mix((160, 163, 170), (202, 204, 210), person.hair_tone)
    if person.blond_hair:
        return mix((208, 158, 52), (240, 204, 100), person.hair_tone)
    # Brown hair on brown skin would make a beard a guess: there it stays near black.
    lightest = (50, 36, 30) if person.dark_skin else (112, 64, 36)
    return mix((34, 26, 24), lightest, person.hair_tone)


def _blank(person: Portrait, size: int) -> Canvas:
    hue = _BACKGROUND_HUES[min(int(person.background_hue * len(_BACKGROUND_HUES)), len(_BACKGROUND_HUES) - 1)]
    value = 0.74 + 0.16 * person.background_value
    shift = (2.0 * person.shift_x - 1.0, 2.0 * person.shift_y - 1.0)
    return Canvas(size, shift=shift, top=hsv(hue, 0.17, value + 0.06), bottom=hsv(hue, 0.17, value - 0.06))


def _half_width(person: Portrait) -> float:
    return (12.9 if person.male else 11.4) + (person.face_width - 0.5)


def _jaw(person: Portrait, grow: float = 0.0) -> np.ndarray:
    """The lower half of the head's outline from right to left, [25, 2]: square for a man, pointed for a woman."""
    power = 0.62 if person.male else 1.08
    rx, ry = _half_width(person) + grow, (17.0 if person.male else 16.5) + grow
    return np.stack([32.0 + rx * np.sign(np.cos(HALF_TURN)) * np.abs(np.cos(HALF_TURN)) ** power, 31.0 + ry * np.sin(HALF_TURN) ** 0.9], axis=1)


def _draw_body(canvas: Canvas, person: Portrait) -> None:
    cloth = hsv(person.cloth_hue, 0.42, 0.40 + 0.30 * person.cloth_value)
    if person.male:
        canvas.polygon(mirrored([(38, 50), (47, 52.5), (57, 55.5), (61.5, 60), (63.5, 70)]), cloth)
    else:
        canvas.polygon(mirrored([(36, 53), (43, 54.5), (49.5, 57), (52.5, 61), (53.5, 70)]), cloth)


def _draw_neck(canvas: Canvas, person: Portrait, skin: Colour) -> None:
    shade = darker(skin, 0.84)
    if not person.male:
        canvas.polygon(np.concatenate([[(37.0, 40.0), (37.0, 51.5)], arc(32, 54.0, 10.0, 7.0), [(27.0, 51.5), (27.0, 40.0)]]), skin)
        canvas.polygon(np.concatenate([[(37.0, 42.0)], arc(32, 48.5, 5.0, 2.4), [(27.0, 42.0)]]), shade)
        return
    collar = (244, 244, 240)
    canvas.polygon(mirrored([(38, 56), (36.5, 66)]), darker(collar, 0.90))
    canvas.polygon(mirrored([(40, 40), (40, 52), (32, 58)]), skin)
    canvas.polygon(mirrored([(40, 40), (40, 51), (35, 52.5)]), shade)
    for side in (-1.0, 1.0):
        wing = np.array([(8.2, 49.0), (11.5, 53.5), (5.5, 63.0), (0.0, 58.0)]) * (side, 1.0) + (32.0, 0.0)
        canvas.polygon(wing, collar)


def _draw_head(canvas: Canvas, person: Portrait, skin: Colour) -> None:
    width = _half_width(person)
    for side in (-1.0, 1.0):
        canvas.ellipse(32 + side * (width + 0.3), 32.5, 2.4, 3.8, darker(skin, 0.90))
    head = np.concatenate([_jaw(person), arc(32, 31, width, 18.0, -HALF_TURN[::-1])])
    canvas.polygon(head, darker(skin, 0.91))
    canvas.polygon((head - (32.0, 31.0)) * (0.93, 0.97) + (31.4, 30.8), skin)


def _draw_hair_behind(canvas: Canvas, person: Portrait, hair: Colour) -> None:
    reach = _half_width(person) + 5.0
    top = arc(32, 28, reach - 0.5, 18.5, -HALF_TURN[::-1])
    bottom = mirrored([(33 + reach, 46.0), (32 + reach, 55.0), (28 + reach, 58.5)])
    canvas.polygon(np.concatenate([top, bottom]), darker(hair, 0.88))


def _draw_hair(canvas: Canvas, person: Portrait, hair: Colour) -> None:
    width = _half_width(person)
    if person.bald:
        for side in (-1.0, 1.0):
            canvas.ellipse(32 + side * (width + 0.2), 27.0, 2.6, 5.0, hair)
        return
    peak = 32.0 + 8.0 * (person.parting - 0.5)
    outer = arc(32, 28, width + 2.3, 18.0, -HALF_TURN[::-1])  # left over the top to the right
    right = np.array([(width - 1.6, 31.0), (width - 1.7, 25.0), (8.0, 20.9)])
    left = (right * (-1.0, 1.0))[::-1]
    inner = np.concatenate([right, [(peak - 32.0, 19.0)], left]) + (32.0, 0.0)
    ends = np.array([(32 + width + 1.8, 31.5)]), np.array([(32 - width - 1.8, 31.5)])
    canvas.polygon(np.concatenate([outer, ends[0], inner, ends[1]]), hair)
    shine = np.concatenate([arc(30, 26, 10.0, 13.0, -HALF_TURN[16:8:-1] - 0.3), arc(30, 26, 8.8, 10.4, -HALF_TURN[8:17] - 0.3)])
    canvas.polygon(shine, mix(hair, (255, 255, 255), 0.12))
    if person.long_hair:
        for side in (-1.0, 1.0):
            lock = np.array(
                [(width - 1.6, 28.0), (width + 2.3, 26.0), (width + 5.0, 40.0), (width + 4.0, 55.0), (width - 1.0, 56.0), (width + 0.2, 42.0)]
            )
            canvas.polygon(lock * (side, 1.0) + (32.0, 0.0), hair)


def _draw_beard(canvas: Canvas, person: Portrait, hair: Colour) -> None:
    outer = _jaw(person, grow=1.4)[2:-2]  # below the ears
    inner = arc(32, 36.4, 8.8, 8.7)[::-1]  # open towards the mouth, so that smile, lips and mustache stay readable
    canvas.polygon(np.concatenate([outer, inner]), darker(hair, 0.84))


def _draw_eyes(canvas: Canvas, person: Portrait, hair: Colour) -> None:
    gap = 5.7 + 0.8 * (person.eye_spacing - 0.5)
    place = 2.0 * person.eye_colour
    pair = int(place >= 1.0)
    iris = mix(_EYE_COLOURS[pair], _EYE_COLOURS[pair + 1], place - pair)
    brow = darker(hair, 0.74)
    for side in (-1.0, 1.0):
        x = 32 + side * gap
        canvas.ellipse(x, 30.2, 3.0, 2.1, (250, 250, 250))
        canvas.ellipse(x, 30.2, 1.7, 1.9, iris)
        canvas.ellipse(x, 30.2, 0.9, 1.0, (18, 16, 18))
        if person.bushy_eyebrows:
            canvas.bar(x, 23.8, 4.2, 1.6, brow)
        else:
            canvas.bar(x, 25.0, 3.0, 0.6, brow)


def _draw_mouth(canvas: Canvas, person: Portrait, skin: Colour) -> None:
    lips = _RED if person.lipstick else mix(darker(skin, 0.56), (130, 45, 45), 0.25)
    thick = 1.3 if person.lipstick else 0.7
    if not person.smile:
        canvas.ellipse(32, 42.0, 4.6, 0.6 + thick, lips)
        if person.lipstick:
            canvas.bar(32, 42.0, 3.4, 0.35, darker(_RED, 0.6))
        return
    for grow, fill in ((thick, lips), (0.0, (252, 252, 252))):
        upper = arc(32, 40.6 - 0.7 * grow, 5.0 + grow, 0.9, HALF_TURN[::-1])
        lower = arc(32, 40.6 - 0.7 * grow, 5.0 + grow, 3.6 + 1.6 * grow)
        canvas.polygon(np.concatenate([lower, upper]), fill)


def _draw_face(canvas: Canvas, person: Portrait, skin: Colour, hair: Colour) -> None:
    if person.beard:
        _draw_beard(canvas, person, hair)
    canvas.ellipse(32, 35.4, 2.5 if person.male else 2.0, 1.7, darker(skin, 0.82))
    canvas.ellipse(31.7, 34.0, 1.8 if person.male else 1.4, 2.4, mix(skin, (255, 255, 255), 0.10))
    _draw_eyes(canvas, person, hair)
    _draw_mouth(canvas, person, skin)
    if person.mustache:
        half = mirrored([(32, 37.2), (35.5, 37.4), (39.0, 39.6), (39.6, 41.2), (36.0, 40.6), (32, 39.9)])
        canvas.polygon(half, darker(hair, 0.84))


def _draw_eyeglasses(canvas: Canvas, person: Portrait) -> None:
    gap = 5.9 + 0.8 * (person.eye_spacing - 0.5)
    width = _half_width(person)
    for side in (-1.0, 1.0):
        canvas.frame(32 + side * gap, 30.4, 5.2, 4.2, _RIM, 1.5)
        reach = 0.5 * (width + 0.5 - gap - 4.6)
        canvas.bar(32 + side * (gap + 4.6 + reach), 29.4, reach + 0.4, 0.75, _RIM)
    canvas.bar(32, 29.4, 1.8, 0.75, _RIM)


def _draw_hat(canvas: Canvas, person: Portrait) -> None:
    width = _half_width(person)
    felt = hsv(person.hat_hue, 0.62, 0.62)
    crown = np.concatenate([arc(32, 15.0, width + 0.6, 11.0, -HALF_TURN[::-1]), mirrored([(32 + width + 1.0, 20.0)])])
    canvas.polygon(crown, felt)
    canvas.bar(32, 17.0, width + 0.9, 1.6, darker(felt, 0.5))
    canvas.bar(32, 19.6, width + 8.0, 1.8, darker(felt, 0.86))


def _draw_earrings(canvas: Canvas, person: Portrait) -> None:
    for side in (-1.0, 1.0):
        x = 32 + side * (_half_width(person) + 1.2)
        canvas.ellipse(x, 39.6, 2.7, 3.2, _EARRING)
        canvas.ellipse(x - 0.6, 38.8, 1.0, 1.1, (200, 245, 240))


def draw_portrait(portrait: Portrait, size: int = 64) -> np.ndarray:
    """The picture of a person, uint8 RGB [size, size, 3].

    Args:
        portrait: Who is drawn; two portraits that differ in one field differ in the picture only by what this field draws.
        size:     Side in pixels.

    Returns:
        uint8 [size, size, 3].
    """
    skin, hair = _skin_colour(portrait), _hair_colour(portrait)
    canvas = _blank(portrait, size)
    _draw_body(canvas, portrait)
    if portrait.long_hair:
        _draw_hair_behind(canvas, portrait, hair)
    _draw_neck(canvas, portrait, skin)
    _draw_head(canvas, portrait, skin)
    _draw_hair(canvas, portrait, hair)
    _draw_face(canvas, portrait, skin, hair)
    if portrait.hat:
        _draw_hat(canvas, portrait)
    if portrait.eyeglasses:
        _draw_eyeglasses(canvas, portrait)
    if portrait.earrings:
        _draw_earrings(canvas, portrait)
    return canvas.pixels()


def draw_portraits(seed: int, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and truth of `num` random people; the i-th depends on (seed, i) alone.

    Args:
        seed: Names the series, >= 0.
        num:  How many, >= 0.

    Returns:
        uint8 [num, 64, 64, 3] and bool [num, len(ATTRIBUTES)], columns in the order of ATTRIBUTES.
    """
    images = np.empty((num, 64, 64, 3), dtype=np.uint8)
    truth = np.empty((num, len(ATTRIBUTES)), dtype=bool)
    for index in range(num):
        person = sample_portrait(np.random.default_rng([seed, index]))
        images[index] = draw_portrait(person)
        truth[index] = person.truth
    return images, truth
