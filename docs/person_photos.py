# SPDX-License-Identifier: Apache-2.0
"""Photographs of somebody whom the bundled network was not trained on, for docs/methods/identity.md: `python docs/person_photos.py FOLDER [WHO]`.

The same person four times: another place, background and clothes, with and without a smile.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from stylegan_redact.portraits.draw import draw_portrait
from stylegan_redact.portraits.portrait import sample_portrait

SERIES = 920_000
"""Of drawings; training used others."""


def main(folder: Path, who: int) -> None:
    person = sample_portrait(np.random.default_rng([SERIES, who]))
    moods = (
        {},
        {"smile": not person.smile, "shift_x": 0.7, "background_hue": 0.2},
        {"cloth_hue": 0.9, "shift_y": 0.7, "background_value": 0.8},
        {"smile": not person.smile, "cloth_value": 0.9, "background_hue": 0.6, "shift_x": 0.3},
    )
    folder.mkdir(parents=True, exist_ok=True)
    for index, mood in enumerate(moods):
        Image.fromarray(draw_portrait(replace(person, **mood))).save(folder / f"{index}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
