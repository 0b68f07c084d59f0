# SPDX-License-Identifier: Apache-2.0
"""MS-SSIM against a slow direct float64 implementation, its gradient, its properties."""

import math

import numpy as np
import pytest
import torch

from stylegan_redact.losses.ms_ssim import SCALE_WEIGHTS, ms_ssim, scale_weights
from stylegan_redact.types import RedactError

EXACT = 1e-10  # float64; variances are differences of moments


def images(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Smooth pictures in [-1, 1]: noise on a coarse grid, enlarged."""
    coarse = torch.rand(*shape[:2], 5, 5, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2 - 1
    return torch.nn.functional.interpolate(coarse, shape[2:], mode="bilinear", align_corners=True)


def noisy(img: torch.Tensor, amount: float, seed: int = 1) -> torch.Tensor:
    return img + amount * torch.randn(img.shape, generator=torch.Generator().manual_seed(seed), dtype=img.dtype)


def slow_ms_ssim(left: np.ndarray, right: np.ndarray, weights: list[float]) -> float:
    """One channel [H, W] by the book: one window at a time, variances from deviations and not from moments, on 8-bit intensities."""
    left, right = (left + 1) * 127.5, (right + 1) * 127.5
    offsets = np.arange(11) - 5
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    product = 1.0
    for scale, weight in enumerate(weights):
        if scale:
            height, width = (side // 2 * 2 for side in left.shape)
            left, right = (each[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3)) for each in (left, right))
        terms = []
        for y in range(left.shape[0] - 10):
            for x in range(left.shape[1] - 10):
                a, b = left[y : y + 11, x : x + 11], right[y : y + 11, x : x + 11]
                mean_a, mean_b = (window * a).sum(), (window * b).sum()
                var_a, var_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
                cov = (window * (a - mean_a) * (b - mean_b)).sum()
                luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
                structure = (2 * cov + c2) / (var_a + var_b + c2)
                terms.append(structure * luminance if scale == len(weights) - 1 else structure)
        product *= max(np.mean(terms), 1e-4) ** weight
    return float(product)


@pytest.mark.parametrize("size", [(11, 11), (23, 26), (47, 44)])
def test_equals_the_slow_implementation(size: tuple[int, int]) -> None:
    left = images(2, 2, *size)
    right = noisy(0.8 * left + 0.1, 0.1)
    weights = list(scale_weights(min(size)))
    expected = [np.mean([slow_ms_ssim(left[i, c].numpy(), right[i, c].numpy(), weights) for c in range(2)]) for i in range(2)]
    torch.testing.assert_close(ms_ssim(left, right), torch.tensor(expected, dtype=torch.float64), atol=EXACT, rtol=0)
    assert 0.05 < min(expected) and max(expected) < 0.99


def test_five_scales_with_the_published_weights_where_they_fit() -> None:
    assert scale_weights(176) == pytest.approx((0.0448, 0.2856, 0.3001, 0.2363, 0.1333), abs=1e-15)
    assert scale_weights(1024) == scale_weights(176)


@pytest.mark.parametrize(("side", "scales"), [(11, 1), (21, 1), (22, 2), (43, 2), (44, 3), (64, 3), (87, 3), (88, 4), (175, 4), (176, 5)])
def test_small_images_have_fewer_scales_of_the_same_sum(side: int, scales: int) -> None:
    weights = scale_weights(side)
    assert len(weights) == scales
    assert sum(weights) == pytest.approx(sum(SCALE_WEIGHTS))
    assert all(a / b == pytest.approx(c / d) for a, b, c, d in zip(weights, weights[1:], SCALE_WEIGHTS, SCALE_WEIGHTS[1:], strict=False))


def test_flat_images_have_the_luminance_by_hand() -> None:
    """Flat images 1 and 0.5, one scale with weight 1.0001: above black 2 and 1.5, structure 1, luminance
    (2 * 2 * 1.5 + 0.0004) / (4 + 2.25 + 0.0004) = 0.960003; counted from grey it would be 0.800064.
    """
    answer = ms_ssim(torch.ones(1, 1, 12, 12, dtype=torch.float64), torch.full((1, 1, 12, 12), 0.5, dtype=torch.float64))
    assert float(answer) == pytest.approx((6.0004 / 6.2504) ** 1.0001, abs=1e-9)


def test_identical_is_one_and_symmetric_and_falls_with_noise() -> None:
    img = images(3, 3, 64, 64, dtype=torch.float32)
    torch.testing.assert_close(ms_ssim(img, img), torch.ones(3), atol=1e-5, rtol=0)
    answers = [ms_ssim(img, noisy(img, amount)) for amount in (0.02, 0.1, 0.5)]
    assert ((answers[0] < 1) & (answers[0] > answers[1]) & (answers[1] > answers[2]) & (answers[2] > 0)).all()
    torch.testing.assert_close(ms_ssim(noisy(img, 0.1), img), answers[1])


def test_blur_costs_more_here_than_in_l1() -> None:
    """Why the objective has it: of two changes with the same L1 the blur is the worse one."""
    grain = noisy(0.5 * images(1, 1, 64, 64), 0.2)
    blurred = torch.nn.functional.avg_pool2d(grain, 5, 1, 2, count_include_pad=False)
    shifted = grain + (blurred - grain).abs().mean()
    assert float(ms_ssim(blurred, grain)) < 0.8 < float(ms_ssim(shifted, grain))


def test_each_sample_stands_alone() -> None:
    img = images(3, 2, 24, 24)
    other = noisy(img, 0.2)
    together = ms_ssim(img, other)
    assert together.shape == (3,)
    torch.testing.assert_close(together, torch.cat([ms_ssim(img[i : i + 1], other[i : i + 1]) for i in range(3)]), atol=EXACT, rtol=0)
    assert ms_ssim(img[:0], other[:0]).shape == (0,)


def test_gradient() -> None:
    img = images(1, 1, 23, 22).requires_grad_()
    reference = noisy(images(1, 1, 23, 22), 0.1)
    assert torch.autograd.gradcheck(lambda x: ms_ssim(x, reference), img, eps=1e-6, atol=1e-6)


def test_gradient_is_finite_where_structures_oppose() -> None:
    """A negative image: mean structure below 0, where the bare power has no value and its slope no bound."""
    img = noisy(images(1, 1, 24, 24), 0.3).requires_grad_()
    answer = ms_ssim(img, -img.detach())
    answer.sum().backward()
    assert 0 < float(answer.detach()) < 0.1 and img.grad is not None and img.grad.isfinite().all()
    same = images(1, 1, 24, 24).requires_grad_()
    ms_ssim(same, same.detach()).sum().backward()
    assert same.grad is not None and same.grad.isfinite().all()


def test_half_precision_is_computed_in_single() -> None:
    img = images(1, 1, 24, 24, dtype=torch.float32).half()
    answer = ms_ssim(img, img)
    assert answer.dtype == torch.float32 and math.isclose(float(answer), 1.0, abs_tol=1e-5)


def test_refuses_small_and_unlike_images() -> None:
    with pytest.raises(RedactError, match="10 pixels wide"):
        ms_ssim(torch.zeros(1, 1, 10, 64), torch.zeros(1, 1, 10, 64))
    with pytest.raises(RedactError, match="alike"):
        ms_ssim(torch.zeros(1, 1, 64, 64), torch.zeros(1, 3, 64, 64))
    with pytest.raises(RedactError, match="alike"):
        ms_ssim(torch.zeros(1, 64, 64), torch.zeros(1, 64, 64))


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    left = images(1, 2, 47, 44)
    right = noisy(left, 0.1)
    whole = ms_ssim(left, right)
    for tile in (7, 16, 37):
        monkeypatch.setattr("stylegan_redact.losses.ms_ssim.TILE", tile)
        torch.testing.assert_close(ms_ssim(left, right), whole, atol=EXACT, rtol=0)
