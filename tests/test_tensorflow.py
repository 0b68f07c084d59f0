# SPDX-License-Identifier: Apache-2.0
"""Pickles of NVIDIA's TensorFlow code: what comes out of them, how they are redacted, and which are refused with which sentence."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
import tensorflow_pickles
import tiny_run
import torch
from click.testing import CliRunner
from tensorflow_pickles import Network, discriminator_network, dumps, generator_network, tiny_networks
from tensorflow_variants import VARIANTS, Variant

import legacy
import stylegan_redact
from stylegan_redact import cli, pickles
from stylegan_redact.network import load_network, read_snapshot, sample_w, save_network, synthesize
from stylegan_redact.networks import tensorflow
from stylegan_redact.types import RedactError

TINY = VARIANTS["skip"]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY.write(tmp_path_factory.mktemp("tf") / "tiny.pkl", TINY.networks())


def images(G: Any) -> torch.Tensor:
    c = torch.eye(3)[:2] if G.c_dim else None
    with torch.no_grad():
        return G(torch.randn(2, G.z_dim, generator=torch.Generator().manual_seed(3)), c, truncation_psi=0.7, noise_mode="const")


def parts(edit: Callable[[Any], None] = lambda networks: None, variant: Variant = TINY) -> bytes:
    """The tiny pickle after `edit` was at the states of its networks G and D."""
    nets, (G, D) = variant.networks(), variant.kwargs()
    networks = (
        generator_network(nets.G, version=variant.version, kwargs=G),
        discriminator_network(nets.D, version=variant.version, kwargs=D),
        generator_network(nets.G_ema, version=variant.version, kwargs=G, name="Gs"),
    )
    edit(networks)
    return dumps(networks)


def message(data: bytes) -> str:
    with pytest.raises(RedactError) as caught:
        read_snapshot(io.BytesIO(data))
    text = str(caught.value)
    assert text.count(" - ") >= 2 and "\n" not in text
    return text


# ---------------------------------------------------------------------------------------------------------------------
# What comes out


@pytest.mark.parametrize("name", VARIANTS)
def test_the_networks_come_out_bit_by_bit(name: str, tmp_path: Path) -> None:
    expected = VARIANTS[name].networks()
    network = load_network(VARIANTS[name].write(tmp_path / "tf.pkl", expected))
    for key in ("G", "D", "G_ema"):
        ours, found = getattr(expected, key), getattr(network, key)
        tensors = found.state_dict()
        assert list(tensors) == list(ours.state_dict())
        assert [part for part, tensor in ours.state_dict().items() if not torch.equal(tensor, tensors[part])] == []
        assert {part for part, _ in found.named_parameters()} == {part for part, _ in ours.named_parameters()}
        assert not any(part.training for part in found.modules()) and not any(p.requires_grad for p in found.parameters())
    for found, ours in ((network.G, expected.G), (network.G_ema, expected.G_ema)):
        assert torch.equal(images(found), images(ours)) and found.mapping.w_avg_beta == ours.mapping.w_avg_beta
    assert not torch.equal(images(network.G), images(network.G_ema))
    pictures, c = images(expected.G).repeat(2, 1, 1, 1), torch.eye(3)[[0, 2, 1, 1]]
    assert torch.equal(network.D(pictures, c), expected.D(pictures, c))


@pytest.mark.parametrize("resolution", [32, 128, 256, 512, 1024])
def test_every_resolution(resolution: int, tmp_path: Path) -> None:
    small: dict[str, Any] = dict(channel_base=resolution * 2, channel_max=4, num_fp16_res=0, conv_clamp=None)
    nets = tiny_networks(resolution, {**small, "mapping_kwargs": {"num_layers": 2}}, small, z_dim=4, w_dim=4)
    told = dict(resolution=resolution, fmap_base=resolution, fmap_max=4)
    G = {**told, "latent_size": 4, "dlatent_size": 4, "mapping_layers": 2}
    network = load_network(tensorflow_pickles.write(tmp_path / "tf.pkl", nets, version=4, G=G, D=told))
    assert network.G.img_resolution == resolution and network.G.num_ws == 2 * np.log2(resolution) - 2
    for key in ("G", "D", "G_ema"):
        tensors = getattr(network, key).state_dict()
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in getattr(nets, key).state_dict().items())


def test_arguments_that_are_not_said_have_tensorflows_values() -> None:
    """Config F of the paper says nothing but what is below; the numbers are those of stylegan-compat.md 4.1."""
    variables = {f"{n}": np.broadcast_to(np.float32(0), (1 << 20,)) for n in range(30)}
    assert tensorflow.constructor_arguments("Generator", {}, variables) == dict(
        z_dim=512, c_dim=0, w_dim=512, img_resolution=1024, img_channels=3, channel_base=32768, channel_max=512, num_fp16_res=0, conv_clamp=None,
        architecture="skip", resample_filter=[1, 3, 3, 1], use_noise=True, activation="lrelu",
        mapping_kwargs=dict(num_layers=8, embed_features=None, layer_features=None, activation="lrelu", lr_multiplier=0.01, w_avg_beta=0.995),
    )  # fmt: skip
    assert tensorflow.constructor_arguments("Discriminator", {}, variables) == dict(
        c_dim=0, img_resolution=1024, img_channels=3, architecture="resnet", channel_base=32768, channel_max=512, num_fp16_res=0, conv_clamp=None,
        cmap_dim=None, block_kwargs=dict(activation="lrelu", resample_filter=[1, 3, 3, 1], freeze_layers=0),
        mapping_kwargs=dict(num_layers=0, lr_multiplier=0.1, embed_features=None, layer_features=None, activation="lrelu"),
        epilogue_kwargs=dict(mbstd_group_size=None, mbstd_num_channels=1, activation="lrelu"),
    )  # fmt: skip


def test_hidden_layers_of_another_width_than_w() -> None:
    """StyleGAN2 had 512 of them whatever the width of w, and does not say so in the pickle."""
    variant = Variant(4, {}, {}, our_G=dict(mapping_kwargs=dict(layer_features=24, num_layers=8, w_avg_beta=0.995)))
    snapshot = read_snapshot(io.BytesIO(parts(variant=variant)))
    assert snapshot.modules["G"].tensors["mapping.fc1.weight"].shape == (24, 24)


def test_arguments_that_change_nothing_pass() -> None:
    def edit(networks: Any) -> None:
        networks[0].state["static_kwargs"].update(truncation_psi=0.1, fused_modconv=False, fmap_min=1, mapping_func="G_mapping", dlatent_avg_beta=0.9)

    assert read_snapshot(io.BytesIO(parts(edit))).modules["G"].init_kwargs["mapping_kwargs"]["w_avg_beta"] == 0.9


@pytest.mark.parametrize("protocol", [3, 4])
def test_variables_in_fortran_order_and_half_precision(protocol: int) -> None:
    nets, (G, D) = TINY.networks(), TINY.kwargs()
    networks = generator_network(nets.G, version=4, kwargs=G), discriminator_network(nets.D, version=4, kwargs=D)
    variables = networks[0].state["components"]["mapping"].state["variables"]
    variables[0] = (variables[0][0], np.asfortranarray(variables[0][1]))
    variables[1] = (variables[1][0], variables[1][1].astype(np.float16))
    assert variables[0][1].flags.f_contiguous and not variables[0][1].flags.c_contiguous
    found = read_snapshot(io.BytesIO(dumps((*networks, networks[0]), protocol=protocol))).modules["G"].tensors
    assert torch.equal(found["mapping.fc0.weight"], nets.G.mapping.fc0.weight)
    assert torch.equal(found["mapping.fc0.bias"], nets.G.mapping.fc0.bias.half().float())


# ---------------------------------------------------------------------------------------------------------------------
# Doors


def test_the_doors(path: Path) -> None:
    snapshot = stylegan_redact.read_snapshot(path)
    assert snapshot.converted_from == "StyleGAN2 for TensorFlow" and snapshot.keys[:3] == ("G", "D", "G_ema") and snapshot.redaction is None
    assert snapshot.sha256 == load_network(path).sha256 and len(snapshot.sha256) == 64
    with path.open("rb") as file:
        data = legacy.load_network_pkl(file)
    assert list(data) == ["G", "D", "G_ema", "training_set_kwargs", "augment_pipe"] and data["training_set_kwargs"] is None
    assert torch.equal(images(data["G_ema"]), images(TINY.networks().G_ema))
    forced = legacy.load_network_pkl(path, force_fp16=True)
    assert forced["G_ema"].synthesis.b32.use_fp16 and not data["G_ema"].synthesis.b32.use_fp16
    with pytest.raises(RedactError, match="convert it with legacy.py"):
        pickles.read_snapshot(path)


def test_the_command_legacy_writes_a_snapshot_of_pytorch(path: Path, tmp_path: Path) -> None:
    legacy.main([f"--source={path}", f"--dest={tmp_path / 'new.pkl'}"])
    written = pickles.read_snapshot(tmp_path / "new.pkl")
    assert written.converted_from is None and b"tflib" not in (tmp_path / "new.pkl").read_bytes()
    assert torch.equal(images(load_network(written).G), images(TINY.networks().G))


def test_the_source_in_the_file_is_neither_run_nor_carried_over(path: Path, tmp_path: Path) -> None:
    source = tensorflow_pickles.SOURCE.encode().strip()
    legacy.main([f"--source={path}", f"--dest={tmp_path / 'new.pkl'}"])
    assert source in path.read_bytes() and source not in (tmp_path / "new.pkl").read_bytes()


def test_a_redacted_network_is_a_snapshot_of_pytorch(path: Path, tmp_path: Path) -> None:
    snapshot = read_snapshot(path)
    network = load_network(snapshot)
    for G in (network.G, network.G_ema):
        G.synthesis.b32.torgb.bias.add_(1)
    save_network(network, tmp_path / "after.pkl", original=snapshot, record={"feature": "beard"})
    written = pickles.read_snapshot(tmp_path / "after.pkl")
    assert written.redaction == {"feature": "beard"}
    assert torch.allclose(images(load_network(written).G_ema), images(TINY.networks().G_ema) + 1, atol=1e-5)


def test_redact_takes_it_and_says_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    variant = Variant(4, dict(fmap_max=8), dict(fmap_max=8), dict(channel_max=8), dict(channel_max=8), resolution=16)
    path = variant.write(tmp_path / "tiny.pkl", variant.networks())
    G_ema: Any = load_network(path).G_ema
    for name, size in (("detector", 8), ("judge", 9)):
        tiny_run.write_classifier(tmp_path / f"{name}.pt", G_ema, size)
    files = [f"--network={path}", *(f"--{option}={name}.pt" for option, name in (("classifier", "detector"), ("judge", "judge")))]
    result = CliRunner().invoke(cli.command(), [*files, "--feature=glow", "--method=fold", "--num-latents=400", "--num-images=50"])
    assert result.exit_code == 0, result.output
    assert "The network is of StyleGAN2 for TensorFlow; it was converted, and the result is a pickle of PyTorch" in result.output
    written = pickles.read_snapshot(tmp_path / "redact-runs" / "00000-redact-glow-tiny-fold" / "network-redacted.pkl")
    assert written.redaction is not None and written.redaction["converted_from"] == "StyleGAN2 for TensorFlow"
    assert written.redaction["network_sha256"] == read_snapshot(path).sha256
    w = sample_w(G_ema, range(20))
    assert not torch.allclose(synthesize(load_network(written).G_ema, w), synthesize(G_ema, w), atol=1e-3)


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


def with_version(version: Any) -> Callable[[Any], None]:
    def edit(networks: Any) -> None:
        for network in networks:
            network.state["version"] = version

    return edit


def test_older_generations_are_named() -> None:
    assert "it is a StyleGAN of 2019 (StyleGAN1), whose layers StyleGAN2 does not have" in message(parts(with_version(3)))
    assert "it is a ProGAN, which has no styles" in message(parts(with_version(2)))
    networks = tuple(Network(name, {}, version=1, kwargs={}) for name in ("G", "D", "Gs"))
    assert "it is a ProGAN, which has no styles" in message(dumps(networks, module="tfutil", protocol=3))
    for version in (6, "4", None, True):
        assert "known are 4 (StyleGAN2), 5 (StyleGAN2-ADA)" in message(parts(with_version(version)))


def test_a_network_alone_and_networks_elsewhere() -> None:
    alone = Network("classifier", {"lod": 0.0}, version=5, kwargs={})
    assert "it holds 1 TensorFlow network(s)" in message(dumps(alone))
    assert "it is a StyleGAN of 2019" in message(dumps(Network("classifier", {}, version=3, kwargs={})))
    assert "networks of TensorFlow among other things" in message(dumps(hostile.snapshot(progress=alone)))
    assert "networks of TensorFlow among other things" in message(dumps((alone, alone, None)))


def arguments(**given: Any) -> Callable[[Any], None]:
    return lambda networks: networks[0].state["static_kwargs"].update(given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (dict(resolution_w=32, resolution_h=16), "built with resolution_h=16, resolution_w=32, which has no counterpart"),
        (dict(fmap_min=2), "fmap_min=2"),
        (dict(use_spectral_norm=True), "use_spectral_norm=True"),
        (dict(synthesis_func="G_synthesis_stylegan_revised"), "G_synthesis_stylegan_revised"),
        (dict(resolution=48), "does not fit"),
        (dict(resolution=16), "has unknown tensors"),
        (dict(resolution=64), "lacks tensors"),
        (dict(fmap_max=16), "has misshapen tensors"),
        (dict(architecture="resnet"), "lacks tensors"),
        (dict(architecture="cube"), "does not fit ours"),
        (dict(nonlinearity="cube"), "does not fit ours"),
        (dict(resolution=1 << 20), "damaged or hostile"),
        (dict(resolution="32"), "damaged or hostile"),
        (dict(fmap_base=1 << 22, fmap_max=1 << 20), "damaged or hostile"),
        (dict(latent_size=1 << 22), "damaged or hostile"),
        (dict(mapping_fmaps=1 << 22), "damaged or hostile"),
        (dict(mapping_layers=1 << 22), "damaged or hostile"),
        (dict(mapping_layers=-1), "damaged or hostile"),
        (dict(label_size=1 << 23), "damaged or hostile"),
        (dict(resample_kernel=[1] * 70_000), "damaged or hostile"),
        (dict(resample_kernel=None), "damaged or hostile"),
        ({"\n\x1b[31m": 1}, r"\\n\\x1b"),
    ],
)
def test_arguments_that_do_not_fit(given: dict[str, Any], told: str) -> None:
    text = message(parts(arguments(**given)))
    assert told.replace("\\\\", "\\") in text and "Generator" in text and text.isprintable()


def variables(networks: Any, *components: str) -> list[Any]:
    state = networks[0].state
    for component in components:
        state = state["components"][component].state
    return state["variables"]


def set_first(value: Any) -> Callable[[Any], None]:
    def edit(networks: Any) -> None:
        found = variables(networks, "synthesis")
        found[1] = (found[1][0], value)

    return edit


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda n: variables(n, "mapping").pop(), "lacks tensors (mapping.fc7.bias; 1 in all)"),
        (lambda n: variables(n, "mapping").append(("LabelConcat/weight", np.zeros([3, 32]))), "conditional StyleGAN2, which joins label and latent"),
        (lambda n: variables(n, "synthesis").append(("ToRGB_lod0/weight", np.zeros([1, 1, 32, 3]))), "configurations A to D"),
        (lambda n: variables(n, "synthesis").append(("8x8/Conv2/weight", np.zeros([1]))), "nothing like its variable 'synthesis/8x8/Conv2/weight'"),
        (lambda n: variables(n, "synthesis").append(("8x16/Conv1/weight", np.zeros([1]))), "nothing like its variable 'synthesis/8x16"),
        (lambda n: variables(n, "synthesis").append(("noise99", np.zeros([1, 1, 4, 4]))), "unknown tensors"),
        (lambda n: variables(n, "synthesis").append(("8x8/Conv1/extra", np.zeros([1]))), "unknown tensors (synthesis.b8.conv1.extra"),
        (lambda n: variables(n).append(("dlatent_avg", np.zeros(32))), "two of one name"),
        (set_first(np.zeros([2, 32, 4, 4])), "misshapen tensors (synthesis.b4.const"),
        (set_first("text"), "is no array of numbers"),
        (set_first(np.zeros([1, 32, 4, 4], bool)), "is no array of numbers"),
        (lambda n: n[0].state.update(variables=None), "no list of variables"),
        (lambda n: n[0].state.update(variables=[("a", 1.0, 2.0)]), "no list of variables"),
        (lambda n: n[0].state.update(components={"mapping": 1}), "component that is none"),
        (lambda n: n[0].state.update(components=None), "no list of variables"),
        (lambda n: n[0].state.update(static_kwargs=None), "what a network in it was built with"),
        (lambda n: n[0].state["components"]["mapping"].state["components"].update(mapping=n[0]), "contains itself"),
    ],
)
def test_variables_that_do_not_fit(edit: Callable[[Any], None], told: str) -> None:
    assert told in message(parts(edit))


def test_calls_other_than_of_a_network_are_refused() -> None:
    marker = hostile.string("dnnlib.tflib.network") + hostile.string("Network") + b"\x93"
    for data in (marker, marker + b")R", marker + b")\x81", marker + b")\x81]b", marker + hostile.string("x") + b"\x85\x81}b"):
        text = message(b"\x80\x04" + data + b".")
        assert "damaged or hostile" in text


def test_hostile_imports_in_a_tensorflow_pickle(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    def edit(networks: Any) -> None:
        networks[0].state["build_module_src"] = hostile.Call(exec, f"open({str(marker)!r}, 'w').close()")

    assert "which no StyleGAN snapshot needs; nothing was run" in message(parts(edit)) and not marker.exists()


def test_the_reader_would_notice_a_transposed_or_unturned_weight() -> None:
    """The counter-check of the tests above: with the facts wrong, the pictures differ visibly."""
    right = images(TINY.networks().G)
    for component, layer in (("mapping", "Dense3/weight"), ("synthesis", "16x16/Conv0_up/weight"), ("synthesis", "16x16/Conv1/mod_bias")):

        def edit(networks: Any, component: str = component, layer: str = layer) -> None:
            found = variables(networks, component)
            (at,) = [index for index, (name, _) in enumerate(found) if name == layer]
            value = found[at][1]
            found[at] = (layer, value.T if value.ndim == 2 else value[::-1, ::-1] if value.ndim == 4 else value + 1)

        assert float((images(load_network(read_snapshot(io.BytesIO(parts(edit)))).G) - right).abs().max()) > 0.01
