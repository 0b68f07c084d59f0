# SPDX-License-Identifier: Apache-2.0
"""float16 or float32 for drawing? A self-test: the same latents in both, compared. Training is always float32, whatever it says.

Networks with `num_fp16_res` > 0 run their upper resolutions in float16 on a GPU, which is faster, and with some drivers, some cards and some
weights gives noise or no numbers at all. On a CPU our networks are float32 throughout, and there is nothing to decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from stylegan_redact.network import generate

LARGEST_DIFFERENCE = 1 / 127.5
"""Of the worst image's mean absolute difference, images in [-1, 1]: one grey level of 255."""
NUM_LATENTS = 16


@dataclass(frozen=True)
class Precision:
    """What images are drawn in, where they are only looked at: labelled, measured."""

    half: bool
    """float16 in the layers that the network has for it; otherwise float32 throughout."""
    told: str | None
    """For the user; None: there was nothing to decide."""


def no_shortcuts(device: torch.device) -> None:
    """On a GPU, for the whole process: float32 is float32, not TF32, and of several algorithms the same is taken every time."""
    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True


def has_half_layers(G: Any) -> bool:
    """True if some layer of the generator runs in float16 where the device has it."""
    return any(getattr(layer, "use_fp16", False) for layer in G.synthesis.modules())


def self_test(G: Any, w: torch.Tensor, *, batch: int = NUM_LATENTS) -> Precision:
    """Whether G may draw in float16, found out by drawing; on a CPU float32, and nothing is said.

    Args:
        G:     On the device that will draw.
        w:     [n, w_dim] latents of it, a few.
        batch: Images at a time.
    """
    if w.device.type != "cuda":
        return Precision(False, None)
    if not has_half_layers(G):
        return Precision(False, "Images are drawn in float32: this network has no float16 layers")
    return compare(G, w, batch=batch)


def compare(G: Any, w: torch.Tensor, *, batch: int = NUM_LATENTS) -> Precision:
    """The decision: float16 where its images are finite and those of float32 but for rounding."""
    half, full = (torch.cat([img.cpu() for img in generate(G, w, batch=batch, half=wanted)]) for wanted in (True, False))
    broken = int((~torch.isfinite(half)).flatten(1).any(dim=1).sum())
    if broken:
        return Precision(False, f"Images are drawn in float32: in float16, {broken} of {len(half)} of this network's are not finite")
    worst = float((half.clamp(-1, 1) - full.clamp(-1, 1)).abs().mean(dim=[1, 2, 3]).max())
    if not worst <= LARGEST_DIFFERENCE:  # nan in float32 is no agreement either
        return Precision(
            False, f"Images are drawn in float32: in float16, one of {len(half)} is off by {worst:.4f} (at most {LARGEST_DIFFERENCE:.4f})"
        )
    return Precision(
        True, f"Images are drawn in float16: {len(half)} agree with float32 to {worst:.4f} (at most {LARGEST_DIFFERENCE:.4f}); training is float32"
    )
