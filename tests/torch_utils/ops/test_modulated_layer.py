# SPDX-License-Identifier: Apache-2.0
"""The compiled layer of StyleGAN2 and its derivatives against the definition in float64; what it leaves to the steps."""

import compiled
import pytest
import torch
import torch.nn.functional as F

from stylegan_redact.networks.stylegan2 import Generator, SynthesisLayer
from torch_utils.ops import cpu_winograd, upfirdn2d
from torch_utils.ops.modulated_layer import modulated_layer

pytestmark = [compiled.needed, pytest.mark.filterwarnings("ignore:`torch.jit")]
FILTER = upfirdn2d.setup_filter([1, 3, 3, 1])
BOUND = 1e-5
LRELU, LINEAR, CLAMPED = dict(act="lrelu", gain=1.4, clamp=None), dict(act="linear", gain=0.5, clamp=None), dict(act="lrelu", gain=1.4, clamp=1.0)


@pytest.fixture
def kernels(monkeypatch):
    """Images of any size and any number of channels go to the compiled code, which is there."""
    for name in ("LEAST_CHANNELS", "LEAST_SIDE_TO_DOUBLE", "LEAST_SIDE_OF_MANY", "PRODUCTS_OF_A_SAMPLE"):
        monkeypatch.setattr(cpu_winograd, name, 1)
    return compiled.counted(monkeypatch)


def definition(up, act, gain, clamp):
    """The layer as its paper says it: a kernel for each sample, zeros inserted, filtered."""

    def steps(x, weight, styles, noise, bias):
        images = []
        for image, style in zip(x, styles, strict=True):
            kernel = weight * style[:, None, None]
            kernel = kernel / (kernel.square().sum(dim=[1, 2, 3], keepdim=True) + 1e-8).sqrt()
            if up == 1:
                images.append(F.conv2d(image[None], kernel, padding=1))
                continue
            y = F.conv_transpose2d(image[None], kernel.transpose(0, 1), stride=2)
            taps = 4 * FILTER.flip([0, 1]).to(x.dtype)[None, None].expand(len(kernel), 1, 4, 4)
            images.append(F.conv2d(y, taps, padding=1, groups=len(kernel)))
        y = torch.cat(images) + (0 if noise is None else noise) + bias[:, None, None]
        y = gain * (F.leaky_relu(y, 0.2) if act == "lrelu" else y)
        return y if clamp is None else y.clamp(-clamp, clamp)

    return steps


def inputs(n, i, o, side, up, noise):
    random = torch.Generator().manual_seed(7)
    sizes = {"one": (side * up, side * up), "shared": (1, 1, side * up, side * up), "each": (n, 1, side * up, side * up), "none": None}[noise]
    shapes = [(n, i, side, side), (o, i, 3, 3), (n, i), sizes, (o,)]
    return [None if shape is None else torch.randn(shape, generator=random) for shape in shapes]


def everything(layer, tensors, second):
    """Value, gradients, and, if wanted, the gradients of their squares."""
    tensors = [tensor if tensor is None else tensor.detach().requires_grad_() for tensor in tensors]
    there = [tensor for tensor in tensors if tensor is not None]
    y = layer(*tensors)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(8)).to(y.dtype)
    first = torch.autograd.grad(y, there, dy, create_graph=second)
    found = [y, *first]
    if second:
        found += torch.autograd.grad(sum((gradient / gradient.detach().abs().max()).pow(2).sum() for gradient in first), there, allow_unused=True)
    return [tensor.detach() for tensor in found if tensor is not None]


def compare(kernels, case, bend, up, second=False):
    tensors = inputs(*case)
    steps = definition(up, **bend)
    options = dict(up=up, resample_filter=FILTER, padding=1, **bend)
    found = everything(lambda *each: modulated_layer(steps, *each, **options), tensors, second)
    expected = everything(steps, [tensor if tensor is None else tensor.double() for tensor in tensors], second)
    assert len(found) == len(expected)
    assert "winograd" in kernels.calls
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert float((one - other).abs().max()) <= BOUND * float(other.abs().max())


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("noise", ["one", "shared", "each", "none"])
@pytest.mark.parametrize(("n", "i", "o", "side"), [(1, 3, 5, 4), (2, 20, 18, 7), (3, 33, 16, 12)])
def test_value_and_gradients_are_those_of_the_definition(kernels, n, i, o, side, noise, up):
    compare(kernels, (n, i, o, side, up, noise), LRELU, up)


@pytest.mark.parametrize("up", [1, 2])
def test_a_layer_without_activation(kernels, up):
    compare(kernels, (2, 20, 18, 6, up, "shared"), LINEAR, up)


@pytest.mark.parametrize("up", [1, 2])
def test_clamped_values_pass_no_gradient(kernels, up):
    compare(kernels, (2, 20, 18, 6, up, "each"), CLAMPED, up)


@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("noise", ["one", "none"])
def test_gradients_of_gradients(kernels, noise, up):
    compare(kernels, (2, 17, 9, 6, up, noise), LRELU, up, second=True)


