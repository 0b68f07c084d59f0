# SPDX-License-Identifier: Apache-2.0
"""torch_utils.ops.bias_act against its formula in numpy."""

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from torch_utils.ops.bias_act import activation_funcs, bias_act

# torch's own forward-mode derivatives and traces use its deprecated script compiler
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")

FLOAT64 = 1e-12  # a few operations on numbers of order 10 in double precision
FLOAT32 = 1e-5  # the same in single precision
HALF = 2e-2  # half precision carries 8 bits (bfloat16) or 11
PRINTED = 6e-6  # the check values below have five decimals

SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
FORMULAS = {
    "linear": lambda x, alpha: x,
    "relu": lambda x, alpha: np.maximum(x, 0),
    "lrelu": lambda x, alpha: np.where(x > 0, x, alpha * x),
    "tanh": lambda x, alpha: np.tanh(x),
    "sigmoid": lambda x, alpha: 1 / (1 + np.exp(-x)),
    "elu": lambda x, alpha: np.where(x >= 0, x, np.exp(x) - 1),
    "selu": lambda x, alpha: SELU_SCALE * np.where(x >= 0, x, SELU_ALPHA * (np.exp(x) - 1)),
    "softplus": lambda x, alpha: np.log(1 + np.exp(x)),
    "swish": lambda x, alpha: x / (1 + np.exp(-x)),
}
DEFAULT_GAINS = {name: math.sqrt(2) if name in ("relu", "lrelu", "swish") else 1 for name in FORMULAS}


def by_formula(x, b, act, alpha, gain, clamp):
    y = FORMULAS[act](x if b is None else x + b, 0.2 if alpha is None else alpha) * (DEFAULT_GAINS[act] if gain is None else gain)
    return y if clamp is None else np.minimum(np.maximum(y, -clamp), clamp)


@pytest.mark.parametrize("impl", ["ref", "cuda"])
@pytest.mark.parametrize("act", FORMULAS)
@given(
    seed=st.integers(0, 2**16),
    dim=st.sampled_from([None, 0, 1, 3]),
    alpha=st.sampled_from([None, 0.0, 0.3, 1.0, 1.7, -0.4]),
    gain=st.sampled_from([None, 1, 0.5, 0.0, -2.0]),
    clamp=st.sampled_from([None, 0, 0.8, np.float64(2)]),
)
@settings(max_examples=30, deadline=None)
def test_equals_the_formula(impl, act, seed, dim, alpha, gain, clamp):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 4, 5, generator=random, dtype=torch.float64)
    b = None if dim is None else torch.randn(x.shape[dim], generator=random, dtype=torch.float64)
    before = x.clone()
    y = bias_act(x, b, dim=0 if dim is None else dim, act=act, alpha=alpha, gain=gain, clamp=clamp, impl=impl)
    spread = None if dim is None else b.numpy().reshape([-1 if axis == dim else 1 for axis in range(4)])
    np.testing.assert_allclose(y.numpy(), by_formula(x.numpy(), spread, act, alpha, gain, clamp), atol=FLOAT64, rtol=FLOAT64)
    assert torch.equal(x, before)


@pytest.mark.parametrize("impl", ["ref", "cuda"])
@pytest.mark.parametrize(
    ("act", "expected"),
    [
        ("lrelu", [-0.56569, -0.42426, -0.28284, -0.14142, 0, 0.70711, 1.41421, 1.5, 1.5]),
        ("swish", [-0.33716, -0.38698, -0.38034, -0.26696, 0, 0.44015, 1.03387, 1.5, 1.5]),
    ],
)
def test_check_values_of_nvidia(act, expected, impl):
    x = torch.arange(-3, 1.5, 0.5)[:, None]
    y = bias_act(x, torch.ones(1), act=act, clamp=1.5, impl=impl)
    np.testing.assert_allclose(y[:, 0].numpy(), expected, atol=PRINTED)


