# SPDX-License-Identifier: Apache-2.0
"""Contract of every file in evaluation/, and the known answers of each question."""

import dataclasses
import inspect
import math

import numpy as np
import pytest
import torch
from planted_network import pairs_of

from stylegan_redact import plugins
from stylegan_redact.evaluation import PairedImages, ask, collateral
from stylegan_redact.evaluation.collateral import Collateral
from stylegan_redact.evaluation.conditional_rates import ConditionalRates
from stylegan_redact.evaluation.image_change import ImageChange
from stylegan_redact.evaluation.residual_rate import ResidualRate
from stylegan_redact.types import Estimate, RedactError

FOLDER = "stylegan_redact.evaluation"
QUESTIONS = plugins.names(FOLDER)


def random_pairs(n: int = 400, *, edited: bool = True) -> PairedImages:
    stream = torch.Generator().manual_seed(1)
    before = torch.randn([n, 4], generator=stream) - torch.tensor([1.0, 0.0, 1.6, 0.5])
    after = before + (torch.tensor([-4.0, 0.3, -0.5, 0.0]) if edited else torch.zeros(4))
    change = torch.rand([n], generator=stream) if edited else torch.zeros(n)
    features = {"features_before": before @ torch.ones(4, 3).triu(), "features_after": after @ torch.ones(4, 3).triu(), "extractor": "planted"}
    return PairedImages(("beard", "hat", "bald", "smile"), before, after, change, change / 2, torch.arange(n), **features)


def build(name: str):
    return plugins.build(plugins.load(FOLDER, name), {})


def test_the_folder_holds_the_questions_and_nothing_else() -> None:
    assert QUESTIONS == ("collateral", "conditional_rates", "image_change", "quality", "residual_rate")


