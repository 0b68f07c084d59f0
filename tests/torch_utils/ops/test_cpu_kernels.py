# SPDX-License-Identifier: Apache-2.0
"""The compiled CPU kernels against the definitions, and what happens where there are none. Compiled once per machine, by the first test."""

import math
import shutil
import sys

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from torch_utils import custom_ops
from torch_utils.ops import cpu_kernels, filtered_lrelu, upfirdn2d

FLOAT64 = 1e-11  # relative to the largest value; sums of at most 144 terms, the second one over results of the first
FLOAT32 = 1e-4  # the bound that users are told

# torch's own forward-mode derivatives use its deprecated script compiler
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")

missing = [program for program in ("ninja", "c++") if shutil.which(program) is None]
pytest.importorskip("torch.utils.cpp_extension", reason="needs setuptools")
compiled = pytest.mark.skipif(bool(missing) or not sys.platform.startswith("linux"), reason=f"needs Linux, ninja and a C++ compiler; lacks {missing}")


@pytest.fixture
def kernels(monkeypatch):
    """Images of any size go to the compiled code, which is there; counts its calls."""
    monkeypatch.delenv(cpu_kernels.SWITCH, raising=False)
    monkeypatch.setattr(custom_ops, "verbosity", "none")
    monkeypatch.setattr(cpu_kernels, "LEAST_SAMPLES", 0)
    plugin, calls = cpu_kernels._plugin(), []
    assert plugin is not None
    run = cpu_kernels._run
    monkeypatch.setattr(cpu_kernels, "_run", lambda *args: (calls.append(1), run(*args))[1])
    return calls


def two_derivatives(function, inputs):
    """Value, gradients, and gradients of their square."""
    inputs = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    y = function(*inputs)
    first = torch.autograd.grad((y + 1).pow(3).sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum(gradient.pow(2).sum() for gradient in first), inputs, allow_unused=True)
    return [tensor.detach() for tensor in (y, *first, *second) if tensor is not None]


def agree(found, expected, tolerance):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance * (1e-3 + float(b.abs().max())), rtol=0)


def radial(n):
    place = torch.arange(n, dtype=torch.float32) - (n - 1) / 2
    return torch.exp(-(place[:, None] ** 2 + place**2) / n)


LAYERS = {
    "t, same rate": dict(shape=(2, 9, 22, 20), fu=[12], fd=[12], up=2, down=2, padding=[9, 8, 9, 8]),
    "t, next rate": dict(shape=(1, 17, 14, 40), fu=[24], fd=[12], up=4, down=2, padding=[-6, -9, 3, 2]),
    "r": dict(shape=(1, 19, 16, 90), fu=[12], fd=radial(12), up=2, down=2, padding=[11, 10, 11, 10], clamp=2),
    "r, odd": dict(shape=(1, 3, 9, 8), fu=[5, 4], fd=radial(7), up=3, down=1, padding=5, slope=0),
    "r, several strips": dict(shape=(1, 3, 5, 350), fu=[12], fd=radial(12), up=2, down=2, padding=[11, 10, 11, 10], clamp=2),
    "t, several strips": dict(shape=(1, 2, 4, 180), fu=[24], fd=[12], up=4, down=2, padding=[9, 8, 20, 19]),
    "crops": dict(shape=(2, 2, 15, 16), fu=[6], fd=[3, 2], up=2, down=3, padding=[-3, 2, -4, 0], flip_filter=True),
    "no up-sampling": dict(shape=(1, 4, 12, 12), fu=None, fd=[8], up=1, down=2, padding=3, clamp=0.7),
    "fewer taps than factors": dict(shape=(1, 2, 9, 7), fu=[2], fd=[1], up=3, down=4, padding=6, slope=1.5),
    "nothing bends": dict(shape=(1, 5, 9, 7), fu=[6], fd=[6], up=2, down=2, padding=6, slope=1),
}


