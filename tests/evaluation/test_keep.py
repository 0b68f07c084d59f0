# SPDX-License-Identifier: Apache-2.0
"""Verdicts on attributes to keep, and the p-values and intervals of collateral: planted changes of known size, and how often each is right."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from planted_network import pairs_of

from stylegan_redact import paired_tests
from stylegan_redact.evaluation import KeepVerdict, PairedImages, _keep, as_json, format_estimate, keep_as_json, keep_verdicts, render_keep
from stylegan_redact.evaluation._keep import LEVEL
from stylegan_redact.evaluation.collateral import Collateral
from stylegan_redact.types import RedactError

Cells = tuple[float, float, float]
"""Share of the seeds that show an attribute before and after, only before, only after."""

LEFT_ALONE: Cells = (0.0195, 0.0005, 0.0005)
LOSES_A_FIFTH: Cells = (0.016, 0.004, 0.0)
TWELVE = {f"other_{k}": (0.95 * rate, 0.05 * rate, 0.05 * rate) for k, rate in enumerate((0.01, 0.02, 0.03, 0.05, 0.08, 0.1) * 2)}


def exact(n: int, attributes: dict[str, Cells]) -> PairedImages:
    """Pairs in which exactly these shares are found; a beard besides, that goes."""
    before, after = {"beard": [1, 0] * (n // 2)}, {"beard": [0] * n}
    for name, cells in attributes.items():
        both, lost, gained = (round(n * cell) for cell in cells)
        rest = [0] * (n - both - lost - gained)
        before[name] = [1] * both + [1] * lost + [0] * gained + rest
        after[name] = [1] * both + [0] * lost + [1] * gained + rest
    return pairs_of(before, after)


def drawn(n: int, attributes: dict[str, Cells], generator: np.random.Generator, shared: float = 0.0) -> PairedImages:
    """Pairs drawn with these chances; of a share of the seeds one draw decides all attributes, so that they depend on each other."""
    place = generator.random((n, len(attributes)))
    place[: int(shared * n)] = place[: int(shared * n), :1]
    both, lost, gained = np.cumsum([*attributes.values()], 1).T  # edges, [a] each
    before = np.concatenate([np.zeros((n, 1), bool), place < lost], 1)
    after = np.concatenate([np.zeros((n, 1), bool), (place < both) | ((place >= lost) & (place < gained))], 1)
    logits = [torch.from_numpy(side).float() * 2 - 1 for side in (before, after)]
    return PairedImages(("beard", *attributes), logits[0], logits[1], torch.zeros(n), torch.zeros(n), torch.arange(n))


def verdict_of(n: int, cells: Cells, **margins: float) -> KeepVerdict:
    return keep_verdicts(exact(n, {"bald": cells}), "beard", ("bald",), **margins)[0]


def more_of(verdict: KeepVerdict) -> int:
    """Images that an undecided verdict asks for besides."""
    return int(verdict.text.partition("about ")[2].partition(" more")[0].replace(",", ""))


# Verdicts


def test_left_alone_is_kept() -> None:
    verdict = verdict_of(10_000, LEFT_ALONE)
    assert verdict.kept is True and verdict.p_adjusted <= LEVEL and "within 0.5 points and 15 % of its rate, p " in verdict.text
    assert (verdict.attribute, verdict.change.value, verdict.change.unit, verdict.relative_change.unit) == ("bald", 0.0, "points", "%")


def test_the_rare_that_loses_a_fifth_is_changed_although_it_moves_by_less_than_the_points() -> None:
    verdict = verdict_of(50_000, LOSES_A_FIFTH)
    assert verdict.change.value == pytest.approx(-0.4) and verdict.change.low > -0.5
    assert verdict.relative_change.value == pytest.approx(-20) and verdict.relative_change.high < -15
    assert verdict.kept is False and verdict.p_adjusted <= LEVEL and "beyond 0.5 points or 15 % of its rate, p " in verdict.text
    assert verdict_of(50_000, LOSES_A_FIFTH, margin_share=0.3).kept is True


@pytest.mark.parametrize(("cells", "kept"), [((0.3, 0.001, 0.012), False), ((0.3, 0.012, 0.001), False), ((0.3, 0.001, 0.002), True)])
def test_the_common_is_held_to_the_points_in_both_directions(cells: Cells, kept: bool) -> None:
    assert verdict_of(20_000, cells).kept is kept
    assert verdict_of(20_000, cells, margin_points=3.0).kept is True


def test_few_images_decide_nothing_and_say_how_many_would() -> None:
    verdict = verdict_of(600, (0.02, 0.0, 0.0))
    assert verdict.kept is None and verdict.p_adjusted > LEVEL
    assert more_of(verdict) > 100 and verdict_of(600 + 2 * more_of(verdict), (0.02, 0.0, 0.0)).kept is True


def test_what_nobody_shows_and_what_lies_at_a_margin_is_undecided() -> None:
    nobody, margin = verdict_of(20_000, (0.0, 0.0, 0.0)), verdict_of(2000, (0.017, 0.003, 0.0))
    assert nobody.kept is None and "no image showed it" in nobody.text and math.isnan(nobody.relative_change.value)
    assert margin.kept is None and "1,000 times as many images might not tell" in margin.text


def test_a_longer_list_asks_for_more() -> None:
    """Found at 1 %, which is enough alone and not among ten."""
    cells = (0.0178, 0.0022, 0.0)
    assert verdict_of(20_000, cells).kept is True
    ten = {"bald": cells, **{f"other_{k}": (0.016, 0.003, 0.0) for k in range(9)}}
    verdicts = keep_verdicts(exact(20_000, ten), "beard", tuple(ten))
    assert verdicts[0].kept is None and verdicts[0].p_adjusted == pytest.approx(10 * verdict_of(20_000, cells).p_adjusted, rel=1e-9)


def test_changed_is_adjusted_for_the_list_too_and_so_is_the_number_of_images_that_would_tell() -> None:
    alone = keep_verdicts(exact(12_000, {"bald": (0.01, 0.01, 0.0)}), "beard", ("bald",))[0]
    five = {"bald": (0.01, 0.01, 0.0), **{f"other_{k}": (0.016, 0.004, 0.0) for k in range(4)}}
    changed, *undecided = keep_verdicts(exact(12_000, five), "beard", tuple(five))
    assert alone.kept is changed.kept is False and changed.p_adjusted == pytest.approx(5 * alone.p_adjusted, rel=1e-9, abs=0)
    assert [verdict.kept for verdict in undecided] == [None] * 4
    assert more_of(undecided[0]) > 1.3 * more_of(verdict_of(12_000, (0.016, 0.004, 0.0)))


def test_the_list_keeps_its_order_and_a_name_twice_counts_once() -> None:
    pairs = exact(10_000, {"bald": LEFT_ALONE, "hat": (0.05, 0.001, 0.001)})
    assert [verdict.attribute for verdict in keep_verdicts(pairs, "beard", ("hat", "bald"))] == ["hat", "bald"]
    assert keep_verdicts(pairs, "beard", ("bald", "bald")) == keep_verdicts(pairs, "beard", ("bald",)) and keep_verdicts(pairs, "beard", ()) == ()


@pytest.mark.parametrize(
    ("keep", "margins", "told"),
    [
        (("wig",), {}, "'wig'"),
        (("beard",), {}, "redacted and kept"),
        (("bald",), {"margin_share": 1.5}, "1.5"),
        (("bald",), {"margin_points": 0}, "0"),
    ],
)
def test_impossible_requests_are_refused(keep: tuple[str, ...], margins: dict[str, float], told: str) -> None:
    with pytest.raises(RedactError, match=told):
        keep_verdicts(exact(100, {"bald": LEFT_ALONE}), "beard", keep, **margins)


# How often verdicts are right


def test_of_a_list_at_its_margins_hardly_any_run_calls_one_kept_or_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four attributes lose 15 % exactly, which is neither; and depend on each other."""
    monkeypatch.setattr(_keep, "images_needed", lambda *_: None)  # slow, and no part of the verdict
    generator, runs = np.random.default_rng(0), 600
    names = {f"rare_{k}": (0.017 * k, 0.0035 * k, 0.0005 * k) for k in (1, 1.1, 0.9, 0.8)}
    verdicts = [keep_verdicts(drawn(4000, names, generator, shared=0.5), "beard", tuple(names)) for _ in range(runs)]
    for claim in (True, False):
        assert np.mean([any(verdict.kept is claim for verdict in run) for run in verdicts]) <= LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / runs)


