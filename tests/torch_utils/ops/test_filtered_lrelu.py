# SPDX-License-Identifier: Apache-2.0
"""torch_utils.ops.filtered_lrelu against its nine steps, each resampling written out pixel by pixel."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from test_upfirdn2d import as_2d, by_sums
from torch.autograd import gradcheck, gradgradcheck

from torch_utils.ops import upfirdn2d
from torch_utils.ops.filtered_lrelu import filtered_lrelu

FLOAT64 = 1e-10  # two sums of at most 36 terms of order 10 in double precision, the second one over results of the first
FLOAT32 = 1e-4  # the same in single precision, taps of order 1
HALF = 3e-2  # taps rounded to half precision, up to 36 terms
TAPS = [None, (1,), (2,), (5,), (6,), (1, 1), (4, 4), (3, 2)]


def by_steps(x, options):
    """The definition in numpy, float64."""
    up, down, fu, fd = options["up"], options["down"], as_2d(options["fu"]), as_2d(options["fd"])
    if options["b"] is not None:
        x = x + options["b"].numpy().reshape(1, -1, 1, 1)
    x = by_sums(x, fu, (up, up), (1, 1), upfirdn2d._parse_padding(options["padding"]), options["flip_filter"], up**2) * options["gain"]
    x = np.where(x > 0, x, x * options["slope"])
    if options["clamp"] is not None:
        x = np.minimum(np.maximum(x, -options["clamp"]), options["clamp"])
    return by_sums(x, fd, (1, 1), (down, down), (0, 0, 0, 0), options["flip_filter"], 1)


@st.composite
def cases(draw):
    """Everything that `filtered_lrelu` takes, as (x, keyword arguments)."""
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    side, channels = st.integers(1, 5), draw(st.integers(1, 3))
    x = torch.randn(2, channels, draw(side), draw(side), generator=random, dtype=torch.float64)
    fu, fd = (None if shape is None else torch.randn(shape, generator=random) for shape in (draw(st.sampled_from(TAPS)), draw(st.sampled_from(TAPS))))
    pad = st.integers(-3, 8)
    options = {
        "fu": fu,
        "fd": fd,
        "b": torch.randn(channels, generator=random, dtype=torch.float64) if draw(st.booleans()) else None,
        "up": draw(st.integers(1, 4)),
        "down": draw(st.integers(1, 4)),
        "padding": draw(pad | st.lists(pad, min_size=2, max_size=2) | st.lists(pad, min_size=4, max_size=4)),
        "gain": draw(st.sampled_from([math.sqrt(2), 1, 0.3])),
        "slope": draw(st.sampled_from([0.2, 0, 1, 1.5])),
        "clamp": draw(st.sampled_from([None, 0.7, 3, 0])),
        "flip_filter": draw(st.booleans()),
    }
    (uw, uh), (dw, dh) = upfirdn2d._get_filter_size(fu), upfirdn2d._get_filter_size(fd)
    x0, x1, y0, y1 = upfirdn2d._parse_padding(options["padding"])
    assume(x.shape[3] * options["up"] + x0 + x1 >= uw + dw - 1 and x.shape[2] * options["up"] + y0 + y1 >= uh + dh - 1)
    return x, options


@pytest.mark.parametrize("impl", ["ref", "cuda"])
@given(case=cases())
@settings(max_examples=100, deadline=None)
def test_equals_the_steps_pixel_by_pixel(impl, case):
    x, options = case
    before = x.clone()
    y = filtered_lrelu(x, **options, impl=impl)
    expected = by_steps(x.numpy(), options)
    assert y.shape == expected.shape and y.dtype == x.dtype and torch.equal(x, before)
    np.testing.assert_allclose(y.numpy(), expected, atol=FLOAT64, rtol=FLOAT64)


@given(case=cases())
@settings(max_examples=100, deadline=None)
def test_two_gradients_equal_those_of_the_definition(case):
    """Of the images and of the bias."""
    x, options = case
    results = []
    for impl in ("ref", "cuda"):
        inputs = [tensor.detach().requires_grad_() for tensor in (x, options["b"]) if tensor is not None]
        y = filtered_lrelu(inputs[0], **(options | {"b": inputs[1] if len(inputs) > 1 else None}), impl=impl)
        first = torch.autograd.grad((y + 1).pow(3).sum(), inputs, create_graph=True)
        second = torch.autograd.grad(sum(gradient.pow(2).sum() for gradient in first), inputs, allow_unused=True)
        results.append([torch.zeros([]) if tensor is None else tensor.detach() for tensor in (*first, *second)])
    for found, expected in zip(results[1], results[0], strict=True):
        scale = 1 + expected.abs().max().item()
        torch.testing.assert_close(found, expected.expand_as(found).to(found.dtype), atol=FLOAT64 * scale, rtol=1e-9)


@pytest.mark.parametrize("impl", ["ref", "cuda"])
@pytest.mark.parametrize(
    ("fu", "fd", "up", "down", "padding", "clamp"),
    [
        ([1.0, 3, 3, 1], [1.0, 2, -1, 3], 2, 2, 3, 2.0),
        ([1.0, 3, -3, 1], [[1.0, 2], [-1, 3], [0.5, 4]], 2, 2, [2, 3, 1, 4], None),
        (None, None, 1, 1, [0, -1, 2, 0], 1.0),
    ],
)
def test_first_and_second_derivatives(impl, fu, fd, up, down, padding, clamp):
    random = torch.Generator().manual_seed(3)
    x = torch.randn(2, 2, 4, 3, dtype=torch.float64, generator=random, requires_grad=True)
    b = torch.randn(2, dtype=torch.float64, generator=random, requires_grad=True)
    taps = [None if f is None else torch.tensor(f) / torch.tensor(f).sum() for f in (fu, fd)]

    def square(x, b):
        return filtered_lrelu(x, *taps, b, up, down, padding, clamp=clamp, impl=impl).square()

    assert gradcheck(square, [x, b])
    assert gradgradcheck(square, [x, b])


def test_nothing_flows_through_what_was_clamped():
    x = torch.tensor([-9.0, -2, 0.5, 3, 9]).reshape(1, 1, 1, 5).requires_grad_()
    y = filtered_lrelu(x, gain=1, clamp=1, slope=0.2)
    assert y.flatten().tolist() == pytest.approx([-1, -0.4, 0.5, 1, 1])
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert dx.flatten().tolist() == pytest.approx([0, 0.2, 1, 0, 0])


def test_defaults_are_those_of_a_leaky_relu():
    x = torch.tensor([[-1.0, 2.0]]).reshape(1, 2, 1, 1)
    assert filtered_lrelu(x, b=torch.tensor([0.5, 1.0])).flatten().tolist() == pytest.approx([-0.5 * 0.2 * math.sqrt(2), 3 * math.sqrt(2)])


def test_a_wave_below_both_cutoffs_passes_and_what_the_bend_makes_above_is_filtered_away():
    """The point of it: the leaky ReLU of a wave has harmonics beyond the output's band; plainly sampled, they would alias into it."""
    scipy_signal = pytest.importorskip("scipy.signal")
    n, k = 64, 18  # k waves over n samples: the harmonic 2k lies beyond n / 2 and aliases to n - 2k = 28
    x = torch.sin(2 * math.pi * k * torch.arange(n) / n).expand(1, 1, n, n).contiguous()
    f = torch.as_tensor(scipy_signal.firwin(48, 0.4, width=0.2, fs=2.0), dtype=torch.float32)
    y = filtered_lrelu(x, f, f, up=2, down=2, padding=47, gain=1)
    spectra = [
        torch.fft.rfft(wave[0, 0, n // 2, 16:48] * torch.hann_window(32)).abs() for wave in (torch.nn.functional.leaky_relu(x, 0.2), y[:, :, :n])
    ]
    alias, tone = (n - 2 * k) // 2, k // 2
    plain, filtered = (float(spectrum[alias] / spectrum[tone]) for spectrum in spectra)
    assert plain > 0.2, "or there would be nothing to filter away"
    assert filtered < plain / 8
    assert spectra[1][tone] / spectra[0][tone] == pytest.approx(1, abs=0.1)


def test_no_pass_over_the_image_where_there_is_nothing_to_do():
    x = torch.randn(1, 2, 4, 4)
    assert filtered_lrelu(x, gain=1, slope=1) is x


@pytest.mark.parametrize("impl", ["ref", "cuda"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, FLOAT32), (torch.float16, HALF), (torch.bfloat16, HALF)])
def test_other_precisions(impl, dtype, tolerance):
    random = torch.Generator().manual_seed(0)
    x, b = torch.randn(2, 3, 6, 6, generator=random), torch.randn(3, generator=random)
    f = upfirdn2d.setup_filter([1, 3, 3, 1], separable=True)
    expected = filtered_lrelu(x.double(), f, f, b.double(), 2, 2, 2, clamp=2)
    y = filtered_lrelu(x.to(dtype), f, f, b.to(dtype), 2, 2, 2, clamp=2, impl=impl)
    assert y.dtype == dtype
    torch.testing.assert_close(y.double(), expected, atol=tolerance, rtol=tolerance)


def test_an_empty_batch_gives_an_empty_batch():
    f = upfirdn2d.setup_filter([1] * 8)
    assert filtered_lrelu(torch.zeros(0, 3, 4, 4), f, f, up=2, down=2, padding=7).shape == (0, 3, 4, 4)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ([1, 4, 4], {}),
        ([1, 1, 4, 4], {"impl": "fast"}),
        ([1, 1, 4, 4], {"up": 0}),
        ([1, 1, 4, 4], {"up": [2, 2]}),
        ([1, 1, 4, 4], {"down": 1.5}),
        ([1, 1, 4, 4], {"gain": 0}),
        ([1, 1, 4, 4], {"slope": -0.1}),
        ([1, 1, 4, 4], {"clamp": -1}),
        ([1, 1, 4, 4], {"b": torch.zeros(2)}),
        ([1, 1, 4, 4], {"b": torch.zeros(1, dtype=torch.float64)}),
        ([1, 1, 4, 4], {"fu": torch.ones(3, dtype=torch.float64)}),
        ([1, 1, 4, 4], {"fd": torch.ones(5, 5)}),
        ([1, 1, 4, 4], {"fu": torch.ones(3), "fd": torch.ones(3)}),
        ([1, 1, 4, 4], {"padding": [-2, -2, 0, 0]}),
    ],
)
def test_bad_arguments_are_refused(shape, options):
    with pytest.raises(AssertionError):
        filtered_lrelu(torch.zeros(shape), **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(("up", "down", "padding", "radial"), [(2, 2, [9, 8], False), (4, 2, [-6, -9], True), (2, 2, 11, True)])
def test_on_a_gpu_values_and_two_gradients_equal_those_on_a_cpu(up, down, padding, radial):
    random = torch.Generator().manual_seed(0)
    x, b = torch.randn(2, 3, 12, 12, dtype=torch.float64, generator=random), torch.randn(3, dtype=torch.float64, generator=random)
    fu, fd = torch.randn(6 * up, generator=random), torch.randn([6 * down] * (2 if radial else 1), generator=random)
    results = []
    for device in ("cpu", "cuda"):
        inputs = [tensor.to(device).requires_grad_() for tensor in (x, b)]
        y = filtered_lrelu(inputs[0], fu.to(device), fd.to(device), inputs[1], up, down, padding, clamp=50)
        first = torch.autograd.grad(y.pow(3).sum(), inputs, create_graph=True)
        second = torch.autograd.grad(first[0].pow(2).sum(), inputs)
        results.append([tensor.detach().cpu() for tensor in (y, *first, *second)])
    for found, expected in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(found, expected, atol=1e-9 * float(expected.abs().max()), rtol=1e-9)
