# SPDX-License-Identifier: Apache-2.0
"""bias_act, upfirdn2d and filtered_lrelu as operators of torch: schemas, shapes without data, derivatives, compilation, what computes them."""

import sys
import types

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from stylegan_redact.networks.stylegan3 import SynthesisNetwork as StyleGAN3
from torch_utils import custom_ops
from torch_utils.ops import cpu_kernels, definitions, gpu_kernels, gpu_launch, gpu_ops
from torch_utils.ops.bias_act import bias_act
from torch_utils.ops.filtered_lrelu import filtered_lrelu
from torch_utils.ops.upfirdn2d import upfirdn2d

FLOAT64 = 1e-10  # relative to the largest value, through two derivatives

OPS = torch.ops.stylegan_redact
# torch's own forward-mode derivatives and its compiler use its deprecated script compiler
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit", "ignore::DeprecationWarning")


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """CPU tensors go through the operators, as CUDA tensors do; the names of those that ran."""
    calls = []

    class Counted:
        def __getattr__(self, name):
            return lambda *args, **options: (calls.append(name), getattr(definitions, name)(*args, **options))[1]

    monkeypatch.setattr(gpu_ops, "usable", lambda x: True)
    monkeypatch.setattr(gpu_kernels, "provider", lambda device_type: Counted())
    return calls


def tensors(*shapes, seed=0):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random, dtype=torch.float64).requires_grad_() for shape in shapes]


def two_derivatives(function, inputs):
    """Value, gradients, and gradients of their square."""
    inputs = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    y = function(*inputs)
    first = torch.autograd.grad((y + 1).pow(3).sum(), inputs, create_graph=True)
    second = torch.autograd.grad(sum(gradient.pow(2).sum() for gradient in first), inputs, allow_unused=True)
    return [tensor.detach() for tensor in (y, *first, *second) if tensor is not None]


def agree(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=FLOAT64 * (1e-3 + float(b.abs().max())), rtol=0)


F4, F6 = torch.tensor([1.0, 3, 3, 1]) / 8, torch.randn(6, generator=torch.Generator().manual_seed(5))
CALLS = {
    "bias_act": lambda x, b, impl: bias_act(x, b, act="lrelu", clamp=1.5, impl=impl),
    "bias_act, curved": lambda x, b, impl: bias_act(x, b, act="swish", clamp=1.5, impl=impl),
    "upfirdn2d": lambda x, b, impl: upfirdn2d(
        x * b[:, None, None], torch.outer(F4, F6).to(x.device), up=[2, 3], down=[1, 2], padding=[3, 2, -1, 4], impl=impl
    ),
    "filtered_lrelu": lambda x, b, impl: filtered_lrelu(
        x, F6.to(x.device), torch.outer(F6, F4).to(x.device), b, 2, 2, padding=[4, 3, 5, 6], clamp=2, impl=impl
    ),
    "filtered_lrelu, straight": lambda x, b, impl: filtered_lrelu(x, F6.to(x.device), F4.to(x.device), b, 2, 1, padding=4, slope=1, impl=impl),
}


@pytest.mark.parametrize("name", CALLS)
def test_values_and_two_derivatives_are_those_of_the_reference(as_on_a_gpu, name):
    x, b = tensors([2, 3, 7, 6], [3])
    expected = two_derivatives(lambda x, b: CALLS[name](x, b, "ref"), [x, b])
    assert as_on_a_gpu == []
    agree(two_derivatives(lambda x, b: CALLS[name](x, b, "cuda"), [x, b]), expected)
    assert len(as_on_a_gpu) >= 3, "forward, gradient, its gradient"


@pytest.mark.parametrize("name", CALLS)
def test_derivatives_by_differences(as_on_a_gpu, name):
    inputs = tensors([1, 2, 3, 3], [2], seed=3)
    assert gradcheck(lambda x, b: CALLS[name](x, b, "cuda").square(), inputs)
    assert gradgradcheck(lambda x, b: CALLS[name](x, b, "cuda").square(), inputs)
    assert as_on_a_gpu


