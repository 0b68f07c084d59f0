# SPDX-License-Identifier: Apache-2.0
"""The picture on top of the README: what redactions of the bundled network did to the first fresh seeds that show each feature.

for feature in beard eyeglasses hat smile; do python redact.py --network=portraits64 --feature=$feature --outdir=runs; done
python docs/gallery.py runs/*/network-redacted.pkl --out=docs/images/gallery.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).parents[1]))

from stylegan_redact.detectors import load_bundled
from stylegan_redact.network import generate, load_network, sample_w
from stylegan_redact.network_files import find_network

SCALE, GAP, LEFT, TITLE, BAND = 2, 20, 84, 58, 26
PAPER, INK, FAINT, CHANGED = (255, 255, 255), (36, 40, 48), (110, 116, 128), (200, 20, 30)
ROWS = ("before", "after", "changed")
AMPLIFIED = 4
"""The last row is fully coloured from a quarter of a colour channel's range on."""
FIRST_SEED, LOOKED_AT = 5_000_000, 200
"""Those that a run with --seed=0 measures on: no redaction saw them."""


def pixels(img: torch.Tensor) -> list[Image.Image]:
    """img [n, 3, H, W] in [-1, 1] -> pictures."""
    levels = (img * 127.5 + 128).clamp(0, 255).to(torch.uint8)
    return [Image.fromarray(each.permute(1, 2, 0).numpy()) for each in levels]


def change_maps(before: torch.Tensor, after: torch.Tensor) -> list[Image.Image]:
    """Where pictures differ: paper where they do not."""
    share = ((after - before).abs().amax(1) * AMPLIFIED / 2).clamp(0, 1)[..., None].numpy()  # 2: from -1 to 1
    levels = np.array(PAPER) * (1 - share) + np.array(CHANGED) * share
    return [Image.fromarray(each) for each in levels.round().astype(np.uint8)]


def block(path: Path, before: torch.Tensor, w: torch.Tensor, shows: torch.Tensor, counts: tuple[int, int]) -> list[list[Image.Image]]:
    """ROWS of pictures: of the first seeds that show the feature, then of the first that do not."""
    places = torch.cat([shows.nonzero().flatten()[: counts[0]], (~shows).nonzero().flatten()[: counts[1]]])
    after = torch.cat(list(generate(load_network(find_network(str(path)).snapshot).G_ema, w[places], batch=64)))
    return [pixels(before[places]), pixels(after), change_maps(before[places], after)]


@click.command()
@click.argument("redacted", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--base", default="portraits64", show_default=True, help="What was redacted.")
@click.option("--having", default=3, show_default=True, help="Columns of seeds that show the feature.")
@click.option("--lacking", default=1, show_default=True, help="Columns of seeds that do not.")
def main(redacted: tuple[Path, ...], out: Path, base: str, having: int, lacking: int) -> None:
    """A block for each redacted pickle, in alphabetical order: the first fresh seeds of either kind by the judge's word, not chosen."""
    judge, G = load_bundled("judge"), load_network(find_network(base).snapshot).G_ema
    w = sample_w(G, range(FIRST_SEED, FIRST_SEED + LOOKED_AT))
    before = torch.cat(list(generate(G, w, batch=64)))
    logits = judge.logits(before)
    features = sorted((str((find_network(str(path)).snapshot.redaction or {}).get("feature")), path) for path in redacted)
    blocks = {
        name.replace("_", " "): block(path, before, w, logits[:, judge.attributes.index(name)] > 0, (having, lacking)) for name, path in features
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    composed(blocks, having, before.shape[-1] * SCALE).save(out, optimize=True)


def composed(blocks: dict[str, list[list[Image.Image]]], having: int, step: int) -> Image.Image:
    """The blocks with their words, two in a row."""
    columns = max(len(row) for rows in blocks.values() for row in rows)
    across, down = columns * step + GAP, TITLE + len(ROWS) * step + BAND
    sheet = Image.new("RGB", (LEFT + 2 * across - GAP, -(-len(blocks) // 2) * down - BAND), PAPER)
    draw, large, small = ImageDraw.Draw(sheet), ImageFont.load_default(26), ImageFont.load_default(17)
    for number, (name, rows) in enumerate(blocks.items()):
        left, top = LEFT + number % 2 * across, number // 2 * down
        draw.text((left, top + 2), f"{name}, taken out", fill=INK, font=large)
        draw.text((left, top + 34), "seeds that showed it", fill=FAINT, font=small)
        draw.text((left + having * step, top + 34), "that did not", fill=FAINT, font=small)
        for line, (word, row) in enumerate(zip(ROWS, rows, strict=True)):
            y = top + TITLE + line * step
            if number % 2 == 0:
                draw.text((LEFT - 10, y + step // 2), word, fill=INK, font=small, anchor="rm")
            for column, picture in enumerate(row):
                sheet.paste(picture.resize((step, step), Image.Resampling.LANCZOS), (left + column * step, y))
    return sheet


if __name__ == "__main__":
    main()
