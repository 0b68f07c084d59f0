# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of rosinality's stylegan2-pytorch in both directions: the same pictures, the same bits, and refusals in a sentence."""

from __future__ import annotations

import argparse
import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import rosinality_checkpoints as theirs
import tiny_run
import torch
from click.testing import CliRunner, Result

from stylegan_redact import cli, pickle_torch
from stylegan_redact.network import load_network, read_snapshot
from stylegan_redact.networks import rosinality
from stylegan_redact.networks.export import write_network_pickle
from stylegan_redact.networks.stylegan2 import Discriminator, Generator
from stylegan_redact.types import RedactError


def run(*args: Any) -> Result:
    chosen, verb = cli.choose([str(arg) for arg in args])
    return CliRunner().invoke(chosen, [str(arg) for arg in args[1 if verb else 0 :]])


def refusal(*args: Any) -> str:
    result = run(*args)
    assert result.exit_code == 2, result.output
    return result.output


@pytest.mark.parametrize("legacy", [False, True])
def test_the_same_pictures_and_verdicts(legacy: bool, tmp_path: Path) -> None:
    parts = theirs.checkpoint(theirs.SMALL)
    network = load_network(theirs.write(tmp_path / "x.pt", parts, legacy=legacy))
    random = torch.Generator().manual_seed(3)
    z = torch.randn(4, 6, generator=random)
    for net, part in ((network.G_ema, "g_ema"), (network.G, "g")):
        w = theirs.mapping(parts[part], z)
        torch.testing.assert_close(net.mapping(z, None)[:, 0].double(), w, rtol=1e-5, atol=1e-5)
        ws = torch.randn(4, net.num_ws, 6, generator=random)  # A row of its own for each layer.
        wanted = theirs.draw(parts[part], ws)
        got = net.synthesis(ws, noise_mode="const", force_fp32=True)
        assert got.shape == (4, 3, 16, 16) and wanted.std() > 0.1
        torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-5)
        print(f"{part}: pictures of up to {wanted.abs().max():.2f} differ by {(got - wanted).abs().max():.1e}")
    img = torch.randn(8, 3, 16, 16, generator=random)
    got, wanted = network.D(img, None), theirs.judge(parts["d"], img)
    torch.testing.assert_close(got.double(), wanted, rtol=1e-5, atol=1e-6)
    regrouped = theirs.judge(parts["d"], img[[0, 2, 1, 3, 4, 5, 6, 7]])[[0, 2, 1, 3, 4, 5, 6, 7]]
    assert (regrouped - wanted).abs().max() > 1e-5, "groups taken in another way would not be seen"
    print(f"d: logits of up to {wanted.abs().max():.2f} differ by {(got - wanted).abs().max():.1e}")
    assert network.G_ema.mapping.w_avg.tolist() == parts["latent_avg"].tolist()


def test_the_comparison_sees_a_planted_fault(tmp_path: Path) -> None:
    """A weight flipped, a row or a noise map taken for another: each shows in the picture."""
    state = theirs.generator_state(theirs.SMALL)
    ws = torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(3))
    good = theirs.draw(state, ws)
    flipped = state | {"convs.0.conv.weight": state["convs.0.conv.weight"].flip(3, 4)}
    noise = state | {"noises.noise_3": state["noises.noise_4"], "noises.noise_4": state["noises.noise_3"]}
    for other in (theirs.draw(flipped, ws), theirs.draw(noise, ws), theirs.draw(state, ws.flip(1))):
        assert (other - good).abs().max() > 1e-2


def test_there_and_back_bit_for_bit(tmp_path: Path) -> None:
    parts = theirs.checkpoint(theirs.REAL)
    middle, back = tmp_path / "y.pkl", tmp_path / "z.pt"
    told = run("convert", theirs.write(tmp_path / "x.pt", parts), middle).output
    assert "The source is of a checkpoint of rosinality's stylegan2-pytorch" in told and "Wrote" in told
    assert "faces" not in middle.read_bytes().decode("latin1")
    assert "no state of optimisers" in run("convert", middle, back).output
    returned = torch.load(back, weights_only=True)
    assert set(returned) == {"g_ema", "g", "d", "latent_avg"}
    for part in ("g_ema", "g", "d"):
        assert set(returned[part]) == set(parts[part])
        for name, tensor in parts[part].items():
            assert torch.equal(returned[part][name], tensor), name
    assert torch.equal(returned["latent_avg"], parts["latent_avg"])


