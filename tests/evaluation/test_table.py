# SPDX-License-Identifier: Apache-2.0
"""What people and JSON are shown of the estimates, and the targets."""

import dataclasses
import json
import math

import pytest
from planted_network import Judge, Synthesis, network, pairs_of

from stylegan_redact.evaluation import TARGETS, as_json, ask, check, format_estimate, measure_pairs, render, render_targets
from stylegan_redact.types import Estimate, RedactError


@pytest.mark.parametrize(
    ("estimate", "told"),
    [
        (Estimate(12.93, 12.21, 13.62, 10000, "%"), "12.9 % (12.2-13.6)"),
        (Estimate(0.02, 0.002, 0.072, 10000, "%"), "0.02 % (0.00-0.07)"),
        (Estimate(50.2, 41.0, 59.4, 100, "%"), "50 % (41-59)"),
        (Estimate(0.0123, 0.0118, 0.0128, 9000), "0.0123 (0.0118-0.0128)"),
        (Estimate(0.31, -0.12, 0.74, 100, "points"), "0.3 points (-0.1 to 0.7)"),
        (Estimate(-0.31, -0.74, 0.12, 100, "points"), "-0.3 points (-0.7 to 0.1)"),
        (Estimate(0.0, -0.04, 0.04, 100, "points"), "0.00 points (-0.04 to 0.04)"),
        (Estimate(-0.0, -0.04, 0.04, 100, "points"), "0.00 points (-0.04 to 0.04)"),
        (Estimate(math.nan, 0.0, 100.0, 0, "%"), "- % (0-100)"),
        (Estimate(math.nan, -math.inf, math.inf, 0), "- (-inf to inf)"),
        (Estimate(0.0, 0.0, 0.0, 5, "points"), "0.000 points (0.000-0.000)"),
    ],
)
def test_format_estimate(estimate: Estimate, told: str) -> None:
    assert format_estimate(estimate) == told


BEFORE = {"beard": [1] * 200 + [0] * 800, "hat": [1, 0] * 500, "grey_hair": [0] * 950 + [1] * 50}
AFTER = {"beard": [1] + [0] * 999, "hat": [1, 0] * 499 + [1, 1], "grey_hair": [0] * 960 + [1] * 40}


def answers(access_l1: float = 0.01) -> dict[str, Estimate]:
    return ask(pairs_of(BEFORE, AFTER, [0.3] * 200 + [access_l1] * 800), "beard")


def test_render_lays_out_what_was_answered() -> None:
    lines = render(answers(), "beard").splitlines()
    assert lines[0] == "beard, before -> after, with 95 % intervals"
    assert "residual rate" in lines and "collateral" in lines and "image change" in lines and "conditional rates" in lines
    row = next(line for line in lines if line.lstrip().startswith("rate "))
    assert row.split() == "rate 20 % (18-23) -> 0.1 % (0.0-0.6) n = 1,000".split()
    grey = next(line for line in lines if line.startswith("  grey hair"))
    assert "5.0 % (3.7-6.5) -> 4.0 % (2.9-5.4)" in grey and "-1.0 points" in grey and "-20 %" in grey
    assert all(line == line.rstrip() for line in lines)


def test_columns_are_aligned() -> None:
    lines = render(answers(), "beard").splitlines()
    section = lines[lines.index("collateral") + 1 :]
    hat, grey = (next(line for line in section if line.startswith(f"  {name}")) for name in ("hat", "grey hair"))
    heading = section[section.index(hat) - 1]
    assert heading.index("rate, n = 1,000") == hat.index("50 %") == grey.index("5.0 %") and heading.index("change, n") == grey.index("-1.0 points")


def test_a_new_question_is_shown_without_an_edit_of_the_table() -> None:
    text = render({"attacks/budget": Estimate(7.0, 6.0, 8.0, 30, "kimg")}, "beard")
    assert text == "beard, before -> after, with 95 % intervals\n\nattacks\n  budget  7.0 kimg (6.0-8.0)  n = 30\n"


def test_every_estimate_is_in_the_table_once() -> None:
    text = render(answers(), "beard")
    for key, estimate in answers().items():
        assert format_estimate(estimate) in text, key


def test_as_json_round_trips_and_has_no_nan() -> None:
    plain = as_json(answers() | {"x/rare": Estimate(math.nan, -math.inf, math.inf, 0, "%")})
    read = json.loads(json.dumps(plain, allow_nan=False))
    assert read["x/rare"] == {"value": None, "low": None, "high": None, "n": 0, "unit": "%", "confidence": 0.95}
    assert Estimate(**read["residual_rate/rate_after"]) == answers()["residual_rate/rate_after"]


def test_targets_are_met_and_missed_one_by_one() -> None:
    good = {
        "residual_rate/removed": Estimate(99.0, 97.0, 99.9, 10000, "%"),
        "residual_rate/rate_after": Estimate(0.1, 0.05, 0.25, 10000, "%"),
        "collateral/mean_absolute_change": Estimate(0.5, 0.4, 0.8, 10000, "points"),
        "collateral/largest_rare_loss": Estimate(15.0, 3.0, 40.0, 10000, "%"),
        "image_change/l1_feature_free": Estimate(0.02, 0.019, 0.021, 10000),
    }
    assert [verdict.met for verdict in check(good)] == [True] * 5  # at the limit is met
    worse = {"residual_rate/removed": {"value": 98.9}, "residual_rate/rate_after": {"high": 0.26}, "collateral/mean_absolute_change": {"value": 0.51}}
    worse |= {"collateral/largest_rare_loss": {"value": 15.1}, "image_change/l1_feature_free": {"value": 0.021}}
    for key, change in worse.items():
        for broken in (change, {next(iter(change)): math.nan}):
            verdicts = check(good | {key: dataclasses.replace(good[key], **broken)})
            assert [verdict.target.key for verdict in verdicts if not verdict.met] == [key]


def test_a_target_without_its_estimate_is_refused() -> None:
    with pytest.raises(RedactError, match="ask the question image_change"):
        check({key: estimate for key, estimate in answers().items() if not key.startswith("image_change")})


def test_render_targets_says_which_is_missed() -> None:
    lines = render_targets(check(answers())).splitlines()
    assert len(lines) == len(TARGETS) and [line.split()[0] for line in lines] == ["met", "MISSED", "MISSED", "MISSED", "met"]
    assert "20 % (" in lines[3] and "0.5 points (0." in lines[2] and "n = 1,000" in lines[3]


def test_from_networks_to_verdicts() -> None:
    seeds = range(300)
    redacted = ask(measure_pairs(network(), network(synthesis=Synthesis((-20.0, 0.0, 0.0))), Judge(), seeds), "beard")
    assert redacted["residual_rate/removed"].value == 100 and redacted["collateral/mean_absolute_change"].value == 0
    assert not check(redacted)[1].met  # 300 seeds cannot show that the rate is below 0.25 %
    untouched = check(ask(measure_pairs(network(), network(), Judge(), seeds), "beard"))
    assert [verdict.met for verdict in untouched] == [False, False, True, False, True]  # nothing is rare there: not measured is not met
