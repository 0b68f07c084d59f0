# SPDX-License-Identifier: Apache-2.0
"""Our StyleGAN3 against its definition, its symmetries, and the names, shapes, counts and defaults that tools rely on."""

from __future__ import annotations

import ast
import copy
import inspect
import math
import pickle
from pathlib import Path
from typing import Any

import pytest
import slow_stylegan3
import torch

from stylegan_redact.networks import stylegan3
from stylegan_redact.networks.stylegan3 import Generator

# float32 against float64 through some five layers with values up to about 5.
NETWORK_TOLERANCE = 5e-5
# Decibels. Six taps for each factor leave about 90 of a shift by a fraction of a sample; a quarter turn is exact but for rounding.
EQUIVARIANT, NOT_EQUIVARIANT = 80, 30
RESOLUTION, LAYERS = 32, 5
T: dict[str, Any] = dict(channel_base=256, channel_max=12, num_layers=LAYERS)
R: dict[str, Any] = dict(T, conv_kernel=1, use_radial_filters=True)
CONFIGS = {"t": T, "r": R}


def generator(config: str = "t", c_dim: int = 0, seed: int = 0, **more: Any) -> Any:
    """In eval mode, with values where a new network has zeros and ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        G = Generator(5, c_dim, 6, RESOLUTION, 3, **CONFIGS[config] | more).eval().requires_grad_(False)
        for name, tensor in G.state_dict().items():
            if name.endswith(("bias", "w_avg", "input.affine.weight")):
                tensor += torch.randn_like(tensor) * (10 if name.startswith("mapping.fc") else 0.1)
            if name.endswith("magnitude_ema"):
                tensor.uniform_(0.5, 2)
    last = getattr(G.synthesis, G.synthesis.layer_names[-1])
    last.weight.mul_(10)  # A new network draws next to nothing.
    return G


def draw(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_near(found: torch.Tensor, expected: torch.Tensor, tolerance: float = NETWORK_TOLERANCE) -> None:
    assert found.dtype == torch.float32 and found.shape == expected.shape
    assert float((found - expected).abs().max()) < tolerance


# The definition.


@pytest.mark.parametrize(
    ("config", "more", "num_images"),
    [("t", {}, 2), ("r", {}, 1), ("t", dict(conv_clamp=0.3), 1), ("r", dict(filter_size=4), 2), ("t", dict(margin_size=4, lrelu_upsampling=4), 1)],
)
def test_synthesis_is_what_the_definition_gives(config: str, more: dict[str, Any], num_images: int) -> None:
    """One image takes the grouped convolution, several the other one."""
    G, ws = generator(config, **more), draw(num_images, LAYERS + 2, 6)
    turn = torch.tensor([[0.8, -0.6, 0.1], [0.6, 0.8, -0.2], [0, 0, 1]])
    G.synthesis.input.transform.copy_(turn)
    state = {name: tensor.double() for name, tensor in G.state_dict().items()}
    options = dict(
        layers=LAYERS, lrelu_upsampling=more.get("lrelu_upsampling", 2), clamp=more.get("conv_clamp", 256), margin=more.get("margin_size", 10)
    )
    expected = slow_stylegan3.synthesis(state, ws.double(), RESOLUTION, **options)
    assert float(expected.std()) > 0.03
    assert_near(G.synthesis(ws), expected)


@pytest.mark.parametrize("c_dim", [0, 3])
def test_mapping_is_what_the_definition_gives(c_dim: int) -> None:
    G, z, c = generator(c_dim=c_dim), draw(4, 5), draw(4, 3, seed=2) if c_dim else None
    state = {name.removeprefix("mapping."): tensor.double() for name, tensor in G.mapping.state_dict().items()}
    parts = [z.double()] + ([] if c is None else [slow_stylegan3.affine({f"m.{k}": v for k, v in embed(state).items()}, "m", c.double())])
    x = torch.cat([part / (part.square().mean(1, keepdim=True) + 1e-8).sqrt() for part in parts], dim=1)
    for i in range(2):
        x = x @ state[f"fc{i}.weight"].T * 0.01 / math.sqrt(x.shape[1]) + state[f"fc{i}.bias"] * 0.01
        x = torch.nn.functional.leaky_relu(x, 0.2) * math.sqrt(2)
    ws = G.mapping(z.double(), c)
    assert_near(ws, x.float().unsqueeze(1).expand(-1, LAYERS + 2, -1))
    assert torch.equal(G(z, c), G.synthesis(ws))


def embed(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("embed."): tensor for name, tensor in state.items() if name.startswith("embed.")}


def test_every_class_matters() -> None:
    G, z = generator(c_dim=3), draw(1, 5)
    images = G(z.repeat(3, 1), torch.eye(3))
    assert float((images[0] - images[1]).abs().max()) > 0.01
    with pytest.raises(AssertionError):
        G(z, torch.ones(1, 2))


# Symmetries.


def psnr(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Decibels, of the expected image's range."""
    span = expected.max() - expected.min()
    return float(10 * torch.log10(span.square() / (found - expected).square().mean()))


