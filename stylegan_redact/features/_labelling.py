# SPDX-License-Identifier: Apache-2.0
"""What a detector says of pictures, batch by batch, shared out among the ranks; a run that is killed goes on where it was."""

from __future__ import annotations

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
    logits: list[torch.Tensor] = [] if kept is None else [kept["logits"].to(w.device)]
    done = sum(map(len, logits))
    if done:
        tell(logits[0])

    def work(some: torch.Tensor) -> torch.Tensor:
        (images,) = generate(G, some, batch=batch, half=half)
        with torch.no_grad():
            return detector.logits(images)

    for found in ranks.world().spread(work, w[done:].split(batch) if done < len(w) else ()):
        logits.append(found.to(w.device))
        done += len(found)
        tell(torch.cat(logits))
        keeping.keep(keeping.Moment(name, lambda: {"logits": torch.cat(logits)}, done / len(w)))
    return torch.cat(logits)
