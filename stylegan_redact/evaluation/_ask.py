# SPDX-License-Identifier: Apache-2.0
"""Every question, or the named ones, asked of the same pairs of images."""

from __future__ import annotations

from collections.abc import Sequence

from stylegan_redact import plugins
from stylegan_redact.evaluation._paired import PairedImages
from stylegan_redact.types import Estimate

FOLDER = "stylegan_redact.evaluation"


def ask(pairs: PairedImages, feature: str, *, keep: tuple[str, ...] = (), questions: Sequence[str] | None = None) -> dict[str, Estimate]:
    """The answers to all questions under `question/figure` or `question/attribute/figure`.

    Args:
        pairs:     As `measure_pairs` gives them.
        feature:   That was redacted; the judge knows it.
        keep:      Attributes that were to stay as they are.
        questions: Names of files in this folder; None: all of them, by their `place`.

    Raises:
        RedactError: an attribute that the judge does not know, or a question that there is not.
    """
    answers: dict[str, Estimate] = {}
    if questions is None:
        questions = sorted(plugins.names(FOLDER), key=lambda name: plugins.load(FOLDER, name).place)  # type: ignore[attr-defined]
    for name in questions:
        question = plugins.build(plugins.load(FOLDER, name), {})
        answers |= {f"{name}/{figure}": estimate for figure, estimate in question.answer(pairs, feature, keep).items()}
    return answers
