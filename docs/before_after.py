# SPDX-License-Identifier: Apache-2.0
"""The picture on top of the README, from a finished run directory.

python redact.py --network=portraits64 --feature=beard --outdir=redact-runs
python docs/before_after.py redact-runs/00000-redact-beard-portraits64-edit docs/images/before_after.png
"""

from __future__ import annotations

import json
from pathlib import Path

import click
from PIL import Image, ImageDraw, ImageFont

SCALE, GAP, LEFT, HEADING = 2, 16, 76, 30
PAPER, INK = (255, 255, 255), (40, 44, 52)


def tiles(sheet: Image.Image, size: int, places: list[int]) -> list[Image.Image]:
    """The images of a grid at the given places, enlarged."""
    columns = sheet.width // size
    boxes = [((i % columns) * size, (i // columns) * size) for i in places]
    return [sheet.crop((x, y, x + size, y + size)).resize((size * SCALE, size * SCALE), Image.Resampling.LANCZOS) for x, y in boxes]


@click.command()
@click.argument("run_dir", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--columns", default=6, show_default=True, help="Images of each half.")
@click.option("--size", default=64, show_default=True, help="Pixels of one image in the grids of the run.")
def main(run_dir: Path, out: Path, columns: int, size: int) -> None:
    """Before above after: on the left seeds that showed the feature, on the right seeds that never did. The first ones, not chosen."""
    record = json.loads((run_dir / "redaction.json").read_text())
    shown = len(record["pictures"]["with_feature"])
    columns = min(columns, shown)
    halves = [list(range(columns)), list(range(shown, shown + columns))]
    step = size * SCALE
    sheet = Image.new("RGB", (LEFT + 2 * columns * step + GAP, HEADING + 2 * step), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(18)
    for row, name in enumerate(("before", "after")):
        grid = Image.open(run_dir / f"{name}.png").convert("RGB")
        draw.text((LEFT - 10, HEADING + row * step + step // 2), name, fill=INK, font=font, anchor="rm")
        for half, places in enumerate(halves):
            left = LEFT + half * (columns * step + GAP)
            for column, tile in enumerate(tiles(grid, size, places)):
                sheet.paste(tile, (left + column * step, HEADING + row * step))
    feature = record["provenance"]["feature"]
    for half, text in enumerate((f"seeds that showed {feature}", f"seeds that never showed {feature}")):
        draw.text((LEFT + half * (columns * step + GAP), 6), text, fill=INK, font=font)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, optimize=True)


if __name__ == "__main__":
    main()
