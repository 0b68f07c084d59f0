# SPDX-License-Identifier: Apache-2.0
"""The same seeds before and after: what is drawn, through which door, and what is kept of it."""

import numpy as np
import pytest
import torch
from planted_network import ATTRIBUTES, NUM_WS, SHARE, Judge, Mapping, Synthesis, network

from stylegan_redact.evaluation import ask, measure_pairs, rate
from stylegan_redact.losses.ms_ssim import ms_ssim
from stylegan_redact.types import RedactError

SEEDS = range(1000, 1060)
TOLERANCE = 1e-5  # float32 through a division and a multiplication by 10


def nvidia_z(seed: int) -> np.ndarray:
    return np.random.RandomState(seed).randn(1, 5)[0]


def test_an_innocent_pair_changes_nothing() -> None:
    pairs = measure_pairs(network(), network(), Judge(), SEEDS)
    assert torch.equal(pairs.logits_before, pairs.logits_after)
    assert torch.equal(pairs.l1, torch.zeros(60)) and float(pairs.dissimilarity.abs().max()) < 1e-6
    assert pairs.attributes == ATTRIBUTES and pairs.seeds.tolist() == list(SEEDS) and pairs.access == "z"
    assert bool(pairs.shows_before("beard").any()) and not bool(pairs.shows_before("beard").all())


def test_the_images_are_those_of_nvidias_seeds() -> None:
    pairs = measure_pairs(network(), network(), Judge(), SEEDS, batch=7)
    expected = np.stack([nvidia_z(seed)[:3] for seed in SEEDS])
    np.testing.assert_allclose(pairs.logits_before.numpy(), expected, atol=TOLERANCE)


def test_before_and_after_are_not_swapped_and_changes_are_known() -> None:
    pairs = measure_pairs(network(), network(synthesis=Synthesis((-2.0, 0.0, 1.0))), Judge(), SEEDS)
    change = pairs.logits_after - pairs.logits_before
    np.testing.assert_allclose(change.numpy(), np.tile([-2.0, 0.0, 1.0], (60, 1)), atol=TOLERANCE)
    np.testing.assert_allclose(pairs.l1.numpy(), SHARE * (0.2 + 0.1), atol=TOLERANCE)
    shown = pairs.logits_before[:, 0] > 0
    assert torch.equal(pairs.shows_before("beard"), shown) and int(pairs.shows_after("beard").sum()) < int(shown.sum())


def test_dissimilarity_is_one_minus_ms_ssim() -> None:
    before, after = network(), network(synthesis=Synthesis((3.0, 0.0, 0.0)))
    pairs = measure_pairs(before, after, Judge(), [5, 6, 7])
    ws = torch.tensor(np.stack([nvidia_z(seed)[:3] for seed in (5, 6, 7)])).float()[:, None].repeat(1, NUM_WS, 1)
    with torch.no_grad():
        expected = 1 - ms_ssim(after.G_ema.synthesis(ws), before.G_ema.synthesis(ws))
    assert torch.allclose(pairs.dissimilarity, expected, atol=TOLERANCE) and float(expected.min()) > 0.01


def test_kept_latents_show_what_only_the_mapping_network_hides() -> None:
    before, after = network(), network(mapping=Mapping(beard_shift=-20.0))
    through_z, through_w, through_w_plus = (measure_pairs(before, after, Judge(), SEEDS, access=access) for access in ("z", "w", "w_plus"))
    assert not bool(through_z.shows_after("beard").any())
    assert torch.equal(through_w.logits_before, through_z.logits_before) and torch.equal(through_w.logits_after, through_w.logits_before)
    assert bool(through_w.shows_after("beard").any()) and bool(through_w_plus.shows_after("beard").any())
    assert (through_w.access, through_w_plus.access) == ("w", "w_plus")


def test_w_is_that_of_the_mapping_network_before() -> None:
    pairs = measure_pairs(network(mapping=Mapping(beard_shift=-20.0)), network(), Judge(), SEEDS, access="w")
    assert not bool(pairs.shows_before("beard").any()) and not bool(pairs.shows_after("beard").any())


def test_an_edit_of_the_synthesis_network_is_seen_through_every_door() -> None:
    after = network(synthesis=Synthesis((-20.0, 0.0, 0.0)))
    for access in ("z", "w", "w_plus"):
        pairs = measure_pairs(network(), after, Judge(), SEEDS, access=access)
        assert bool(pairs.shows_before("beard").any()) and not bool(pairs.shows_after("beard").any())


def test_w_plus_mixes_two_latents_of_the_stream_at_a_row() -> None:
    pairs = measure_pairs(network(), network(), Judge(), SEEDS, access="w_plus", batch=11)
    rows = set()
    for i, seed in enumerate(SEEDS):
        stream = np.random.RandomState(seed)
        first, second = stream.randn(5), stream.randn(5)
        crossover = stream.randint(1, NUM_WS)
        expected = [(first if k < crossover else second)[k] for k in range(3)]
        np.testing.assert_allclose(pairs.logits_before[i].numpy(), expected, atol=TOLERANCE)
        np.testing.assert_array_equal(first, nvidia_z(seed))
        rows.add(crossover)
    assert rows == {1, 2}


