# SPDX-License-Identifier: Apache-2.0
"""What sources that look at pictures share: what somebody says of each, batch by batch, and the feature that their scores make.

Batches are shared out among the ranks; a run that is killed goes on with the batch that it was at.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from stylegan_redact import keeping, ranks, rows
from stylegan_redact.labels import Labels
from stylegan_redact.network import generate, sample_w
from stylegan_redact.types import Detector, Estimate, Feature, LabelledLatents, Network, Progress, RedactError
from stylegan_redact.wspace.subspace import find_subspace

STAGE = "label"
FEWEST_SHOWING = 30
"""With fewer labelled examples than this nothing dependable can be learned of a feature."""
LOWEST_RATE = 0.003
HIGHEST_RATE = 0.8
"""Past this share nearly every image shows the feature: there is no network without it to be had by suppressing."""
Look = Callable[[torch.Tensor, list[int]], torch.Tensor]
"""img [n, C, H, W] in [-1, 1] and their seeds -> [n, k], what is seen in each."""


def logits_of(G: Any, w: torch.Tensor, detector: Detector, *, batch: int, half: bool, tell: Callable[[torch.Tensor], None]) -> torch.Tensor:
    """[n, a] logits of what G draws for w [n, w_dim], without gradients.

    Args:
        G:        Generator; noise "const".
        w:        Latents.
        detector: Who is asked.
        batch:    Images at a time.
        half:     Draw in float16 where G does.
        tell:     Told all logits so far after each batch.
    """
    return _seen(G, w, lambda img, _: detector.logits(img), batch=batch, half=half, tell=tell)


def look_at(
    network: Network, seeds: Sequence[int], look: Look, labels: Labels | None, *, batch: int, half: bool, progress: Progress | None
) -> tuple[torch.Tensor, LabelledLatents]:
    """What is seen in the pictures of the seeds, [n, k], and their latents, whose score is still to be filled in.

    Args:
        network:  Its G_ema is drawn, without truncation, noise "const".
        seeds:    NVIDIA's.
        look:     Who looks.
        labels:   Classes to draw from, of a conditional network.
        batch:    Images at a time.
        half:     Draw in float16 where the network does.
        progress: Told (stage, share done, figures).
    """
    c = None if labels is None else labels(seeds)
    w = sample_w(network.G_ema, seeds, c=c)

    def tell(so_far: torch.Tensor) -> None:
        if progress is not None:
            progress(STAGE, len(so_far) / len(w), {})

    seen = _seen(network.G_ema, w, lambda img, first: look(img, list(seeds[first : first + len(img)])), batch=batch, half=half, tell=tell)
    return seen, LabelledLatents(w, torch.zeros(len(w), device=w.device), rows.numbers(seeds), None, None if c is None else c.to(w.device))


def feature_of(name: str, latents: LabelledLatents, figures: Mapping[str, Estimate], progress: Progress | None) -> Feature:
    """The feature that labelled latents make, with the direction that separates them.

    Args:
        name:     Of the feature.
        latents:  With their scores.
        figures:  What its source can say of the labels.
        progress: Told how many show the feature.

    Raises:
        RedactError: the network hardly shows it, nearly always, or too seldom to learn from.
    """
    check_rate(name, latents.score)
    if progress is not None:
        progress(STAGE, 1.0, {"rate": float((latents.score > 0).float().mean())})
    return Feature(name, latents, find_subspace(latents), figures=figures)


def check_rate(name: str, score: torch.Tensor) -> None:
    """Refuses a feature that there is too little or too much of, by its scores [n]."""
    hits, n = int((score > 0).sum()), len(score)
    if n == 0:
        raise RedactError(f"{name} was asked - no generated image could be told - label pictures by hand with redact.py label")
    rate, told = hits / n, f"{name} was asked - {hits} of {n} generated images show it ({100 * hits / n:.2f} %)"
    if rate > HIGHEST_RATE:
        other = _if_probabilities(score) or "choose a rarer feature"
        raise RedactError(f"{told} - this generator nearly always shows it, and would have nothing else left to draw - {other}")
    if rate < LOWEST_RATE:
        other = _if_logarithms(score) or "choose a feature that it draws"
        raise RedactError(f"{told} - this generator hardly shows it, there is nothing to redact - {other}")
    if hits < FEWEST_SHOWING:
        need = -(-4 * FEWEST_SHOWING * n // (3 * max(hits, 1)))  # A third more: with just as many every other try would fail again.
        raise RedactError(f"{told} - too few to learn from, {FEWEST_SHOWING} are needed - label about {need} latents with --num-latents")


def _if_probabilities(score: torch.Tensor) -> str:
    """What to do about scores that look like probabilities, all of which are above 0; empty if they do not."""
    low, high = float(score.min()), float(score.max())
    if not 0 <= low < high <= 1:
        return ""
    told = f"but all answers lie between {low:.2g} and {high:.2g}: if these are probabilities, have the classifier give logits"
    return f'{told}, or put {{"output": "probabilities"}} into a JSON file beside it, docs/classifiers.md; else choose a rarer feature'


def _if_logarithms(score: torch.Tensor) -> str:
    """What to do about scores that look like logarithms of probabilities, none of which is above 0; empty if they do not."""
    high = float(score.max())
    if not math.log(0.5) < high <= 0:
        return ""
    told = f"but the highest answer is {high:.2g}: if these are logarithms of probabilities, have the classifier give logits"
    return f'{told}, or put {{"threshold": -0.69}}, log 0.5, into a JSON file beside it, docs/classifiers.md; else choose a feature that it draws'


def _seen(
    G: Any, w: torch.Tensor, look: Callable[[torch.Tensor, int], torch.Tensor], *, batch: int, half: bool, tell: Callable[[torch.Tensor], None]
) -> torch.Tensor:
    """[n, k]; `look` gets each batch of pictures and the row of its first one."""
    name, kept = keeping.begin(STAGE)
    there = None if kept is None else kept["logits"].to(w.device)
    seen, done = None, 0
    if there is not None and len(there):
        seen, done = rows.zeros([len(w), there.shape[1]], dtype=there.dtype, device=w.device), len(there)
        seen[:done] = there
        tell(there)

    def work(first: int) -> torch.Tensor:
        (images,) = generate(G, w[first : first + batch], batch=batch, half=half)
        with torch.no_grad():
            return look(images, first)

    for found in ranks.world().spread(work, range(done, len(w), batch)):
        seen = rows.zeros([len(w), found.shape[1]], dtype=found.dtype, device=w.device) if seen is None else seen
        seen[done : done + len(found)] = found
        done += len(found)
        so_far = seen[:done]
        tell(so_far)
        keeping.keep(keeping.Moment(name, functools.partial(_state, so_far), done / len(w)))
    assert seen is not None
    return seen


def _state(logits: torch.Tensor) -> dict[str, Any]:
    """A copy: what is written would else be the memory of all that is still to come, too."""
    return {"logits": logits.clone()}
