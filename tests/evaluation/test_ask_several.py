# SPDX-License-Identifier: Apache-2.0
"""Several features measured at once, on pairs whose every rate is known."""

from __future__ import annotations

import pytest
import torch

from stylegan_redact import evaluation
from stylegan_redact.evaluation import PairedImages
from stylegan_redact.types import RedactError

SHOWN = {"beard": ("110000", "000000"), "hat": ("011000", "010000"), "bald": ("000110", "000010"), "male": ("111100", "111100")}
"""Attribute -> which of six images show it, before and after."""


def pairs() -> PairedImages:
    before, after = (torch.tensor([[2.0 * int(flag) - 1 for flag in flags[side]] for flags in SHOWN.values()]).T for side in (0, 1))
    return PairedImages(tuple(SHOWN), before, after, torch.arange(6) / 10, torch.zeros(6), torch.arange(6))


def test_rates_of_each_and_of_any() -> None:
    found = evaluation.ask_several(pairs(), ("beard", "hat"), questions=["residual_rate"])
    told = {key: round(100 * value.value) for key, value in found.items() if "rate_" in key.rpartition("/")[2]}
    assert told == {
        "residual_rate/rate_before": 5000,
        "residual_rate/rate_after": 1667,
        "residual_rate/beard/rate_before": 3333,
        "residual_rate/beard/rate_after": 0,
        "residual_rate/hat/rate_before": 3333,
        "residual_rate/hat/rate_after": 1667,
    }


def test_what_else_changed_is_about_attributes_that_are_none_of_them() -> None:
    found = evaluation.ask_several(pairs(), ("hat", "beard"), questions=["collateral", "image_change"])
    assert {key.split("/")[1] for key in found if key.count("/") == 2} == {"bald", "male"}
    assert found["collateral/bald/change"].value == pytest.approx(-100 / 6)
    assert found["collateral/mean_absolute_change"].value == pytest.approx(100 / 12)
    assert found["image_change/l1_feature_free"].value == pytest.approx((0.3 + 0.4 + 0.5) / 3)  # Images 3 to 5 show neither.


def test_of_one_feature_it_is_the_usual_answer_and_the_usual_targets() -> None:
    assert evaluation.ask_several(pairs(), ("hat",)).keys() == evaluation.ask(pairs(), "hat").keys()
    assert evaluation.targets_of(("hat",)) is evaluation.TARGETS


def test_targets_hold_for_each_feature() -> None:
    found = evaluation.ask_several(pairs(), ("beard", "hat"))
    targets = evaluation.targets_of(("hat", "beard"))
    assert len(targets) == len(evaluation.TARGETS) + 2
    met = {verdict.target.text: verdict.met for verdict in evaluation.check(found, targets)}
    assert met["beard, removed: at least 99 % of the feature"] and not met["hat, removed: at least 99 % of the feature"]
    assert "residual rate" in evaluation.render(found, "beard,hat")


def test_what_is_redacted_is_not_kept_and_what_nobody_knows_is_not_measured() -> None:
    with pytest.raises(RedactError, match="'hat' was to be redacted and kept"):
        evaluation.ask_several(pairs(), ("beard", "hat"), keep=("hat",))
    with pytest.raises(RedactError, match="'scarf' was to be measured"):
        evaluation.ask_several(pairs(), ("beard", "scarf"))