def layer(name, dtype=torch.float64):
    """(x, b), function of them and impl."""
    random = torch.Generator().manual_seed(1)
    options = dict(LAYERS[name])
    taps = [options.pop(key) for key in ("fu", "fd")]
    taps = [torch.randn(f, generator=random) / math.prod(f) ** 0.5 if isinstance(f, list) else f for f in taps]
    x = torch.randn(options.pop("shape"), generator=random, dtype=torch.float64).to(dtype)
    b = torch.randn(x.shape[1], generator=random, dtype=torch.float64).to(dtype)
    return (x, b), lambda x, b, impl: filtered_lrelu.filtered_lrelu(x, *taps, b, **options, impl=impl)


@compiled
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, FLOAT64), (torch.float32, FLOAT32)])
def test_filtered_lrelu_and_two_gradients_equal_the_definition(kernels, name, dtype, tolerance):
    inputs, function = layer(name, dtype)
    expected = two_derivatives(lambda x, b: function(x, b, "ref"), inputs)
    assert kernels == []
    found = two_derivatives(lambda x, b: function(x, b, "cuda"), inputs)
    assert len(kernels) >= 3, "forward, gradient, its gradient"
    agree(found, expected, tolerance)


@compiled
@pytest.mark.parametrize("name", ["fewer taps than factors", "r, odd"])
def test_derivatives_by_differences(kernels, name):
    (x, b), function = layer(name)
    inputs = [x[:, :2, :5, :4].clone().requires_grad_(), b[:2].clone().requires_grad_()]
    assert gradcheck(lambda x, b: function(x, b, "cuda").square(), inputs)
    assert gradgradcheck(lambda x, b: function(x, b, "cuda").square(), inputs)
    assert kernels


@compiled
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("taps", "options"),
    [
        ([4], dict(up=2, padding=[2, 1, 2, 1], gain=4)),
        ([4, 4], dict(up=[2, 3], padding=[2, 1, -1, 4])),
        ([12], dict(down=2, padding=5)),
        ([3, 2], dict(down=[3, 1], padding=[-2, 3, 4, 0], flip_filter=True, gain=-0.7)),
        ([4], dict(padding=[1, 2])),
        ([5], dict(up=2, down=2, padding=4)),
    ],
)
def test_upfirdn2d_and_two_gradients_equal_the_definition(kernels, taps, options, layout):
    random = torch.Generator().manual_seed(2)
    f = torch.randn(taps, generator=random)
    x = torch.randn(2, 16, 11, 9, generator=random, dtype=torch.float64).to(memory_format=layout)
    expected, found = (two_derivatives(lambda x, impl=impl: upfirdn2d.upfirdn2d(x, f, **options, impl=impl), [x]) for impl in ("ref", "cuda"))
    agree(found, expected, FLOAT64)
    assert bool(kernels) == (options.get("up", 1) == 1 or options.get("down", 1) == 1), "both at once would make samples in vain"
    assert not kernels or all(tensor.is_contiguous(memory_format=layout) for tensor in found[:2])


@compiled
def test_the_number_of_threads_changes_no_bit(kernels):
    (x, b), function = layer("r")
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(two_derivatives(lambda x, b: function(x, b, "cuda"), [x.repeat(1, 1, 3, 2), b]))
    finally:
        torch.set_num_threads(before)
    # that of the bias is a sum of torch's own
    assert all(torch.equal(results[0][i], other[i]) for other in results[1:] for i in (0, 1))