def with_transform(G: Any, matrix: list[list[float]], ws: torch.Tensor) -> torch.Tensor:
    G.synthesis.input.transform.copy_(torch.tensor(matrix))
    return G.synthesis(ws)


def inside(img: torch.Tensor, border: int = 6) -> torch.Tensor:
    return img[:, :, border:-border, border:-border]


IDENTITY = [[1.0, 0, 0], [0, 1, 0], [0, 0, 1]]


@pytest.mark.parametrize("config", CONFIGS)
def test_the_picture_moves_with_the_input(config: str) -> None:
    """By three pixels, which is less than a sample of the input. The transform is the inverse of what the picture undergoes."""
    G, ws = generator(config), draw(2, LAYERS + 2, 6)
    before, after = (with_transform(G, matrix, ws) for matrix in (IDENTITY, [[1, 0, -3 / RESOLUTION], [0, 1, 5 / RESOLUTION], [0, 0, 1]]))
    assert psnr(inside(after), inside(before.roll((-5, 3), (2, 3)))) > EQUIVARIANT
    assert psnr(inside(after), inside(before)) < NOT_EQUIVARIANT


def test_the_picture_turns_with_the_input_in_configuration_r_only() -> None:
    found = {}
    for config in CONFIGS:
        G, ws = generator(config), draw(2, LAYERS + 2, 6)
        before, after = (with_transform(G, matrix, ws) for matrix in (IDENTITY, [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]))
        found[config] = psnr(inside(after), inside(before.rot90(-1, (2, 3))))
    assert found["r"] > EQUIVARIANT and found["t"] < NOT_EQUIVARIANT, found


# Truncation and moving averages.


@pytest.mark.parametrize(("psi", "cutoff"), [(0.7, None), (0.0, 3), (-1.0, 1), (1.3, 7)])
def test_truncation(psi: float, cutoff: int | None) -> None:
    G, z = generator(), draw(3, 5)
    ws, average = G.mapping(z, None), G.mapping.w_avg
    expected = ws.clone()
    expected[:, :cutoff] = average + psi * (ws[:, :cutoff] - average)
    found = G.mapping(z, None, truncation_psi=psi, truncation_cutoff=cutoff)
    assert_near(found, expected, 1e-6)
    assert torch.equal(found[:, cutoff or 7 :], ws[:, cutoff or 7 :])
    assert torch.equal(G(z, None, truncation_psi=psi, truncation_cutoff=cutoff), G.synthesis(found))


def test_moving_averages_move_only_when_asked() -> None:
    G, z = generator().train(), draw(8, 5)
    before = {name: tensor.clone() for name, tensor in G.state_dict().items()}
    G(z, None)
    assert all(torch.equal(tensor, before[name]) for name, tensor in G.state_dict().items())
    inputs: dict[str, torch.Tensor] = {}
    for name in G.synthesis.layer_names:
        getattr(G.synthesis, name).register_forward_hook(lambda layer, args, output, name=name: inputs.update({name: args[0]}))
    G(z, None, update_emas=True)
    after = G.state_dict()
    moved = {f"synthesis.{name}.magnitude_ema": (0.999, x.square().mean()) for name, x in inputs.items()}
    moved["mapping.w_avg"] = (0.998, G.mapping(z, None)[:, 0].mean(0))
    assert {name for name in after if not torch.equal(after[name], before[name])} == set(moved)
    for name, (beta, seen) in moved.items():
        assert_near(after[name], beta * before[name] + (1 - beta) * seen, 1e-6)


