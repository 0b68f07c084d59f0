# SPDX-License-Identifier: Apache-2.0
"""Our StyleGAN2 against its definition, and against the names, shapes, counts and defaults that tools rely on."""

from __future__ import annotations

import ast
import copy
import inspect
import math
from pathlib import Path
from typing import Any

import pytest
import slow_stylegan2
import torch

from stylegan_redact.networks import stylegan2
from stylegan_redact.networks.stylegan2 import Discriminator, Generator, MappingNetwork, MinibatchStdLayer, modulated_conv2d

# float32 against float64 through some ten layers with values up to about 10.
NETWORK_TOLERANCE = 5e-5
# float32, one layer; the two forms of modulated convolution round differently.
FUSED_TOLERANCE = 1e-5
ARCHITECTURES = ["skip", "orig", "resnet"]
RESOLUTION, LAYERS = 16, 3
SMALL: dict[str, Any] = dict(channel_base=128, channel_max=12)  # channels 12, 12, 8 at 4, 8, 16 px


def shaken(net: torch.nn.Module, seed: int = 0) -> Any:
    """In eval mode, with values where a new network has zeros and ones."""
    random = torch.Generator().manual_seed(seed)
    net.eval().requires_grad_(False)
    for name, tensor in net.state_dict().items():
        if not name.endswith("resample_filter"):
            scale = (0.5 if tensor.ndim < 2 else 1) * (100 if name.startswith("mapping.fc") else 1)  # The mapping learns at a hundredth.
            tensor.copy_(torch.randn(tensor.shape, generator=random) * scale + (1 if "affine.bias" in name else 0))
    return net


def generator(architecture: str = "skip", c_dim: int = 0, **synthesis: Any) -> Any:
    kwargs = SMALL | synthesis
    return shaken(Generator(5, c_dim, 6, RESOLUTION, 3, mapping_kwargs=dict(num_layers=LAYERS), architecture=architecture, **kwargs))


def discriminator(architecture: str = "resnet", c_dim: int = 0, **kwargs: Any) -> Any:
    return shaken(Discriminator(c_dim, RESOLUTION, 3, architecture=architecture, **(SMALL | kwargs)))


def double(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.double() for name, tensor in net.state_dict().items()}


def draw(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_near(found: torch.Tensor, expected: torch.Tensor, tolerance: float = NETWORK_TOLERANCE) -> None:
    assert found.dtype == torch.float32 and found.shape == expected.shape
    assert float((found - expected).abs().max()) < tolerance


# The definition.


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("noise_mode", "clamp", "num_images"), [("const", None, 3), ("none", 1.5, 1)])
def test_synthesis_is_what_the_definition_gives(architecture: str, noise_mode: str, clamp: float | None, num_images: int) -> None:
    """One image takes the fused path, several the other one."""
    G, ws = generator(architecture, conv_clamp=clamp), draw(num_images, 6, 6)
    expected = slow_stylegan2.synthesis(double(G), ws.double(), RESOLUTION, architecture, noise_mode=noise_mode, clamp=clamp)
    assert_near(G.synthesis(ws, noise_mode=noise_mode), expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("c_dim", "clamp"), [(0, None), (3, 0.7)])
def test_discriminator_is_what_the_definition_gives(architecture: str, c_dim: int, clamp: float | None) -> None:
    D = discriminator(architecture, c_dim, conv_clamp=clamp)
    img, c = draw(8, 3, RESOLUTION, RESOLUTION), draw(8, 3, seed=2) if c_dim else None
    expected = slow_stylegan2.discriminator(double(D), img.double(), c if c is None else c.double(), architecture, clamp=clamp)
    assert_near(D(img, c), expected)


@pytest.mark.parametrize("c_dim", [0, 3])
def test_mapping_is_what_the_definition_gives(c_dim: int) -> None:
    G, z, c = generator(c_dim=c_dim), draw(4, 5), draw(4, 3, seed=2) if c_dim else None
    expected = slow_stylegan2.mapping(double(G), z.double(), c if c is None else c.double(), layers=LAYERS)
    ws = G.mapping(z.double(), c)
    assert_near(ws, expected.float().unsqueeze(1).expand(-1, 6, -1))
    assert torch.equal(G(z, c, noise_mode="const"), G.synthesis(ws, noise_mode="const"))


