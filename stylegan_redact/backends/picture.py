# SPDX-License-Identifier: Apache-2.0
"""Pictures as a classifier wants them: its number of channels, its size."""

from __future__ import annotations

import torch


def as_rgb(img: torch.Tensor) -> torch.Tensor:
    """[n, 1 or 3, H, W] -> [n, 3, H, W]."""
    return img.expand(-1, 3, -1, -1) if img.shape[1] == 1 else img


def resized(img: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """[n, C, H, W] -> [n, C, height, width]: means of whole blocks of pixels where they come out even, else by a filter that does not alias."""
    rows, columns = img.shape[2] // height, img.shape[3] // width
    if rows * height == img.shape[2] and columns * width == img.shape[3]:
        return img if rows == columns == 1 else torch.nn.functional.avg_pool2d(img, (rows, columns))
    return torch.nn.functional.interpolate(img, size=[height, width], mode="bilinear", antialias=True)
