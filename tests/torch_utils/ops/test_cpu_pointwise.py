# SPDX-License-Identifier: Apache-2.0
"""The compiled 1x1 convolution and its derivatives against torch's in float64; which calls take it."""

import compiled
import pytest
import torch
import torch.nn.functional as F

from stylegan_redact.networks.stylegan3 import SynthesisNetwork
from torch_utils.ops import conv2d_gradfix, cpu_kernels, cpu_pointwise
from torch_utils.ops.conv2d_resample import conv2d_resample

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")
BOUND = 1e-5
SHAPES = {  # n, C, O, height, width
    "one pixel": (2, 17, 16, 1, 1),
    "a panel and a bit": (1, 33, 70, 5, 7),
    "several blocks of pixels": (2, 20, 18, 11, 27),
    "several groups of channels": (1, 300, 150, 4, 6),
    "more pixels than are summed at a time": (1, 16, 57, 20, 31),
}


@pytest.fixture
def kernels(monkeypatch):
    """Images of any size and any number of channels go to the compiled code, which is there."""
    for name in ("LEAST_CHANNELS", "PRODUCTS_OF_A_SAMPLE"):
        monkeypatch.setattr(cpu_pointwise, name, 1)
    return compiled.counted(monkeypatch)


def everything(x, w):
    """Value, gradients, and gradients of their cubes by x, w and the gradient of the value."""
    x, w = x.detach().requires_grad_(), w.detach().requires_grad_()
    y = conv2d_gradfix.conv2d(x, w)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).to(y.dtype).requires_grad_()
    first = torch.autograd.grad(y, [x, w], dy, create_graph=True)
    second = torch.autograd.grad(sum((one / one.detach().abs().max()).pow(3).sum() for one in first), [x, w, dy])
    return [tensor.detach() for tensor in (y, *first, *second)]


@compiled.needed
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_value_and_derivatives_of_two_orders_are_torchs(kernels, shape):
    n, c, o, height, width = shape
    random = torch.Generator().manual_seed(4)
    x, w = torch.randn(n, c, height, width, generator=random), torch.randn(o, c, 1, 1, generator=random)
    found = everything(x, w)
    assert {"pointwise", "pointwise_kernels"} <= set(kernels.calls)
    kernels.calls.clear()
    for one, other in zip(found, everything(x.double(), w.double()), strict=True):
        assert one.shape == other.shape
        assert float((one - other).abs().max()) < BOUND * float(other.abs().max())
    assert not kernels.calls


@compiled.needed
def test_threads_change_no_bit(kernels):
    x, w = torch.randn(2, 200, 17, 19), torch.randn(90, 200, 1, 1)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(everything(x, w))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


OTHERS = {
    "stride": dict(stride=2),
    "padding": dict(padding=1),
    "groups": dict(groups=2, w=torch.randn(6, 2, 1, 1)),
    "bias": dict(bias=torch.randn(6)),
    "kernel": dict(w=torch.randn(6, 4, 2, 2)),
    "pixels": dict(x=torch.randn(2, 4, 5, 6).contiguous(memory_format=torch.channels_last)),
}


@compiled.needed
@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS)
def test_others_are_torchs(kernels, options):
    options = {"x": torch.randn(2, 4, 5, 6), "w": torch.randn(6, 4, 1, 1)} | options
    x, w = options.pop("x"), options.pop("w")
    assert torch.equal(conv2d_gradfix.conv2d(x, w, **options), F.conv2d(x, w, **options))
    assert kernels.calls == []


def test_few_channels_and_little_work_are_torchs(monkeypatch):
    monkeypatch.setattr(cpu_kernels, "_plugin", lambda: pytest.fail("asked for"))

    def suits(n, c, o, side):
        return cpu_pointwise.suits(torch.zeros(n, c, side, side), torch.zeros(o, c, 1, 1), 1, 0, 1, 1)

    assert not any(suits(*case) for case in [(8, 15, 64, 64), (8, 512, 3, 64), (1, 16, 16, 64)])
    monkeypatch.setattr(cpu_kernels, "_plugin", lambda: "compiled")
    assert all(suits(*case) for case in [(20, 16, 16, 64), (1, 1024, 1024, 36), (1, 512, 512, 4)])


@compiled.needed
def test_the_layers_of_networks_take_it(kernels):
    x, w = torch.randn(1, 4, 8, 8), torch.randn(6, 4, 1, 1)
    assert torch.allclose(conv2d_resample(x, w), conv2d_resample(x.double(), w.double()).float(), atol=1e-5)
    assert kernels.calls == ["pointwise"]
    kernels.calls.clear()
    synthesis = SynthesisNetwork(
        w_dim=16,
        img_resolution=16,
        img_channels=3,
        channel_base=256,
        channel_max=20,
        num_layers=3,
        num_critical=1,
        conv_kernel=1,
        use_radial_filters=True,
    )
    synthesis(torch.randn(1, synthesis.num_ws, 16))
    assert kernels.calls.count("pointwise") == 4
