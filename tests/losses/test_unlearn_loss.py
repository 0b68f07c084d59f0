# SPDX-License-Identifier: Apache-2.0
"""The objective of Moon, Cho and Kim: values worked by hand, limiting cases, and the two traps of its target."""

import pytest
import torch

from stylegan_redact.losses import unlearn
from stylegan_redact.losses.ms_ssim import ms_ssim
from stylegan_redact.losses.unlearn import UnlearnLoss
from stylegan_redact.types import RedactError

SIZE = 12
EXACT = 1e-9


def flat(*levels: float) -> torch.Tensor:
    """[n, 1, 12, 12], each image of one level."""
    return torch.tensor(levels, dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 1, SIZE, SIZE).clone()


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 - 1


def test_values_by_hand() -> None:
    """Four flat images; after 1, 0.5, 0, 0.2; target 0.5, 9, 9, 9; before 9, 0.1, 0.3, 0.2; the first shows the feature.

    reconstruction: samples 2 to 4 give |0.5 - 0.1|, |0 - 0.3|, 0 = 0.4, 0.3, 0; over four samples 0.7 / 4 = 0.175.
    unlearn: sample 1 gives |1 - 0.5| = 0.5; over four 0.125.
    perceptual: flat 1 against flat 0.5 has MS-SSIM (6.0004 / 6.2504)^1.0001 = 0.959998; (1 - 0.959998) / 4 = 0.0100004.
    total, strength 3: 3 (0.125 + 0.0100004) + 0.175 = 0.5800012.
    """
    shows = torch.tensor([True, False, False, False])
    terms = UnlearnLoss(strength=3.0)(flat(1, 0.5, 0, 0.2), flat(0.5, 9, 9, 9), flat(9, 0.1, 0.3, 0.2), shows)
    assert float(terms.reconstruction) == pytest.approx(0.175, abs=EXACT)
    assert float(terms.unlearn) == pytest.approx(0.125, abs=EXACT)
    assert float(terms.perceptual) == pytest.approx(0.0100004, abs=1e-7)
    assert float(terms.perceptual) == pytest.approx((1 - (6.0004 / 6.2504) ** 1.0001) / 4, abs=EXACT)
    assert float(terms.total) == pytest.approx(3 * (0.125 + float(terms.perceptual)) + 0.175, abs=EXACT)


def test_float_gate_by_hand() -> None:
    """One flat image 1, target 0.5, before 0.2, gate 0.25: reconstruction 0.75 * 0.8 = 0.6, unlearn 0.25 * 0.5 = 0.125."""
    terms = UnlearnLoss()(flat(1), flat(0.5), flat(0.2), torch.tensor([0.25]))
    assert (float(terms.reconstruction), float(terms.unlearn)) == pytest.approx((0.6, 0.125), abs=EXACT)
    assert float(terms.perceptual) == pytest.approx(0.25 * (1 - (6.0004 / 6.2504) ** 1.0001), abs=EXACT)


def test_equals_the_formula_over_all_samples() -> None:
    after, target, before = (draw(5, 3, 24, 24, seed=seed) for seed in range(3))
    shows = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    terms = UnlearnLoss(0.7)(after, target, before, shows.bool())
    expected_reconstruction = ((1 - shows) * (after - before).abs().mean((1, 2, 3))).mean()
    expected_unlearn = (shows * (after - target).abs().mean((1, 2, 3))).mean()
    expected_perceptual = (shows * (1 - ms_ssim(after, target))).mean()
    expected = (expected_reconstruction, expected_unlearn, expected_perceptual)
    torch.testing.assert_close(terms[:3], expected, atol=EXACT, rtol=0)
    torch.testing.assert_close(terms.total, 0.7 * (expected_unlearn + expected_perceptual) + expected_reconstruction, atol=EXACT, rtol=0)


def test_nothing_marked_is_plain_reconstruction() -> None:
    after, target, before = (draw(3, 1, SIZE, SIZE, seed=seed).requires_grad_() for seed in range(3))
    terms = UnlearnLoss(5.0)(after, target, before, torch.zeros(3, dtype=torch.bool))
    assert float(terms.unlearn.detach()) == float(terms.perceptual.detach()) == 0.0
    torch.testing.assert_close(terms.total, (after - before).abs().mean(), atol=EXACT, rtol=0)
    terms.total.backward()
    assert after.grad is not None and after.grad.isfinite().all() and (after.grad != 0).all()


def test_all_marked_does_not_look_at_the_image_before() -> None:
    after, target = draw(3, 1, SIZE, SIZE), draw(3, 1, SIZE, SIZE, seed=1)
    shows = torch.ones(3, dtype=torch.bool)
    terms = UnlearnLoss()(after, target, draw(3, 1, SIZE, SIZE, seed=2), shows)
    assert float(terms.reconstruction) == 0.0
    torch.testing.assert_close(terms, UnlearnLoss()(after, target, draw(3, 1, SIZE, SIZE, seed=3), shows))
    reached = UnlearnLoss()(target, target, after, shows)
    assert float(reached.total) == pytest.approx(0.0, abs=1e-6)


def test_strength_zero_is_reconstruction_of_the_unmarked() -> None:
    after, target, before = (draw(4, 1, SIZE, SIZE, seed=seed) for seed in range(3))
    terms = UnlearnLoss(0.0)(after, target, before, torch.tensor([True, True, False, False]))
    torch.testing.assert_close(terms.total, terms.reconstruction)
    assert float(terms.unlearn) > 0


