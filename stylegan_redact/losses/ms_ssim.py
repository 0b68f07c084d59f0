# SPDX-License-Identifier: Apache-2.0
"""Multi-scale structural similarity of images in [-1, 1], differentiable.

Brightness counts from black, -1, as in the paper, whose pixels are 0 to 255: two images equal in 8 bits score what they score there. Differs from the
paper where it must: images too small for five scales get as many as an 11-tap window fits, with the weights of those scales
rescaled to the paper's sum (64x64: three scales); a mean contrast-structure term below 1e-4 counts as 1e-4, because a negative number has no
fractional power and 0 no finite slope.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from stylegan_redact.types import RedactError

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Wang, Simoncelli and Bovik 2003, section 3.2: beta_j = gamma_j, finest scale first; the last is also the exponent of luminance."""
WINDOW_SIZE = 11
WINDOW_SIGMA = 1.5
DATA_RANGE = 2.0
LUMINANCE_CONSTANT = (0.01 * DATA_RANGE) ** 2
CONTRAST_CONSTANT = (0.03 * DATA_RANGE) ** 2
SMALLEST_TERM = 1e-4
TILE = 128
"""Pixels that one product of the blur gives: large images are blurred in strips, so that time grows with their pixels."""


def ms_ssim(img: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """How alike two batches of images are in structure: 1 for identical images, less for all others.

    Args:
        img: [n, C, H, W] in [-1, 1], H and W at least 11.
        reference: The same shape; swapping the two changes nothing.

    Returns:
        [n], in (0, 1]; mean over the channels. float32 for narrower input.

    Raises:
        RedactError: shapes differ, or an image smaller than the window.

    Source: Wang, Simoncelli and Bovik 2003, "Multi-scale structural similarity for image quality assessment", equation 7.
    """
    if img.ndim != 4 or img.shape != reference.shape:
        raise RedactError(f"Similarity of images {list(img.shape)} and {list(reference.shape)} was asked - give two [n, C, H, W] alike")
    weights = scale_weights(min(img.shape[2:]))
    dtype = torch.promote_types(torch.promote_types(img.dtype, reference.dtype), torch.float32)
    pair = torch.stack([img.to(dtype), reference.to(dtype)]) + 1  # [2, n, C, H, W], [-1, 1] => [0, 2]: luminance is a ratio
    similarity = torch.ones(img.shape[:2], dtype=dtype, device=img.device)  # [n, C]
    for scale, weight in enumerate(weights):
        if scale > 0:
            pair = F.avg_pool2d(pair.flatten(0, 1), 2).unflatten(0, (2, len(img)))  # low-pass and every second pixel
        luminance, contrast_structure = _ssim_maps(pair)
        last = scale == len(weights) - 1
        term = (luminance * contrast_structure if last else contrast_structure).mean((2, 3))  # [n, C]
        similarity = similarity * term.clamp(min=SMALLEST_TERM) ** weight
    return similarity.mean(1)


def scale_weights(smaller_side: int) -> tuple[float, ...]:
    """Weights of the scales that an image has room for, finest first: halved until the window no longer fits, five at most.

    Args:
        smaller_side: Of the image, in pixels.

    Raises:
        RedactError: not even one scale fits.
    """
    count = sum(smaller_side >> scale >= WINDOW_SIZE for scale in range(len(SCALE_WEIGHTS)))
    if count == 0:
        raise RedactError(
            f"Similarity of images {smaller_side} pixels wide was asked - its window has {WINDOW_SIZE} - networks that draw fewer are not redacted "
            "or measured here"
        )
    rescale = sum(SCALE_WEIGHTS) / sum(SCALE_WEIGHTS[:count])
    return tuple(weight * rescale for weight in SCALE_WEIGHTS[:count])


def _ssim_maps(pair: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """pair [2, n, C, H, W] -> luminance and contrast-structure [n, C, H - 10, W - 10], equations 1 to 3 with C3 = C2 / 2."""
    left, right = pair
    moments = _blur(torch.stack([left, right, left * left, right * right, left * right]))  # [5, n, C, H - 10, W - 10]
    left_mean, right_mean, left_square, right_square, product = moments
    squares = left_mean.square() + right_mean.square()
    covariance = product - left_mean * right_mean
    variances = left_square + right_square - squares
    luminance = (2 * left_mean * right_mean + LUMINANCE_CONSTANT) / (squares + LUMINANCE_CONSTANT)
    return luminance, (2 * covariance + CONTRAST_CONSTANT) / (variances + CONTRAST_CONSTANT)


def _blur(planes: torch.Tensor) -> torch.Tensor:
    """[..., H, W] -> [..., H - 10, W - 10]: Gaussian window, one axis at a time, only where it fits."""
    return _blur_rows(_blur_rows(planes).transpose(-1, -2)).transpose(-1, -2)


def _blur_rows(planes: torch.Tensor) -> torch.Tensor:
    """[..., W] -> [..., W - 10], as products with a banded matrix: torch's convolution of single channels is far slower on CPUs, its
    backward pass above all."""
    width = planes.shape[-1] - WINDOW_SIZE + 1
    place = torch.arange(WINDOW_SIZE, dtype=planes.dtype, device=planes.device) - WINDOW_SIZE // 2
    taps = torch.exp(-place.square() / (2 * WINDOW_SIGMA**2))
    taps = taps / taps.sum()
    tile = min(width, TILE)
    band = torch.zeros([tile, tile + WINDOW_SIZE], dtype=planes.dtype, device=planes.device)
    band[:, :WINDOW_SIZE] = taps
    # Read with rows one shorter than they are, each row begins one column further right.
    band = band.flatten()[: tile * (tile + WINDOW_SIZE - 1)].view(tile, tile + WINDOW_SIZE - 1)
    parts = []
    for start in range(0, width, tile):
        stop = min(start + tile, width)
        part = planes[..., start : stop + WINDOW_SIZE - 1]
        parts.append(part @ band[: stop - start, : part.shape[-1]].T)
    return torch.cat(parts, dim=-1)
