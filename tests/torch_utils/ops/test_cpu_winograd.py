# SPDX-License-Identifier: Apache-2.0
"""The compiled 3x3 convolution and its derivatives against torch's in float64; which calls take it."""

import compiled
import pytest
import torch
import torch.nn.functional as F

from torch_utils.ops import conv2d_gradfix, cpu_kernels, cpu_winograd, upfirdn2d
from torch_utils.ops.conv2d_resample import conv2d_resample

BOUND = 1e-5  # the one that users are told, relative to the largest value

# torch's own forward-mode derivatives use its deprecated script compiler
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")
pytest.importorskip("torch.utils.cpp_extension", reason="needs setuptools")


@pytest.fixture
def kernels(monkeypatch):
    """Images of any size and any number of channels go to the compiled code, which is there."""
    for name in ("LEAST_CHANNELS", "LEAST_SIDE_TO_DOUBLE", "LEAST_SIDE_OF_MANY", "PRODUCTS_OF_A_SAMPLE"):
        monkeypatch.setattr(cpu_winograd, name, 1)
    return compiled.counted(monkeypatch)


CASES = {  # n, C, O, height, width, padding (y, x)
    "one tile": (1, 1, 1, 4, 4, (1, 1)),
    "less than a tile": (2, 3, 5, 1, 2, (1, 1)),
    "no padding": (1, 17, 16, 9, 70, (0, 0)),
    "wide padding": (3, 5, 33, 3, 6, (2, 2)),
    "padding of an axis": (1, 70, 3, 11, 5, (0, 2)),
    "many channels": (1, 200, 170, 10, 9, (1, 1)),
    "as many as a power of two": (2, 256, 64, 8, 8, (1, 1)),
    "many tiles": (2, 20, 40, 67, 90, (1, 1)),
}
LAYOUTS = {"planes": torch.contiguous_format, "pixels": torch.channels_last}


def inputs(case, dtype=torch.float32):
    n, c, o, height, width, pads = CASES[case]
    random = torch.Generator().manual_seed(4)
    x, w = torch.randn(n, c, height, width, generator=random), torch.randn(o, c, 3, 3, generator=random)
    return x.to(dtype), w.to(dtype), pads


def derivatives(convolve, x, w, layout, second=True):
    """Value, gradients by x and w, and gradients of their cubes by x, w and the gradient of the value."""
    x, w = x.detach().clone(memory_format=layout).requires_grad_(), w.detach().clone().requires_grad_()
    y = convolve(x, w)
    random = torch.Generator().manual_seed(5)
    dy = torch.randn(y.shape, generator=random).to(y.dtype).contiguous(memory_format=layout).requires_grad_()
    first = torch.autograd.grad(y, [x, w], dy, create_graph=True)
    if not second:
        return [tensor.detach() for tensor in (y, *first)]
    third = torch.autograd.grad(sum((gradient / gradient.detach().abs().max()).pow(3).sum() for gradient in first), [x, w, dy])
    return [tensor.detach() for tensor in (y, *first, *third)]


def error(found, expected):
    return float((found.double() - expected).abs().max() / expected.abs().max())


@compiled.needed
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("case", CASES)
def test_value_and_two_derivatives_equal_those_in_float64(kernels, case, layout):
    x, w, pads = inputs(case)
    found = derivatives(lambda x, w: conv2d_gradfix.conv2d(x, w, padding=pads), x, w, layout)
    assert kernels.calls.count("winograd") == 5 and kernels.calls.count("winograd_kernels") == 2
    expected = derivatives(lambda x, w: F.conv2d(x, w, padding=pads), x.double(), w.double(), layout)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and error(one, other) < BOUND
    if min(x.shape[1], w.shape[0]) > 1 and x[0, 0].numel() > 1:
        assert all(found[i].is_contiguous(memory_format=layout) for i in (0, 1)), "laid out as the images are"


@compiled.needed
def test_a_value_worked_by_hand(kernels):
    """A one in the corner of a zero image puts the kernel there, turned; what falls outside is gone."""
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 0, 0] = 1
    y = conv2d_gradfix.conv2d(x, torch.arange(9.0).reshape(1, 1, 3, 3), padding=1)
    expected = torch.zeros(5, 5)
    expected[:2, :2] = torch.tensor([[4.0, 3.0], [1.0, 0.0]])
    torch.testing.assert_close(y[0, 0], expected, atol=1e-5, rtol=0)
    assert kernels.calls == ["winograd"]


@compiled.needed
def test_neither_threads_nor_the_rest_of_the_batch_change_a_bit(kernels):
    before, results = torch.get_num_threads(), []
    try:
        for case in ("many tiles", "many channels"):
            x, w, pads = inputs(case)
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                results.append(derivatives(lambda x, w, pads=pads: conv2d_gradfix.conv2d(x, w, padding=pads), x, w, torch.contiguous_format)[:3])
            assert all(torch.equal(one, other) for result in results[1:] for one, other in zip(result, results[0], strict=True))
            assert torch.equal(conv2d_gradfix.conv2d(x[-1:], w, padding=pads), results[0][0][-1:])
            results.clear()
    finally:
        torch.set_num_threads(before)