def test_target_and_before_are_not_swapped() -> None:
    """Marked samples are compared to the target, the others to the image before."""
    terms = UnlearnLoss()(flat(0.5, 0.5), flat(0.5, -1), flat(-1, 0.5), torch.tensor([True, False]))
    assert float(terms.total) == pytest.approx(0.0, abs=1e-9)
    swapped = UnlearnLoss()(flat(0.5, 0.5), flat(0.5, -1), flat(-1, 0.5), torch.tensor([False, True]))
    assert float(swapped.total) > 1


def test_gradient() -> None:
    target, before = draw(2, 1, SIZE, SIZE, seed=1), draw(2, 1, SIZE, SIZE, seed=2)
    loss, shows = UnlearnLoss(2.0), torch.tensor([0.7, 0.0], dtype=torch.float64)
    after = (0.5 * target + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, target, before, shows), after, eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("strength", [-1.0, float("nan")])
def test_refuses_a_negative_strength(strength: float) -> None:
    with pytest.raises(RedactError, match="strength"):
        UnlearnLoss(strength)


def test_refuses_what_does_not_fit() -> None:
    loss, good = UnlearnLoss(), flat(0.1, 0.2)
    with pytest.raises(RedactError, match="alike"):
        loss(good, good[:1], good, torch.tensor([True, False]))
    with pytest.raises(RedactError, match=r"gate \[3\]"):
        loss(good, good, good, torch.tensor([True, False, True]))
    with pytest.raises(RedactError, match="score is not a gate"):
        loss(good, good, good, torch.tensor([-3.1, 0.5]))
    small = torch.zeros(2, 1, 8, 8)
    with pytest.raises(RedactError, match="8 pixels wide"):
        loss(small, small, small, torch.tensor([False, False]))


# The target. Latents on a line with the feature at 4 and 6, without it at -1, 0, 1: z_e = 5 - 0 = 5 along e_1.
LATENT = torch.tensor([[4.0, 1.0], [6.0, -1.0], [-1.0, 0.0], [0.0, 2.0], [1.0, -2.0]], dtype=torch.float64)
SHOWS = torch.tensor([True, True, False, False, False])


def test_target_by_hand() -> None:
    """z_e = (5, 0) - (0, 0); proj is the first coordinate; two show, and 2.5 lies between 4 and 1; the mean is 10 / 5 = 2."""
    direction = unlearn.mean_difference_vector(LATENT, SHOWS)
    assert direction.tolist() == [5.0, 0.0]
    assert unlearn.projection(LATENT, direction).tolist() == [4.0, 6.0, -1.0, 0.0, 1.0]
    assert float(unlearn.mean_threshold(LATENT, direction)) == 2.0
    assert unlearn.gate(LATENT, direction, 2.5).tolist() == SHOWS.tolist()
    assert unlearn.gate(LATENT, direction, 4.0).tolist() == SHOWS.tolist()  # at the threshold counts as past it
    assert unlearn.moved_latent(LATENT, direction, 2.5)[:2].tolist() == [[2.5, 1.0], [2.5, -1.0]]


def test_trap_of_the_length() -> None:
    """The published step with z_e not normalised sends 4 to 4 - (4 - 2.5) * 5 = -3.5; ours lands on 2.5, and step = |z_e| is the published one."""
    direction = unlearn.mean_difference_vector(LATENT, SHOWS)
    published = LATENT - (LATENT @ direction / direction.norm() - 2.5)[:, None] * direction
    assert float(published[0, 0]) == -3.5
    torch.testing.assert_close(unlearn.moved_latent(LATENT, direction, 2.5, step=float(direction.norm())), published)
    torch.testing.assert_close(unlearn.moved_latent(LATENT, direction, 2.5), unlearn.moved_latent(LATENT, direction / 5, 2.5))


def test_published_target_by_hand() -> None:
    """z_e = (5, 0) and t = 2. 4 goes to 4 - (4 - 2) 5 = -6 and 6 to 6 - (6 - 2) 5 = -14: |z_e| = 5 times as far as to t. What lies at t counts."""
    target = unlearn.published_target(LATENT, SHOWS)
    assert target.threshold == 2.0 and target.moves(LATENT).tolist() == SHOWS.tolist()
    assert target(LATENT)[:2].tolist() == [[-6.0, 1.0], [-14.0, -1.0]] and torch.equal(target(LATENT)[2:], LATENT[2:])
    assert target.moves(torch.tensor([[2.0, 7.0], [1.999, 7.0]], dtype=torch.float64)).tolist() == [True, False]
    to_threshold = LATENT - unlearn.moved_latent(LATENT, target.direction, target.threshold)
    torch.testing.assert_close((LATENT - target(LATENT))[:2], 5 * to_threshold[:2])


def test_trap_of_the_threshold() -> None:
    """A feature that a tenth shows: the published mean threshold moves about half of all latents."""
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(5000, 4, generator=generator, dtype=torch.float64)
    shows = latent[:, 0] > 1.2816
    direction = unlearn.mean_difference_vector(latent, shows)
    published = unlearn.gate(latent, direction, unlearn.mean_threshold(latent, direction)).double().mean()
    assert float(published) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("shows", [torch.ones(5, dtype=torch.bool), torch.zeros(5, dtype=torch.bool), torch.tensor([1.0, 0, 0, 0, 0])])
def test_mean_difference_needs_both_labels(shows: torch.Tensor) -> None:
    with pytest.raises(RedactError, match="both must occur"):
        unlearn.mean_difference_vector(LATENT, shows)
