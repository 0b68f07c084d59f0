# SPDX-License-Identifier: Apache-2.0
"""Several features as one Feature, whose parts they are: what a method that declares `several` redacts at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from stylegan_redact import plugins
from stylegan_redact.types import Feature, RedactError

SEPARATOR = ","


def joint_name(names: Sequence[str]) -> str:
    """beard,hat: the names sorted, each once, so that no order matters. Of one name, itself."""
    return SEPARATOR.join(sorted(set(names)))


def together(features: Sequence[Feature]) -> Feature:
    """One feature that shows where any of them does; of a single one, itself.

    Args:
        features: In any order; all gathered from the same latents, with the same detector.

    Raises:
        RedactError: none, one of them twice, or features of different latents.
    """
    parts = tuple(sorted(features, key=lambda feature: feature.name))
    names = [part.name for part in parts]
    asked = f"{SEPARATOR.join(names) or 'nothing'} was to be redacted together"
    if not parts or len(set(names)) < len(parts):
        raise RedactError(f"{asked} - these are {len(set(names))} different features - give one or more, each once")
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    if first.latents is None or any(part.latents is None or not _same_latents(first.latents.w, part.latents.w) for part in parts):
        raise RedactError(f"{asked} - they were not gathered from the same latents - label the same seeds for all of them")
    if any(part.detector is not first.detector for part in parts):
        raise RedactError(f"{asked} - they have different detectors - take one that knows them all, or redact one after the other")
    score = torch.stack([part.latents.score for part in parts if part.latents is not None]).amax(dim=0)
    return Feature(joint_name(names), replace(first.latents, score=score), detector=first.detector, bystanders=first.bystanders, parts=parts)


def refuse_unless_several(method: Any, feature: str, count: int) -> None:
    """Raises RedactError if a method was asked for more features at once than it takes.

    Args:
        method:  Its instance; one that takes several says so: `several: ClassVar[bool] = True`.
        feature: As asked, for the message.
        count:   How many features these are.
    """
    if count > 1 and not getattr(method, "several", False):
        kind = plugins.name_of(method)
        raise RedactError(
            f"{feature} was to be redacted by {kind} - {kind} takes one feature at a time - redact one after the other, or take another method"
        )


def _same_latents(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one is other or torch.equal(one, other)
