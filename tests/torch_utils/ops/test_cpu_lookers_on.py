# SPDX-License-Identifier: Apache-2.0
"""Operations that were compiled for a CPU, and then their gradients meet what must see torch's own operations: transforms, traces, counters."""

import compiled
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from stylegan_redact.networks.stylegan2 import modulated_conv2d
from torch_utils.ops import bias_act, conv2d_gradfix, cpu_pointwise, cpu_winograd, filtered_lrelu, upfirdn2d
from torch_utils.ops.modulated_layer import modulated_layer

pytestmark = [
    compiled.needed,
    pytest.mark.filterwarnings("ignore:`torch.jit"),
    pytest.mark.filterwarnings("ignore:There is a performance drop"),  # of batches of gradients: torch takes some of them one by one
]
FILTER, SEPARABLE = upfirdn2d.setup_filter([1, 3, 3, 1]), upfirdn2d.setup_filter([1, 2, 1], separable=True)


@pytest.fixture
def kernels(monkeypatch):
    """Images of any size and any number of channels go to the compiled code, which is there."""
    for module in (cpu_winograd, cpu_pointwise):
        for name in ("LEAST_CHANNELS", "LEAST_SIDE_TO_DOUBLE", "LEAST_SIDE_OF_MANY", "PRODUCTS_OF_A_SAMPLE"):
            monkeypatch.setattr(module, name, 1, raising=False)
    return compiled.counted(monkeypatch)


def layer(up):
    """(x, weight, styles, noise, bias) => images, by a layer of StyleGAN2."""
    bend = dict(act="lrelu", gain=1.4, clamp=1.0)

    def steps(x, w, styles, noise, bias):
        return bias_act.bias_act(modulated_conv2d(x, w, styles, noise, up, 1, FILTER), bias, **bend)

    return lambda *tensors: modulated_layer(steps, *tensors, up=up, resample_filter=FILTER, padding=1, **bend)


X, W, B = (2, 4, 9, 9), (5, 4, 3, 3), (4,)
CASES = {  # shapes of tensors, function of them
    "3x3": ([X, W], lambda x, w: conv2d_gradfix.conv2d(x, w, padding=1)),
    "3x3, padding of an axis": ([X, W], lambda x, w: conv2d_gradfix.conv2d(x, w, padding=(0, 2))),
    "3x3, halving": ([X, W], lambda x, w: conv2d_gradfix.conv2d(x, w, stride=2)),
    "3x3, doubling": ([X, (4, 5, 3, 3)], lambda x, w: conv2d_gradfix.conv_transpose2d(x, w, stride=2)),
    "1x1": ([X, (5, 4, 1, 1)], conv2d_gradfix.conv2d),
    "bias_act": ([X, B], lambda x, b: bias_act.bias_act(x, b, act="lrelu", clamp=1)),
    "up": ([X], lambda x: upfirdn2d.upsample2d(x, FILTER)),
    "down": ([X], lambda x: upfirdn2d.downsample2d(x, SEPARABLE)),
    "filtered_lrelu": ([X, B], lambda x, b: filtered_lrelu.filtered_lrelu(x, FILTER, SEPARABLE, b, up=2, down=2, padding=4, clamp=1)),
    "layer": ([X, W, (2, 4), (9, 9), (5,)], layer(1)),
    "layer, enlarging": ([X, W, (2, 4), (2, 1, 18, 18), (5,)], layer(2)),
}


def inputs(name):
    random = torch.Generator().manual_seed(2)
    shapes, function = CASES[name]
    return [torch.randn(shape, generator=random).requires_grad_() for shape in shapes], function


def close(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert float((one - other).detach().abs().max()) <= 1e-5 * float(other.detach().abs().max())


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_batches_of_gradients_are_the_gradients(kernels, name, order):
    """And a gradient that has a derivative itself."""
    tensors, function = inputs(name)
    y = function(*tensors)
    assert kernels.calls
    if order == 2:
        y = torch.autograd.grad(y.square().sum(), tensors, create_graph=True)[0]
    several = torch.randn(3, *y.shape, generator=torch.Generator().manual_seed(3))

    def gradients(dy, **options):
        return torch.autograd.grad(y, tensors, dy, retain_graph=True, **options)

    expected = [torch.stack(each) for each in zip(*map(gradients, several), strict=True)]
    close(gradients(several, is_grads_batched=True), expected)
    close(torch.func.vmap(gradients)(several), expected)
    with forward_ad.dual_level():
        found = [forward_ad.unpack_dual(each).tangent for each in gradients(forward_ad.make_dual(several[0], several[1]))]
    close(found, [each[1] for each in expected])


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:.torch.cpu.amp.autocast:FutureWarning")  # torch 2.4 does what it warns of.
def test_a_checkpoint_computes_again(kernels, name, create_graph):
    tensors, function = inputs(name)
    expected = torch.autograd.grad(function(*tensors).square().sum(), tensors)
    y = checkpoint(function, *tensors, use_reentrant=False)
    close(torch.autograd.grad(y.square().sum(), tensors, create_graph=create_graph), expected)


@pytest.mark.parametrize("name", CASES)
def test_a_trace_computes_anew(kernels, name):
    tensors, function = inputs(name)
    tensors = [tensor.detach() for tensor in tensors]
    traced = make_fx(lambda x: function(x, *tensors[1:]))(tensors[0])
    close([traced(tensors[0] + 1)], [function(tensors[0] + 1, *tensors[1:])])


@pytest.mark.filterwarnings("ignore")  # torch's own, while it compiles
def test_torchs_compiler_takes_factors_that_it_does_not_know(kernels):
    x = torch.randn(X)
    expected = upfirdn2d.upsample2d(x, FILTER, up=3)
    kernels.calls.clear()
    torch.compiler.reset()
    found = torch.compile(lambda x, factor: upfirdn2d.upsample2d(x, FILTER, up=factor), backend="eager", dynamic=True)(x, 3)
    assert not kernels.calls
    close([found], [expected])


def test_tensors_without_memory_and_counters(kernels):
    with FakeTensorMode():
        y = conv2d_gradfix.conv2d(torch.randn(X), torch.randn(W), padding=1)
    assert y.shape == (2, 5, 9, 9)
    tensors, function = inputs("3x3")
    with FlopCounterMode(display=False) as counter:
        y = function(*tensors)
    assert counter.get_total_flops() == 2 * y.numel() * 4 * 9
    x = torch._neg_view(tensors[0].detach())
    close([function(x, tensors[1])], [function(-tensors[0], tensors[1])])