@compiled.needed
@pytest.mark.parametrize(("by_x", "calls"), [(True, ["winograd", "winograd"]), (False, ["winograd", "winograd_kernels"])])
def test_only_the_gradient_that_is_asked_for_is_computed(kernels, by_x, calls):
    x, w, pads = inputs("wide padding")
    conv2d_gradfix.conv2d(x.requires_grad_(by_x), w.requires_grad_(not by_x), padding=pads).sum().backward()
    assert kernels.calls == calls and (x.grad is None) != by_x and (w.grad is None) == by_x


@compiled.needed
def test_images_with_gaps_and_turned_kernels(kernels):
    x, w, pads = inputs("many tiles")
    gaps, turned = x[:, ::2, :, 3:], w[:, ::2].flip([2, 3]).transpose(2, 3)
    y = conv2d_gradfix.conv2d(gaps, turned, padding=pads)
    assert error(y, F.conv2d(gaps.double(), turned.double(), padding=pads)) < BOUND and kernels.calls == ["winograd"]


def halving(convolve):
    return lambda x, w: convolve(x, w, stride=2)


RESAMPLING = {  # n, C, O, sides of the small images
    "one tile": (1, 2, 3, 4, 4),
    "less than a tile": (2, 19, 1, 1, 2),
    "odd": (2, 33, 17, 9, 5),
    "many channels": (1, 200, 170, 4, 6),
    "many tiles": (1, 20, 18, 37, 33),
}


@compiled.needed
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("case", RESAMPLING)
@pytest.mark.parametrize("enlarges", [False, True], ids=["halves", "doubles"])
def test_a_stride_of_two_and_its_transpose(kernels, case, layout, enlarges):
    n, c, o, height, width = RESAMPLING[case]
    random = torch.Generator().manual_seed(6)
    shape = (height, width) if enlarges else (2 * height + 1, 2 * width + 1)
    x = torch.randn(n, c, *shape, generator=random)
    w = torch.randn((c, o, 3, 3) if enlarges else (o, c, 3, 3), generator=random)
    ours, torchs = (conv2d_gradfix.conv_transpose2d, F.conv_transpose2d) if enlarges else (conv2d_gradfix.conv2d, F.conv2d)
    second = case != "many channels"  # torch takes seconds for them
    found = derivatives(halving(ours), x, w, layout, second)
    assert (kernels.calls.count("winograd"), kernels.calls.count("winograd_kernels")) == ((5, 2) if second else (2, 1))
    for one, other in zip(found, derivatives(halving(torchs), x.double(), w.double(), layout, second), strict=True):
        assert one.shape == other.shape and error(one, other) < BOUND


@compiled.needed
def test_a_gradient_lies_in_memory_as_its_kernels_do(kernels):
    w = torch.randn(6, 5, 3, 3, requires_grad=True)
    conv2d_gradfix.conv_transpose2d(torch.randn(1, 5, 4, 4), w.transpose(0, 1), stride=2).sum().backward()
    found, w.grad = w.grad.clone(), None
    x = torch.randn(1, 5, 4, 4)
    seen = []
    turned = w.detach().transpose(0, 1).requires_grad_()
    turned.register_hook(lambda gradient: seen.append(gradient.stride()))
    conv2d_gradfix.conv_transpose2d(x, turned, stride=2).sum().backward()
    assert seen == [turned.stride()] and found.is_contiguous()


@compiled.needed
def test_an_empty_batch(kernels):
    x, w = torch.zeros(0, 4, 8, 8, requires_grad=True), torch.randn(5, 4, 3, 3, requires_grad=True)
    y = cpu_winograd.convolve(x, w, (1, 1))
    dx, dw = torch.autograd.grad(y, [x, w], torch.zeros_like(y))
    assert y.shape == (0, 5, 8, 8) and dx.shape == x.shape and torch.equal(dw, torch.zeros_like(w))


@compiled.needed
def test_what_is_not_finite_is_not_hidden(kernels):
    x, w, pads = inputs("many tiles")
    x[0, 3, 20, 20] = float("nan")
    assert conv2d_gradfix.conv2d(x, w, padding=pads)[0, :, 19:22, 19:22].isnan().all()


@compiled.needed
def test_whoever_must_see_torchs_operations_does(kernels):
    x, w, pads = inputs("wide padding")
    torch.func.vmap(lambda x: conv2d_gradfix.conv2d(x[None], w, padding=pads))(x)
    with torch.autograd.forward_ad.dual_level():
        conv2d_gradfix.conv2d(torch.autograd.forward_ad.make_dual(x, x), w, padding=pads)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert conv2d_gradfix.conv2d(x, w, padding=pads).dtype == torch.bfloat16
    assert kernels.calls == []


