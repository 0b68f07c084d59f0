# SPDX-License-Identifier: Apache-2.0
"""What a detector says of pictures, batch by batch, shared out among the ranks; a run that is killed goes on where it was."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from stylegan_redact import keeping, ranks
from stylegan_redact.network import generate
from stylegan_redact.types import Detector

STAGE = "label"


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
    name, kept = keeping.begin(STAGE)
    there = w.new_zeros([0, 0]) if kept is None else kept["logits"].to(w.device)
    logits, done = w.new_zeros([len(w), len(detector.attributes)]), len(there)
    if done:
        logits[:done] = there
        tell(there)

    def work(some: torch.Tensor) -> torch.Tensor:
        (images,) = generate(G, some, batch=batch, half=half)
        with torch.no_grad():
            return detector.logits(images)

    for found in ranks.world().spread(work, w[done:].split(batch) if done < len(w) else ()):
        logits[done : done + len(found)] = found
        done += len(found)
        so_far = logits[:done]
        tell(so_far)
        keeping.keep(keeping.Moment(name, functools.partial(_state, so_far), done / len(w)))
    return logits


def _state(logits: torch.Tensor) -> dict[str, Any]:
    """A copy: what is written would else be the memory of all that is still to come, too."""
    return {"logits": logits.clone()}