# What tools rely on.


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("c_dim", [0, 3])
def test_names_and_shapes(config: str, c_dim: int) -> None:
    G = generator(config, c_dim)
    k = 3 if config == "t" else 1
    layers = ["L0_36_12", "L1_36_12", "L2_52_12", "L3_52_8", "L4_32_8", "L5_32_3"]
    assert G.synthesis.layer_names == layers
    expected: dict[str, list[int]] = {"mapping.w_avg": [6]}
    sizes = [5 + 6 * (c_dim > 0), 6, 6]
    expected |= {f"mapping.fc{i}.{part}": shape for i in range(2) for part, shape in [("weight", [6, sizes[i]]), ("bias", [6])]}
    if c_dim:
        expected |= {"mapping.embed.weight": [6, c_dim], "mapping.embed.bias": [6]}
    parts: dict[str, list[int]] = {
        "weight": [12, 12],
        "transform": [3, 3],
        "freqs": [12, 2],
        "phases": [12],
        "affine.weight": [4, 6],
        "affine.bias": [4],
    }
    expected |= {f"synthesis.input.{part}": shape for part, shape in parts.items()}
    into = 12
    for index, name in enumerate(layers):
        out, last = int(name.split("_")[2]), index == LAYERS
        size = 1 if last else k
        parts = {"weight": [out, into, size, size], "bias": [out], "magnitude_ema": [], "affine.weight": [into, 6], "affine.bias": [into]}
        if not last:
            layer = getattr(G.synthesis, name)
            radial = config == "r" and index < LAYERS - 2
            parts |= {"up_filter": [6 * layer.up_factor], "down_filter": [6 * layer.down_factor] * (2 if radial else 1)}
        expected |= {f"synthesis.{name}.{part}": shape for part, shape in parts.items()}
        into = out
    assert {name: list(tensor.shape) for name, tensor in G.state_dict().items()} == expected
    buffers = {name.rpartition(".")[2] for name, _ in G.named_buffers()}
    assert buffers == {"w_avg", "transform", "freqs", "phases", "magnitude_ema", "up_filter", "down_filter"}
    assert G.num_ws == G.mapping.num_ws == G.synthesis.num_ws == LAYERS + 2


T_1024 = "36_512 36_512 52_512 52_512 84_512 148_512 148_512 276_323 276_203 532_128 1044_81 1044_51 1044_32 1024_32 1024_3"
T_512 = "36_512 36_512 52_512 52_512 84_512 84_512 148_512 148_483 276_323 276_215 532_144 532_96 532_64 512_64 512_3"
T_256 = "36_512 36_512 36_512 52_512 52_512 84_512 84_512 148_512 148_512 148_362 276_256 276_181 276_128 256_128 256_3"
R_1024 = "36_1024 36_1024 52_1024 52_1024 84_1024 148_1024 148_1024 276_645 276_406 532_256 1044_161 1044_102 1044_64 1024_64 1024_3"
PUBLISHED_R = dict(conv_kernel=1, channel_base=65536, channel_max=1024, use_radial_filters=True)


@pytest.mark.parametrize(
    ("resolution", "kwargs", "layers", "parameters"),
    [
        (1024, {}, T_1024, 22_313_167),
        (512, {}, T_512, 24_873_519),
        (256, {}, T_256, 28_472_133),
        (1024, PUBLISHED_R, R_1024, 15_093_151),
        (512, PUBLISHED_R, None, 16_665_594),
        (256, PUBLISHED_R, None, 18_816_387),
    ],
)
def test_published_networks(monkeypatch: pytest.MonkeyPatch, resolution: int, kwargs: dict[str, Any], layers: str | None, parameters: int) -> None:
    monkeypatch.setattr(torch, "randn", torch.empty)  # Nobody looks at the values.
    G = Generator(512, 0, 512, resolution, 3, **kwargs)
    assert sum(parameter.numel() for parameter in G.parameters()) == parameters and G.num_ws == 16
    if layers is not None:
        assert G.synthesis.layer_names == [f"L{index}_{name}" for index, name in enumerate(layers.split())]
    last_but_one = getattr(G.synthesis, G.synthesis.layer_names[13])
    assert last_but_one.down_filter.ndim == 1, "critically sampled layers have separable filters"
    if resolution == 1024:
        pads = {tuple(getattr(G.synthesis, name).padding) for name in G.synthesis.layer_names[:13]}
        expected = [(9, 8), (-6, -9)] if not kwargs else [(11, 10), (-2, -5)]
        assert pads == {pad * 2 for pad in expected}
        assert last_but_one.padding == ([-11, -12] if not kwargs else [-9, -10]) * 2


def test_defaults() -> None:
    G = Generator(4, 0, 4, 64, 3, channel_max=4)
    names = G.synthesis.layer_names
    assert (G.mapping.num_layers, G.mapping.w_avg_beta, G.mapping.fc0.bias_gain, G.synthesis.num_fp16_res) == (2, 0.998, 0.01, 4)
    assert (G.synthesis.output_scale, G.synthesis.margin_size, G.num_ws, len(names)) == (0.25, 10, 16, 15)
    assert {getattr(G.synthesis, name).conv_clamp for name in names} == {256}
    assert inspect.signature(G.forward).parameters.keys() >= {"z", "c", "truncation_psi", "truncation_cutoff", "update_emas"}
    assert "ws" in inspect.signature(G.synthesis.forward).parameters, "tools call synthesis(ws=...)"
    layer = inspect.signature(getattr(G.synthesis, names[0]).forward).parameters
    assert layer.keys() >= {"x", "w", "noise_mode", "force_fp32", "update_emas"}
    start = G.synthesis.input
    assert torch.equal(start.transform, torch.eye(3)) and start.affine.bias.tolist() == [1, 0, 0, 0] and not start.affine.weight.any()
    assert float(start.freqs.norm(dim=1).max()) <= start.bandwidth == 2 and float(start.phases.abs().max()) <= 0.5


