# SPDX-License-Identifier: Apache-2.0
"""STEP 4: before, after -> numbers with intervals. Each file without a leading underscore is one question, asked of images drawn once."""

from stylegan_redact.evaluation._ask import ask
from stylegan_redact.evaluation._classes import MOST_OF_OTHERS, NoClassifier, leak, other_classes, whole_class
from stylegan_redact.evaluation._keep import MARGIN_POINTS, MARGIN_SHARE, KeepVerdict, keep_as_json, keep_verdicts, render_keep
from stylegan_redact.evaluation._paired import ACCESSES, PairedImages, image_pairs, joined, measure_pairs, rate
from stylegan_redact.evaluation._table import as_json, format_estimate, render, render_targets
from stylegan_redact.evaluation._targets import TARGETS, Target, Verdict, at_bounds, check

__all__ = [
    "ACCESSES",
    "MARGIN_POINTS",
    "MARGIN_SHARE",
    "MOST_OF_OTHERS",
    "TARGETS",
    "KeepVerdict",
    "NoClassifier",
    "PairedImages",
    "Target",
    "Verdict",
    "as_json",
    "ask",
    "at_bounds",
    "check",
    "format_estimate",
    "image_pairs",
    "joined",
    "keep_as_json",
    "keep_verdicts",
    "leak",
    "measure_pairs",
    "other_classes",
    "rate",
    "render",
    "render_keep",
    "render_targets",
    "whole_class",
]
