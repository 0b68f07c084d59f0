# SPDX-License-Identifier: Apache-2.0
"""STEP 4: before, after -> numbers with intervals. Each file without a leading underscore is one question, asked of images drawn once."""

from stylegan_redact.evaluation._ask import ask
from stylegan_redact.evaluation._classes import MOST_OF_OTHERS, NoClassifier, leak, other_classes, whole_class
from stylegan_redact.evaluation._keep import MARGIN_POINTS, MARGIN_SHARE, KeepVerdict, keep_as_json, keep_verdicts, render_keep
from stylegan_redact.evaluation._paired import ACCESSES, PairedImages, image_pairs, joined, measure_pairs, rate
from stylegan_redact.evaluation._person import STRANGERS, Sitter, everybody_else, neighbours, person
from stylegan_redact.evaluation._several import ask_several, merged, targets_of
from stylegan_redact.evaluation._table import as_json, format_estimate, render, render_targets
from stylegan_redact.evaluation._targets import TARGETS, Target, Verdict, at_bounds, check, measurable

__all__ = [
    "ACCESSES",
    "MARGIN_POINTS",
    "MARGIN_SHARE",
    "MOST_OF_OTHERS",
    "STRANGERS",
    "TARGETS",
    "KeepVerdict",
    "NoClassifier",
    "PairedImages",
    "Sitter",
    "Target",
    "Verdict",
    "as_json",
    "ask",
    "ask_several",
    "at_bounds",
    "check",
    "everybody_else",
    "format_estimate",
    "image_pairs",
    "joined",
    "keep_as_json",
    "keep_verdicts",
    "leak",
    "measurable",
    "measure_pairs",
    "merged",
    "neighbours",
    "other_classes",
    "person",
    "rate",
    "render",
    "render_keep",
    "render_targets",
    "targets_of",
    "whole_class",
]