def test_noise_modes_and_precision_are_accepted_and_change_nothing() -> None:
    G, ws = generator(), draw(1, LAYERS + 2, 6)
    img = G.synthesis(ws)
    for options in (dict(noise_mode="const"), dict(noise_mode="none"), dict(noise_mode="random"), dict(force_fp32=True)):
        assert torch.equal(G.synthesis(ws, **options), img)
    with pytest.raises(AssertionError):
        G.synthesis(ws, noise_mode="constant")


def test_ws_may_be_float64_but_not_of_another_shape() -> None:
    G, ws = generator(), draw(2, LAYERS + 2, 6)
    assert torch.equal(G.synthesis(ws.double()), G.synthesis(ws))
    for wrong in (ws[:, :5], ws[:, :, :5], ws[:, 0]):
        with pytest.raises(AssertionError):
            G.synthesis(wrong)
    with pytest.raises(AssertionError):
        G.mapping(draw(2, 6), None)


@pytest.mark.parametrize("config", CONFIGS)
def test_images_of_a_batch_do_not_know_of_each_other(config: str) -> None:
    G, ws = generator(config), draw(3, LAYERS + 2, 6)
    together = G.synthesis(ws)
    assert all(float((G.synthesis(ws[i : i + 1]) - together[i]).abs().max()) < 1e-5 for i in range(3))


@pytest.mark.parametrize("config", CONFIGS)
def test_gradients_reach_every_parameter_twice(config: str) -> None:
    G = generator(config, c_dim=3).requires_grad_(True)
    z = draw(2, 5).requires_grad_()
    ws = G.mapping(z, torch.eye(3)[[0, 1]])
    (slope,) = torch.autograd.grad(G.synthesis(ws).square().sum(), ws, create_graph=True)  # as path length regularisation does
    slope.square().sum().backward()
    assert [name for name, p in G.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("config", CONFIGS)
def test_half_precision_on_a_gpu_is_near(config: str) -> None:
    G, ws = generator(config), draw(4, LAYERS + 2, 6)
    expected = G.synthesis(ws)
    G, ws = G.cuda(), ws.cuda()
    half, full = (G.synthesis(ws, force_fp32=force).cpu() for force in (False, True))
    assert half.dtype == torch.float32
    assert 0 < float((half - full).abs().max() / full.abs().max()) < 2e-2, "float16 has 11 bits; 0 would mean that it was not used"
    assert float((full - expected).abs().max()) < 1e-2, "a GPU may round to TF32"


@pytest.mark.parametrize("config", CONFIGS)
def test_a_copy_and_a_pickle_are_the_same_network(config: str) -> None:
    G, z = generator(config), draw(1, 5)
    for twin in (copy.deepcopy(G), pickle.loads(pickle.dumps(G))):
        assert type(twin) is type(G) and twin.init_kwargs == G.init_kwargs and twin.init_args == (5, 0, 6, RESOLUTION, 3)
        assert torch.equal(twin(z, None), G(z, None))


# The source travels in the pickles.

MAY_USE = {
    "misc": {"profiled_function", "assert_shape", "suppress_tracer_warnings"},
    "persistence": {"persistent_class"},
    "conv2d_gradfix": {"conv2d"},
    "filtered_lrelu": {"filtered_lrelu"},
    "bias_act": {"bias_act"},
}


def test_embedded_source_is_for_old_python_and_imports_what_every_host_has() -> None:
    tree = ast.parse(Path(inspect.getfile(stylegan3)).read_text(encoding="utf-8"), feature_version=(3, 7))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {f"{getattr(node, 'module', '')}:{alias.name}" for node in imports for alias in node.names}
    allowed = {":math", ":torch", ":numpy", ":scipy.signal", ":scipy.special", "torch_utils:misc", "torch_utils:persistence"}
    assert names <= allowed | {f"torch_utils.ops:{name}" for name in MAY_USE} and "torch_utils:persistence" in names
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    used = {(node.value.id, node.attr) for node in attributes if isinstance(node.value, ast.Name) and node.value.id in MAY_USE}
    assert used and all(attribute in MAY_USE[module] for module, attribute in used)
    newer = {node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr | ast.NamedExpr | ast.AnnAssign)}
    assert not newer, "annotations, walruses and f-strings have dialects that old Pythons do not know"