def test_a_planted_loss_among_thirteen_is_never_called_kept_and_those_left_alone_are() -> None:
    generator = np.random.default_rng(1)
    attributes = {"bald": LOSES_A_FIFTH, **TWELVE}
    for _ in range(4):
        verdicts = keep_verdicts(drawn(50_000, attributes, generator), "beard", tuple(attributes))
        assert verdicts[0].kept is not True and all(verdict.kept for verdict in verdicts[1:])


# What people and JSON are shown


def mixed() -> tuple[KeepVerdict, ...]:
    attributes = {"grey_hair": LEFT_ALONE, "bald": (0.01, 0.01, 0.0), "hat": (0.4, 0.04, 0.04)}
    return keep_verdicts(exact(10_000, attributes), "beard", tuple(attributes))


def test_render_keep_is_aligned_and_says_why() -> None:
    lines = render_keep(mixed()).splitlines()
    assert [line.split()[0] for line in lines] == ["kept", "CHANGED", "undecided"]
    assert "grey hair" in lines[0] and "p < 0.0001" in lines[1] and "too few images: about" in lines[2]
    for line, verdict in zip(lines, mixed(), strict=True):
        assert format_estimate(verdict.change) in line and format_estimate(verdict.relative_change) in line and verdict.text in line
        assert line.index("n = 10,000") == lines[0].index("n = 10,000")
    assert render_keep(mixed()).endswith("\n")