OTHERS = {
    "float64": (torch.float64, 3, {}),
    "bfloat16": (torch.bfloat16, 3, {}),
    "another kernel": (torch.float32, 5, {}),
    "a stride of even sides": (torch.float32, 3, dict(stride=2)),
    "a stride and padding": (torch.float32, 3, dict(stride=2, padding=1)),
    "a large stride": (torch.float32, 3, dict(stride=3)),
    "a stride of an axis": (torch.float32, 3, dict(stride=(1, 2))),
    "dilation": (torch.float32, 3, dict(dilation=2)),
    "more padding": (torch.float32, 3, dict(padding=3)),
    "padding by name": (torch.float32, 3, dict(padding="same")),
    "a bias": (torch.float32, 3, dict(bias=torch.ones(6))),
}


@compiled.needed
@pytest.mark.parametrize(("dtype", "size", "options"), OTHERS.values(), ids=OTHERS)
def test_other_convolutions_are_torchs(kernels, dtype, size, options):
    x, w = torch.randn(2, 4, 11, 12, dtype=dtype), torch.randn(6, 4, size, size, dtype=dtype)
    assert torch.equal(conv2d_gradfix.conv2d(x, w, **options), F.conv2d(x, w, **options))
    groups = torch.randn(6, 2, 3, 3)
    assert torch.equal(conv2d_gradfix.conv2d(x.float(), groups, groups=2), F.conv2d(x.float(), groups, groups=2))
    assert kernels.calls == []


TRANSPOSED_OTHERS = {
    "padding": dict(stride=2, padding=1),
    "more pixels": dict(stride=2, output_padding=1),
    "no stride": {},
    "dilation": dict(stride=2, dilation=2),
    "a bias": dict(stride=2, bias=torch.ones(6)),
    "groups": dict(stride=2, groups=2, bias=None),
}


@compiled.needed
@pytest.mark.parametrize("options", TRANSPOSED_OTHERS.values(), ids=TRANSPOSED_OTHERS)
def test_other_transposed_convolutions_are_torchs(kernels, options):
    x, w = torch.randn(2, 4, 5, 6), torch.randn(4, 6, 3, 3)
    assert torch.equal(conv2d_gradfix.conv_transpose2d(x, w, **options), F.conv_transpose2d(x, w, **options)) and kernels.calls == []


def test_what_is_slower_so_is_torchs(monkeypatch):
    """Few channels, small images, little work: nothing is compiled for them."""
    monkeypatch.setattr(cpu_kernels, "_plugin", lambda: pytest.fail("asked for"))

    def plain(n, c, o, side):
        return cpu_winograd.suits(torch.zeros(n, c, side, side), torch.zeros(o, c, 3, 3), 1, 1, 1, 1)

    def doubles(n, c, o, side):
        return cpu_winograd.suits_transposed(torch.zeros(n, c, side, side), torch.zeros(c, o, 3, 3), 2, 0, 0, 1, 1)

    assert not any(plain(*case) for case in [(8, 15, 64, 64), (8, 64, 3, 64), (1, 128, 128, 4), (1, 16, 16, 64)])
    assert not any(doubles(*case) for case in [(8, 15, 64, 64), (8, 512, 512, 3), (20, 128, 64, 7), (1, 16, 16, 64)])
    monkeypatch.setattr(cpu_kernels, "_plugin", lambda: "compiled")
    assert all(plain(*case) for case in [(20, 16, 16, 64), (1, 512, 512, 4), (1, 64, 64, 256)])
    assert all(doubles(*case) for case in [(20, 32, 16, 32), (1, 512, 512, 4), (10, 128, 128, 8), (1, 128, 64, 128)])


def test_without_a_compiler_or_switched_off_it_is_torchs_convolution(monkeypatch):
    monkeypatch.setattr(cpu_kernels, "_plugin", lambda: None)
    x, w = torch.randn(1, 64, 64, 64), torch.randn(64, 64, 3, 3)
    assert torch.equal(conv2d_gradfix.conv2d(x, w, padding=1), F.conv2d(x, w, padding=1))


@compiled.needed
def test_the_layers_of_networks_take_it(kernels):
    x, w = torch.randn(1, 4, 8, 8), torch.randn(4, 4, 3, 3)
    f = upfirdn2d.setup_filter([1, 3, 3, 1])
    for options, side in ({}, 8), (dict(up=2, flip_weight=False), 16), (dict(down=2), 4):
        y, expected = (conv2d_resample(x.to(dtype), w.to(dtype), f, padding=1, **options) for dtype in (torch.float32, torch.float64))
        assert y.shape[2:] == (side, side) and error(y, expected) < BOUND
    assert kernels.calls.count("winograd") == 3