@compiled
def test_a_gradient_costs_two_bits_a_sample(kernels):
    (x, b), function = layer("t, same rate", torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: (kept.append(tensor), tensor)[1], lambda tensor: tensor):
        function(x.requires_grad_(), b, "cuda")
    lanes = cpu_kernels._plugin().lanes(False)
    planes, height, width = -(-x.shape[0] * x.shape[1] // lanes) * lanes, 22 * 2 + 17 - 11, 20 * 2 + 17 - 11
    assert max(tensor.nbytes for tensor in kept) == planes * height * -(-width // 4)


@compiled
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_not_hidden(kernels, value):
    f = torch.ones(4) / 4
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 4, 4] = value
    assert not filtered_lrelu.filtered_lrelu(x, f, f, up=2, down=2, padding=3).isfinite().all() and kernels


@compiled
def test_an_empty_batch_gives_an_empty_batch(kernels):
    f = torch.ones(8)
    assert filtered_lrelu.filtered_lrelu(torch.zeros(0, 3, 4, 4), f, f, up=2, down=2, padding=7).shape == (0, 3, 4, 4)


@compiled
def test_who_draws_with_parameters_writes_no_signs(kernels, monkeypatch):
    x, f, b = torch.randn(1, 3, 9, 8), upfirdn2d.setup_filter([1, 3, 3, 1]), torch.zeros(3, requires_grad=True)
    modes, run = [], cpu_kernels._run
    monkeypatch.setattr(cpu_kernels, "_run", lambda *args: (modes.append(args[5]), run(*args))[1])
    results = [filtered_lrelu.filtered_lrelu(x, f, f, b, up=2, down=2, padding=5)]
    for nobody_asks in (torch.no_grad(), torch.inference_mode()):
        with nobody_asks:
            results.append(filtered_lrelu.filtered_lrelu(x, f, f, b, up=2, down=2, padding=5))
    assert modes == [1, 0, 0]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


@compiled
def test_a_default_device_elsewhere_changes_nothing(kernels):
    x, f = torch.randn(1, 3, 9, 8, requires_grad=True), upfirdn2d.setup_filter([1, 3, 3, 1])

    def gradient():
        y = filtered_lrelu.filtered_lrelu(upfirdn2d.upsample2d(x, f), f, f, up=2, down=2, padding=5)
        return torch.autograd.grad(y.square().sum(), x)[0]

    expected = gradient()
    with torch.device("meta"):
        found = gradient()
    assert torch.equal(found, expected)
    assert len(kernels) == 8


def test_whoever_must_see_torchs_operations_does(kernels):
    (x, b), function = layer("crops")
    torch.func.vmap(lambda x: function(x[None], b, "cuda"))(x)
    with torch.autograd.forward_ad.dual_level():
        function(torch.autograd.forward_ad.make_dual(x, x), b, "cuda")
    assert kernels == []


def test_small_images_compile_nothing(monkeypatch):
    monkeypatch.setattr(cpu_kernels, "_plugin", lambda: pytest.fail("asked for"))
    (x, b), function = layer("r")
    function(x, b, "cuda")


def test_without_a_compiler_one_line_says_so_and_the_result_is_the_same(monkeypatch):
    def refuse(*_args, **_options):
        raise RuntimeError('plugin "cpu_kernels_plugin" cannot be compiled - the program ninja is not on the PATH - `pip install ninja`')

    monkeypatch.delenv(cpu_kernels.SWITCH, raising=False)
    monkeypatch.setattr(custom_ops, "get_plugin", refuse)
    monkeypatch.setattr(cpu_kernels, "LEAST_SAMPLES", 0)
    monkeypatch.setattr(sys, "platform", "linux")
    fresh = cpu_kernels._plugin.__wrapped__
    cached = []
    monkeypatch.setattr(cpu_kernels, "_plugin", lambda: cached[0] if cached else (cached.append(fresh()), cached[0])[1])
    inputs, function = layer("r")
    with pytest.warns(RuntimeWarning, match="ninja is not on the PATH.*StyleGAN3 several times as long") as caught:
        found = [function(*inputs, "cuda") for _ in range(2)]
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    agree(found, [function(*inputs, "ref")] * 2, FLOAT64)
    monkeypatch.setenv(cpu_kernels.SWITCH, "off")
    assert fresh() is None, "and says nothing"
