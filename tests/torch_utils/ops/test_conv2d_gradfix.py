# SPDX-License-Identifier: Apache-2.0
"""torch_utils.ops.conv2d_gradfix: torch's convolutions under NVIDIA's names."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

from torch_utils.ops import conv2d_gradfix


def test_conv2d_takes_torchs_arguments_in_torchs_order():
    x, w, b = torch.randn(2, 4, 9, 8), torch.randn(6, 2, 3, 3), torch.randn(6)
    assert torch.equal(conv2d_gradfix.conv2d(x, w, b, 2, (1, 2), 2, 2), F.conv2d(x, w, b, 2, (1, 2), 2, 2))


def test_conv_transpose2d_takes_torchs_arguments_in_torchs_order():
    x, w, b = torch.randn(2, 4, 9, 8), torch.randn(4, 3, 3, 3), torch.randn(6)
    assert torch.equal(conv2d_gradfix.conv_transpose2d(x, w, b, 2, (1, 0), 1, 2, 1), F.conv_transpose2d(x, w, b, 2, (1, 0), 1, 2, 1))


@pytest.mark.parametrize("function", [conv2d_gradfix.conv2d, conv2d_gradfix.conv_transpose2d])
def test_first_and_second_derivatives(function):
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x, w: function(x, w, stride=2, padding=1), [x, w], fast_mode=True)
    assert gradgradcheck(lambda x, w: function(x, w, stride=2, padding=1), [x, w], fast_mode=True)


def test_the_switches_that_training_scripts_use():
    assert conv2d_gradfix.enabled is False and conv2d_gradfix.weight_gradients_disabled is False
    with conv2d_gradfix.no_weight_gradients():
        assert conv2d_gradfix.weight_gradients_disabled is True
        with conv2d_gradfix.no_weight_gradients(disable=False):
            assert conv2d_gradfix.weight_gradients_disabled is True
    with conv2d_gradfix.no_weight_gradients(False):
        assert conv2d_gradfix.weight_gradients_disabled is False
    with pytest.raises(ValueError, match="inside"), conv2d_gradfix.no_weight_gradients():
        raise ValueError("inside")
    assert conv2d_gradfix.weight_gradients_disabled is False
