# SPDX-License-Identifier: Apache-2.0
"""Several features that were redacted at once: all questions of them together, and of each what is left of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from stylegan_redact.evaluation._ask import ask
from stylegan_redact.evaluation._paired import PairedImages
from stylegan_redact.evaluation._targets import TARGETS, Target
from stylegan_redact.several import joint_name
from stylegan_redact.types import Estimate, RedactError

EACH = "residual_rate"
"""The question that is asked of each feature."""


def merged(pairs: PairedImages, features: Sequence[str]) -> PairedImages:
    """The same pairs with one column, named as `joint_name` says, that shows where any of the features does, in the place of theirs.

    So what is asked of it is asked of all together: what else changed is about attributes that are none of them, and an image is free of the feature
    if it shows none. Of a single feature, the pairs themselves.

    Raises:
        RedactError: a feature that the judge does not know.
    """
    if len(features) == 1:
        return pairs
    for name in features:
        pairs.others(name)  # refuses unknown names
    own = [pairs.attributes.index(name) for name in features]
    rest = [index for index in range(len(pairs.attributes)) if index not in own]

    def merge(logits: torch.Tensor) -> torch.Tensor:
        return torch.cat([logits[:, own].amax(dim=1, keepdim=True), logits[:, rest]], dim=1)

    return dataclasses.replace(
        pairs,
        attributes=(joint_name(features), *(pairs.attributes[index] for index in rest)),
        logits_before=merge(pairs.logits_before),
        logits_after=merge(pairs.logits_after),
        judge_misses=None,
    )


def ask_several(
    pairs: PairedImages, features: Sequence[str], *, keep: tuple[str, ...] = (), questions: Sequence[str] | None = None
) -> dict[str, Estimate]:
    """The answers to all questions about several features together, as `ask` gives them, and `residual_rate/FEATURE/figure` of each.

    Args:
        pairs:     As `measure_pairs` gives them.
        features:  That were redacted; the judge knows them. Of one alone the answers are those of `ask`.
        keep:      Attributes that were to stay as they are.
        questions: Names of files in this folder; None: all of them.

    Raises:
        RedactError: an attribute that the judge does not know, or one that was to be redacted and kept.
    """
    both = [name for name in features if name in keep]
    if both:
        raise RedactError(f"{both[0]!r} was to be redacted and kept - it can be one of the two - take it out of the list to keep")
    answers = ask(merged(pairs, features), joint_name(features), keep=keep, questions=questions)
    if len(features) == 1 or (questions is not None and EACH not in questions):
        return answers
    for name in sorted(features):
        own = ask(pairs, name, questions=[EACH])
        answers |= {f"{EACH}/{name}/{key.partition('/')[2]}": estimate for key, estimate in own.items()}
    return answers


def targets_of(features: Sequence[str], targets: tuple[Target, ...] = TARGETS) -> tuple[Target, ...]:
    """The targets of a redaction: what is to be left of a feature holds for each, the rest for all together."""
    if len(features) == 1:
        return targets
    found: list[Target] = []
    for target in targets:
        question, _, figure = target.key.partition("/")
        each = [dataclasses.replace(target, text=f"{name}, {target.text}", key=f"{EACH}/{name}/{figure}") for name in sorted(features)]
        found += each if question == EACH else [target]
    return tuple(found)
