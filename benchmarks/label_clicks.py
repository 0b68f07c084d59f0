# SPDX-License-Identifier: Apache-2.0
"""What clicks on the label page are worth, as Markdown: clicks by the bundled network's judge, some of them wrong, and the direction they lead to.

    python -m benchmarks.label_clicks --feature=beard --clicks=50,100,200 --wrong=0,5,10

The pool is drawn once; then each run labels pages as a person would, and what it leads to is measured on fresh latents that no label was taken from.
"guesses" is the probe on fresh pictures, "direction" the labels.npz of the run after `find_subspace`, past its threshold or not. Balanced accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass

import click
import torch

from stylegan_redact import detectors, probe
from stylegan_redact.estimates import mean_interval
from stylegan_redact.extractors import DiscriminatorFeatures
from stylegan_redact.label_page import PER_PAGE
from stylegan_redact.network import generate, load_network, sample_w
from stylegan_redact.network_files import find_network
from stylegan_redact.types import Estimate, LabelledLatents, RedactError
from stylegan_redact.wspace.subspace import find_subspace

FIRST_FRESH = 5_000_000


@dataclass(frozen=True)
class Drawn:
    """Of some seeds: w [n, w_dim], features [n, d], and whether the judge sees the feature, [n] bool."""

    w: torch.Tensor
    features: torch.Tensor
    shows: torch.Tensor


@torch.no_grad()
def draw(name: str, feature: str, seeds: range) -> Drawn:
    """The pictures of these seeds, looked at once."""
    network, judge = load_network(find_network(name).snapshot), detectors.load_bundled("judge")
    column, extractor = detectors.column(judge, feature), DiscriminatorFeatures(network.D)
    w = sample_w(network.G_ema, seeds)
    features, shows = [], []
    for img in generate(network.G_ema, w, batch=50):
        features.append(extractor.features(img))
        shows.append(judge.logits(img)[:, column] > 0)
    return Drawn(w, torch.cat(features), torch.cat(shows))


def clicked(white: torch.Tensor, answers: torch.Tensor, count: int, active: bool, seed: int) -> tuple[torch.Tensor, int | None]:
    """Rows in the order of the clicks, and after how many the page says that more change little, if it does. Stands for a person at the page."""
    generator = torch.Generator().manual_seed(seed)
    rows: list[int] = []
    said = None
    while len(rows) < count:
        labelled = torch.zeros(len(white), dtype=torch.bool)
        labelled[rows] = True
        at = torch.tensor(rows, dtype=torch.int64)
        score = probe.fit(white, at, answers[at]) if active and probe.can_learn(answers[at]) else None
        if said is None and score is not None and probe.settled(white, at, answers[at], last=PER_PAGE):
            said = len(rows)
        rows += probe.show_next(score, labelled, PER_PAGE, generator)
    return torch.tensor(rows, dtype=torch.int64), said


def worth(white: torch.Tensor, fresh_white: torch.Tensor, pool: Drawn, fresh: Drawn, rows: torch.Tensor, answers: torch.Tensor) -> dict[str, float]:
    """Balanced accuracies on fresh latents of what these clicks lead to."""
    both = probe.fit(torch.cat([white, fresh_white]), rows, answers[rows])
    score, guess = both[: len(white)].clone(), both[len(white) :] > 0
    score[rows] = torch.where(answers[rows], probe.CERTAIN, -probe.CERTAIN).double()
    found = {"guesses": probe.balanced_accuracy(guess, fresh.shows).value}
    subspace = find_subspace(LabelledLatents(pool.w, score))
    past = fresh.w.double() @ subspace.basis[0] > subspace.threshold[0]
    return found | {"direction": probe.balanced_accuracy(past, fresh.shows).value}


def cell(values: list[float], runs: int) -> str:
    if len(values) < 2:
        return f"none ({len(values)} of {runs} runs)"
    found: Estimate = mean_interval(values)
    told = f"{100 * found.value:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"
    return told if len(values) == runs else f"{told}, {len(values)} of {runs} runs"


@click.command()
@click.option("--network", default="portraits64", show_default=True)
@click.option("--feature", default="beard", show_default=True)
@click.option("--clicks", default="50,100,200", show_default=True)
@click.option("--wrong", default="0,5,10", show_default=True, help="Percent of the clicks.")
@click.option("--runs", default=8, show_default=True, help="Simulated persons of each row.")
@click.option("--pool", "pool_size", default=2000, show_default=True)
@click.option("--fresh", "fresh_size", default=2000, show_default=True)
@torch.no_grad()
def main(network: str, feature: str, clicks: str, wrong: str, runs: int, pool_size: int, fresh_size: int) -> None:
    """Draw, click, measure, print a table."""
    pool, fresh = (draw(network, feature, range(start, start + n)) for start, n in ((0, pool_size), (FIRST_FRESH, fresh_size)))
    together = probe.whiten(torch.cat([pool.features, fresh.features]))
    white, fresh_white = together[:pool_size], together[pool_size:]
    counts = [int(each) for each in clicks.split(",")]
    click.echo(f"{100 * float(pool.shows.double().mean()):.1f} % of the pool show it; {fresh_size} fresh latents; {runs} runs a row")
    click.echo("| shown | wrong clicks, % | clicks | guesses, % | direction, % | says that more help little after |\n|---|---|---|---|---|---|")
    for active in (True, False):
        for share in map(float, wrong.split(",")):
            found: dict[int, list[dict[str, float]]] = {count: [] for count in counts}
            stops = []
            for run in range(runs):
                flipped = torch.rand(pool_size, generator=torch.Generator().manual_seed(1000 + run)) < share / 100
                answers = pool.shows ^ flipped
                rows, said = clicked(white, answers, max(counts), active, run)
                stops.append(said)
                for count in counts:
                    try:
                        found[count].append(worth(white, fresh_white, pool, fresh, rows[:count], answers))
                    except RedactError:  # Too few of a label: counted as a run that leads nowhere.
                        continue
            for count in counts:
                cells = [cell([each[name] for each in found[count]], runs) for name in ("guesses", "direction")]
                told = sum(said is not None and said <= count for said in stops)
                order = "what the probe asks for" if active else "at random"
                click.echo(f"| {order} | {share:g} | {count} | {' | '.join(cells)} | {f'{told} of {runs} runs by then' if active else '-'} |")
    everything = find_subspace(LabelledLatents(pool.w, torch.where(pool.shows, 1.0, -1.0)))
    past = fresh.w.double() @ everything.basis[0] > everything.threshold[0]
    limit = probe.balanced_accuracy(past, fresh.shows)
    click.echo(f"The truth of all {pool_size} gives a direction of {100 * limit.value:.1f} % ({100 * limit.low:.1f} to {100 * limit.high:.1f}).")


if __name__ == "__main__":
    main()