def test_a_third_derivative_of_a_curve_is_refused_in_one_sentence(as_on_a_gpu):
    (x,) = tensors([2, 3])
    (first,) = torch.autograd.grad(bias_act(x, act="swish").sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="third derivative of swish.*impl='ref'"):
        second.sum().backward()


HOW = (1, "swish", 0.0, 1.5, 1.0)
STRAIGHT = (1, "lrelu", 0.2, 1.5, 1.0)
PLAN = definitions.Plan((2, 2), (2, 2), (5, 5), (0, 0), (6, 5), (16, 15), (6, 5), 4.0, 1.0, 0.2, 1.5)


def samples():
    """Operator, arguments."""
    x, b, g, h = tensors([2, 3, 5, 6], [3], [2, 3, 5, 6], [2, 3, 5, 6])
    numbers, scales = gpu_ops._written(PLAN)
    signs = torch.randint(0, 3, definitions.signs_shape(x, PLAN), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    f5 = torch.randn(5, 5, generator=torch.Generator().manual_seed(2))
    by_pixel = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    yield OPS.bias_act, (x, b, *HOW)
    yield OPS.bias_act, (by_pixel, None, *STRAIGHT)
    yield OPS.bias_act_gradient, (g, x, b, *HOW)
    yield OPS.bias_act_gradient, (g, by_pixel, None, *STRAIGHT)
    yield OPS.bias_act_second, (g.detach(), h.detach(), x.detach(), b.detach(), *HOW)
    yield OPS.upfirdn2d, (x, f5, [2, 1], [1, 2], [3, 2, 4, 1], 2.0)
    yield OPS.upfirdn2d, (by_pixel, F6, [1, 1], [2, 2], [3, 2, 4, 1], 2.0)
    yield OPS.filtered_lrelu, (x, b, F6, f5[:4, :4].contiguous(), numbers, scales, True)
    yield OPS.filtered_lrelu, (by_pixel.detach(), None, F6, F4, numbers, scales, False)
    yield OPS.filtered_lrelu_gradient, (x, F4, F6, signs, numbers, scales)


@pytest.mark.parametrize("index", range(10))
def test_torchs_own_check_of_operators(index):
    op, args = list(samples())[index]
    torch.library.opcheck(op, args)


def test_a_network_compiles_as_one_graph_and_trains_alike(as_on_a_gpu):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = StyleGAN3(8, 16, 3, channel_base=64, channel_max=8, num_layers=4, num_critical=1, first_cutoff=1, first_stopband=2**2.1)
    ws = torch.randn(2, net.num_ws, 8, generator=torch.Generator().manual_seed(0))
    results = []
    for function in (net, torch.compile(net, backend="aot_eager", fullgraph=True)):
        as_on_a_gpu.clear()
        img = function(ws)
        results.append([img, *torch.autograd.grad(img.square().sum(), [net.get_submodule(net.layer_names[0]).weight])])
        assert as_on_a_gpu.count("filtered") >= 2 * 4, "every layer, there and back"
    torch._dynamo.reset()
    torch.testing.assert_close(results[1], results[0], atol=1e-5, rtol=1e-4)


def test_only_tensors_of_a_gpu_go_there():
    x, b = tensors([2, 3, 4, 4], [3])
    assert not gpu_ops.usable(x)
    meta = types.SimpleNamespace(device=torch.device("cuda"), dtype=torch.float16)
    assert gpu_ops.usable(meta)
    assert not gpu_ops.usable(types.SimpleNamespace(device=torch.device("cuda"), dtype=torch.int64))
    with torch.autograd.forward_ad.dual_level():
        assert not gpu_ops.usable(meta), "forward derivatives need torch's own operations"
    torch.func.vmap(lambda _: (_, pytest.fail("seen by vmap") if gpu_ops.usable(meta) else None)[0])(b)


def test_the_switch_forbids_kernels(monkeypatch):
    monkeypatch.setenv(cpu_kernels.SWITCH, "off")
    assert not gpu_ops.usable(types.SimpleNamespace(device=torch.device("cuda"), dtype=torch.float32))
    assert gpu_kernels._on_a_gpu.__wrapped__() is definitions, "and says nothing"


def test_without_nvcc_one_line_says_what_is_used_instead(monkeypatch):
    def refuse(*_args, **_options):
        raise RuntimeError('plugin "stylegan_gpu_plugin" cannot be compiled - nvcc is not on the PATH - install the CUDA toolkit or set CUDA_HOME')

    monkeypatch.delenv(cpu_kernels.SWITCH, raising=False)
    monkeypatch.setattr(custom_ops, "get_plugin", refuse)
    triton = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "torch_utils.ops.triton_kernels", triton)
    for there, answer, text in ((True, triton, "Triton's kernels are used"), (False, definitions, "torch's operations are used.*slow")):
        triton.AVAILABLE = there
        with pytest.warns(RuntimeWarning, match=f"nvcc is not on the PATH.*{text}.*{cpu_kernels.SWITCH}=off") as caught:
            assert gpu_kernels._on_a_gpu.__wrapped__() is answer
        assert len(caught) == 1 and "\n" not in str(caught[0].message)
    assert gpu_kernels.provider("cpu") is definitions


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnAGpu:
    """The compiled kernels themselves; `test_gpu_kernels.py` has run their bodies on a processor."""

    @pytest.mark.parametrize("name", CALLS)
    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    def test_values_and_two_derivatives_in_float64(self, name, layout):
        x, b = tensors([2, 8, 37, 41], [8])
        expected = two_derivatives(lambda x, b: CALLS[name](x, b, "ref"), [x, b])
        moved = [x.detach().cuda().contiguous(memory_format=layout), b.detach().cuda()]
        found = two_derivatives(lambda x, b: CALLS[name](x, b, "cuda"), moved)
        agree([tensor.cpu() for tensor in found], expected)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("name", CALLS)
    def test_other_precisions(self, name, dtype):
        x, b = (tensor.detach().to(dtype) for tensor in tensors([2, 8, 37, 41], [8]))
        expected = CALLS[name](x.double(), b.double(), "ref")
        found = CALLS[name](x.cuda(), b.cuda(), "cuda")
        tolerance = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}[dtype] * float(expected.abs().max())
        assert found.dtype == dtype and isinstance(gpu_kernels.provider("cuda"), gpu_launch.Kernels)
        torch.testing.assert_close(found.cpu().double(), expected, atol=tolerance, rtol=0)

    @pytest.mark.parametrize("radial", [False, True])
    @pytest.mark.parametrize(("up", "padding"), [(2, [9, 8]), (4, [-6, -9])])
    def test_the_layers_of_stylegan3(self, up, padding, radial):
        random = torch.Generator().manual_seed(0)
        fu, fd = torch.randn(6 * up, generator=random), torch.randn([12] * (2 if radial else 1), generator=random) / 12
        x, b = tensors([2, 5, 70, 67], [5])

        def function(x, b):
            impl = "cuda" if x.is_cuda else "ref"
            return filtered_lrelu(x, fu.to(x.device), fd.to(x.device), b, up, 2, padding, clamp=20, impl=impl)

        agree([tensor.cpu() for tensor in two_derivatives(function, [x.cuda(), b.cuda()])], two_derivatives(function, [x, b]))

    def test_a_graph_of_cuda_replays_them(self):
        x, b = (tensor.detach().float().cuda() for tensor in tensors([2, 8, 32, 32], [8]))
        call = CALLS["filtered_lrelu"]
        call(x, b, "cuda")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = call(x, b, "cuda")
        x.mul_(-1)
        graph.replay()
        torch.testing.assert_close(y, call(x, b, "cuda"), atol=0, rtol=0)
