# SPDX-License-Identifier: Apache-2.0
"""How long a plan will take on this machine, from a few images that are timed; on several ranks, also from what they send each other.

All ranks are to ask at once: each times what it does while the others are at work, as in the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from stylegan_redact import learned, ranks
from stylegan_redact.evaluation import MOST_OF_OTHERS
from stylegan_redact.job import Plan
from stylegan_redact.labels import all_of
from stylegan_redact.losses.ms_ssim import ms_ssim
from stylegan_redact.network import sample_w, synthesize, trainable
from stylegan_redact.person_requests import SEARCH, Sitting
from stylegan_redact.progress import time_text
from stylegan_redact.training.guide import verdict

_PASSES = {"draw": 4.0}
"""What an image that a method trains on costs, in forward passes, where the method does not say (`passes`): the network as it was, and the one that
learns, forward and back; back is worth two."""
_MAPPING_PASSES = 4
_TRAINING_PASSES = 3
"""Forward once, and back, which takes twice as long."""
_LATENTS_PER_STEP = 512


def estimate_seconds(plan: Plan) -> dict[str, float]:
    """Stage -> seconds. Of a method, options ending in `kimg` count as fine-tuning, those ending in `steps` as steps of the mapping network.

    Of several ranks (`ranks.joined`) each does its share of what is shared out; `exchanging` is what putting the parts together takes.
    """
    G: Any = plan.network.G_ema
    batch = plan.batch
    seeds = range(plan.labelled_seeds.start, plan.labelled_seeds.start + batch)
    labels = (plan.labels or all_of(G.c_dim))(seeds) if G.c_dim else None
    w = sample_w(G, seeds, c=labels)
    some = all_of(G.c_dim)(range(_LATENTS_PER_STEP)).to(plan.device) if G.c_dim else None
    half = plan.precision.half
    passes = getattr(plan.method, "passes", _PASSES)
    with torch.no_grad():
        img = synthesize(G, w).float()
        c = None if labels is None else labels.to(plan.device)
        work: dict[str, Callable[[], object]] = {
            "draw": lambda: synthesize(G, w),
            "detect": lambda: plan.detector.logits(img),
            "criticise": lambda: None if plan.network.D is None else verdict(plan.network.D, img, c),
            "compare": lambda: ms_ssim(img, img),
        }
        labelling = "detect" if plan.brought is None or plan.brought.labels_by is None else "label"
        work["label"] = lambda: None if plan.brought is None else plan.brought.source.look(img, list(seeds))
        cost = {
            name: _timed(work[name], plan.device) / batch for name in {"draw", labelling, "compare", *passes, *(["detect"] if _learns(plan) else [])}
        }
        look = _timed(lambda: synthesize(G, w, half=True), plan.device) / batch if half else cost["draw"]
        judge = _timed(lambda: plan.judge.logits(img), plan.device) / batch
        map_latents = _timed(lambda: G.mapping(torch.zeros([_LATENTS_PER_STEP, G.z_dim], device=plan.device), some), plan.device)
    options = {name: float(value) for name, value in asdict(plan.method).items() if isinstance(value, int | float)}
    images = 1000 * sum(value for name, value in options.items() if name.endswith("kimg"))
    steps = sum(value for name, value in options.items() if name.endswith("steps"))
    image = sum(count * cost[what] for what, count in passes.items())
    drawn = 0 if plan.class_index is not None or plan.sitting is not None or _labelled(plan) else len(plan.labelled_seeds)
    taught, measured = _num_learned(plan) if _learns(plan) else 0, _num_measured(plan)
    seconds = {
        "inverting": 0 if plan.sitting is None else _num_sought(plan.sitting) * SEARCH.steps * (3 * cost["draw"] + 3 * cost["compare"]),
        "labelling": _most(drawn, batch) * (look + cost[labelling]) if drawn else 0,
        "learning": _most(taught, batch) * cost["draw"] + learned.STEPS * learned.BATCH * _TRAINING_PASSES * cost["detect"] if taught else 0,
        "redacting": images * _busiest_share(plan) * image + steps * _MAPPING_PASSES * map_latents,
        "measuring": _most(measured, batch) * (2 * look + 2 * judge + cost["compare"]),
        "exchanging": _exchanging(plan, images, sum(_rounds(count, batch) for count in (drawn, taught, measured))),
    }
    return {stage: duration for stage, duration in seconds.items() if duration > 0}


def _learns(plan: Plan) -> bool:
    """A detector is learned from labels first."""
    return plan.brought is not None and plan.brought.learns


def _num_learned(plan: Plan) -> int:
    """Pictures that are drawn once more, to learn from."""
    known = None if plan.brought is None else plan.brought.labelled
    return len(plan.labelled_seeds) if known is None or known.latents is None else len(known.latents.w)


def _most(count: int, portion: int) -> int:
    """Of so many images, dealt out in portions, those of the first rank, which has most."""
    return sum(min(portion, count - start) for start in range(0, count, portion * ranks.world().size))


def _rounds(count: int, portion: int) -> int:
    """Times that the ranks send each other what came of a portion each."""
    return -(-count // (portion * ranks.world().size))


def _step(plan: Plan) -> tuple[int, int]:
    """Images of a training's step, and those of a portion of it."""
    of = getattr(plan.method, "batch", plan.batch)
    return of, min(plan.batch, -(-of // ranks.world().size))


def _busiest_share(plan: Plan) -> float:
    """Of a step, what the rank does that has most of it."""
    of, portion = _step(plan)
    return _most(of, portion) / of if getattr(plan.method, "shared", True) else 1.0


def _exchanging(plan: Plan, images: float, rounds: int) -> float:
    """Seconds of sending what came of portions from rank to rank: gradients of so many trained images, and figures in so many rounds."""
    world, (of, portion) = ranks.world(), _step(plan)
    if world.size == 1:
        return 0.0
    figures = torch.zeros(plan.batch, len(plan.detector.attributes))
    figure = step = _timed(lambda: world.gathered(figures), plan.device)
    if images and getattr(plan.method, "shared", True):
        row = torch.zeros(sum(each.numel() for each in trainable(plan.network.G_ema.synthesis)), device=plan.device)
        step += _rounds(of, portion) * (figure + _timed(lambda: world.added(row, None), plan.device))
    return images / of * step + rounds * figure


def _labelled(plan: Plan) -> bool:
    """Nothing has to be drawn to know who shows the feature."""
    return (
        plan.brought is not None
        and plan.brought.labels_by is None
        and (plan.brought.labelled is not None or plan.brought.name not in plan.detector.attributes)
    )


def _num_sought(sitting: Sitting) -> int:
    """Codes that will be sought: of what the redaction knows, and of all photographs before and after."""
    known, held_out = len(sitting.photos.known), len(sitting.photos.held_out)
    return known + 2 * (known + held_out)


def _num_measured(plan: Plan) -> int:
    """Pairs of images that will be drawn and compared."""
    by_access = {*plan.request.access, *(("z", "w") if plan.class_index is not None else ())}
    others = plan.class_index is not None or (plan.labels is not None and plan.labels.others() is not None)
    return len(by_access) * len(plan.measured_seeds) + others * min(len(plan.measured_seeds), MOST_OF_OTHERS)


def describe(seconds: dict[str, float], device: str) -> str:
    """about 2m 10s on this machine (cpu): labelling 12s, ...; of several ranks, how many there are."""
    stages = ", ".join(f"{stage} {time_text(duration)}" for stage, duration in seconds.items())
    size = ranks.world().size
    where = device if size == 1 else f"{device}, {size} ranks"
    return f"about {time_text(sum(seconds.values()))} on this machine ({where}): {stages}"


def _timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the second call: the first one warms up."""
    for _ in range(2):
        begin = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return time.perf_counter() - begin
