# SPDX-License-Identifier: Apache-2.0
"""float16 or float32: what the self-test decides, and that files with float16 layers are redacted in float32 and stay what they are."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import tiny_run
import torch
from click.testing import CliRunner

from stylegan_redact import asking, cli, job, precision
from stylegan_redact.evaluation import measure_pairs
from stylegan_redact.features.attribute import Attribute
from stylegan_redact.network import load_network, sample_w, save_network, synthesize
from stylegan_redact.networks.export import write_network_pickle
from stylegan_redact.networks.stylegan2 import Discriminator, Generator
from stylegan_redact.pickles import read_snapshot
from stylegan_redact.precision import LARGEST_DIFFERENCE, Precision, compare, has_half_layers, self_test
from stylegan_redact.types import RedactError

W = torch.zeros([5, 8])


class Planted(torch.nn.Module):
    """A generator whose images in float16 are those of float32 plus something; the fourth latent alone where `one` is set."""

    num_ws = 2

    def __init__(self, off: float, *, full: float = 0.0, one: bool = False) -> None:
        super().__init__()
        self.off, self.full, self.one = off, full, one
        self.synthesis = self.draw
        self.calls: list[bool] = []

    def draw(self, ws: torch.Tensor, noise_mode: str, force_fp32: bool) -> torch.Tensor:
        self.calls.append(force_fp32)
        img = torch.full([len(ws), 3, 4, 4], self.full)
        if not force_fp32:
            img[3 if self.one else slice(None)] += self.off
        return img


@pytest.mark.parametrize(
    ("G", "half", "told"),
    [
        (Planted(0.0), True, "5 agree with float32 to 0.0000"),
        (Planted(0.9 * LARGEST_DIFFERENCE), True, "drawn in float16"),
        (Planted(1.1 * LARGEST_DIFFERENCE), False, "one of 5 is off by 0.0086"),
        (Planted(-0.5, one=True), False, "one of 5 is off by 0.5000"),
        (Planted(float("inf")), False, "5 of 5 of this network's are not finite"),
        (Planted(float("nan"), one=True), False, "1 of 5 of this network's are not finite"),
        (Planted(-float("inf"), one=True), False, "1 of 5"),
        (Planted(0.0, full=float("nan")), False, "not finite"),
        (Planted(3.0, full=2.0), True, "0.0000"),  # past white it makes no difference
    ],
)
def test_the_decision(G: Planted, half: bool, told: str) -> None:
    found = compare(G, W, batch=5)
    assert found.half is half and found.told is not None and told in found.told and found.told.startswith("Images are drawn in float")
    assert ("drawn in float16" in found.told) == half and "\n" not in found.told
    assert sorted(G.calls) == [False, True]


def test_the_worst_image_decides_in_batches_too() -> None:
    assert not compare(Planted(-0.5, one=True), W.repeat(2, 1), batch=5).half
    assert compare(Planted(0.0), W, batch=2).half


def generator(num_fp16_res: int = 4) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        G = Generator(8, 0, 8, 16, 3, channel_base=128, channel_max=8, num_fp16_res=num_fp16_res, mapping_kwargs={"num_layers": 2})
    return G.eval().requires_grad_(False)


def test_on_a_cpu_it_is_float32_and_nothing_is_said() -> None:
    G = generator()
    assert has_half_layers(G) and not has_half_layers(generator(0))
    calls: list[object] = []
    G.synthesis.register_forward_pre_hook(lambda *_: calls.append(1))
    assert self_test(G, sample_w(G, range(4))) == Precision(False, None) and calls == []


def test_what_was_decided_is_what_draws() -> None:
    """Labelling and measuring hand it on; without it, everything is float32."""
    net = tiny.network()
    for half in (False, True):
        forced: list[bool] = []
        hook = net.G_ema.synthesis.b4.register_forward_pre_hook(
            lambda module, args, kwargs, forced=forced: forced.append(kwargs["force_fp32"]), with_kwargs=True
        )
        judge = tiny.Corners(tiny.network().G_ema)
        Attribute(tiny.FEATURE, judge, half=half).gather(net, range(400), batch=200)
        measure_pairs(net, net, judge, range(4), half=half)
        synthesize(net.G_ema, W)
        hook.remove()
        assert forced == [not half] * 4 + [True]


def test_the_command_says_it_in_one_line_and_uses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a self-test that says yes, and after the redaction no."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(asking, "METHODS", "planted_methods")
    options = [*tiny_run.write_all(tmp_path), "--num-latents=200", "--num-images=20"]
    plain = CliRunner().invoke(cli.command(), options).output
    assert "float16" not in plain and "float32" not in plain
    answers = [Precision(True, "Images are drawn in float16: planted"), Precision(False, "no"), Precision(True, "told"), Precision(True, "yes")]
    monkeypatch.setattr(precision, "self_test", lambda G, w, batch: answers.pop(0))
    used: list[bool] = []
    monkeypatch.setattr(
        job, "Measurement", lambda *args, half, measure=job.Measurement, **more: used.append(half) or measure(*args, half=half, **more)
    )
    output = [CliRunner().invoke(cli.command(), options).output for _ in range(2)]
    assert (
        output[0].count("Images are drawn in float16: planted\n") == 1
        and "does not draw the same in float16: images are measured in float32" in output[0]
    )
    assert "told\n" in output[1] and "measured in float32" not in output[1]
    assert used == [False, True] and answers == []


@pytest.mark.parametrize("method", ["edit", "mapping"])
def test_a_file_with_float16_layers_is_redacted_in_float32_and_stays_one(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    G = generator()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        D = Discriminator(c_dim=0, img_resolution=16, img_channels=3, channel_base=128, channel_max=8, num_fp16_res=4)
    other = generator()
    other.synthesis.b4.const += 0.01
    write_network_pickle(tmp_path / "half.pkl", G=other, D=D, G_ema=G)
    for name, size in (("detector", 8), ("judge", 9)):
        tiny_run.write_classifier(tmp_path / f"{name}.pt", G, size)
    short = {"edit": ["--kimg=0.1"], "mapping": ["--steps=20"]}[method]
    options = [
        "--network=half.pkl", "--feature=glow", "--classifier=detector.pt", "--judge=judge.pt", f"--method={method}", *short,
        "--num-latents=200", "--num-images=20",
    ]  # fmt: skip
    result = CliRunner().invoke(cli.command(), options)
    assert result.exit_code == 0, result.output
    (path,) = (tmp_path / "redact-runs").glob("*/network-redacted.pkl")
    before, after = read_snapshot(tmp_path / "half.pkl"), read_snapshot(path)
    for key in ("G", "D", "G_ema"):
        then, now = before.modules[key], after.modules[key]
        assert then.init_kwargs == now.init_kwargs and now.init_kwargs["num_fp16_res"] == 4 and then.source_sha256 == now.source_sha256
        assert [(name, tensor.dtype) for name, tensor in then.tensors.items()] == [(name, tensor.dtype) for name, tensor in now.tensors.items()]
        assert all(bool(torch.isfinite(tensor).all()) for tensor in now.tensors.values())
    assert has_half_layers(load_network(path).G_ema)
    estimates = json.loads((path.parent / "redaction.json").read_text())["estimates"]
    assert estimates["residual_rate/rate_before"]["value"] > 0


def test_tensors_stored_in_float16_go_back_as_such(tmp_path: Path) -> None:
    """Ours are float32 in between; what float16 cannot hold is refused, and nothing is written."""
    G, path = generator(), tmp_path / "half.pkl"
    G.synthesis.b16.half()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        D = Discriminator(c_dim=0, img_resolution=16, img_channels=3, channel_base=128, channel_max=8)
    write_network_pickle(path, G=G, D=D, G_ema=G)
    snapshot, network = read_snapshot(path), load_network(path)
    assert snapshot.modules["G"].tensors["synthesis.b16.conv1.weight"].dtype == torch.float16
    assert network.G.synthesis.b16.conv1.weight.dtype == torch.float32
    bias = network.G_ema.synthesis.b16.torgb.bias
    for net in (network.G, network.G_ema):
        net.synthesis.b16.torgb.bias += 0.3
    save_network(network, tmp_path / "after.pkl", original=snapshot, record={"feature": "x"})
    written = read_snapshot(tmp_path / "after.pkl").modules["G_ema"].tensors
    assert torch.equal(written["synthesis.b16.torgb.bias"], bias.half())
    assert {name: tensor.dtype for name, tensor in written.items()} == {
        name: tensor.dtype for name, tensor in snapshot.modules["G_ema"].tensors.items()
    }
    for net in (network.G, network.G_ema):
        net.synthesis.b16.torgb.bias += 1e6
    with pytest.raises(RedactError, match=r"torgb.bias was to be written as torch.float16 - it has numbers too large"):
        save_network(network, tmp_path / "large.pkl", original=snapshot, record={"feature": "x"})
    assert not (tmp_path / "large.pkl").exists()


def test_a_gpu_takes_no_shortcuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """TF32 keeps ten bits of a product; the settings are torch's, and a CPU's are left alone."""
    backends = SimpleNamespace(
        cudnn=SimpleNamespace(allow_tf32=True, benchmark=True, deterministic=False), cuda=SimpleNamespace(matmul=SimpleNamespace(allow_tf32=True))
    )
    monkeypatch.setattr(torch, "backends", backends)
    for device, plain in (("cpu", True), ("cuda", False)):
        precision.no_shortcuts(torch.device(device))
        assert backends.cudnn.allow_tf32 == backends.cuda.matmul.allow_tf32 == backends.cudnn.benchmark == plain
        assert backends.cudnn.deterministic != plain


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_it_is_drawn_and_decided() -> None:
    G = generator().cuda()
    w = sample_w(G, range(16))
    found = self_test(G, w)
    assert found.half and "16 agree" in str(found.told)
    assert self_test(generator(0).cuda(), w) == Precision(False, "Images are drawn in float32: this network has no float16 layers")
    G.synthesis.b16.torgb.weight.mul_(1e6)  # conv_clamp does not save what a layer's own sum overflows to
    assert not self_test(G, w).half
