# SPDX-License-Identifier: Apache-2.0
"""How well pictures tell a feature: drawings with it and without it label the bundled network's pictures, and the bundled judge checks the labels.

    python -m benchmarks.example_pictures --num=2000 --examples=64

Prints a Markdown table: the probe's cross-validated AUC on the examples, the balanced accuracy of its labels and of the direction that they lead to,
by the judge, each with a 95 % interval; or why there are no labels.
"""

from __future__ import annotations

import click
import numpy as np
import torch

from stylegan_redact import detectors, probe
from stylegan_redact.extractors import DiscriminatorFeatures
from stylegan_redact.features.images import against_generated, against_without
from stylegan_redact.network import generate, load_network, sample_w
from stylegan_redact.network_files import bundled
from stylegan_redact.photos import as_file
from stylegan_redact.portraits.draw import draw_portrait
from stylegan_redact.portraits.portrait import Portrait, sample_portrait, with_attribute
from stylegan_redact.types import LabelledLatents, RedactError
from stylegan_redact.wspace.subspace import find_subspace

FEATURES = ("eyeglasses", "beard", "hat", "smile")
BATCH = 50


@click.command()
@click.option("--num", default=2000, help="Generated pictures to label, seeds 0 on")
@click.option("--examples", default=64, help="Drawings with the feature, and as many without")
@click.option("--seed", default=7, help="Of the drawings")
def main(num: int, examples: int, seed: int) -> None:
    """Draws, probes and prints."""
    network, judge = load_network(bundled()["portraits64"]), detectors.load_bundled("judge")
    embed = DiscriminatorFeatures(network.D)
    w = sample_w(network.G_ema, range(num))
    seen, logits = [], []
    with torch.no_grad():
        for img in generate(network.G_ema, w, batch=BATCH):
            img = as_file(img)
            seen.append(embed.features(img))
            logits.append(judge.logits(img))
    generated, said = torch.cat(seen), torch.cat(logits) > 0
    rng = np.random.default_rng(seed)
    click.echo("| feature | rate, % | examples | AUC | labels, % | direction, % |\n|---|---|---|---|---|---|")
    for name in FEATURES:
        truth = said[:, judge.attributes.index(name)]
        shown, without = (embed.features(drawings(rng, name, shows, examples)) for shows in (True, False))
        own = truth.nonzero()[:examples, 0]
        others = torch.ones(num, dtype=torch.bool).index_fill(0, own, False)
        rows: dict[str, tuple] = {
            f"{examples} drawings with, {examples} without": (lambda: against_without(name, shown, without, generated), w, truth),  # noqa: B023
            f"{examples} drawings with": (lambda: against_generated(name, shown, generated), w, truth),  # noqa: B023
            f"{examples} of the network's own": (lambda: against_generated(name, generated[own], generated[others]), w[others], truth[others]),  # noqa: B023
        }
        for kind, (score_by, latents, shows) in rows.items():
            rate = 100 * float(truth.double().mean())
            click.echo(f"| {name} | {rate:.1f} | {kind} | {row(score_by, latents, shows)} |")


def row(score_by, w: torch.Tensor, truth: torch.Tensor) -> str:  # type: ignore[no-untyped-def]
    """AUC, labels and direction, or the refusal."""
    try:
        score, told = score_by()
        subspace = find_subspace(LabelledLatents(w, score.float()))
    except RedactError as error:
        return f"{str(error).partition(' - ')[2].partition(' - ')[0]} | refused | "
    past = w.double() @ subspace.basis[0] > subspace.threshold[0]
    parts = [f"{told.value:.3f} ({told.low:.3f} to {told.high:.3f})"]
    for guess in (score > 0, past):
        found = probe.balanced_accuracy(guess, truth)
        parts.append(f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})")
    return " | ".join(parts)


def drawings(rng: np.random.Generator, name: str, shows: bool, num: int) -> torch.Tensor:
    """[num, 3, 64, 64] of people as they come, all with the attribute or all without."""
    people: list[Portrait] = []
    while len(people) < num:
        person = sample_portrait(rng)
        if person.male or name != "beard":
            people.append(with_attribute(person, name, shows))
    levels = torch.from_numpy(np.stack([draw_portrait(person) for person in people]))
    return levels.permute(0, 3, 1, 2).float() / 127.5 - 1


if __name__ == "__main__":
    main()
