# SPDX-License-Identifier: Apache-2.0
"""torch_utils.ops.upfirdn2d against its four steps written out pixel by pixel."""

import io

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from torch_utils.ops import upfirdn2d as ops

# torch's own forward-mode derivatives and traces use its deprecated script compiler
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")

FLOAT64 = 1e-12  # sums of at most 36 terms of order 10 in double precision
FLOAT32 = 1e-5  # the same in single precision, taps of order 1
HALF = 2e-2  # taps rounded to half precision, up to 16 terms
MEMORY_FORMATS = [torch.contiguous_format, torch.channels_last]


def by_sums(x, f, up, down, pads, flip_filter, gain):
    """Images [n, c, h, w] and 2-D taps as numpy arrays; factors (x, y); pads (x0, x1, y0, y1)."""
    n, c, h, w = x.shape
    x0, x1, y0, y1 = pads
    fh, fw = f.shape

    def pixel(row, column):
        """The padded, zero-inserted image at one place: [n, c]."""
        row, column = row - y0, column - x0
        inside = 0 <= row < h * up[1] and 0 <= column < w * up[0]
        return x[:, :, row // up[1], column // up[0]] if inside and row % up[1] == 0 and column % up[0] == 0 else np.zeros((n, c))

    taps = f if flip_filter else f[::-1, ::-1]
    y = np.zeros((n, c, (h * up[1] + y0 + y1 - fh) // down[1] + 1, (w * up[0] + x0 + x1 - fw) // down[0] + 1))
    for row in range(y.shape[2]):
        for column in range(y.shape[3]):
            for i in range(fh):
                for j in range(fw):
                    y[:, :, row, column] += gain * taps[i, j] * pixel(row * down[1] + i, column * down[0] + j)
    return y


def as_2d(f):
    if f is None:
        return np.ones((1, 1))
    f = f.double().numpy()
    return np.outer(f, f) if f.ndim == 1 else f


@st.composite
def cases(draw):
    """Everything that `upfirdn2d` takes, as (x, f, keyword arguments)."""
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    side = st.integers(1, 5)
    x = torch.randn(2, draw(st.integers(1, 3)), draw(side), draw(side), generator=random, dtype=torch.float64)
    shape = draw(st.sampled_from([None, (1,), (2,), (3,), (6,), (1, 1), (4, 4), (3, 2), (1, 5)]))
    f = None if shape is None else torch.randn(shape, generator=random)
    factor, pad = st.integers(1, 3), st.integers(-3, 6)
    options = {
        "up": draw(factor | st.lists(factor, min_size=2, max_size=2)),
        "down": draw(factor | st.lists(factor, min_size=2, max_size=2)),
        "padding": draw(pad | st.lists(pad, min_size=2, max_size=2) | st.lists(pad, min_size=4, max_size=4)),
        "flip_filter": draw(st.booleans()),
        "gain": draw(st.sampled_from([1, 4, -0.7])),
    }
    (upx, upy), (x0, x1, y0, y1), (fw, fh) = ops._parse_scaling(options["up"]), ops._parse_padding(options["padding"]), ops._get_filter_size(f)
    assume(x.shape[3] * upx + x0 + x1 >= fw and x.shape[2] * upy + y0 + y1 >= fh)
    return x, f, options


@pytest.mark.parametrize("memory_format", MEMORY_FORMATS)
@pytest.mark.parametrize("impl", ["ref", "cuda"])
@given(case=cases())
@settings(max_examples=150, deadline=None)
def test_equals_the_four_steps_pixel_by_pixel(impl, memory_format, case):
    x, f, options = case
    up, down, pads = ops._parse_scaling(options["up"]), ops._parse_scaling(options["down"]), ops._parse_padding(options["padding"])
    expected = by_sums(x.numpy(), as_2d(f), up, down, pads, options["flip_filter"], options["gain"])
    y = ops.upfirdn2d(x.to(memory_format=memory_format), f, **options, impl=impl)
    assert y.shape == expected.shape and y.dtype == x.dtype
    np.testing.assert_allclose(y.numpy(), expected, atol=FLOAT64 * 1e2, rtol=FLOAT64)


@given(case=cases())
@settings(max_examples=150, deadline=None)
def test_the_fast_gradient_and_its_gradient_equal_those_of_the_definition(case):
    x, f, options = case
    results = []
    for impl in ("ref", "cuda"):
        x = x.detach().requires_grad_()
        y = ops.upfirdn2d(x, f, **options, impl=impl)
        (dx,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        (ddx,) = torch.autograd.grad(dx.pow(2).sum(), x)
        results.append((dx.detach(), ddx))
    scale = 1 + results[0][1].abs().max().item()
    torch.testing.assert_close(results[1], results[0], atol=FLOAT64 * scale, rtol=1e-9)


@pytest.mark.parametrize(
    ("taps", "up", "down", "padding"),
    [([[1.0, -2, 3], [0.5, 4, -1]], 1, 1, 1), ([1.0, 3, 3, 1], 2, 1, [2, 1, 2, 1]), ([1.0, -2, 3], [1, 2], [3, 1], [3, 1, -1, 4])],
)
def test_first_and_second_derivatives(taps, up, down, padding):
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)

    def square(x):
        return ops.upfirdn2d(x, torch.tensor(taps), up, down, padding).square()

    assert gradcheck(square, [x], check_forward_ad=True)
    assert gradgradcheck(square, [x])


def test_derivatives_keep_the_taps_only():
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()), lambda _: None):
        ops.upsample2d(torch.randn(2, 3, 8, 8, requires_grad=True), ops.setup_filter([1, 3, 3, 1]))
    assert sum(kept) == 16


def test_per_sample_gradients_through_vmap():
    x, f = torch.randn(3, 1, 2, 4, 4, dtype=torch.float64), ops.setup_filter([1, 3, 3, 1])

    def energy(x):
        return ops.upsample2d(x, f).pow(4).sum()

    together = torch.func.vmap(torch.func.grad(energy))(x)
    torch.testing.assert_close(together, torch.stack([torch.func.grad(energy)(image) for image in x]), atol=FLOAT64, rtol=1e-9)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_can_be_saved_and_loaded():
    f = ops.setup_filter([1, 3, 3, 1])
    traced = torch.jit.trace(lambda x: ops.upsample2d(x, f), torch.randn(1, 1, 4, 4))
    file = io.BytesIO()
    torch.jit.save(traced, file)  # refused if the trace calls Python
    file.seek(0)
    x = torch.randn(1, 1, 4, 4)
    torch.testing.assert_close(torch.jit.load(file)(x), ops.upsample2d(x, f), atol=FLOAT32, rtol=0)


@pytest.mark.parametrize("channels", [3, 16])
@pytest.mark.parametrize("function", [ops.upsample2d, ops.downsample2d, ops.filter2d])
def test_channels_last_stays_channels_last_and_changes_no_value(function, channels):
    x, f = torch.randn(2, channels, 8, 8), ops.setup_filter([1, 3, 3, 1])
    rows = x.clone().requires_grad_()
    pixels = x.to(memory_format=torch.channels_last).requires_grad_()
    y = function(pixels, f)
    y.square().sum().backward()
    assert y.is_contiguous(memory_format=torch.channels_last) and pixels.grad.is_contiguous(memory_format=torch.channels_last)
    expected = function(rows, f)
    expected.square().sum().backward()
    torch.testing.assert_close((y, pixels.grad), (expected, rows.grad), atol=FLOAT32, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("function", [ops.upsample2d, ops.downsample2d, ops.filter2d])
def test_half_precision(function, dtype):
    x, f = torch.randn(2, 16, 8, 8), ops.setup_filter([1, 3, 3, 1])
    y = function(x.to(dtype), f)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), function(x, f), atol=HALF, rtol=HALF)


