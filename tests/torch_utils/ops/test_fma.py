# SPDX-License-Identifier: Apache-2.0
"""torch_utils.ops.fma."""

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from torch_utils.ops.fma import fma

SHAPES = [
    ([2, 3, 4, 4], [2, 3, 1, 1], [2, 1, 4, 4]),  # StyleGAN2: activations, demodulation, noise
    ([3], [2, 1], [1]),
    ([1, 2], [2], [3, 1, 2]),
    ([2, 2], [2, 2], []),
]


@pytest.mark.parametrize("shapes", SHAPES)
def test_value_and_derivatives_broadcast(shapes):
    a, b, c = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    y = fma(a, b, c)
    torch.testing.assert_close(y, a * b + c, atol=1e-14, rtol=1e-14)  # one rounding more or less
    assert y.shape == torch.broadcast_shapes(*shapes)
    assert gradcheck(fma, [a, b, c], fast_mode=True)
    assert gradgradcheck(fma, [a, b, c], fast_mode=True)


def test_types_promote():
    half, single = torch.full([2], 2.0, dtype=torch.float16), torch.full([2], 3.0)
    assert fma(half, half, half).dtype == torch.float16
    mixed = fma(half, half, single)
    assert mixed.dtype == torch.float32 and mixed.tolist() == [7, 7]
