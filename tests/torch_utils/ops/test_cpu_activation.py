# SPDX-License-Identifier: Apache-2.0
"""The compiled bias, leaky ReLU, gain and clamp against the definition, with two derivatives."""

import compiled
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from torch_utils.ops import bias_act, cpu_kernels

pytest.importorskip("torch.utils.cpp_extension", reason="needs setuptools")
# torch's own forward-mode derivatives use its deprecated script compiler
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.jit"),
    compiled.needed,
]


@pytest.fixture
def kernels(monkeypatch):
    """Tensors of any size go to the compiled code, which is there."""
    return compiled.counted(monkeypatch)


CASES = {
    "planes": ((2, 5, 7, 9), 1, torch.contiguous_format),
    "pixels": ((2, 21, 4, 3), 1, torch.channels_last),
    "pixels, first axis": ((2, 5, 3, 4), 0, torch.channels_last),
    "pixels, rows of images": ((2, 5, 3, 4), 2, torch.channels_last),
    "pixels, columns of images": ((2, 5, 3, 4), 3, torch.channels_last),
    "rows": ((6, 37), 1, torch.contiguous_format),
    "first axis": ((5, 4, 3), 0, torch.contiguous_format),
    "last axis of images": ((2, 3, 4, 5), 3, torch.contiguous_format),
    "one channel": ((2, 1, 5, 7), 1, torch.contiguous_format),
    "one pixel": ((3, 6, 1, 1), 1, torch.contiguous_format),
}
OPTIONS = {
    "as in StyleGAN": dict(act="lrelu", clamp=1.2),
    "no clamp": dict(act="lrelu", alpha=0.5, gain=0.3),
    "linear": dict(act="linear", clamp=0.9),
    "clamp 0": dict(act="lrelu", clamp=0),
}


def inputs(case, dtype=torch.float64):
    shape, dim, layout = CASES[case]
    random = torch.Generator().manual_seed(3)
    x = torch.randn(shape, generator=random, dtype=torch.float64).to(dtype).contiguous(memory_format=layout)
    return x, torch.randn(shape[dim], generator=random, dtype=torch.float64).to(dtype), dim


def derivatives(x, b, dim, impl, options):
    """Value, gradients by x and b, and gradients of their square."""
    x, b = x.detach().clone().requires_grad_(), b.detach().clone().requires_grad_()
    weight = (
        torch.linspace(-1, 2, x.numel(), dtype=x.dtype)
        .reshape(x.shape)
        .contiguous(memory_format=torch.channels_last if x.ndim == 4 and not x.is_contiguous() else torch.contiguous_format)
    )
    weight.requires_grad_()
    y = bias_act.bias_act(x, b, dim=dim, impl=impl, **options)
    first = torch.autograd.grad(y, [x, b], weight, create_graph=True)
    second = torch.autograd.grad(sum(gradient.pow(3).sum() for gradient in first), weight)
    return [tensor.detach() for tensor in (y, *first, *second)]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("case", CASES)
def test_value_and_two_gradients_equal_the_definition(kernels, case, options):
    for dtype, tolerance in ((torch.float64, 1e-13), (torch.float32, 1e-5)):
        x, b, dim = inputs(case, dtype)
        kernels.calls.clear()
        found, expected = (derivatives(x, b, dim, impl, options) for impl in ("cuda", "ref"))
        assert kernels.calls == ["bias_act", "gradient", "gradient"]
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * float(other.abs().max()))


def test_a_value_worked_by_hand(kernels):
    """x + b = (-1, 1, 4), slope 0.5, gain 2: -1, 2, 8, of which the last is clamped to 5 and has no slope."""
    x = torch.tensor([[-2.0, 0.0, 3.0]], requires_grad=True)
    y = bias_act.bias_act(x, torch.ones(3), act="lrelu", alpha=0.5, gain=2, clamp=5)
    (dx,) = torch.autograd.grad(y, x, torch.ones(1, 3))
    assert y.tolist() == [[-1, 2, 5]] and dx.tolist() == [[1, 2, 0]] and kernels.calls == ["bias_act", "gradient"]


def test_derivatives_by_differences(kernels):
    x, b, _ = inputs("planes")

    def function(x, b):
        return bias_act.bias_act(x, b, act="lrelu", clamp=1.2)

    assert gradcheck(function, (x.requires_grad_(), b.requires_grad_())) and gradgradcheck(function, (x, b))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_neither_threads_nor_place_change_a_bit(kernels, layout):
    x, b = torch.randn(2, 19, 61, 67), torch.randn(19)
    x = x.contiguous(memory_format=layout)
    before, results = torch.get_num_threads(), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            results.append(derivatives(x, b, 1, "cuda", OPTIONS["as in StyleGAN"]))
        finally:
            torch.set_num_threads(before)
    assert all(torch.equal(one, other) for result in results[1:] for one, other in zip(result[:2], results[0][:2], strict=True))
    alone = bias_act.bias_act(x[1:, 3:4, 5:6, 7:8].contiguous(), b[3:4], act="lrelu", clamp=1.2)
    assert torch.equal(alone, results[0][0][1:, 3:4, 5:6, 7:8])


def test_what_is_not_finite_is_not_hidden(kernels):
    x = torch.tensor([[float("nan"), float("inf"), -float("inf")]])
    found, expected = (bias_act.bias_act(x, torch.zeros(3), act="lrelu", clamp=2, impl=impl) for impl in ("cuda", "ref"))
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_tensors_with_gaps_and_transforms_take_torchs_operations(kernels):
    x, b, _ = inputs("planes")
    bias_act.bias_act(x[:, :, ::2], b, act="lrelu")
    torch.func.vmap(lambda x: bias_act.bias_act(x[None], b, act="lrelu"))(x)
    assert kernels.calls == []


@pytest.mark.parametrize("word", ["off", " OFF "])
def test_switched_off_it_is_what_it_was(monkeypatch, word):
    """The bytes of runs without compiled operations: the three steps of torch, in this order."""
    monkeypatch.setenv(cpu_kernels.SWITCH, word)
    monkeypatch.setattr(cpu_kernels, "_plugin", cpu_kernels._plugin.__wrapped__)
    assert cpu_kernels._plugin() is None
    monkeypatch.setattr(cpu_kernels, "LEAST_SAMPLES", 0)
    x, b, _ = inputs("planes", torch.float32)
    gain = 2**0.5
    steps = torch.nn.functional.leaky_relu(torch.add(b.reshape(1, -1, 1, 1) * gain, x, alpha=gain), 0.2).clamp(-1.2, 1.2)
    assert torch.equal(bias_act.bias_act(x, b, act="lrelu", clamp=1.2), steps)
