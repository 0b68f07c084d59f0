# SPDX-License-Identifier: Apache-2.0
"""Several features, a keep-list and a part of the way: where latents end, each with what happens without."""

from __future__ import annotations

import dataclasses
import itertools

import planted_latents
import pytest
import torch

from stylegan_redact.several import together
from stylegan_redact.types import Feature, RedactError
from stylegan_redact.wspace.affine import AffineEdit, move_to_quantile, partly
from stylegan_redact.wspace.geometry import gate_for, hinge_for, kept_directions, move_for, to_unit

W = planted_latents.latents()


def feature(*names: str) -> Feature:
    return together(planted_latents.features(names, W))


def fold_of(known: Feature, keep: tuple[str, ...] = (), quantile: float = 0.1) -> AffineEdit:
    move = move_for(known, keep, quantile, "fold")
    return move_to_quantile(move.subspace, move.target, shift=move.shift)


def test_a_single_feature_is_what_it_always_was() -> None:
    known = feature("beard")
    assert known.latents is not None and known.subspace is not None and known.each == (known,)
    assert torch.equal(gate_for(known, (), 0.5, "mapping")(W), hinge_for(known.latents, known.subspace, 0.5)(W))


def test_each_of_two_features_is_clamped_at_its_own_target_and_moves_nothing_of_the_other() -> None:
    known = feature("beard", "hat")
    move, gate = move_for(known, (), 0.5, "mapping"), gate_for(known, (), 0.5, "mapping")
    before, after = W @ move.subspace.basis.T, gate(W) @ move.subspace.basis.T
    torch.testing.assert_close(after, torch.minimum(before, move.target), atol=1e-10, rtol=0)
    for row, part in enumerate(known.each):
        assert part.latents is not None and part.subspace is not None
        alone = hinge_for(part.latents, part.subspace, 0.5)
        assert alone.target == pytest.approx(float(move.target[row]))
        other = W @ move.subspace.basis[1 - row]
        assert float((alone(W) @ move.subspace.basis[1 - row] - other).abs().max()) > 0.05  # Apart, the one would move the other.
    assert torch.equal(gate.moves(W), (before > move.target).any(dim=1))


@pytest.mark.parametrize("names", list(itertools.permutations(("beard", "hat", "bald"))))
def test_the_order_does_not_matter_to_the_last_bit(names: tuple[str, ...]) -> None:
    one, other = feature("bald", "beard", "hat"), feature(*names)
    assert one.name == other.name == "bald,beard,hat"
    assert torch.equal(gate_for(one, (), 0.5, "mapping")(W), gate_for(other, (), 0.5, "mapping")(W))
    assert torch.equal(fold_of(one).matrix, fold_of(other).matrix) and torch.equal(fold_of(one).offset, fold_of(other).offset)


def test_all_features_of_a_fold_lie_at_their_targets() -> None:
    move, edit = move_for(feature("beard", "hat"), (), 0.1, "fold"), fold_of(feature("beard", "hat"))
    torch.testing.assert_close(edit(W) @ move.subspace.basis.T, move.target.expand(len(W), 2), atol=1e-10, rtol=0)


@pytest.mark.parametrize("names", [("beard",), ("beard", "hat")])
def test_what_is_kept_does_not_move_and_without_a_keep_list_it_does(names: tuple[str, ...]) -> None:
    known = feature(*names)
    assert known.latents is not None
    kept = kept_directions(known, known.latents, ("bald",))
    assert kept is not None
    position = W @ kept.T
    for edit in (fold_of(known, ("bald",)), gate_for(known, ("bald",), 0.5, "mapping")):
        torch.testing.assert_close(edit(W) @ kept.T, position, atol=1e-9, rtol=0)
        assert float((edit(W) - W).abs().max()) > 0.1
    for edit in (fold_of(known), gate_for(known, (), 0.5, "mapping")):
        assert float((edit(W) @ kept.T - position).abs().max()) > 0.1


def test_what_cannot_be_kept_is_refused() -> None:
    known = feature("beard")
    assert known.latents is not None and known.latents.logits is not None
    with pytest.raises(RedactError, match="sideburns was to be kept - these latents are labelled with: bald, beard, hat"):
        fold_of(known, ("sideburns",))
    with pytest.raises(RedactError, match="nothing else"):
        fold_of(dataclasses.replace(known, detector=None), ("bald",))
    rare = known.latents.logits.clone()
    rare[:, 0] = torch.where(torch.arange(len(W)) < 3, 1.0, -1.0)
    with pytest.raises(RedactError, match="bald was to be kept - 3 of 4000"):
        fold_of(dataclasses.replace(known, latents=dataclasses.replace(known.latents, logits=rare)), ("bald",))
    with pytest.raises(RedactError, match="keep less"):
        fold_of(known, ("beard",))


def test_half_the_strength_is_half_the_way() -> None:
    known = feature("beard", "hat")
    whole, edit = gate_for(known, (), 0.5, "mapping"), fold_of(known)
    torch.testing.assert_close(gate_for(known, (), 0.5, "mapping", 0.5)(W), (W + whole(W)) / 2, atol=1e-12, rtol=0)
    torch.testing.assert_close(partly(edit, 0.5)(W), (W + edit(W)) / 2, atol=1e-12, rtol=0)
    assert partly(edit, 1.0) is edit
    torch.testing.assert_close(partly(edit, 0.0)(W), W, atol=1e-12, rtol=0)


def test_several_features_have_the_same_latents_and_detector_and_are_different() -> None:
    beard, hat = planted_latents.features(("beard", "hat"), W)
    joint = together([hat, beard])
    assert joint.name == "beard,hat" and joint.parts == (beard, hat) and joint.subspace is None
    assert joint.latents is not None and beard.latents is not None and hat.latents is not None
    assert torch.equal(joint.latents.score > 0, (beard.latents.score > 0) | (hat.latents.score > 0))
    for wrong, why in (
        ([], "0 different"),
        ([beard, beard], "1 different"),
        ([beard, planted_latents.feature("hat", planted_latents.latents(seed=3))], "same latents"),
        ([beard, dataclasses.replace(hat, detector=planted_latents.Knows())], "different detectors"),
    ):
        with pytest.raises(RedactError, match=why):
            together(wrong)


def test_two_names_for_one_direction_are_refused() -> None:
    beard = planted_latents.feature("beard", W)
    with pytest.raises(RedactError, match="take fewer features"):
        fold_of(together([beard, dataclasses.replace(beard, name="whiskers")]))


@pytest.mark.parametrize("size", [1e300, 1.0, 1e-300, 5e-324])
def test_a_direction_has_length_one_whatever_its_numbers(size: float) -> None:
    direction = torch.tensor([3.0, 0, -4], dtype=torch.float64) * size
    wanted = [0.6, 0, -0.8]
    assert to_unit(direction).tolist() == pytest.approx(wanted)
    plain = torch.randn(64, generator=torch.Generator().manual_seed(0)).double()
    assert torch.equal(to_unit(plain), plain / plain.norm())  # To the bit: scaling is by a power of two.
