# SPDX-License-Identifier: Apache-2.0
"""What a redaction by clicks alone is worth, as Markdown: clicks by the bundled detector, a detector learned from them, and the judge's figures.

    python -m benchmarks.clicks_redaction --feature=beard --clicks=200 --wrong=0,10

Nobody brings a classifier along: the bundled detector only stands for the person who clicks. What steers `edit` is learned from the labels that the
clicks lead to (`learned.py`); `fold` follows their direction. The bundled judge, which had no part in it, measures both on fresh seeds.
"""

from __future__ import annotations

import click
import torch

from benchmarks.label_clicks import clicked
from stylegan_redact import detectors, evaluate, learned, probe, redact
from stylegan_redact.extractors import DiscriminatorFeatures
from stylegan_redact.methods.edit import Edit
from stylegan_redact.network import generate, load_network, sample_w
from stylegan_redact.network_files import find_network
from stylegan_redact.types import Estimate, Feature, LabelledLatents, Network
from stylegan_redact.wspace.subspace import find_subspace

FIRST_FRESH = 5_000_000
FIGURES = ("residual_rate/rate_after", "residual_rate/removed", "collateral/mean_absolute_change", "image_change/l1_feature_free")


@torch.no_grad()
def drawn(network: Network, feature: str, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """w [n, w_dim] of the first seeds, what the discriminator sees [n, d], and whether who clicks would say that the feature shows [n] bool."""
    person, extractor = detectors.load_bundled("detector"), DiscriminatorFeatures(network.D)
    w = sample_w(network.G_ema, range(count))
    both = [(extractor.features(img), person.logits(img)[:, detectors.column(person, feature)] > 0) for img in generate(network.G_ema, w, batch=50)]
    features, shows = (torch.cat(parts) for parts in zip(*both, strict=True))
    return w, features, shows


def labelled(w: torch.Tensor, features: torch.Tensor, answers: torch.Tensor, clicks: int, seed: int) -> LabelledLatents:
    """What the label page saves: the clicks, and the probe's guess for every other picture."""
    white = probe.whiten(features)
    rows, _ = clicked(white, answers, clicks, True, seed)
    rows = rows[:clicks]
    score = probe.fit(white, rows, answers[rows])
    score[rows] = torch.where(answers[rows], probe.CERTAIN, -probe.CERTAIN).double()
    return LabelledLatents(w, score.float(), torch.arange(len(w)))


def told(estimate: Estimate) -> str:
    return f"{estimate.value:.3g} ({estimate.low:.3g} to {estimate.high:.3g})"


@click.command()
@click.option("--network", "name", default="portraits64", show_default=True)
@click.option("--feature", default="beard", show_default=True)
@click.option("--clicks", default=200, show_default=True)
@click.option("--wrong", default="0", show_default=True, help="Percent of the clicks, with commas between them.")
@click.option("--pool", default=3000, show_default=True, help="Pictures that are labelled.")
@click.option("--kimg", default=4.0, show_default=True, help="Of edit.")
@click.option("--fresh", default=2000, show_default=True)
def main(name: str, feature: str, clicks: int, wrong: str, pool: int, kimg: float, fresh: int) -> None:
    """Draw, click, learn, redact, measure, print a table."""
    network, judge = load_network(find_network(name).snapshot), detectors.load_bundled("judge")
    w, features, shows = drawn(network, feature, pool)
    click.echo(f"{100 * float(shows.double().mean()):.1f} % of {pool} pictures show {feature} to who clicks; n = {fresh} fresh seeds")
    columns = ("clicks", "wrong, %", "learned detector, %", "method", "left, %", "removed, %", "others, points", "L1 feature-free")
    click.echo(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for share in map(float, wrong.split(",")):
        answers = shows ^ (torch.rand(pool, generator=torch.Generator().manual_seed(1000)) < share / 100)
        latents = labelled(w, features, answers, clicks, 0)
        detector, accuracy = learned.learn(network, feature, latents, batch=50)
        for method, plugin in (("fold", "fold"), (f"edit, {kimg:g} kimg", Edit(kimg=kimg))):
            after = redact(network, Feature(feature, latents, find_subspace(latents), detector), plugin)
            found = evaluate(network, after, feature, judge, range(FIRST_FRESH, FIRST_FRESH + fresh))
            cells = [told(found[key]) for key in FIGURES]
            click.echo(f"| {clicks} | {share:g} | {told(accuracy) if method != 'fold' else '-'} | {method} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
