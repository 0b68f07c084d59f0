# SPDX-License-Identifier: Apache-2.0
"""How long a plan will take on this machine, from a few images that are timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from stylegan_redact.evaluation import MOST_OF_OTHERS
from stylegan_redact.job import Plan
from stylegan_redact.labels import all_of
from stylegan_redact.losses.ms_ssim import ms_ssim
from stylegan_redact.network import sample_w, synthesize
from stylegan_redact.progress import time_text

_PASSES_PER_STEP = 4
"""A step of fine-tuning costs a forward pass of the network as it was, and one forward and two backward of the one that learns."""
_LATENTS_PER_STEP = 512


def estimate_seconds(plan: Plan) -> dict[str, float]:
    """Stage -> seconds. Of a method, options ending in `kimg` count as fine-tuning, those ending in `steps` as steps of the mapping network."""
    G: Any = plan.network.G_ema
    batch = plan.batch
    seeds = range(plan.labelled_seeds.start, plan.labelled_seeds.start + batch)
    w = sample_w(G, seeds, c=(plan.labels or all_of(G.c_dim))(seeds) if G.c_dim else None)
    some = all_of(G.c_dim)(range(_LATENTS_PER_STEP)).to(plan.device) if G.c_dim else None
    half = plan.precision.half
    with torch.no_grad():
        img = synthesize(G, w).float()
        draw = _timed(lambda: synthesize(G, w), plan.device) / batch
        look = _timed(lambda: synthesize(G, w, half=True), plan.device) / batch if half else draw
        detect = _timed(lambda: plan.detector.logits(img), plan.device) / batch
        judge = _timed(lambda: plan.judge.logits(img), plan.device) / batch
        compare = _timed(lambda: ms_ssim(img, img), plan.device) / batch
        map_latents = _timed(lambda: G.mapping(torch.zeros([_LATENTS_PER_STEP, G.z_dim], device=plan.device), some), plan.device)
    options = {name: float(value) for name, value in asdict(plan.method).items() if isinstance(value, int | float)}
    kimg = sum(value for name, value in options.items() if name.endswith("kimg"))
    steps = sum(value for name, value in options.items() if name.endswith("steps"))
    seconds = {
        "labelling": 0 if plan.class_index is not None else len(plan.labelled_seeds) * (look + detect),
        "redacting": 1000 * kimg * _PASSES_PER_STEP * draw + steps * _PASSES_PER_STEP * map_latents,
        "measuring": _num_measured(plan) * (2 * look + 2 * judge + compare),
    }
    return {stage: duration for stage, duration in seconds.items() if duration > 0}


def _num_measured(plan: Plan) -> int:
    """Pairs of images that will be drawn and compared."""
    by_access = {*plan.request.access, *(("z", "w") if plan.class_index is not None else ())}
    others = plan.class_index is not None or (plan.labels is not None and plan.labels.others() is not None)
    return len(by_access) * len(plan.measured_seeds) + others * min(len(plan.measured_seeds), MOST_OF_OTHERS)


def describe(seconds: dict[str, float], device: str) -> str:
    """about 2m 10s on this machine (cpu): labelling 12s, ..."""
    stages = ", ".join(f"{stage} {time_text(duration)}" for stage, duration in seconds.items())
    return f"about {time_text(sum(seconds.values()))} on this machine ({device}): {stages}"


def _timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the second call: the first one warms up."""
    for _ in range(2):
        begin = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return time.perf_counter() - begin
