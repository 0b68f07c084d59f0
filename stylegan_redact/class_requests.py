# SPDX-License-Identifier: Apache-2.0
"""What a request for a whole class may ask, and who judges it: nothing steers the substitution of a class."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from stylegan_redact import evaluation, precision
from stylegan_redact.backends import find
from stylegan_redact.feature_requests import CLASS, refuse_misfit, source_of
from stylegan_redact.labels import PREFIX, Labels, all_of
from stylegan_redact.network import sample_w
from stylegan_redact.types import Detector, Network

METHOD = "substitute_class"
"""Of a feature that is a whole class, where none is named."""


def is_class(feature: str) -> bool:
    """True for class:3 and its like, whether or not there is such a class."""
    return source_of(feature) == CLASS


def check(feature: str, method_name: str, method: Any, given: Mapping[str, Any]) -> None:
    """Raises RedactError if the method is not for such a feature, or a whole class was asked with options that it has no use for.

    Args:
        feature:     As asked.
        method_name: As asked.
        method:      Its instance.
        given:       Option -> value, of options that only other features have a use for.
    """
    asked = f"--feature={feature} was asked with"
    refuse_misfit(
        is_class(feature),
        "label" in method.needs,
        given,
        feature=f"--method={method_name} was asked for {feature!r} - it redacts whole classes - give --feature={PREFIX}N",
        method=f"{asked} --method={method_name} - a whole class is substituted in closed form - use --method={METHOD}",
        options=f"{asked} {{}} - the feature names the class, and nothing steers or is held - leave it out",
    )


def judge_of(path: str | os.PathLike[str] | None, feature: str, G: Any, device: torch.device) -> tuple[Detector, Detector, dict[str, Any]]:
    """No detector, the judge if one is given, and what the records say of them."""
    nobody = evaluation.NoClassifier()
    if path is None:
        return nobody, nobody, {"detector": None, "judge": None}
    file = find.find(os.fspath(path), feature)
    return nobody, file.load((G.img_channels, G.img_resolution, G.img_resolution), device), {"detector": None, "judge": file.record}


def self_test(network: Network, labels: Labels | None, seeds: range, batch: int) -> precision.Precision:
    """In what G_ema draws well. Asked before labelling, and again of the redacted network before measuring."""
    G: Any = network.G_ema
    some = seeds[: precision.NUM_LATENTS]
    c = None if G.c_dim == 0 else (labels or all_of(G.c_dim))(some)
    return precision.self_test(G, sample_w(G, some, c=c), batch=min(batch, len(some)))
