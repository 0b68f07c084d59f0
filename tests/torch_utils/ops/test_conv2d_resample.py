# SPDX-License-Identifier: Apache-2.0
"""torch_utils.ops.conv2d_resample against its canonical meaning, one step after the other."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from torch_utils.ops import upfirdn2d
from torch_utils.ops.conv2d_resample import conv2d_resample

FLOAT64 = 1e-11  # double precision; results of order 10^2, over at most 3000 terms
FLOAT32 = 1e-4  # single precision, results of order 10
HALF = 2e-2  # half precision carries 8 bits (bfloat16) or 11


def convolve_by_sums(x, w, groups=1, flip_weight=True):
    """Valid correlation (or convolution), one weight at a time."""
    w = w if flip_weight else w.flip([2, 3])
    n, _, h, width = x.shape
    out_channels, per_group, kh, kw = w.shape
    y = x.new_zeros(n, out_channels, h - kh + 1, width - kw + 1)
    for o in range(out_channels):
        first = o // (out_channels // groups) * per_group
        for i in range(per_group):
            for a in range(kh):
                for b in range(kw):
                    y[:, o] += w[o, i, a, b] * x[:, first + i, a : a + y.shape[2], b : b + y.shape[3]]
    return y


def step_by_step(x, w, f, *, up=1, down=1, padding=0, flip_filter=False, **weight_options):
    """Up-sample and pad, convolve, down-sample."""
    x0, x1, y0, y1 = upfirdn2d._parse_padding(padding)
    fw, fh = upfirdn2d._get_filter_size(f)
    if up > 1:
        x0, x1, y0, y1 = x0 + (fw + up - 1) // 2, x1 + (fw - up) // 2, y0 + (fh + up - 1) // 2, y1 + (fh - up) // 2
    if down > 1:
        x0, x1, y0, y1 = x0 + (fw - down + 1) // 2, x1 + (fw - down) // 2, y0 + (fh - down + 1) // 2, y1 + (fh - down) // 2
    blur = f if up > 1 else None
    x = upfirdn2d.upfirdn2d(x, blur, up=up, padding=[x0, x1, y0, y1], flip_filter=flip_filter, gain=up**2, impl="ref")
    x = convolve_by_sums(x, w, **weight_options)
    return x if down == 1 else upfirdn2d.upfirdn2d(x, f, down=down, flip_filter=flip_filter, impl="ref")


@st.composite
def cases(draw):
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    groups, side, pad = draw(st.integers(1, 3)), st.integers(2, 6), st.integers(-1, 3)
    x = torch.randn(2, 2 * groups, draw(side), draw(side), generator=random, dtype=torch.float64)
    kernel = draw(st.sampled_from([(1, 1), (3, 3), (2, 3), (1, 2)]))
    w = torch.randn(draw(st.integers(1, 2)) * groups, 2, *kernel, generator=random, dtype=torch.float64)
    taps = draw(st.sampled_from([None, (3,), (4,), (4, 4), (2, 5)]))
    f = None if taps is None else torch.randn(taps, generator=random)
    options = {
        "up": draw(st.integers(1, 3)),
        "down": draw(st.integers(1, 3)),
        "padding": draw(pad | st.lists(pad, min_size=4, max_size=4)),
        "groups": groups,
        "flip_weight": draw(st.booleans()),
        "flip_filter": draw(st.booleans()),
    }
    return x, w, f, options


@given(case=cases())
@settings(max_examples=150, deadline=None)
def test_every_path_equals_the_canonical_steps(case):
    x, w, f, options = case
    try:
        expected = step_by_step(x, w, f, **options)
    except (AssertionError, RuntimeError):  # the image is smaller than a filter
        assume(False)
    assume(expected.numel() > 0)
    y = conv2d_resample(x, w, f, **options)
    assert y.shape == expected.shape
    torch.testing.assert_close(y, expected, atol=FLOAT64 * 10, rtol=1e-9)


STYLEGAN2 = [  # (kernel, options): every convolution in StyleGAN2's networks
    (3, {"padding": 1}),
    (3, {"padding": 1, "up": 2, "flip_weight": False}),
    (3, {"padding": 1, "down": 2}),
    (1, {"up": 2, "flip_weight": False}),
    (1, {"down": 2}),
    (1, {}),
]


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("kernel", "options"), STYLEGAN2)
def test_the_layers_of_stylegan2(kernel, options, groups):
    x, w, f = torch.randn(2, 8, 8, 8), torch.randn(4, 8 // groups, kernel, kernel), upfirdn2d.setup_filter([1, 3, 3, 1])
    expected = step_by_step(x.double(), w.double(), f, groups=groups, **options)
    size = 8 * options.get("up", 1) // options.get("down", 1)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        y = conv2d_resample(x.to(memory_format=memory_format), w, f, groups=groups, **options)
        assert y.shape == (2, 4, size, size) and y.dtype == torch.float32
        torch.testing.assert_close(y.double(), expected, atol=FLOAT32, rtol=FLOAT32)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("kernel", "options"), STYLEGAN2)
def test_first_and_second_derivatives(kernel, options, groups):
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(2, 2 // groups, kernel, kernel, dtype=torch.float64, requires_grad=True)
    f = torch.tensor([[1.0, 2.0], [3.0, 5.0]])

    def convolve(x, w):
        return conv2d_resample(x, w, f, groups=groups, **options)

    assert gradcheck(convolve, [x, w], fast_mode=True)
    assert gradgradcheck(convolve, [x, w], fast_mode=True)


def test_channels_last_stays_channels_last():
    x, f = torch.randn(2, 8, 8, 8).to(memory_format=torch.channels_last), upfirdn2d.setup_filter([1, 3, 3, 1])
    for kernel, options in STYLEGAN2:
        y = conv2d_resample(x, torch.randn(4, 8, kernel, kernel), f, **options)
        assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("kernel", "options"), STYLEGAN2)
def test_half_precision(kernel, options, dtype):
    x, w, f = torch.randn(2, 8, 8, 8), torch.randn(4, 8, kernel, kernel) / (8 * kernel**2) ** 0.5, upfirdn2d.setup_filter([1, 3, 3, 1])
    y = conv2d_resample(x.to(dtype), w.to(dtype), f, **options)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), conv2d_resample(x, w, f, **options), atol=2 * HALF, rtol=HALF)  # two roundings: w and f


@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        (torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 1, 1, dtype=torch.float64), {}),
        (torch.zeros(2, 4, 4), torch.zeros(1, 2, 1, 1), {}),
        (torch.zeros(1, 2, 4, 4), torch.zeros(1, 2), {}),
        (torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 1, 1), {"up": 0}),
        (torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 1, 1), {"down": 1.5}),
        (torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 1, 1), {"f": torch.ones(2, dtype=torch.float64)}),
    ],
)
def test_bad_arguments_are_refused(x, w, options):
    with pytest.raises(AssertionError):
        conv2d_resample(x, w, **options)


def test_without_resampling_it_is_torchs_convolution():
    x, w = torch.randn(2, 3, 5, 6), torch.randn(4, 3, 3, 3)
    torch.testing.assert_close(conv2d_resample(x, w, padding=[1, 2]), F.conv2d(x, w, padding=(2, 1)))
