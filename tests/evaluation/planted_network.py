# SPDX-License-Identifier: Apache-2.0
"""A generator whose images say outright which attributes they show, and a judge that reads them."""

import torch

from stylegan_redact.evaluation import PairedImages
from stylegan_redact.types import Network

ATTRIBUTES = ("beard", "hat", "smile")
RESOLUTION, BLOCK = 16, 5
SHARE = BLOCK * RESOLUTION / RESOLUTION**2
"""Of an image's pixels that one attribute is drawn in."""
NUM_WS = 3


class Mapping(torch.nn.Module):
    def __init__(self, beard_shift: float = 0.0) -> None:
        super().__init__()
        self.shift = torch.nn.Parameter(torch.tensor([beard_shift, 0.0, 0.0]))

    def forward(self, z, c, truncation_psi=1.0):
        return (z[:, :3] * truncation_psi + self.shift).unsqueeze(1).repeat(1, NUM_WS, 1)


class Synthesis(torch.nn.Module):
    """Attribute k is drawn as a stripe of brightness w[k] / 10, read from row k of ws."""

    def __init__(self, shifts: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
        super().__init__()
        self.shifts = torch.nn.Parameter(torch.tensor(shifts))
        self.calls: list[tuple[int, str, bool]] = []

    def forward(self, ws, noise_mode="random", force_fp32=False):
        self.calls.append((len(ws), noise_mode, force_fp32))
        img = torch.zeros([len(ws), 1, RESOLUTION, RESOLUTION])
        for k in range(3):
            img[:, :, :, k * BLOCK : (k + 1) * BLOCK] = ((ws[:, k, k] + self.shifts[k]) / 10)[:, None, None, None]
        return img


class Generator(torch.nn.Module):
    def __init__(self, mapping: Mapping, synthesis: Synthesis) -> None:
        super().__init__()
        self.mapping, self.synthesis = mapping, synthesis
        self.z_dim, self.w_dim, self.num_ws = 5, 3, NUM_WS


def network(mapping: Mapping | None = None, synthesis: Synthesis | None = None) -> Network:
    """Only G_ema can be asked."""
    return Network(torch.nn.Identity(), torch.nn.Identity(), Generator(mapping or Mapping(), synthesis or Synthesis()))


class Judge:
    differentiable = False
    attributes = ATTRIBUTES

    def logits(self, img: torch.Tensor) -> torch.Tensor:
        return torch.stack([img[:, 0, 0, k * BLOCK] * 10 for k in range(3)], 1)


def pairs_of(before: dict[str, list[int]], after: dict[str, list[int]], l1: list[float] | None = None) -> PairedImages:
    """Pairs with these answers, 1 for shows."""
    logits = [torch.tensor([side[name] for name in before]).T.float() * 2 - 1 for side in (before, after)]
    change = torch.zeros(len(logits[0])) if l1 is None else torch.tensor(l1)
    return PairedImages(tuple(before), logits[0], logits[1], change, change / 2, torch.arange(len(logits[0])))
