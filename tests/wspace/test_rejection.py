# SPDX-License-Identifier: Apache-2.0
"""The hinge as a filter: what it lets through, what that is worth, and that leaving it out brings everything back."""

from __future__ import annotations

import pytest
import tiny
import torch

from stylegan_redact.network import sample_w, synthesize
from stylegan_redact.types import RedactError
from stylegan_redact.wspace.geometry import hinge_for
from stylegan_redact.wspace.rejection import accepted, filtered_rates


def test_what_passes_is_what_the_hinge_leaves_alone_and_the_feature_is_rarer_in_it() -> None:
    net = tiny.network()
    known = tiny.feature(net)
    assert known.latents is not None and known.subspace is not None and known.detector is not None
    hinge = hinge_for(known.latents, known.subspace, 0.9)
    w = sample_w(net.G_ema, tiny.MEASURED)
    passed = accepted(w, hinge)
    assert torch.equal(passed, (hinge(w) == w).all(dim=1)) and 0.5 < float(passed.float().mean()) < 1
    with torch.no_grad():
        shows = known.detector.logits(synthesize(net.G_ema, w))[:, known.detector.attributes.index(known.name)] > 0
    rates = filtered_rates(shows, passed)
    assert rates["rate_after"].high < rates["rate_before"].low
    assert rates["rejected"].n == rates["rate_before"].n == 400 and rates["rate_after"].n == int(passed.sum())


def test_without_the_filter_every_picture_is_there_to_the_last_bit() -> None:
    """The demonstration that a filter is no redaction: it is one `if` that whoever has the file leaves out."""
    net = tiny.network()
    known = tiny.feature(net)
    assert known.latents is not None and known.subspace is not None
    state = {name: tensor.clone() for name, tensor in net.G_ema.state_dict().items()}
    w = sample_w(net.G_ema, range(100))
    passed = accepted(w, hinge_for(known.latents, known.subspace, 0.9))
    assert not bool(passed.all())
    unfiltered, filtered = tiny.images(net.G_ema, range(100)), tiny.images(net.G_ema, [seed for seed in range(100) if passed[seed]])
    torch.testing.assert_close(filtered, unfiltered[passed], atol=1e-5, rtol=0)
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.G_ema.state_dict().items())
    assert torch.equal(tiny.images(net.G_ema, range(100)), unfiltered)


def test_figures_by_hand() -> None:
    """Ten latents, four with the feature; the filter rejects three of those and one more."""
    shows = torch.arange(10) < 4
    passed = torch.arange(10) >= 3
    passed[9] = False
    found = filtered_rates(shows, passed)
    assert {name: (round(rate.value, 6), rate.n) for name, rate in found.items()} == {
        "rejected": (40.0, 10),
        "rejected_feature_free": (round(100 / 6, 6), 6),
        "rate_before": (40.0, 10),
        "rate_after": (round(100 / 6, 6), 6),
    }
    assert all(rate.low < rate.value < rate.high for rate in found.values())
    with pytest.raises(RedactError, match="let some pass"):
        filtered_rates(shows, torch.zeros(10, dtype=torch.bool))
