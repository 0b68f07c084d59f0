# SPDX-License-Identifier: Apache-2.0
"""The hinge as a filter: latents past the target are not drawn at all. A rival for comparison, no redaction.

Nothing of the network changes: whoever leaves the filter out has every picture that there was, to the last bit. It drops people where the methods of
`methods/` edit a feature out, and acts on z and w only.

Source: the gate of Moon, Cho & Kim 2024, arXiv 2303.05699v4, as a rule of rejection, which is FAST's (arXiv 2312.14895); direction and target are
those of our other methods.
"""

from __future__ import annotations

import torch

from stylegan_redact.estimates import clopper_pearson
from stylegan_redact.types import Estimate, RedactError
from stylegan_redact.wspace.hinge import Gate


def accepted(w: torch.Tensor, hinge: Gate) -> torch.Tensor:
    """[n] bool: latents w [n, w_dim] that the filter lets through, as they are: those that the hinge would not move."""
    return ~hinge.moves(w)


def filtered_rates(shows: torch.Tensor, passed: torch.Tensor) -> dict[str, Estimate]:
    """What a filter costs and what it leaves, in percent, with Clopper and Pearson's intervals.

    Args:
        shows:  [n] bool: a judge sees the feature in the unfiltered image.
        passed: [n] bool, as `accepted` gives it, of the same latents.

    Returns:
        rejected:              share of all latents that is not drawn.
        rejected_feature_free: share of those without the feature that is not drawn either.
        rate_before:           of the feature, without the filter.
        rate_after:            of the feature, among what is drawn.

    Raises:
        RedactError: shapes that do not fit, or a filter that lets nothing through.
    """
    if shows.ndim != 1 or shows.shape != passed.shape or not bool(passed.any()):
        raise RedactError(
            f"rates of a filter were asked - {int(passed.sum())} of {list(passed.shape)} pass, judged are {list(shows.shape)} - let some pass"
        )
    groups = {"rejected": ~passed, "rejected_feature_free": ~passed[~shows], "rate_before": shows, "rate_after": shows[passed]}
    return {name: _percent(group) for name, group in groups.items() if len(group)}


def _percent(hits: torch.Tensor) -> Estimate:
    share = clopper_pearson(int(hits.sum()), len(hits))
    return Estimate(100 * share.value, 100 * share.low, 100 * share.high, share.n, "%", share.confidence)