@pytest.mark.parametrize("create_graph", [False, True])
def test_an_input_made_of_another_and_a_hook_count_once(kernels, create_graph):
    x, weight, _, noise, bias = inputs(2, 16, 16, 8, 1, "one")
    steps, options, calls = definition(1, **LRELU), dict(up=1, resample_filter=FILTER, padding=1, **LRELU), []

    def gradients(layer, tensors):
        x, weight, *rest = tensors
        images = x * 1
        y = layer(images, weight, images.mean(dim=[2, 3]), *rest)
        for tensor in (images, weight):
            tensor.register_hook(lambda gradient: (calls.append(1), 2 * gradient)[1])
        return torch.autograd.grad(y.square().sum(), [x, weight], create_graph=create_graph)

    tensors = [tensor.requires_grad_() for tensor in (x, weight, noise, bias)]
    found = gradients(lambda *each: modulated_layer(steps, *each, **options), tensors)
    assert len(calls) == 2
    assert "winograd" in kernels.calls
    for one, other in zip(found, gradients(steps, [tensor.detach().double().requires_grad_() for tensor in tensors]), strict=True):
        assert float((one - other).detach().abs().max()) <= BOUND * float(other.detach().abs().max())


@pytest.mark.parametrize("up", [1, 2])
def test_many_channels_are_taken_in_groups(kernels, up):
    compare(kernels, (2, 190, 300, 8, up, "one"), LRELU, up)


def test_only_what_is_asked_for_is_made(kernels):
    """Of frozen weights no gradient is computed."""
    x, weight, styles, noise, bias = inputs(1, 16, 16, 8, 1, "one")
    options = dict(up=1, resample_filter=FILTER, padding=1, **LRELU)
    y = modulated_layer(definition(1, **LRELU), x.requires_grad_(), weight, styles, noise, bias, **options)
    y.sum().backward()
    assert "winograd_kernels" not in kernels.calls
    assert x.grad is not None


def test_threads_change_no_bit(kernels):
    def bits(threads):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return everything(lambda *each: modulated_layer(None, *each, up=2, resample_filter=FILTER, padding=1, **LRELU), tensors, False)
        finally:
            torch.set_num_threads(before)

    tensors = inputs(2, 40, 70, 40, 2, "each")
    assert all(torch.equal(one, other) for one, other in zip(bits(1), bits(3), strict=True))


UNSUITABLE = {
    "float64": lambda t: [tensor.double() for tensor in t],
    "pixels": lambda t: [t[0].contiguous(memory_format=torch.channels_last), *t[1:]],
    "styles with gaps": lambda t: [*t[:2], t[2].repeat_interleave(2, dim=1)[:, ::2], *t[3:]],
    "one style for all": lambda t: [*t[:2], t[2][:1], *t[3:]],
    "noise for each channel": lambda t: [*t[:3], torch.zeros(2, 16, 8, 8), t[4]],
}


@pytest.mark.parametrize("kind", UNSUITABLE)
def test_other_tensors_go_through_the_steps(kernels, kind):
    tensors = UNSUITABLE[kind](inputs(2, 16, 16, 8, 1, "one"))
    seen = []
    modulated_layer(lambda *each: seen.append(each), *tensors, up=1, resample_filter=FILTER, padding=1, **LRELU)
    assert len(seen) == 1
    assert not kernels.calls


@pytest.mark.parametrize("change", [dict(padding=0), dict(act="tanh"), dict(gain=-1.0), dict(up=4)])
def test_other_layers_go_through_the_steps(kernels, change):
    seen = []
    options = dict(up=1, resample_filter=FILTER, padding=1, **LRELU) | change
    modulated_layer(lambda *each: seen.append(each), *inputs(2, 16, 16, 8, 1, "none"), **options)
    assert len(seen) == 1
    assert not kernels.calls


@pytest.mark.parametrize("up", [1, 2])
def test_layers_of_a_network_take_it(kernels, up):
    layer = SynthesisLayer(16, 16, 32, 8 * up, up=up)
    layer(torch.randn(2, 16, 8, 8), torch.randn(2, 32), noise_mode="const")
    assert kernels.calls.count("winograd") == 1
    assert kernels.calls.count("finish_layer") == up - 1


def test_a_network_draws_and_learns_as_with_the_steps(kernels, monkeypatch):
    torch.manual_seed(1)
    G = Generator(z_dim=32, c_dim=0, w_dim=32, img_resolution=32, img_channels=3, channel_base=1024, channel_max=48)
    for layer in G.modules():
        if isinstance(layer, SynthesisLayer):
            torch.nn.init.constant_(layer.noise_strength, 0.1)
    ws = torch.randn(2, 1, 32).repeat(1, G.num_ws, 1)

    def run():
        images = G.synthesis(ws, noise_mode="const")
        return images.detach(), torch.autograd.grad(images.square().mean(), list(G.synthesis.parameters()), allow_unused=True)

    images, gradients = run()
    kernels.calls.clear()
    monkeypatch.setattr(cpu_winograd, "LEAST_CHANNELS", 10**6)
    expected, wanted = run()
    assert "winograd" not in kernels.calls
    assert torch.allclose(images, expected, atol=2e-5 * float(expected.abs().max()))
    for one, other in zip(gradients, wanted, strict=True):
        assert (one is None) == (other is None)
        assert one is None or float((one - other).abs().max()) <= 1e-4 * float(other.abs().max())


def test_what_the_compiled_code_would_leave_out_is_refused(kernels):
    """Enlarged images are finished after their filter, and norms are of styles."""
    x, weight, styles, _, bias = inputs(1, 16, 16, 8, 1, "none")
    with pytest.raises(RuntimeError, match="after its filter"):
        kernels.module.winograd(x, weight.transpose(0, 1), 0, 0, 2, True, styles, True, None, bias, 1.0, 1.0, 1.0)
    with pytest.raises(RuntimeError, match="of scales"):
        kernels.module.winograd(x, weight, 1, 1, 1, False, None, True)
