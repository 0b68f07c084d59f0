# SPDX-License-Identifier: Apache-2.0
"""Counts what the bundled judge overlooks, on drawings whose truth is known and half of which show an attribute in part only.

    python -m stylegan_redact.portraits.count_misses --out=stylegan_redact/portraits/judge_misses.json

An evaluation widens its bound by them: what the judge sees is at least so much less than what is there, if it overlooks as much in what a redaction
leaves as in drawings.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import torch

from stylegan_redact.portraits.classifiers import load_classifier
from stylegan_redact.portraits.draw import draw_portraits
from stylegan_redact.portraits.faint import PARTIAL, draw_faint
from stylegan_redact.portraits.portrait import ATTRIBUTES
from stylegan_redact.portraits.train_classifiers import HELD_OUT_SEED, to_tensor


@click.command()
@click.option("--judge", type=click.Path(path_type=Path), default=Path(__file__).with_name("judge.safetensors"), help="Classifier.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="JSON file to write: attribute -> [overlooked, of so many].")
@click.option("--drawings", default=10_000, show_default=True, help="Of either kind.")
def main(judge: Path, out: Path, drawings: int) -> None:
    """Attributes that can show in part are counted on partial drawings alone, since that is what is left of them."""
    net, _ = load_classifier(judge)
    torch.set_num_threads(1)
    counts = {}
    for names, draw in ((PARTIAL, draw_faint), (tuple(set(ATTRIBUTES) - set(PARTIAL)), draw_portraits)):
        images, truth = draw(HELD_OUT_SEED, drawings)
        with torch.no_grad():
            shows = torch.cat([net(to_tensor(images[i : i + 500])) for i in range(0, drawings, 500)]).numpy() > 0
        for name in names:
            column = ATTRIBUTES.index(name)
            counts[name] = [int((truth & ~shows)[:, column].sum()), int(truth[:, column].sum())]
    told = {name: counts[name] for name in ATTRIBUTES}
    out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    click.echo(json.dumps(told))


if __name__ == "__main__":
    main()