def test_keep_as_json_round_trips() -> None:
    for verdict in mixed():
        read = json.loads(json.dumps(keep_as_json(verdict), allow_nan=False))
        assert set(read) == {field.name for field in dataclasses.fields(KeepVerdict)}
        estimates = {"change": verdict.change, "relative_change": verdict.relative_change}
        plain = {name: getattr(verdict, name) for name in ("attribute", "kept", "p_adjusted", "text")}
        assert read == plain | as_json(estimates)
    json.dumps(keep_as_json(verdict_of(100, (0.0, 0.0, 0.0))), allow_nan=False)  # nan and inf become None


# p-values of every other attribute


def test_collateral_tests_every_other_attribute_and_adjusts_over_them() -> None:
    attributes = {"bald": LOSES_A_FIFTH, **TWELVE}
    pairs = exact(10_000, attributes)
    tests = Collateral().tests(pairs, "beard", ("bald",))
    assert set(tests) == {f"{name}/{what}" for name in attributes for what in ("changed", "within_margins")}
    for what, test in (
        ("changed", paired_tests.mcnemar),
        ("within_margins", lambda before, after: paired_tests.within_margins(before, after, 0.5, 0.15)),
    ):
        ps = [test(pairs.shows_before(name), pairs.shows_after(name)) for name in attributes]
        assert [tests[f"{name}/{what}"].p for name in attributes] == ps
        assert [tests[f"{name}/{what}"].p_adjusted for name in attributes] == list(paired_tests.holm(ps)) != ps
    assert tests["bald/changed"].p_adjusted < 1e-6 and tests["bald/within_margins"].p_adjusted > 0.9
    assert tests["other_2/changed"].p_adjusted == 1 and tests["other_2/within_margins"].p_adjusted < LEVEL
    assert tests["bald/changed"].n == 10_000 and tests["bald/changed"].method == "McNemar, exact; Holm over 13"
    assert set(json.loads(json.dumps(dataclasses.asdict(tests["bald/changed"])))) == {field.name for field in dataclasses.fields(paired_tests.Tested)}


def test_collateral_tests_refuse_unknown_names() -> None:
    for feature, keep in (("wig", ()), ("beard", ("wig",))):
        with pytest.raises(RedactError, match="'wig'"):
            Collateral().tests(exact(100, {"bald": LEFT_ALONE}), feature, keep)


# Intervals of collateral's figures over all attributes

MOVED = {"hat": (0.2, 0.05, 0.01), "smile": (0.4, 0.02, 0.06), "bald": (0.06, 0.02, 0.004), "wig": (0.02, 0.01, 0.001)}
UNMOVED = {"hat": (0.2, 0.01, 0.01), "smile": (0.4, 0.02, 0.02), "bald": (0.06, 0.004, 0.004), "wig": (0.02, 0.002, 0.002)}


def coverage(attributes: dict[str, Cells], shared: float, runs: int) -> dict[str, float]:
    """How often the truth lies inside, or below the upper end."""
    change = {name: 100 * (gained - lost) for name, (_, lost, gained) in attributes.items()}
    mean = float(np.mean(np.abs(list(change.values()))))
    rare = [-change[name] / (both + lost) for name, (both, lost, _) in attributes.items() if both + lost < 0.1]
    generator, hits = np.random.default_rng(2), []
    for run in range(runs):
        answers = Collateral(resamples=400, seed=run).answer(drawn(2000, attributes, generator, shared), "beard", tuple(attributes))
        worst = max(attributes, key=lambda name: abs(answers[f"{name}/change"].value))
        sought = {"mean_absolute_change": mean, "largest_rare_loss": max(rare), "largest_kept_change": change[worst]}
        inside = {figure: answers[figure].low <= truth <= answers[figure].high for figure, truth in sought.items()}
        hits.append(inside)
    return {figure: float(np.mean([hit[figure] for hit in hits])) for figure in hits[0]}


@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_intervals_over_all_attributes_cover_what_was_planted(shared: float) -> None:
    found = coverage(MOVED, shared, 300)
    noise = 3 * math.sqrt(0.95 * 0.05 / 300)
    assert found["mean_absolute_change"] >= 0.95 - noise
    assert min(found["largest_rare_loss"], found["largest_kept_change"]) >= 0.95 - noise


def test_where_nothing_moved_the_intervals_cover_too() -> None:
    """Its lower end is not to be relied on: it takes the noise of attributes that did not move for change. The others cover."""
    found = coverage(UNMOVED, 0.0, 200)
    assert found["mean_absolute_change"] >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 200)
    assert min(found["largest_rare_loss"], found["largest_kept_change"]) >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / 200)