def test_what_is_missing_is_made_up_and_said(tmp_path: Path) -> None:
    path = theirs.write(tmp_path / "x.pt", theirs.checkpoint(theirs.SMALL, g=None, d=None, latent_avg=None, args=None))
    snapshot = read_snapshot(path)
    assert [remark.split(":")[0] for remark in snapshot.remarks] == [
        "The checkpoint has no mean w (latent_avg)",
        "The checkpoint has no g",
        "The checkpoint has no d",
    ]
    network = load_network(snapshot)
    assert not any(bool(parameter.any()) for parameter in network.D.parameters())
    states = [G.state_dict() for G in (network.G, network.G_ema)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    w = network.G_ema.mapping(torch.randn(4000, 6, generator=torch.Generator().manual_seed(9)), None)[:, 0]
    assert (network.G_ema.mapping.w_avg - w.mean(0)).abs().max() < 0.1 * w.std()
    assert run("convert", path, tmp_path / "y.pkl").output.count("The checkpoint has no") == 3


def test_inspect(tmp_path: Path) -> None:
    path = theirs.write(tmp_path / "x.pt", theirs.checkpoint(theirs.SMALL))
    found = json.loads(run("inspect", path, "--json").output)
    assert found["format"] == "a checkpoint of rosinality's stylegan2-pytorch" and found["keys"][:3] == ["g", "d", "g_ema"]
    assert found["networks"]["G_ema"]["img_resolution"] == 16 and "source" not in found["networks"]["G_ema"]


def test_the_main_job_takes_it(tmp_path: Path) -> None:
    path = theirs.write(tmp_path / "x.pt", theirs.checkpoint(theirs.SMALL))
    G = load_network(path).G_ema
    for name, size in (("detector", 8), ("judge", 9)):
        tiny_run.write_classifier(tmp_path / f"{name}.pt", G, size)
    files = [f"--{option}={tmp_path / name}.pt" for option, name in (("network", "x"), ("classifier", "detector"), ("judge", "judge"))]
    sizes = ["--num-latents=300", "--num-images=50", "--method=fold", f"--outdir={tmp_path / 'runs'}"]
    result = run(*files, "--feature=glow", *sizes)
    assert result.exit_code == 0, result.output
    assert "of a checkpoint of rosinality's stylegan2-pytorch; it was converted, and the result is a pickle" in " ".join(result.output.split())
    (written,) = (tmp_path / "runs").glob("*/network-redacted.pkl")
    record = read_snapshot(written).redaction
    assert record is not None and record["converted_from"] == rosinality.WHAT and record["network_sha256"] == read_snapshot(path).sha256


def test_arguments_are_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = theirs.write(tmp_path / "x.pt", theirs.checkpoint(theirs.SMALL))
    monkeypatch.setattr(argparse, "Namespace", None)
    got = pickle_torch.read_torch_file(path, ["args", "ada_aug_p", "g_optim"])
    assert got["args"]["channel_multiplier"] == 2 and got["ada_aug_p"] == 0.25 and got["g"] is None
    assert got["g_optim"]["param_groups"][0]["betas"] == (0, 0.99) and got["g_optim"]["state"][0]["exp_avg"].tolist() == [1, 1, 1, 1]


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return exec, (f"open({str(self.marker)!r}, 'w').close()",)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("part", ["args", "g_ema", "extra"])
def test_nothing_in_it_runs(legacy: bool, part: str, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    path = theirs.write(tmp_path / "x.pt", theirs.checkpoint(theirs.SMALL, **{part: {"a": Payload(marker)}}), legacy=legacy)
    with pytest.raises(RedactError, match="imports builtins.exec, which no StyleGAN snapshot needs; nothing was run"):
        read_snapshot(path)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "a payload that does nothing in torch proves nothing here"


@pytest.mark.parametrize("legacy", [False, True])
def test_damage_is_refused(legacy: bool, tmp_path: Path) -> None:
    """Cut off anywhere, and with bytes changed all over: a sentence, or the tensors of other numbers, never another error."""
    path = theirs.write(tmp_path / "x.pt", theirs.checkpoint(theirs.SMALL, d=None, g=None), legacy=legacy)
    good = path.read_bytes()
    for cut in range(60, len(good), len(good) // 8):
        path.write_bytes(good[:cut])
        with pytest.raises(RedactError, match=r"was to be read"):
            read_snapshot(path)
    random = torch.Generator().manual_seed(0)
    for _ in range(12):
        bad = bytearray(good)
        bad[int(torch.randint(70, len(good), [1], generator=random))] ^= 255
        path.write_bytes(bad)
        try:
            read_snapshot(path)
        except RedactError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"g_ema": None}, "no g_ema"),
        ({"g_ema": {"conv1.conv.weight": torch.zeros(1)}}, "g_ema has 0 blocks"),
        ({"g_ema": {**theirs.generator_state(theirs.SMALL), "convs.9.dwt.ll": torch.zeros(1)}}, "has unknown tensors (convs.9.dwt.ll"),
        ({"g_ema": {**theirs.generator_state(theirs.SMALL), "convs.0.conv.blur.kernel": torch.ones(4, 4)}}, "another filter"),
        ({"g_ema": {**theirs.generator_state(theirs.SMALL), "input.input": torch.zeros(1, 9, 4, 4)}}, "input.input is torch.float32 [1, 9, 4, 4]"),
        ({"g_ema": {**theirs.generator_state(theirs.SMALL), "style.1.weight": torch.zeros(3)}}, "style.1.weight has the shape [3]"),
        ({"g_ema": {**theirs.generator_state(theirs.SMALL), "conv1.noise.weight": torch.zeros(1).double()}}, "torch.float64"),
        ({"g_ema": theirs.generator_state({4: 8, 8: 3, 16: 4})}, "its channels are 8 at 4, 3 at 8, 4 at 16"),
        ({"d": {**theirs.discriminator_state(theirs.SMALL), "final_linear.1.bias": torch.zeros(2)}}, "d.final_linear.1.bias"),
    ],
)
def test_variants_are_refused(change: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = theirs.write(tmp_path / "x.pt", theirs.checkpoint(theirs.SMALL, **change))
    assert says in refusal("convert", path, tmp_path / "y.pkl") and not (tmp_path / "y.pkl").exists()


def test_a_small_file_that_asks_for_much_is_refused(tmp_path: Path) -> None:
    """Shapes that fit each other, on storages of one number: nothing is allocated for them."""
    state = theirs.generator_state(theirs.SMALL)
    for name in [name for name in state if name.startswith("noises.")]:
        state[name] = torch.zeros(1, 1, 1, 1).expand(1, 1, 1 << 19, 2)
    path = theirs.write(tmp_path / "x.pt", theirs.checkpoint(theirs.SMALL, g_ema=state))
    with pytest.raises(RedactError, match="noises"):
        read_snapshot(path)


def test_other_zips_are_named(tmp_path: Path) -> None:
    file = io.BytesIO()
    torch.save([1, 2], file)
    (tmp_path / "x.pt").write_bytes(file.getvalue())
    assert "it holds no dictionary of networks" in refusal("convert", tmp_path / "x.pt", tmp_path / "y.pkl")
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("00000/img00000000.png", b"x")
    assert "not one of torch.save" in refusal("inspect", tmp_path / "data.zip")
    (tmp_path / "z.pt").write_bytes(pickle.dumps({"g_ema": {}}))
    assert "lacks G, D" in refusal("inspect", tmp_path / "z.pt")


FITTING: dict[str, Any] = dict(channel_base=16384, num_fp16_res=0, conv_clamp=None)


def networks(G: dict[str, Any], D: dict[str, Any], z_dim: int = 4, c_dim: int = 0, colours: int = 3, layers: int = 1) -> dict[str, Any]:
    """Networks at 8 pixels with 512 channels and few numbers else."""
    with torch.random.fork_rng(devices=[]):
        nets = [Generator(z_dim, c_dim, 4, 8, colours, mapping_kwargs={"num_layers": layers}, **FITTING | G) for _ in range(2)]
        return {"G": nets[0], "D": Discriminator(c_dim, 8, colours, **FITTING | D), "G_ema": nets[1]}


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (dict(G={"architecture": "resnet"}), "g_ema has other layers"),
        (dict(D={"architecture": "skip"}), "d has other layers"),
        (dict(G={"use_noise": False}), "no noise"),
        (dict(G={"resample_filter": [1, 2, 1]}), "another filter"),
        (dict(G={"activation": "relu"}), "another activation"),
        (dict(G={"channel_max": 256}), "channels 256 at 4, 256 at 8"),
        (dict(D={"channel_base": 2048}), "channels 512 at 4, 256 at 8"),
        (dict(z_dim=5), "z of 5 and w of 4"),
        (dict(c_dim=2), "2 labels"),
        (dict(colours=1), "1 colours"),
        (dict(D={"epilogue_kwargs": {"mbstd_group_size": 2}}), "other minibatch statistics"),
    ],
)
def test_what_they_do_not_have_is_not_written(made: dict[str, Any], says: str) -> None:
    made = {"G": {}, "D": {}} | made
    with pytest.raises(RedactError, match=says):
        rosinality.to_checkpoint(**networks(**made))


def test_a_clamp_is_told_and_nothing_half_written(tmp_path: Path) -> None:
    tiny_run.write_network(tmp_path / "tiny.pkl")
    assert "channels 8 at 4" in refusal("convert", tmp_path / "tiny.pkl", tmp_path / "y.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.pkl"]
    with torch.random.fork_rng(devices=[]):
        G = Generator(4, 0, 4, 8, 3, mapping_kwargs={"num_layers": 1}, channel_base=16384)
        D = Discriminator(0, 8, 3, channel_base=16384)
    write_network_pickle(tmp_path / "clamped.pkl", G=G, D=D, G_ema=G, redaction={"feature": "beard"})
    assert "g_ema clamps its activations at 256 here and nowhere there" in run("convert", tmp_path / "clamped.pkl", tmp_path / "y.pt").output
    assert torch.load(tmp_path / "y.pt", weights_only=True)["redaction"] == {"feature": "beard"}
