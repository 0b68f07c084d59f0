# SPDX-License-Identifier: Apache-2.0
"""One person, known by photographs: they are inverted into W+ codes of the network; no classifier is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stylegan_redact import ranks, rows
from stylegan_redact.extractors import describe_by
from stylegan_redact.inversion import STARTS, Search, invert
from stylegan_redact.labels import Labels
from stylegan_redact.network import sample_w
from stylegan_redact.types import Bystanders, Feature, LabelledLatents, Network, Progress, RedactError
from stylegan_redact.wspace.prior import prior_of

NAME = "person"
"""Of the feature. Photographs are named nowhere: what is handed on must not tell who was redacted."""


@dataclass(frozen=True)
class Person:
    """Who is on `photos` [n, C, H, W] in [-1, 1], at the network's resolution."""

    photos: torch.Tensor
    labels: Labels | None = None
    """Classes that other people are drawn from, of a conditional network. Where they leave classes out, these become bystanders."""
    search: Search = Search()

    def gather(self, network: Network, seeds: Sequence[int], *, batch: int = 32, progress: Progress | None = None) -> Feature:
        """The photographs' codes, and latents of many other people (score -1), which tell where people lie.

        Args:
            network:  Its G_ema is inverted.
            seeds:    NVIDIA's, more than w has dimensions.
            batch:    Images at a time.
            progress: Told (stage, share done, figures).

        Raises:
            RedactError: no photographs, or of another shape, or too few seeds.
        """
        G: Any = network.G_ema
        shape = [G.img_channels, G.img_resolution, G.img_resolution]
        if len(self.photos) == 0 or list(self.photos.shape[1:]) != shape:
            raise RedactError(f"photographs {list(self.photos.shape)} were to be inverted - the network draws {shape} - give one or more such")
        if len(seeds) <= G.w_dim:
            raise RedactError(f"people were to be known by {len(seeds)} latents - w has {G.w_dim} dimensions - take more with --num-latents")
        c = None if self.labels is None else self.labels(seeds)
        w = sample_w(G, seeds, c=c)
        photos = self.photos.to(w.device)
        codes = invert(
            G, prior_of(w), photos, self.search, starts=w[:STARTS], describe=describe_by(network.D), batch=batch, progress=progress
        )  # fmt: skip
        codes = ranks.world().from_first(codes).to(w.device)  # A search on a GPU ends elsewhere each time; all ranks must mean the same person.
        latents = LabelledLatents(w, -torch.ones(len(w), device=w.device), rows.numbers(seeds), None, None if c is None else c.to(w.device))
        others = None if self.labels is None else self.labels.others()
        bystanders = None
        if others is not None:
            theirs = others(seeds)
            bystanders = Bystanders(sample_w(G, seeds, c=theirs), theirs.to(w.device))
        return Feature(NAME, latents, examples=photos, codes=codes, bystanders=bystanders)
