# SPDX-License-Identifier: Apache-2.0
"""The command on conditional networks: --class, --feature=class:N, and what reads and writes their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_class
import tiny_conditional as tiny
import tiny_run
import torch
from click.testing import CliRunner
from tensorflow_variants import VARIANTS
from tiny_conditional import C_DIM

import legacy
from stylegan_redact import cli, evaluation
from stylegan_redact.labels import all_of
from stylegan_redact.latents import LabelFile, save_labels
from stylegan_redact.network import load_network, sample_w, synthesize
from stylegan_redact.networks.export import write_network_pickle
from stylegan_redact.pickles import read_snapshot
from stylegan_redact.types import LabelledLatents

SMALL = ["--num-latents=400", "--num-images=100"]


class OfClass(torch.nn.Module):
    """tiny_class.Nearer's second logit, as TorchScript."""

    def __init__(self, way: torch.Tensor, middle: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("way", way)
        self.register_buffer("middle", middle)

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return img.flatten(1) @ self.way - self.middle


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """net.pkl with three classes, and two classifiers of the glow of class 1; net4.pkl with four, and a judge of class 1; plain.pkl."""
    folder = tmp_path_factory.mktemp("made")
    net, net4 = tiny.network(), tiny_class.network()
    for name, each in (("net", net), ("net4", net4)):
        write_network_pickle(folder / f"{name}.pkl", G=each.G, D=each.D, G_ema=each.G_ema)
    for name, size in (("detector", 8), ("judge", 9)):
        tiny_run.save_torchscript(tiny.region(net.G_ema, size, tiny.one(1)), folder / f"{name}.pt")
    nearer = tiny_class.Nearer(net4.G_ema)
    tiny_run.save_torchscript(OfClass(nearer.way, nearer.middle), folder / "class.pt")
    tiny_run.write_network(folder / "plain.pkl")
    return folder


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def glow(made: Path) -> list[str]:
    return [f"--network={made / 'net.pkl'}", "--feature=glow", f"--classifier={made / 'detector.pt'}", f"--judge={made / 'judge.pt'}", *SMALL]


def ran(*args: str) -> tuple[Path, str, dict[str, Any]]:
    result = CliRunner().invoke(cli.command(), list(args))
    assert result.exit_code == 0, result.output
    folder = Path(result.output.strip().splitlines()[-1]).parent
    return folder, result.output, json.loads((folder / "redaction.json").read_text())


def refused(*args: str) -> str:
    result = CliRunner().invoke(cli.command(), list(args))
    assert result.exit_code == 2 and not Path("redact-runs").exists(), result.output
    return " ".join(result.output.split())


def test_a_class_must_be_said_and_must_exist(made: Path) -> None:
    told = refused(*glow(made))
    assert "net was to be redacted - it is conditional, with classes 0, 1, 2" in told and "--class=N" in told and "--class=all" in told
    assert "--class=3 was asked - the classes of net are 0, 1, 2" in refused(*glow(made), "--class=3")
    plain = [f"--network={made / 'plain.pkl'}", *glow(made)[1:]]
    assert "plain is unconditional and has no classes" in refused(*plain, "--class=0")
    assert "plain is unconditional and has no classes" in refused(plain[0], "--feature=class:0")


def test_a_feature_of_one_class(made: Path) -> None:
    """What is measured is what images of that class show; of the others it is told what became of them."""
    folder, output, record = ran(*glow(made), "--class=1", "--method=mapping", "--steps=150", "--batch=128", "--access=z,w")
    before, after = load_network(made / "net.pkl"), load_network(folder / "network-redacted.pkl")
    judge = tiny_run.load_torchscript(made / "judge.pt")
    seeds = range(5_000_000, 5_000_100)
    estimates = record["estimates"]
    for net, key in ((before, "rate_before"), (after, "rate_after")):
        shown = judge(tiny.images(net.G_ema, seeds, tiny.one(1)).clamp(-1, 1)) > 0
        assert estimates[f"residual_rate/{key}"]["value"] == pytest.approx(100 * float(shown.float().mean()), abs=1e-6)
    assert estimates["residual_rate/rate_after"]["value"] < 0.7 * estimates["residual_rate/rate_before"]["value"]
    others = tiny.one(1).others()
    assert others is not None
    change = [tiny.images(net.G_ema, seeds, others).clamp(-1, 1) for net in (before, after)]
    assert estimates["other_classes_image_change/l1"]["value"] == pytest.approx(float((change[1] - change[0]).abs().mean()), rel=1e-3)
    assert "other classes image change" in output and "other_classes_residual_rate/rate_before" in estimates
    assert read_snapshot(folder / "network-redacted.pkl").redaction["class"] == "1" == json.loads((folder / "options.json").read_text())["classes"]
    shown = record["pictures"]["with_feature"]
    detector = tiny_run.load_torchscript(made / "detector.pt")
    assert bool((detector(synthesize(before.G_ema, sample_w(before.G_ema, shown, c=tiny.one(1)(shown)))) > 0).all())
    assert "w_residual_rate/removed" in estimates


def test_labels_of_another_class_are_refused(made: Path, tmp_path: Path) -> None:
    G, seeds = load_network(made / "net.pkl").G_ema, range(40)
    latents = LabelledLatents(sample_w(G, seeds, c=tiny.one(2)(seeds)), torch.linspace(-1, 1, 40), torch.arange(40), c=tiny.one(2)(seeds))
    save_labels(tmp_path / "two.npz", LabelFile("glow", latents, ("person",) * 40, ""))
    args = [glow(made)[0], f"--feature=labels:{tmp_path / 'two.npz'}", "-n", *SMALL]
    assert "the labels are of class 2 too" in refused(*args, "--class=1")
    assert CliRunner().invoke(cli.command(), [*args, "--class=2"]).exit_code == 0


def test_a_feature_of_all_classes(made: Path) -> None:
    runs = [ran(*glow(made), "--class=all", "--method=fold", "--num-images=60") for _ in range(2)]
    (first, output, record), (again, _, _) = runs
    assert (first / "network-redacted.pkl").read_bytes() == (again / "network-redacted.pkl").read_bytes()
    assert not any(key.startswith("other_classes") for key in record["estimates"])
    assert read_snapshot(first / "network-redacted.pkl").redaction["class"] == "all"
    judge, seeds = tiny_run.load_torchscript(made / "judge.pt"), range(5_000_000, 5_000_060)
    G = load_network(made / "net.pkl").G_ema
    shown = 100 * float((judge(tiny.images(G, seeds, all_of(C_DIM)).clamp(-1, 1)) > 0).float().mean())
    assert record["estimates"]["residual_rate/rate_before"]["value"] == pytest.approx(shown, abs=1e-6)


def test_a_whole_class_without_a_judge(made: Path) -> None:
    folder, output, record = ran(f"--network={made / 'net4.pkl'}", "--feature=class:1", "--replacement=3", *SMALL)
    assert folder.name == "00000-redact-class_1-net4-substitute_class"
    estimates = record["estimates"]
    assert estimates["class_change/others_unchanged"]["value"] == 100 == estimates["w_class_change/unchanged"]["value"]
    assert estimates["class_change/l1"]["value"] > 0.05
    assert record["all_targets_met"] is None and "No target applies" in output and "targets met" not in output
    assert len([line for line in output.splitlines() if line.startswith("Whoever kept a w from before still draws class:1 (")]) == 1
    provenance = read_snapshot(folder / "network-redacted.pkl").redaction
    assert provenance["feature"] == "class:1" and provenance["detector"] is None and provenance["options"] == {"replacement": 3}
    before, after = load_network(made / "net4.pkl"), load_network(folder / "network-redacted.pkl")
    for key in ("G", "G_ema"):
        then, now = getattr(before, key), getattr(after, key)
        for index, instead in enumerate((0, 3, 2, 3)):
            now_drawn, then_drawn = (tiny.images(G, range(9), tiny.one(label, 4)) for G, label in ((now, index), (then, instead)))
            assert torch.equal(now_drawn, then_drawn)
    assert "class:1" in CliRunner().invoke(*_verb("inspect", str(folder / "network-redacted.pkl"))).output


def test_a_whole_class_with_a_judge(made: Path) -> None:
    folder, output, record = ran(f"--network={made / 'net4.pkl'}", "--feature=class:1", f"--judge={made / 'class.pt'}", *SMALL)
    value = {key: estimate["value"] for key, estimate in record["estimates"].items()}
    assert value["residual_rate/rate_after"] < 0.6 * value["residual_rate/rate_before"]
    assert value["w_residual_rate/rate_after"] == value["w_residual_rate/rate_before"] == value["residual_rate/rate_before"]
    assert "MISSED" not in output and "the judge sees class:1 in" in output and len(record["judge"]["torchscript_sha256"]) == 64


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--feature=class:4"], "the classes of net4 are 0, 1, 2, 3"),
        (["--feature=class:x"], "the classes of net4 are 0, 1, 2, 3"),
        (["--feature=class:1", "--method=edit"], "use --method=substitute_class"),
        (["--feature=class:1", "--class=1"], "was asked with --class"),
        (["--feature=class:1", "--keep=hat"], "was asked with --keep"),
        (["--feature=class:1", "--classifier=x.pt"], "was asked with --classifier"),
        (["--feature=class:1", "--kimg=1"], "'kimg'"),
        (["--feature=beard", "--class=1", "--method=substitute_class"], "give --feature=class:N"),
        (["--feature=class:1", "--judge=none.pt"], "none.pt"),
    ],
)
def test_requests_that_make_no_sense_are_refused(made: Path, args: list[str], told: str) -> None:
    assert told in refused(f"--network={made / 'net4.pkl'}", *SMALL, *args)