def test_every_class_matters() -> None:
    G, z = generator(c_dim=3), draw(1, 5)
    images = G(z.repeat(3, 1), torch.eye(3), noise_mode="const")
    assert float((images[0] - images[1]).abs().max()) > 0.01
    with pytest.raises(AssertionError):
        G(z, torch.ones(1, 2))


# Noise, truncation, moving average.


def test_noise_modes() -> None:
    G, ws = generator(), draw(2, 6, 6)
    assert torch.equal(G.synthesis(ws, noise_mode="const"), G.synthesis(ws, noise_mode="const"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, second = G.synthesis(ws), G.synthesis(ws[:1].repeat(2, 1, 1))
    modes = [first, G.synthesis(ws, noise_mode="random"), G.synthesis(ws, noise_mode="const"), G.synthesis(ws, noise_mode="none")]
    assert all(float((a - b).abs().max()) > 0.01 for i, a in enumerate(modes) for b in modes[:i]), "random is the default and never the same"
    assert float((second[0] - second[1]).abs().max()) > 0.01, "each image has noise of its own"
    with pytest.raises(AssertionError):
        G.synthesis(ws, noise_mode="constant")


def test_without_noise_there_is_nothing_to_draw() -> None:
    G, ws = generator(use_noise=False), draw(1, 6, 6)
    assert torch.equal(G.synthesis(ws), G.synthesis(ws, noise_mode="none")) and not any("noise" in name for name in G.state_dict())


@pytest.mark.parametrize(("psi", "cutoff"), [(0.7, None), (0.0, 3), (-1.0, 1), (0.5, 6), (1.3, 2)])
def test_truncation(psi: float, cutoff: int | None) -> None:
    G, z = generator(), draw(3, 5)
    ws, average = G.mapping(z, None), G.mapping.w_avg
    expected = ws.clone()
    expected[:, :cutoff] = average + psi * (ws[:, :cutoff] - average)
    found = G.mapping(z, None, truncation_psi=psi, truncation_cutoff=cutoff)
    assert_near(found, expected, 1e-6)
    assert torch.equal(found[:, cutoff or 6 :], ws[:, cutoff or 6 :])
    assert torch.equal(G(z, None, truncation_psi=psi, truncation_cutoff=cutoff, noise_mode="const"), G.synthesis(found, noise_mode="const"))


def test_moving_average_moves_only_when_asked() -> None:
    G, z = generator(), draw(50, 5)
    before = G.mapping.w_avg.clone()
    ws = G.mapping(z, None)
    assert torch.equal(G.mapping.w_avg, before)
    G(z, None, update_emas=True)
    assert_near(G.mapping.w_avg, 0.998 * before + 0.002 * ws[:, 0].mean(0), 1e-6)
    assert not torch.equal(G.mapping.w_avg, before) and not G.mapping.w_avg.requires_grad


# Modulated convolution.


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("up", [1, 2])
def test_both_forms_of_modulation_agree(up: int, demodulate: bool) -> None:
    x, weight, styles = draw(3, 4, 6, 6), draw(5, 4, 3, 3, seed=2), draw(3, 4, seed=3)
    taps, noise = torch.outer(slow_stylegan2.FILTER, slow_stylegan2.FILTER).float() / 64, draw(3, 1, 6 * up, 6 * up, seed=4)
    both = [modulated_conv2d(x, weight, styles, noise, up, 1, taps, demodulate=demodulate, fused=fused) for fused in (True, False)]
    assert_near(both[0], both[1], FUSED_TOLERANCE)
    assert float((both[0] - modulated_conv2d(x, weight, styles, None, up, 1, taps, demodulate=demodulate)).abs().max()) > 0.1


@pytest.mark.parametrize("fused", [True, False])
def test_demodulation_gives_every_output_channel_unit_norm(fused: bool) -> None:
    """The answers to unit impulses are the weights in effect."""
    weight, styles = draw(5, 4, 1, 1), draw(1, 4, seed=2)
    impulses = torch.eye(4).reshape(1, 4, 2, 2)  # [1, i, h, w]: input channel i fires at pixel i alone
    effective = modulated_conv2d(impulses, weight, styles, fused=fused).flatten(2)[0]  # [o, i]
    assert_near(effective.square().sum(1), torch.ones(5), 1e-5)
    assert_near(effective, torch.nn.functional.normalize(weight[:, :, 0, 0] * styles), 1e-5)
    assert_near(modulated_conv2d(impulses, weight, 100 * styles, fused=fused).flatten(2)[0], effective, 1e-5)
    assert_near(modulated_conv2d(impulses, weight, styles, demodulate=False, fused=fused).flatten(2)[0], weight[:, :, 0, 0] * styles, 1e-5)


@pytest.mark.parametrize(("group", "channels", "num"), [(4, 1, 8), (2, 3, 4), (None, 2, 6), (4, 1, 2), (4, 1, 1)])
def test_minibatch_std(group: int | None, channels: int, num: int) -> None:
    x = draw(num, 6, 4, 4)
    assert_near(MinibatchStdLayer(group, channels)(x), slow_stylegan2.minibatch_std(x.double(), group, channels), 1e-6)


# What tools rely on.


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("c_dim", [0, 3])
def test_names_and_shapes_in_the_generator(architecture: str, c_dim: int) -> None:
    channels, taps = {4: 12, 8: 12, 16: 8}, [4, 4]
    expected: dict[str, list[int]] = {"mapping.w_avg": [6], "synthesis.b4.const": [12, 4, 4]}
    sizes = [5 + 6 * (c_dim > 0), 6, 6, 6]
    expected |= {f"mapping.fc{i}.{part}": shape for i in range(LAYERS) for part, shape in [("weight", [6, sizes[i]]), ("bias", [6])]}
    if c_dim:
        expected |= {"mapping.embed.weight": [6, c_dim], "mapping.embed.bias": [6]}
    for r, out in channels.items():
        block = f"synthesis.b{r}"
        expected[f"{block}.resample_filter"] = taps
        for name, into in [("conv0", channels.get(r // 2)), ("conv1", out)]:
            if into is not None:
                parts = {"weight": [out, into, 3, 3], "bias": [out], "noise_strength": [], "noise_const": [r, r], "resample_filter": taps}
                parts |= {"affine.weight": [into, 6], "affine.bias": [into]}
                expected |= {f"{block}.{name}.{part}": shape for part, shape in parts.items()}
        if architecture == "skip" or r == RESOLUTION:
            parts = {"weight": [3, out, 1, 1], "bias": [3], "affine.weight": [out, 6], "affine.bias": [out]}
            expected |= {f"{block}.torgb.{part}": shape for part, shape in parts.items()}
        if architecture == "resnet" and r > 4:
            expected |= {f"{block}.skip.weight": [out, channels[r // 2], 1, 1], f"{block}.skip.resample_filter": taps}
    G = generator(architecture, c_dim)
    assert {name: list(tensor.shape) for name, tensor in G.state_dict().items()} == expected
    assert {name.rpartition(".")[2] for name, _ in G.named_buffers()} == {"w_avg", "resample_filter", "noise_const"}
    assert G.num_ws == G.mapping.num_ws == G.synthesis.num_ws == 6


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("c_dim", [0, 3])
def test_names_and_shapes_in_the_discriminator(architecture: str, c_dim: int) -> None:
    channels, taps = {4: 12, 8: 12, 16: 8}, [4, 4]
    expected: dict[str, list[int]] = {}
    for r in (16, 8):
        layers = {"conv0": [channels[r], channels[r], 3, 3], "conv1": [channels[r // 2], channels[r], 3, 3]}
        if r == RESOLUTION or architecture == "skip":
            layers["fromrgb"] = [channels[r], 3, 1, 1]
        expected |= {f"b{r}.resample_filter": taps}
        if architecture == "resnet":
            expected |= {f"b{r}.skip.weight": [channels[r // 2], channels[r], 1, 1], f"b{r}.skip.resample_filter": taps}
        for name, shape in layers.items():
            expected |= {f"b{r}.{name}.weight": shape, f"b{r}.{name}.bias": shape[:1], f"b{r}.{name}.resample_filter": taps}
    last = {"conv": [12, 13, 3, 3]} | ({"fromrgb": [12, 3, 1, 1]} if architecture == "skip" else {})
    for name, shape in last.items():
        expected |= {f"b4.{name}.weight": shape, f"b4.{name}.bias": shape[:1], f"b4.{name}.resample_filter": taps}
    answers = 12 if c_dim else 1
    expected |= {"b4.fc.weight": [12, 192], "b4.fc.bias": [12], "b4.out.weight": [answers, 12], "b4.out.bias": [answers]}
    if c_dim:
        expected |= {"mapping.embed.weight": [12, c_dim], "mapping.embed.bias": [12]}
        expected |= {f"mapping.fc{i}.{part}": shape for i in range(8) for part, shape in [("weight", [12, 12]), ("bias", [12])]}
    D = discriminator(architecture, c_dim)
    assert {name: list(tensor.shape) for name, tensor in D.state_dict().items()} == expected
    assert {name.rpartition(".")[2] for name, _ in D.named_buffers()} == {"resample_filter"}


def test_filters_of_layers_that_do_not_resample_stay_the_default() -> None:
    """So it is in NVIDIA's files: a filter of another length has another shape, where it is used and nowhere else."""
    G, D = generator("resnet", resample_filter=[1, 2, 1]), discriminator(block_kwargs=dict(resample_filter=[1, 2, 1]))
    other = {name for net in (G, D) for name, tensor in net.state_dict().items() if list(tensor.shape) == [3, 3]}
    in_G = {f"synthesis.b{r}.{part}resample_filter" for r in (8, 16) for part in ("", "conv0.", "skip.")} | {"synthesis.b4.resample_filter"}
    assert other == in_G | {f"b{r}.{part}resample_filter" for r in (8, 16) for part in ("", "conv1.", "skip.")}


def count(net: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def test_parameter_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the published networks at 1024 and 256 pixels."""
    monkeypatch.setattr(torch, "randn", torch.empty)  # Nobody looks at the values.
    assert count(Generator(512, 0, 512, 1024, 3)) == 30_370_060
    assert count(Discriminator(0, 1024, 3)) == 29_012_513
    assert count(Generator(512, 0, 512, 256, 3, channel_base=16384)) == 24_767_458


def test_defaults_are_those_of_the_stylegan3_repository() -> None:
    G, D = Generator(4, 0, 4, 64, 3, channel_max=4), Discriminator(0, 64, 3, channel_max=4)
    assert (G.mapping.num_layers, G.mapping.w_avg_beta, G.mapping.fc0.bias_gain, G.synthesis.num_fp16_res) == (8, 0.998, 0.01, 4)
    assert [G.synthesis.b64.conv1.conv_clamp, G.synthesis.b64.torgb.conv_clamp, D.b64.conv0.conv_clamp, D.b4.conv.conv_clamp] == [256] * 4
    assert [r for r in (4, 8, 16, 32, 64) if getattr(G.synthesis, f"b{r}").use_fp16] == [8, 16, 32, 64]
    assert (G.synthesis.b64.architecture, D.b64.architecture, D.b4.mbstd.group_size, D.b4.mbstd.num_channels) == ("skip", "resnet", 4, 1)
    assert inspect.signature(G.forward).parameters.keys() >= {"z", "c", "truncation_psi", "truncation_cutoff", "update_emas"}
    assert list(inspect.signature(D.forward).parameters) == ["img", "c", "update_emas", "force_fp32"]
    assert "ws" in inspect.signature(G.synthesis.forward).parameters, "tools call synthesis(ws=...)"


@pytest.mark.parametrize(("resolution", "expected"), [(4, 2), (8, 4), (64, 10)])
def test_num_ws(resolution: int, expected: int) -> None:
    G = Generator(4, 0, 4, resolution, 1, channel_max=2)
    assert G.num_ws == expected and G(draw(1, 4), None).shape == (1, 1, resolution, resolution)


def test_ws_may_be_float64_but_not_of_another_shape() -> None:
    G, ws = generator(), draw(2, 6, 6)
    assert torch.equal(G.synthesis(ws.double(), noise_mode="const"), G.synthesis(ws, noise_mode="const"))
    for wrong in (ws[:, :5], ws[:, :, :5], ws[:, 0]):
        with pytest.raises(AssertionError):
            G.synthesis(wrong)
    with pytest.raises(AssertionError):
        G.mapping(draw(2, 6), None)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_reach_every_parameter(architecture: str) -> None:
    G, D = generator(architecture, c_dim=3).requires_grad_(True), discriminator(architecture, c_dim=3).requires_grad_(True)
    c = torch.eye(3)[[0, 1]]
    D(G(draw(2, 5), c, noise_mode="const"), c).sum().backward()
    for net in (G, D):
        assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_frozen_layers_are_buffers_of_the_same_names(architecture: str) -> None:
    free, frozen = (discriminator(architecture, block_kwargs=dict(freeze_layers=number)) for number in (0, 5))
    order = {
        "skip": ["b16.fromrgb", "b16.conv0", "b16.conv1", "b8.fromrgb", "b8.conv0"],
        "orig": ["b16.fromrgb", "b16.conv0", "b16.conv1", "b8.conv0", "b8.conv1"],
        "resnet": ["b16.fromrgb", "b16.conv0", "b16.conv1", "b16.skip", "b8.conv0"],
    }[architecture]
    shapes = [{name: tensor.shape for name, tensor in D.state_dict().items()} for D in (free, frozen)]
    assert shapes[0] == shapes[1]
    gone = {name for name, _ in free.named_parameters()} - {name for name, _ in frozen.named_parameters()}
    assert gone == {f"{layer}.{part}" for layer in order for part in ("weight", "bias")} - {"b16.skip.bias"}
    frozen.load_state_dict(free.state_dict())
    img = draw(4, 3, 16, 16)
    assert torch.equal(free(img, None), frozen(img, None))


def test_half_precision_is_for_gpus() -> None:
    G, D, ws = generator(num_fp16_res=4), discriminator(num_fp16_res=4), draw(2, 6, 6)
    img = G.synthesis(ws, noise_mode="const")
    assert G.synthesis.b16.use_fp16 and img.dtype == torch.float32
    assert torch.equal(img, G.synthesis(ws, noise_mode="const", force_fp32=True))
    assert torch.equal(D(img, None), D(img, None, force_fp32=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("channels_last", [False, True])
def test_half_precision_on_a_gpu_is_near(channels_last: bool) -> None:
    kwargs = dict(num_fp16_res=2, conv_clamp=256)
    G = generator(fp16_channels_last=channels_last, **kwargs).cuda()
    D = discriminator(block_kwargs=dict(fp16_channels_last=channels_last), **kwargs).cuda()
    ws = draw(4, 6, 6).cuda()
    half, full = (G.synthesis(ws, noise_mode="const", force_fp32=force) for force in (False, True))
    logits, exact = (D(full, None, force_fp32=force) for force in (False, True))
    for near, right in ((half, full), (logits, exact)):
        error = float((near - right).abs().max() / right.abs().max())
        assert near.dtype == torch.float32 and 0 < error < 2e-2, "float16 has 11 bits; 0 would mean that it was not used"


def test_a_copy_is_the_same_network() -> None:
    G = generator("resnet", c_dim=3)
    twin = copy.deepcopy(G)
    assert type(twin) is type(G) and twin.init_kwargs == G.init_kwargs and twin.init_args == (5, 3, 6, 16, 3)
    assert all(torch.equal(tensor, twin.state_dict()[name]) for name, tensor in G.state_dict().items())


def test_mapping_without_ws_or_moving_average() -> None:
    mapping = MappingNetwork(0, 3, 6, num_ws=None, w_avg_beta=None)
    assert mapping(None, torch.eye(3)).shape == (3, 6) and not hasattr(mapping, "w_avg")


# The source travels in the pickles.

MAY_USE = {
    "misc": {"profiled_function", "assert_shape", "suppress_tracer_warnings"},
    "persistence": {"persistent_class"},
    "conv2d_resample": {"conv2d_resample"},
    "upfirdn2d": {"setup_filter", "upsample2d", "downsample2d"},
    "bias_act": {"bias_act", "activation_funcs"},
    "fma": {"fma"},
}


def test_embedded_source_is_for_old_python_and_imports_what_every_host_has() -> None:
    tree = ast.parse(Path(inspect.getfile(stylegan2)).read_text(encoding="utf-8"), feature_version=(3, 7))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {f"{getattr(node, 'module', '')}:{alias.name}" for node in imports for alias in node.names}
    allowed = {":math", ":torch", ":numpy", "torch_utils:misc", "torch_utils:persistence"}
    assert names <= allowed | {f"torch_utils.ops:{name}" for name in MAY_USE} and "torch_utils:persistence" in names
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    used = {(node.value.id, node.attr) for node in attributes if isinstance(node.value, ast.Name) and node.value.id in MAY_USE}
    assert used and all(attribute in MAY_USE[module] for module, attribute in used)
    newer = {node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr | ast.NamedExpr | ast.AnnAssign)}
    assert not newer, "annotations, walruses and f-strings have dialects that old Pythons do not know"


def test_gains() -> None:
    """Layers start at unit variance, whatever their width."""
    layer = stylegan2.FullyConnectedLayer(400, 300, activation="lrelu", lr_multiplier=0.01).requires_grad_(False)
    assert math.isclose(layer.weight_gain, 0.01 / 20) and math.isclose(float(layer.weight.std()), 100, rel_tol=0.05)
    assert math.isclose(float(layer(draw(500, 400)).square().mean()), 1.04, rel_tol=0.1)