@pytest.mark.parametrize("name", QUESTIONS)
class TestContract:
    def test_it_answers_with_estimates_that_hold_their_value(self, name: str) -> None:
        answers = build(name).answer(random_pairs(), "beard", ("smile",))
        assert answers and all(isinstance(estimate, Estimate) for estimate in answers.values())
        for key, estimate in answers.items():
            assert estimate.low <= estimate.value <= estimate.high, key
            assert estimate.low < estimate.high and 0 < estimate.n <= 400 and estimate.confidence == 0.95, key
            assert key.count("/") <= 1 and key == key.lower() and " " not in key

    def test_it_answers_the_same_twice_and_leaves_the_pairs_alone(self, name: str) -> None:
        pairs, untouched = random_pairs(), random_pairs()
        assert build(name).answer(pairs, "beard", ()) == build(name).answer(pairs, "beard", ())
        for field in dataclasses.fields(PairedImages):
            left, right = getattr(pairs, field.name), getattr(untouched, field.name)
            assert torch.equal(left, right) if isinstance(left, torch.Tensor) else left == right

    def test_the_feature_matters(self, name: str) -> None:
        assert build(name).answer(random_pairs(), "beard", ()) != build(name).answer(random_pairs(), "hat", ())

    def test_the_edit_matters(self, name: str) -> None:
        assert build(name).answer(random_pairs(), "beard", ()) != build(name).answer(random_pairs(edited=False), "beard", ())

    def test_before_and_after_matter(self, name: str) -> None:
        pairs = random_pairs()
        swapped = dataclasses.replace(pairs, logits_before=pairs.logits_after, logits_after=pairs.logits_before)
        assert build(name).answer(pairs, "hat", ()) != build(name).answer(swapped, "hat", ())

    def test_unknown_names_are_refused(self, name: str) -> None:
        for feature, keep in (("wig", ()), ("beard", ("wig",)), ("beard", ("beard",))):
            with pytest.raises(RedactError):
                build(name).answer(random_pairs(), feature, keep)

    def test_nothing_to_count_ends_no_report(self, name: str) -> None:
        nobody, everybody = {"beard": [0] * 5, "hat": [0] * 5}, {"beard": [1] * 5, "hat": [1] * 5}
        for before, after in ((nobody, nobody), (everybody, nobody), (nobody, everybody), (everybody, everybody)):
            for estimate in build(name).answer(pairs_of(before, after), "beard", ("hat",)).values():
                assert math.isnan(estimate.value) or estimate.low <= estimate.value <= estimate.high

    def test_it_is_frozen_documented_and_of_the_one_signature(self, name: str) -> None:
        cls = plugins.load(FOLDER, name)
        assert type(cls.place) is int and [name for name in QUESTIONS if plugins.load(FOLDER, name).place == cls.place] == [name]
        assert cls.__dataclass_params__.frozen and cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}(")
        assert list(inspect.signature(cls.answer).parameters) == ["self", "pairs", "feature", "keep"]
        assert all(option.help for option in plugins.options(cls))


def test_ask_gathers_every_question_under_its_name() -> None:
    pairs = random_pairs()
    answers = ask(pairs, "beard")
    asked = [key.partition("/")[0] for key in answers]
    assert list(dict.fromkeys(asked)) == ["residual_rate", "collateral", "image_change", "conditional_rates", "quality"]  # as in the table
    assert answers["residual_rate/removed"] == ResidualRate().answer(pairs, "beard", ())["removed"]
    assert set(ask(pairs, "beard", questions=["image_change"])) < set(answers)
    with pytest.raises(RedactError, match="did you mean collateral"):
        ask(pairs, "beard", questions=["colateral"])


# 20 images: 5 had the feature, 1 of them still shows it, 1 of the other 15 shows it anew.
BEARD_BEFORE = [1] * 5 + [0] * 15
BEARD_AFTER = [1] + [0] * 4 + [1] + [0] * 14


def test_residual_rate_known_answer() -> None:
    answers = ResidualRate().answer(pairs_of({"beard": BEARD_BEFORE}, {"beard": BEARD_AFTER}), "beard", ())
    values = {key: (round(estimate.value, 6), estimate.n, estimate.unit) for key, estimate in answers.items()}
    assert values == {
        "rate_before": (25.0, 20, "%"),
        "rate_after": (10.0, 20, "%"),
        "removed": (60.0, 20, "%"),
        "still_shown": (20.0, 5, "%"),
        "newly_shown": (round(100 / 15, 6), 15, "%"),
    }


def test_residual_bound_of_nothing_seen_is_that_of_the_literature() -> None:
    gone = pairs_of({"beard": [1] * 1000 + [0] * 9000}, {"beard": [0] * 10000})
    answers = ResidualRate().answer(gone, "beard", ())
    assert answers["rate_after"].value == 0 and answers["rate_after"].high == pytest.approx(0.036882, abs=1e-5)  # 1 - 0.025 ** (1 / 10000)
    assert answers["removed"].value == 100 and 99.0 < answers["removed"].low < 100


def test_a_network_that_was_not_redacted_has_nothing_removed() -> None:
    answers = ResidualRate().answer(random_pairs(edited=False), "beard", ())
    assert answers["removed"].value == 0 and answers["rate_before"] == answers["rate_after"] and answers["still_shown"].value == 100


def test_collateral_known_answer() -> None:
    before = {"beard": BEARD_BEFORE, "hat": [1, 1, 0, 0] * 5, "bald": [1] + [0] * 19, "smile": [1] * 20}
    after = {"beard": BEARD_AFTER, "hat": [1, 1, 1, 0] + [1, 1, 0, 0] * 4, "bald": [0] * 20, "smile": [0] + [1] * 19}
    answers = Collateral().answer(pairs_of(before, after), "beard", ("hat", "smile"))
    assert not any(key.startswith("beard") for key in answers)
    value = {key: round(estimate.value, 6) for key, estimate in answers.items()}
    assert (value["hat/rate_before"], value["hat/rate_after"], value["hat/change"], value["hat/relative_change"]) == (50, 55, 5, 10)
    assert (value["bald/change"], value["bald/relative_change"], value["smile/change"]) == (-5, -100, -5)
    assert value["mean_absolute_change"] == 5 and answers["mean_absolute_change"].unit == "points"  # a mean of changes would be -1.67
    assert value["largest_rare_loss"] == 100  # bald, 5 % before
    assert abs(value["largest_kept_change"]) == 5
    assert answers["largest_kept_change"].high - answers["largest_kept_change"].low > answers["hat/change"].high - answers["hat/change"].low


def test_only_rare_attributes_count_as_rare_and_gains_are_no_losses() -> None:
    before = {"beard": BEARD_BEFORE, "hat": [1] * 3 + [0] * 17, "bald": [1] + [0] * 19}
    after = {"beard": BEARD_AFTER, "hat": [0] * 20, "bald": [1, 1] + [0] * 18}
    pairs = pairs_of(before, after)
    assert Collateral().answer(pairs, "beard", ())["largest_rare_loss"].value == pytest.approx(-100)  # twice as many bald; hats were 15 %
    assert Collateral(rare_below=20.0).answer(pairs, "beard", ())["largest_rare_loss"].value == pytest.approx(100)
    none_rare = Collateral(rare_below=1.0).answer(pairs, "beard", ())["largest_rare_loss"]
    assert math.isnan(none_rare.value) and none_rare.n == 0


def test_the_worst_of_many_has_a_wider_interval_than_one_alone() -> None:
    bald = {"beard": BEARD_BEFORE * 10, "bald": [1] * 12 + [0] * 188}
    thinned = bald | {"bald": [1] * 8 + [0] * 192}
    unmoved = {f"rare_{k}": [0] * 190 + [1] * 10 for k in range(9)}
    alone = Collateral().answer(pairs_of(bald, thinned), "beard", ())["largest_rare_loss"]
    one_of_ten = Collateral().answer(pairs_of(bald | unmoved, thinned | unmoved), "beard", ())["largest_rare_loss"]
    assert one_of_ten.value == alone.value == pytest.approx(100 / 3)
    assert one_of_ten.high > alone.high + 1


def test_a_rare_attribute_that_vanishes_shows_although_the_mean_hides_it() -> None:
    before = {"beard": [0] * 1000, "bald": [1] * 5 + [0] * 995, "hat": [1] * 500 + [0] * 500}
    after = before | {"bald": [0] * 1000}
    answers = Collateral().answer(pairs_of(before, after), "beard", ())
    assert answers["mean_absolute_change"].value == pytest.approx(0.25) and answers["largest_rare_loss"].value == pytest.approx(100)


def test_an_innocent_pair_has_no_collateral() -> None:
    answers = Collateral().answer(random_pairs(edited=False), "beard", ())
    assert answers["mean_absolute_change"] == Estimate(0.0, 0.0, 0.0, 400, "points")
    assert all(estimate.value == 0 for key, estimate in answers.items() if key.endswith("change"))


def test_seeds_are_counted_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = random_pairs(200)
    shows = [(pairs.shows_before(name), pairs.shows_after(name)) for name in ("hat", "bald", "smile")]
    gained = torch.stack([after.int() - before.int() for before, after in shows], 1).numpy()
    whole, answer = np.unique(gained, axis=0, return_counts=True), Collateral().answer(pairs, "beard", ())
    monkeypatch.setattr(collateral, "BLOCK", 7)
    assert all(np.array_equal(one, other) for one, other in zip(collateral._patterns(shows), whole, strict=True))
    assert Collateral().answer(pairs, "beard", ()) == answer


def test_mean_absolute_change_is_resampled_as_seeds() -> None:
    pairs = random_pairs(200)
    gained = np.stack([(pairs.shows_after(name).int() - pairs.shows_before(name).int()).numpy() for name in ("hat", "bald", "smile")], 1)
    stream, observed = np.random.RandomState(3), gained.mean(0)
    resampled = [gained[stream.randint(0, 200, 200)].mean(0) for _ in range(4000)]
    high = np.quantile([100 * np.abs(change).mean() for change in resampled], 0.975)
    noise = np.quantile([100 * np.abs(change - observed).mean() for change in resampled], 0.975)
    answer = Collateral(resamples=4000).answer(pairs, "beard", ())["mean_absolute_change"]
    assert answer.value == pytest.approx(100 * np.abs(observed).mean())
    np.testing.assert_allclose([answer.low, answer.high], [answer.value - noise, high], atol=0.35)  # two bootstraps of 4000 in steps of 1/6
    assert answer.high - answer.low > 2


def test_conditional_rates_known_answer() -> None:
    before = {"beard": [1, 1, 1, 1, 0, 0, 0, 0, 0, 0], "male": [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]}
    after = {"beard": [0] * 10, "male": [1, 1, 1, 0, 1, 1, 1, 0, 0, 0]}
    answers = ConditionalRates().answer(pairs_of(before, after), "beard", ())
    values = {key: (round(estimate.value, 6), estimate.n) for key, estimate in answers.items()}
    assert values == {
        "male/had_before": (100.0, 4),
        "male/had_after": (75.0, 4),  # by who had it before: after the redaction nobody has it
        "male/never_before": (round(200 / 6, 6), 6),
        "male/never_after": (50.0, 6),
    }


def test_image_change_known_answer() -> None:
    beard = {"beard": [1, 1, 0, 0, 0]}
    answers = ImageChange().answer(pairs_of(beard, {"beard": [0, 0, 0, 0, 1]}, [0.5, 0.7, 0.01, 0.02, 0.06]), "beard", ())
    values = {key: (round(estimate.value, 6), estimate.n) for key, estimate in answers.items()}
    assert values == {
        "l1_feature_free": (0.03, 3),
        "dissimilarity_feature_free": (0.015, 3),
        "l1_had_feature": (0.6, 2),
        "dissimilarity_had_feature": (0.3, 2),
    }


def test_the_distance_of_features_is_one_minus_cosine_where_there_are_features() -> None:
    pairs = pairs_of({"beard": [1, 1, 0, 0, 0, 1]}, {"beard": [0] * 6})
    assert not any(key.startswith("feature_distance") for key in ImageChange().answer(pairs, "beard", ()))
    before = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0], [1.0, 1.0]])
    after = torch.tensor([[0.0, 1.0], [0.0, -1.0], [5.0, 0.0], [1.0, 0.0]])  # 90, 180, 0 and 45 degrees; the last two seeds have none
    described = dataclasses.replace(pairs, features_before=before, features_after=after, extractor="D")
    answers = ImageChange().answer(described, "beard", ())
    assert (answers["feature_distance_had_feature"].value, answers["feature_distance_had_feature"].n) == (pytest.approx(1.5), 2)
    free = answers["feature_distance_feature_free"]
    assert (free.value, free.n) == (pytest.approx((1 - math.sqrt(0.5)) / 2), 2)
    assert {key: value for key, value in answers.items() if not key.startswith("feature")} == ImageChange().answer(pairs, "beard", ())


def test_a_logit_of_zero_does_not_show() -> None:
    pairs = PairedImages(("beard",), torch.zeros(3, 1), torch.zeros(3, 1), torch.zeros(3), torch.zeros(3), torch.arange(3))
    assert ResidualRate().answer(pairs, "beard", ())["rate_before"].value == 0
    assert ImageChange().answer(pairs, "beard", ())["l1_feature_free"].n == 3