def test_dry_runs_know_classes(made: Path) -> None:
    result = CliRunner().invoke(cli.command(), [*glow(made), "--class=1", "-n"])
    assert result.exit_code == 0 and '"classes": "1"' in result.output and "measuring" in result.output, result.output
    result = CliRunner().invoke(cli.command(), [f"--network={made / 'net4.pkl'}", "--feature=class:1", "-n"])
    assert result.exit_code == 0 and '"method": "substitute_class"' in result.output and "labelling" not in result.output.split("This will")[1]


def _verb(name: str, *args: str) -> tuple[Any, list[str]]:
    return cli.choose([name])[0], list(args)


@pytest.mark.parametrize("architecture", ["stylegan2", "stylegan3"])
def test_files_of_conditional_networks_are_read_converted_and_described(architecture: str, here: Path) -> None:
    net = tiny.network(architecture)
    write_network_pickle(here / "net.pkl", G=net.G, D=net.D, G_ema=net.G_ema)
    described = json.loads(CliRunner().invoke(*_verb("inspect", "net.pkl", "--json")).output)
    assert {key: described["networks"][key]["c_dim"] for key in ("G", "D", "G_ema")} == dict.fromkeys(("G", "D", "G_ema"), C_DIM)
    for source, dest in (("net.pkl", "net.safetensors"), ("net.safetensors", "back.pkl")):
        result = CliRunner().invoke(*_verb("convert", source, dest))
        assert result.exit_code == 0, result.output
    labels = all_of(C_DIM)
    img = tiny.images(net.G_ema, range(4), labels)
    for data in (load_network(here / "back.pkl").__dict__, legacy.load_network_pkl("net.pkl"), legacy.load_network_pkl("back.pkl")):
        assert torch.equal(tiny.images(data["G_ema"], range(4), labels), img)
        assert torch.equal(data["D"](img, labels(range(4))), net.D(img, labels(range(4))))


def test_a_class_of_a_tensorflow_pickle(here: Path) -> None:
    variant = VARIANTS["conditional"]
    variant.write(here / "tf.pkl", variant.networks())
    folder, output, _ = ran("--network=tf.pkl", "--feature=class:1", "--replacement=2", "--num-latents=40", "--num-images=20")
    G, redacted = load_network("tf.pkl").G_ema, load_network(folder / "network-redacted.pkl").G_ema
    assert torch.equal(tiny.images(redacted, range(3), tiny.one(1)), tiny.images(G, range(3), tiny.one(2))) and "for TensorFlow" in output


def test_the_library_measures_classes(made: Path) -> None:
    from stylegan_redact import evaluate

    net = tiny.network()
    found = evaluate(net, net, tiny.FEATURE, tiny.Corners(net.G_ema), range(40), labels=tiny.one(2))
    assert found["image_change/l1_feature_free"].value == 0 and "residual_rate/rate_before" in found
    assert evaluation.MOST_OF_OTHERS > 0