def test_mixed_precision_brings_a_gradient_home():
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    f = ops.setup_filter([1, 3, 3, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = ops.downsample2d(x, f)
    y.float().sum().backward()
    expected = torch.autograd.grad(ops.downsample2d(x, f).sum(), x)[0]
    torch.testing.assert_close(x.grad, expected, atol=HALF, rtol=HALF)


def test_an_empty_batch_gives_an_empty_batch():
    assert ops.upsample2d(torch.zeros(0, 3, 4, 4), ops.setup_filter([1, 3, 3, 1])).shape == (0, 3, 8, 8)


# upsample2d, downsample2d, filter2d ----------------------------------------------------------------------------------


@pytest.mark.parametrize("taps", [None, [1, 2, 1], [1, 3, 3, 1], [1] * 12])
@pytest.mark.parametrize("factor", [2, 3])
def test_sizes(taps, factor):
    x, f = torch.randn(1, 2, 6, 12), ops.setup_filter(taps)
    assert ops.filter2d(x, f).shape == x.shape
    assert ops.upsample2d(x, f, up=factor).shape == (1, 2, 6 * factor, 12 * factor)
    assert ops.downsample2d(x, f, down=factor).shape == (1, 2, 6 // factor, 12 // factor)
    assert ops.upsample2d(x, f, up=[1, factor]).shape == (1, 2, 6 * factor, 12)
    assert ops.downsample2d(x, f, padding=[2, 0, 0, 4]).shape == (1, 2, 5, 7)


def test_a_dot_is_doubled_in_place():
    """A pixel covers 2x2 pixels afterwards: its mass quadruples and its centre (p + 1/2) doubles."""
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 3, 5] = 1
    y = ops.upsample2d(x, ops.setup_filter([1, 3, 3, 1]))[0, 0].double()
    centres = torch.arange(18, dtype=torch.float64) + 0.5
    assert y.sum().item() == pytest.approx(4)
    assert (y.sum(1) @ centres).item() / 4 == pytest.approx(2 * 3.5)
    assert (y.sum(0) @ centres).item() / 4 == pytest.approx(2 * 5.5)


def test_grey_stays_grey_away_from_the_border():
    x, f = torch.full((1, 1, 8, 8), 0.7), ops.setup_filter([1, 3, 3, 1])
    for y in (ops.filter2d(x, f), ops.upsample2d(x, f), ops.downsample2d(x, f)):
        torch.testing.assert_close(y[:, :, 2:-2, 2:-2], torch.full_like(y[:, :, 2:-2, 2:-2], 0.7), atol=FLOAT32, rtol=0)


def test_gain_and_flip_reach_the_filter():
    x, f = torch.randn(1, 1, 6, 6), torch.tensor([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])
    for function in (ops.filter2d, ops.upsample2d, ops.downsample2d):
        expected = 3 * function(x, f.flip([0, 1]))
        torch.testing.assert_close(function(x, f, gain=3, flip_filter=True), expected, atol=1e2 * FLOAT32, rtol=FLOAT32)
        assert not torch.allclose(function(x, f), function(x, f, flip_filter=True))


# setup_filter and the parsers ----------------------------------------------------------------------------------------


def test_the_stylegan2_filter():
    f = ops.setup_filter([1, 3, 3, 1])
    assert f.dtype == torch.float32
    np.testing.assert_allclose(f.numpy(), np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64, rtol=1e-6)


@pytest.mark.parametrize(
    ("taps", "options", "expected"),
    [
        (None, {}, [[1]]),
        (5, {}, [[1]]),
        (5, {"normalize": False}, [[25]]),
        ([1, 3], {"separable": True}, [0.25, 0.75]),
        ([1, 3], {"separable": True, "gain": 4}, [0.5, 1.5]),
        ([1, 3], {"separable": True, "flip_filter": True}, [0.75, 0.25]),
        ([1, 3], {"normalize": False, "gain": 4}, [[4, 12], [12, 36]]),
        ([[1, 2], [3, 4]], {"flip_filter": True}, [[0.4, 0.3], [0.2, 0.1]]),
        ([1] * 8, {}, [0.125] * 8),
        ([1] * 7, {}, [[1 / 49] * 7] * 7),
    ],
)
def test_setup_filter(taps, options, expected):
    np.testing.assert_allclose(ops.setup_filter(taps, **options).numpy(), expected, rtol=1e-6)


def test_setup_filter_leaves_its_argument_alone():
    taps = torch.tensor([[1.0, 3.0]])
    ops.setup_filter(taps)
    assert taps.tolist() == [[1.0, 3.0]]


def test_setup_filter_refuses_what_has_no_axes_to_separate():
    with pytest.raises(AssertionError):
        ops.setup_filter([[1, 2], [3, 4]], separable=True)
    with pytest.raises(AssertionError):
        ops.setup_filter([])


def test_parsers():
    assert ops._parse_scaling(2) == (2, 2) and ops._parse_scaling([2, 3]) == (2, 3)
    assert ops._parse_padding(-1) == (-1, -1, -1, -1) and ops._parse_padding([1, 2]) == (1, 1, 2, 2)
    assert ops._parse_padding((1, 2, 3, 4)) == (1, 2, 3, 4)
    assert ops._get_filter_size(None) == (1, 1) and ops._get_filter_size(torch.ones(5)) == (5, 5) and ops._get_filter_size(torch.ones(2, 3)) == (3, 2)


@pytest.mark.parametrize("scaling", [0, 1.5, [1], [1, 2, 3]])
def test_bad_factors_are_refused(scaling):
    with pytest.raises(AssertionError):
        ops._parse_scaling(scaling)


@pytest.mark.parametrize("padding", [1.5, [1], [1, 2, 3]])
def test_bad_pads_are_refused(padding):
    with pytest.raises(AssertionError):
        ops._parse_padding(padding)


@pytest.mark.parametrize(
    ("shape", "f", "options"),
    [
        ([1, 1, 4, 4], None, {"impl": "fast"}),
        ([1, 4, 4], None, {}),
        ([1, 1, 4, 4], torch.ones(5, 5), {}),
        ([1, 1, 4, 4], torch.ones(2, 2, dtype=torch.float64), {}),
        ([1, 1, 4, 4], torch.ones(2, 2, requires_grad=True), {}),
    ],
)
def test_bad_arguments_are_refused(shape, f, options):
    with pytest.raises(AssertionError):
        ops.upfirdn2d(torch.zeros(shape), f, **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("up", "down", "padding"), [(1, 1, 1), (2, 1, [2, 1, 2, 1]), (1, 2, 1), (2, 2, [-1, 3, 0, 2])])
def test_on_a_gpu_values_and_two_gradients_equal_those_on_a_cpu(up, down, padding):
    x, f = torch.randn(2, 3, 8, 8, dtype=torch.float64), ops.setup_filter([1, 3, 3, 1])
    results = []
    for device in ("cpu", "cuda"):
        image = x.to(device).requires_grad_()
        y = ops.upfirdn2d(image, f.to(device), up, down, padding)
        (dx,) = torch.autograd.grad(y.pow(3).sum(), image, create_graph=True)
        (ddx,) = torch.autograd.grad(dx.pow(2).sum(), image)
        results.append([tensor.detach().cpu() for tensor in (y, dx, ddx)])
    torch.testing.assert_close(results[1], results[0], atol=1e-9, rtol=1e-9)
