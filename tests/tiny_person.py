# SPDX-License-Identifier: Apache-2.0
"""A person whom the small network can draw, at a hidden W+ code that no seed gives; functions as in tiny.py."""

from __future__ import annotations

import functools
from typing import Any

import tiny
import torch
from tiny import LABELS, MEASURED, OTHER, images, network
from tiny_run import generator

from stylegan_redact import evaluation
from stylegan_redact.features.person import NAME, Person
from stylegan_redact.inversion import Search
from stylegan_redact.network import broadcast_w, sample_w, synthesize
from stylegan_redact.types import Feature, Network

FEATURE = NAME
SEARCH = Search(steps=20)
KNOWN_BY = range(800)
"""Seeds of other people."""

__all__ = ["FEATURE", "LABELS", "MEASURED", "OTHER", "feature", "generator", "hidden", "images", "network", "photo", "rate", "sitter"]


def hidden(G: Any) -> torch.Tensor:
    """[1, num_ws, w_dim]: rows of two latents, one after the other."""
    one, rest = (broadcast_w(G, sample_w(G, [seed])) for seed in (770_003, 770_004))
    return torch.where(torch.arange(G.num_ws).view(1, -1, 1) < 3, one, rest)


def photo(G: Any) -> torch.Tensor:
    """[1, 3, 16, 16] of the hidden code."""
    with torch.no_grad():
        return synthesize(G, hidden(G))


@functools.cache
def _gathered() -> Feature:
    net = network()
    return Person(photo(net.G_ema), search=SEARCH).gather(net, KNOWN_BY, batch=64)


def feature(net: Network) -> Feature:
    """As the command gathers it."""
    return _gathered()


def sitter(known: Feature) -> evaluation.Sitter:
    assert known.examples is not None and known.codes is not None and known.latents is not None
    return evaluation.Sitter(known.examples, known.codes, known.examples[:0], known.latents.w, SEARCH)


def rate(G: Any, known: Feature, seeds: range = MEASURED) -> float:
    """The share of codes of the person and near it that draw who passes for the person: nearer to the photograph than any other of the seeds."""
    assert known.examples is not None
    alike = (images(tiny.network().G_ema, seeds) - known.examples).abs().mean((1, 2, 3)).amin()
    with torch.no_grad():
        drawn = synthesize(G, evaluation.neighbours(sitter(known)))
    return float(((drawn - known.examples).abs().mean((1, 2, 3)) < alike).float().mean())