@pytest.mark.parametrize("clamp", [None, 0.9])
@pytest.mark.parametrize("act", FORMULAS)
def test_first_and_second_derivatives(act, clamp):
    x = torch.tensor([[-2.0, -0.9, 0.3], [1.7, -0.2, 0.5]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([0.1, -0.15, 0.2], dtype=torch.float64, requires_grad=True)

    def squared(x, b):
        return bias_act(x, b, act=act, clamp=clamp).square()  # so that the second derivative of lrelu is not zero

    assert gradcheck(squared, [x, b], check_forward_ad=True)
    assert gradgradcheck(squared, [x, b])


@pytest.mark.parametrize("options", [{"alpha": -0.4}, {"alpha": 0.0}, {"gain": -2.0}, {"gain": -2.0, "clamp": 1}])
def test_unusual_options_keep_their_derivatives(options):
    x = torch.tensor([[-2.0, -0.3, 0.3, 1.7]], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: bias_act(x, act="lrelu", **options), [x])


def kinks_apart(*shape, seed=0):
    """Random numbers at least 0.01 away from 0 and from the clamp of the test below."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    near = (x.abs() < 0.01) | ((x.abs() * math.sqrt(2) - 1).abs() < 0.02) | ((x.abs() * 0.2 * math.sqrt(2) - 1).abs() < 0.02)
    return torch.where(near, x + 0.05, x)


@pytest.mark.parametrize("clamp", [None, 1.0])
@pytest.mark.parametrize("act", ["linear", "lrelu"])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_fast_gradients_equal_those_of_the_definition(act, clamp, memory_format):
    results = []
    for impl in ("ref", "cuda"):
        x = kinks_apart(2, 3, 5, 7).to(memory_format=memory_format).requires_grad_()
        b = torch.zeros(3, dtype=torch.float64, requires_grad=True)
        y = bias_act(x, b, act=act, clamp=clamp, impl=impl)
        dx, db = torch.autograd.grad(y.pow(3).sum(), [x, b], create_graph=True)
        second = torch.autograd.grad(dx.pow(2).sum() + db.pow(2).sum(), [x, b])
        results.append([y.detach(), dx.detach(), db.detach(), *second])
        assert y.is_contiguous(memory_format=memory_format) and dx.is_contiguous(memory_format=memory_format)
    torch.testing.assert_close(results[1], results[0], atol=1e-9, rtol=1e-9)


def test_no_gradient_flows_where_the_result_is_clamped():
    x = torch.tensor([[-9.0], [0.1], [9.0]], requires_grad=True)
    b = torch.zeros(1, requires_grad=True)
    bias_act(x, b, act="lrelu", gain=1, clamp=1).sum().backward()
    assert x.grad[:, 0].tolist() == [0, 1, 0] and b.grad.tolist() == [1]


def test_at_zero_the_slope_is_alpha():
    x = torch.zeros(1, 1, requires_grad=True)
    bias_act(x, act="lrelu", alpha=0.25, gain=1).sum().backward()
    assert x.grad.item() == 0.25


def test_derivatives_keep_the_result_only():
    kept = []
    x, b = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randn(3, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()), lambda _: None):
        bias_act(x, b, act="lrelu", clamp=1)
    assert sum(kept) == x.numel()


def test_per_sample_gradients_through_vmap():
    x, b = kinks_apart(3, 2, 4), torch.randn(4, dtype=torch.float64)

    def energy(x):
        return bias_act(x, b, act="lrelu").pow(2).sum()

    together = torch.func.vmap(torch.func.grad(energy))(x)
    torch.testing.assert_close(together, torch.stack([torch.func.grad(energy)(sample) for sample in x]), atol=FLOAT64, rtol=FLOAT64)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_can_be_saved_and_loaded():
    traced = torch.jit.trace(lambda x: bias_act(x, act="lrelu", clamp=1), torch.randn(2, 3))
    file = io.BytesIO()
    torch.jit.save(traced, file)  # refused if the trace calls Python
    file.seek(0)
    x = torch.randn(2, 3)
    torch.testing.assert_close(torch.jit.load(file)(x), bias_act(x, act="lrelu", clamp=1), atol=FLOAT32, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    x, b = torch.randn(2, 3, 4, 4), torch.randn(3)
    y = bias_act(x.to(dtype), b.to(dtype), act="lrelu", clamp=1)
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), bias_act(x, b, act="lrelu", clamp=1), atol=HALF, rtol=HALF)


def test_types_promote_as_in_the_definition():
    single, double = torch.randn(2, 3, requires_grad=True), torch.randn(3, dtype=torch.float64, requires_grad=True)
    y = bias_act(single, double, act="lrelu")
    y.sum().backward()
    assert y.dtype == torch.float64 and single.grad.dtype == torch.float32 and double.grad.dtype == torch.float64
    torch.testing.assert_close(y, bias_act(single, double, act="lrelu", impl="ref"), atol=FLOAT64, rtol=FLOAT64)


def test_whole_numbers_stay_whole():
    y = bias_act(torch.tensor([-5, 1, 5]), clamp=2)
    assert y.dtype == torch.int64 and y.tolist() == [-2, 1, 2]


def test_the_table_has_nvidias_fields():
    assert {name: spec.cuda_idx for name, spec in activation_funcs.items()} == {name: i + 1 for i, name in enumerate(FORMULAS)}
    assert {name: spec.def_gain for name, spec in activation_funcs.items()} == DEFAULT_GAINS
    assert {name: spec.def_alpha for name, spec in activation_funcs.items()} == {name: 0.2 if name == "lrelu" else 0 for name in FORMULAS}
    assert [name for name, spec in activation_funcs.items() if not spec.has_2nd_grad] == ["linear", "relu", "lrelu"]
    assert {name: spec.ref for name, spec in activation_funcs.items() if spec.ref != "y"} == {"linear": "", "swish": "x"}
    x = np.array([-1.0, 2.0])
    for name, spec in activation_funcs.items():
        np.testing.assert_allclose(spec.func(torch.from_numpy(x), alpha=0.2).numpy(), FORMULAS[name](x, 0.2), atol=FLOAT64)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"impl": "fast"}, AssertionError),
        ({"act": "gelu"}, KeyError),
        ({"clamp": -1}, AssertionError),
        ({"b": torch.zeros(4)}, AssertionError),
        ({"b": torch.zeros(3, 1)}, AssertionError),
        ({"b": torch.zeros(3), "dim": 2}, AssertionError),
        ({"b": torch.zeros(3), "dim": -1}, AssertionError),
    ],
)
def test_bad_arguments_are_refused(options, error):
    with pytest.raises(error):
        bias_act(torch.zeros(2, 3), **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("act", FORMULAS)
def test_on_a_gpu_values_and_two_gradients_equal_those_on_a_cpu(act):
    results = []
    for device in ("cpu", "cuda"):
        x = kinks_apart(2, 3, 5, 7).to(device).requires_grad_()
        y = bias_act(x, torch.zeros(3, dtype=torch.float64, device=device), act=act, clamp=1)
        (dx,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
        (ddx,) = torch.autograd.grad(dx.pow(2).sum(), x)
        results.append([tensor.detach().cpu() for tensor in (y, dx, ddx)])
    torch.testing.assert_close(results[1], results[0], atol=1e-9, rtol=1e-9)
