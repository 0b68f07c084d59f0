# SPDX-License-Identifier: Apache-2.0
"""Invalid pictures of a generator that is being trained, sought anew at each step and kept: negatives that follow it to wherever it still errs.

The validity-based algorithm of Kong & Chaudhuri 2022 (arXiv 2206.14389) adds what the present generator draws invalidly to the redaction set. Ours:
half of the negatives are the newest ones, half are replayed; and when they grow rare, half of the latents looked at are near those that were
invalid, since a sample of a distribution that hardly errs hardly shows an error.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stylegan_redact.network import sample_z
from stylegan_redact.training.streams import LOOKS, Images
from stylegan_redact.types import RedactError

KEPT = 2_000
"""Invalid pictures that are remembered, the oldest go first."""
RARE = 0.05
"""Below this share of invalid pictures, of the latest ones looked at, half of the latents are near past ones."""
NEARNESS = 0.3
"""Share of noise in such a latent: z' = sqrt(1 - s^2) z + s noise is again a standard normal one."""
FORGET = 0.1
"""Of the running share, at each step."""


@dataclass(frozen=True)
class Found:
    """An invalid picture."""

    img: torch.Tensor
    z: torch.Tensor
    c: torch.Tensor | None


@dataclass(frozen=True)
class Validity:
    """Says which pictures are valid: a function of the user's on pixels, uint8 [H, W, C], True for valid ones."""

    function: Callable[[np.ndarray], Any]
    name: str

    def __call__(self, img: torch.Tensor, seeds: list[int] | None = None) -> torch.Tensor:
        """[n] bool of img [n, C, H, W] in [-1, 1]; seeds of the pictures are for messages.

        Raises:
            RedactError: the function fails, or gives no bool; names the seed that it was about.
        """
        pixels = (img.detach() * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()  # [-1, 1] => uint8
        said = []
        for row, picture in enumerate(pixels):
            about = "a picture of the data" if seeds is None else f"the picture of seed {seeds[row]}"
            try:
                valid = self.function(picture.copy())
            except Exception as error:  # Whatever the user's code raises, and which picture did it.
                raise RedactError(f"{self.name} was asked about {about} - it raised {error!r} - mend it") from error
            if not isinstance(valid, bool | np.bool_):
                raise RedactError(f"{self.name} was asked about {about} - it gave {valid!r} - return True for a valid picture, else False")
            said.append(bool(valid))
        return torch.tensor(said, dtype=torch.bool)


def check_validity(text: str) -> tuple[Path, str]:
    """File and function that file.py:function names.

    Raises:
        RedactError: it is not of this form, or there is no such file.
    """
    file, _, function = text.rpartition(":")
    if not file.endswith(".py") or not function.isidentifier():
        raise RedactError(f"validity={text!r} was asked - it is no file.py:function - name a Python file and a function in it")
    if not os.path.isfile(file):
        raise RedactError(f"validity={text!r} was asked - there is no file {file} - name a Python file and a function in it")
    return Path(file), function


def load_validity(text: str) -> Validity:
    """The user's function that file.py:function names. Its file is run, with all rights of the user.

    Raises:
        RedactError: there is none, or its file cannot be run.
    """
    path, name = check_validity(text)
    spec = importlib.util.spec_from_file_location("validity_of_user", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # Whatever the user's code raises.
        raise RedactError(f"validity={text!r} was asked - {path} cannot be run: {error!r} - mend it") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise RedactError(f"validity={text!r} was asked - {path} defines no function {name} - name one that it does")
    return Validity(function, text)


class InvalidPictures:
    """A stream (n, generator) of invalid pictures of G as it is at the moment.

    Args:
        G:     The generator that is being trained.
        valid: (img, seeds) -> [n] bool.
        c:     [k, c_dim] labels to draw from, of a conditional network.
    """

    def __init__(self, G: Any, valid: Callable[[torch.Tensor, list[int]], torch.Tensor], c: torch.Tensor | None = None) -> None:
        self.G, self.valid, self.c = G, valid, c
        self.found: list[Found] = []
        self.share = 1.0

    def __call__(self, n: int, generator: torch.Generator) -> Images:
        """n invalid pictures, with repetitions.

        Raises:
            RedactError: none at all was found yet.
        """
        for _ in range(LOOKS):
            fresh = self._look(n, generator)
            if self.found:
                break
        if not self.found:
            raise RedactError(f"invalid pictures were sought - none of {LOOKS * n} that the network draws is - there is nothing to redact")
        newest = self.found[len(self.found) - max(fresh, 1) :]
        half = n // 2
        chosen = [pool[int(row)] for pool, count in ((newest, half), (self.found, n - half)) for row in _rows(len(pool), count, generator)]
        order = torch.randperm(n, generator=generator).tolist()
        labels = [chosen[row].c for row in order]
        return Images(torch.stack([chosen[row].img for row in order]), None if self.c is None else torch.stack(labels))

    def state_dict(self) -> dict[str, Any]:
        """What was found, and how much of late."""
        columns = {name: [getattr(each, name) for each in self.found] for name in ("img", "z", "c")}
        return {"share": self.share} | {name: torch.stack(column) if column and column[0] is not None else None for name, column in columns.items()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """As it was when `state_dict` was made."""
        device, self.share = next(self.G.parameters()).device, state_dict["share"]
        img, z, c = ([] if state_dict[name] is None else list(state_dict[name].to(device)) for name in ("img", "z", "c"))
        self.found = [Found(*each) for each in zip(img, z, c or [None] * len(img), strict=True)]

    def _look(self, n: int, generator: torch.Generator) -> int:
        """Draws n pictures and remembers the invalid ones; how many these are."""
        device = next(self.G.parameters()).device
        seeds = torch.randint(2**31, [n], generator=generator).tolist()
        z = sample_z(seeds, self.G.z_dim).to(device)
        c = None if self.c is None else self.c[_rows(len(self.c), n, generator).to(self.c.device)]
        if self.found and self.share < RARE:
            near = [self.found[int(row)] for row in _rows(len(self.found), n // 2, generator)]
            z[: len(near)] = (1 - NEARNESS**2) ** 0.5 * torch.stack([each.z for each in near]) + NEARNESS * z[: len(near)]
            if c is not None:
                c[: len(near)] = torch.stack([each.c for each in near if each.c is not None])
        with torch.no_grad():
            img = self.G.synthesis(self.G.mapping(z, c), noise_mode="const", force_fp32=True)
            bad = (~self.valid(img, seeds)).nonzero().flatten().tolist()
        self.found = [*self.found, *(Found(img[row], z[row], None if c is None else c[row]) for row in bad)][-KEPT:]
        self.share += FORGET * (len(bad) / n - self.share)
        return len(bad)


def by_detector(score: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor, list[int]], torch.Tensor]:
    """Valid is what a detector's score [n], over 0 where the feature shows, finds none in."""
    return lambda img, seeds: score(img) <= 0


def _rows(k: int, n: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(k, [n], generator=generator)