def test_truncation_reaches_both_mapping_networks() -> None:
    for access in ("z", "w", "w_plus"):
        full, half = (measure_pairs(network(), network(), Judge(), SEEDS, access=access, truncation_psi=psi) for psi in (1.0, 0.5))
        assert torch.allclose(half.logits_before, full.logits_before / 2, atol=TOLERANCE)
        assert torch.allclose(half.logits_after, full.logits_after / 2, atol=TOLERANCE)


def test_batches_are_drawn_one_after_the_other_and_do_not_show_in_the_result() -> None:
    before, after = network(), network(synthesis=Synthesis((-2.0, 0.0, 0.0)))
    told: list[tuple[str, float]] = []
    pairs = measure_pairs(before, after, Judge(), range(20), batch=8, noise_mode="none", progress=lambda stage, done, _: told.append((stage, done)))
    for net in (before, after):
        assert net.G_ema.synthesis.calls == [(8, "none", True), (8, "none", True), (4, "none", True)]
    assert told == [("measure", 0.4), ("measure", 0.8), ("measure", 1.0)]
    at_once = measure_pairs(before, after, Judge(), range(20), batch=100)
    assert torch.equal(pairs.logits_after, at_once.logits_after) and torch.equal(pairs.l1, at_once.l1)


def test_no_gradient_is_kept() -> None:
    pairs = measure_pairs(network(), network(), Judge(), range(4))
    assert not any(tensor.requires_grad for tensor in (pairs.logits_before, pairs.logits_after, pairs.l1, pairs.dissimilarity))


def test_images_are_judged_as_a_viewer_sees_them() -> None:
    pairs = measure_pairs(network(), network(synthesis=Synthesis((500.0, 0.0, 0.0))), Judge(), range(4))
    np.testing.assert_allclose(pairs.logits_after[:, 0].numpy(), 10.0, atol=TOLERANCE)
    assert float(pairs.l1.max()) <= 2 * SHARE


def test_a_broken_network_does_not_pass_for_a_redacted_one() -> None:
    with pytest.raises(RedactError, match="images after .* not finite"):
        measure_pairs(network(), network(synthesis=Synthesis((float("nan"), 0.0, 0.0))), Judge(), range(4))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seeds": []}, "0 seeds"),
        ({"seeds": [1, 2, 1]}, "2 of them are different"),
        ({"batch": 0}, "batch=0"),
        ({"access": "s"}, "there is: z, w, w_plus"),
        ({"noise_mode": "loud"}, "const, none, random"),
    ],
)
def test_requests_that_cannot_be_measured_are_refused(change: dict, told: str) -> None:
    request = {"seeds": [1, 2, 3]} | change
    with pytest.raises(RedactError, match=told):
        measure_pairs(network(), network(), Judge(), request.pop("seeds"), **request)


def test_a_judge_with_a_column_too_few_is_refused() -> None:
    class Short(Judge):
        attributes = ("beard", "hat", "smile", "bald")

    with pytest.raises(RedactError, match=r"\[3, 3\] for 3 images and 4 attributes"):
        measure_pairs(network(), network(), Short(), range(3))


def test_an_unknown_attribute_is_told_the_close_one() -> None:
    pairs = measure_pairs(network(), network(), Judge(), range(4))
    with pytest.raises(RedactError, match=r"'bread' .* beard, hat, smile - did you mean beard\?"):
        ask(pairs, "bread")
    with pytest.raises(RedactError, match="'wig'"):
        ask(pairs, "beard", keep=("wig",))
    with pytest.raises(RedactError, match="redacted and kept"):
        ask(pairs, "beard", keep=("beard",))


def test_rate_is_in_percent_and_without_samples_says_nothing() -> None:
    known = rate(torch.tensor([True] + [False] * 9))
    assert (known.value, known.n, known.unit) == (10.0, 10, "%")
    assert known.low == pytest.approx(0.2529, abs=1e-4) and known.high == pytest.approx(44.5016, abs=1e-4)  # binom.test(1, 10) of R
    nothing = rate(torch.zeros(0, dtype=torch.bool))
    assert np.isnan(nothing.value) and (nothing.low, nothing.high, nothing.n) == (0.0, 100.0, 0)


def test_without_similarity_all_else_is_the_same() -> None:
    before, after = network(), network(synthesis=Synthesis((-0.5, 0.0, 0.0)))
    whole, less = (measure_pairs(before, after, Judge(), range(8), similarity=wanted) for wanted in (True, False))
    assert not bool(whole.dissimilarity.isnan().any()) and bool(less.dissimilarity.isnan().all())
    assert torch.equal(whole.logits_after, less.logits_after) and torch.equal(whole.l1, less.l1)
    figures = ask(less, "beard", questions=["image_change"])
    assert not any("dissimilarity" in name for name in figures) and any("l1_" in name for name in figures)
