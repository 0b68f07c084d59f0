# SPDX-License-Identifier: Apache-2.0
"""The command with a function, with pictures and with a sentence: each labels the network's pictures, redacts, and leaves labels.npz; refusals."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import tiny_clip
import tiny_run
import torch
from click.testing import CliRunner
from PIL import Image

from stylegan_redact import cli, keeping
from stylegan_redact.checkpoints import Checkpoints
from stylegan_redact.features import _clip
from stylegan_redact.latents import load_labels
from stylegan_redact.network import load_network, sample_w, synthesize

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = ["--num-latents=300", "--num-images=60", "--method=fold"]


class Quarters(torch.nn.Module):
    """The mean of each quarter of a picture, and one number that tells in two groups whether it glows."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        quarters = torch.nn.functional.adaptive_avg_pool2d(img, 2).flatten(1)
        return torch.cat([quarters, torch.tanh(4 * (img[:, :, :8, :8].mean([1, 2, 3]) - self.threshold))[:, None]], 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny.pkl, detector.pt, judge.pt, embedder.pt; pictures that glow and others, their lower half bright, as of another camera; mine.py."""
    folder = tmp_path_factory.mktemp("made")
    tiny_run.write_all(folder)
    G, detector = load_network(folder / "tiny.pkl").G_ema, tiny_run.load_torchscript(folder / "detector.pt")
    tiny_run.save_torchscript(Quarters(float(detector.threshold)), folder / "embedder.pt")
    with torch.no_grad():
        img = synthesize(G, sample_w(G, range(9_000, 9_200))).clamp(-1, 1)
        logit = detector(img)
    apart = img.clone()
    apart[:, :, 8:] = (apart[:, :, 8:] + 1.5).clamp(-1, 1)
    for name, of, rows in (
        ("glow", apart, (logit > 0).nonzero()[:, 0]),
        ("plain", apart, (logit <= 0).nonzero()[:, 0]),
        ("drawn", img, (logit > 0).nonzero()[:, 0]),
        ("any", img, torch.arange(40)),
    ):
        (folder / name).mkdir()
        for row in rows[:40].tolist():
            pixels = (of[row] * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / name / f"{row:03d}.png")
    threshold = 127.5 * (1 + float(detector.threshold))
    (folder / "mine.py").write_text(f"def valid(picture):\n    return picture[:8, :8].mean() <= {threshold}\n")
    (folder / "bad.py").write_text(
        "def valid(picture):\n    return 1 / int(picture[0, 0, 0] != picture[0, 0, 0])\n\ndef says(picture):\n    return 0.3\n"
    )
    return folder


def run(*args: str) -> str:
    result = CliRunner().invoke(cli.command(), [*args])
    assert result.exception is None or result.exit_code == 2, result.exception
    return result.output


def ran(*args: str) -> tuple[Path, str]:
    output = run(*args)
    folder = Path(output.strip().splitlines()[-1]).parent
    assert (folder / "redaction.json").is_file(), output
    return folder, output


def right(folder: Path, made: Path) -> tuple[float, int]:
    """The share of each label that the detector agrees with, averaged, and how many labels there are."""
    latents, G = load_labels(folder / "labels.npz").latents, load_network(made / "tiny.pkl").G_ema
    with torch.no_grad():
        truth = tiny_run.load_torchscript(made / "detector.pt")(synthesize(G, latents.w)) > 0
    said = latents.score > 0
    return float((said[truth].double().mean() + (~said)[~truth].double().mean()) / 2), len(said)


def test_a_function_labels_redacts_and_is_recorded(made: Path, tmp_path: Path) -> None:
    feature = f"--feature=validity:{made / 'mine.py'}:valid:name=glow"
    folder, output = ran(f"--network={made / 'tiny.pkl'}", feature, f"--judge={made / 'judge.pt'}", *SMALL, f"--outdir={tmp_path}")
    assert folder.name == "00000-redact-glow-tiny-fold" and right(folder, made)[0] > 0.95
    labels = load_labels(folder / "labels.npz")
    assert set(labels.source) == {"validity"} and set(labels.latents.score.tolist()) == {-1.0, 1.0} and labels.feature == "glow"
    record = json.loads((folder / "redaction.json").read_text())
    assert record["estimates"]["residual_rate/rate_after"]["high"] < record["estimates"]["residual_rate/rate_before"]["low"]
    by = record["provenance"]["labelled_by"]
    assert by["source"] == "validity" and by["function"] == "mine.py:valid" and by["file_sha256"] == tiny_run.sha256(made / "mine.py")
    assert "mine.py is run, with your rights" in output and "glow/prevalence" in output
    unjudged, output = ran(f"--network={made / 'tiny.pkl'}", feature.replace(":name=glow", ""), *SMALL, f"--outdir={tmp_path}")
    assert (
        "invalid_valid" in unjudged.name
        and "Not measured" in output
        and "all/l1" in json.loads((unjudged / "redaction.json").read_text())["estimates"]
    )


def test_a_function_that_fails_is_told_with_its_seed(made: Path, tmp_path: Path) -> None:
    network, out = f"--network={made / 'tiny.pkl'}", f"--outdir={tmp_path / 'none'}"
    G = load_network(made / "tiny.pkl").G_ema
    total = int((synthesize(G, sample_w(G, [69])) * 127.5 + 128).clamp(0, 255).to(torch.uint8).long().sum())
    (made / "late.py").write_text(f"def valid(picture):\n    if picture.sum() == {total}:\n        raise KeyError('late')\n    return True\n")
    for value, says in (
        ("late.py:valid", "seed 69 - it raised KeyError('late')"),  # Of the second batch.
        ("bad.py:valid", "seed 0 - it raised ZeroDivisionError"),
        ("bad.py:says", "seed 0 - it gave 0.3"),
        ("bad.py:nobody", "defines no function nobody"),
        ("nowhere.py:valid", "there is no file"),
        ("mine.py:valid:depth=2", "'depth'"),
    ):
        told = run(network, f"--feature=validity:{made / value}", *SMALL, "--device=cpu", out)  # Where the picture is that very one.
        assert says in told and "Traceback" not in told, told
    assert "it labels by itself" in run(network, f"--feature=validity:{made / 'mine.py'}:valid", "--labels=x.npz", *SMALL, out)
    assert not (tmp_path / "none").exists()


def test_pictures_with_and_without_it_from_another_camera(made: Path, tmp_path: Path) -> None:
    feature = f"--feature=images:{made / 'glow'}:without={made / 'plain'}:embedder={made / 'embedder.pt'}"
    folder, output = ran(f"--network={made / 'tiny.pkl'}", feature, *SMALL, f"--outdir={tmp_path}")
    assert right(folder, made)[0] > 0.7 and set(load_labels(folder / "labels.npz").source) == {"images"}
    record = json.loads((folder / "redaction.json").read_text())
    told = record["before_training"]["figures"]["glow/the probe tells it (AUC)"]
    assert 0.75 < told["low"] < told["value"] and told["n"] == 80 and "the probe tells it (AUC): " in output
    by = record["provenance"]["labelled_by"]
    assert (by["path"], by["without"], by["embedder"]) == ("glow", "plain", "embedder.pt") and len(by["without_sha256"]) == 64


def test_pictures_alone(made: Path, tmp_path: Path) -> None:
    """Those that the network drew are enough; of another camera's the probe sees the camera, and that is refused, as are pictures of anything."""
    network, by = f"--network={made / 'tiny.pkl'}", f":embedder={made / 'embedder.pt'}"
    folder, _ = ran(network, f"--feature=images:{made / 'drawn'}{by}:name=glow", *SMALL, f"--outdir={tmp_path}")
    assert right(folder, made)[0] > 0.7
    out = f"--outdir={tmp_path / 'none'}"
    assert "it sees where pictures come from" in run(network, f"--feature=images:{made / 'glow'}{by}", *SMALL, out)
    assert "a probe hardly tells them from generated ones (AUC" in run(network, f"--feature=images:{made / 'any'}{by}", *SMALL, out)
    assert "there is no such folder" in run(network, f"--feature=images:{made / 'nothing'}", *SMALL, out)
    assert "there are 1 - give 10 or more" in run(
        network, f"--feature=images:{made / 'glow'}:without={next((made / 'plain').iterdir())}", *SMALL, out
    )
    assert not (tmp_path / "none").exists()


def test_a_sentence(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tiny_clip.install(monkeypatch)
    network, options = f"--network={made / 'tiny.pkl'}", f":model=tiny:weights={tiny_clip.TAG}"
    # The corners' brightness makes no two groups: so the pictures of the network are made to, by a picture of the corner that is cut in two.
    monkeypatch.setattr(tiny_clip.Clip, "encode_image", parted(float(tiny_run.load_torchscript(made / "detector.pt").threshold)))
    folder, output = ran(network, f"--feature=text:glow|no glow{options}:sure=0.95", *SMALL, f"--outdir={tmp_path}")
    accuracy, n = right(folder, made)
    left = json.loads((folder / "redaction.json").read_text())["before_training"]["figures"]["glow/left undecided"]
    assert accuracy > 0.9 and 0 < left["value"] < 60 and left["n"] == 300 and n == 300 - round(3 * left["value"])
    assert asked[0] == ("tiny", tiny_clip.TAG) and asked[1][0] == "a photo of glow" and asked[2][0] == "a photo of no glow"
    assert "CLIP tiny tells 'glow' from 'no glow'" in output and set(load_labels(folder / "labels.npz").source) == {"text"}
    assert float(load_labels(folder / "labels.npz").latents.score.abs().min()) >= float(torch.logit(torch.tensor(0.95))) - 1e-4


def parted(threshold: float):  # type: ignore[no-untyped-def]
    def encode(self: tiny_clip.Clip, img: torch.Tensor) -> torch.Tensor:
        corner = torch.tanh(3 * (img[:, :, :8, :8].mean([1, 2, 3]) - threshold)) + 0.1 * img[:, 0, 12, 12]
        return torch.stack([corner, torch.ones_like(corner)], 1)

    return encode


def test_what_of_sentences_is_refused(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, out, tag = f"--network={made / 'tiny.pkl'}", f"--outdir={tmp_path / 'none'}", f":weights={tiny_clip.TAG}"
    monkeypatch.setitem(sys.modules, "open_clip", None)
    assert "open_clip is not installed - pip install 'stylegan-redact[text]'" in run(network, "--feature=text:glow", *SMALL, out)
    asked = tiny_clip.install(monkeypatch, blind=True)
    (tmp_path / "text.pt").write_text("no weights")
    for value, option, says in (
        (f"glow:model=tinny{tag}", [], "did you mean tiny"),
        ("glow:model=tiny:weights=another", [], f"open_clip has {tiny_clip.TAG} - give one of these"),
        (f"glow:model=tiny{tag}", ["--offline"], "with --offline - it would have to be downloaded"),
        (f"glow:model=tiny:weights={tmp_path / 'text.pt'}", [], "it cannot be had"),
        (f"glow:model=tiny-hub:weights={tmp_path / 'text.pt'}", ["--offline"], "its tokenizer, too"),
        (f"glow|:model=tiny{tag}", [], "it is no WITH or WITH|WITHOUT"),
        (f"glow:model=tiny{tag}", [], "CLIP's answers make one group"),
    ):
        assert says in run(network, f"--feature=text:{value}", *option, *SMALL, out), value
    assert ["a photo of a person without glow", "a picture of a person without glow"] == asked[-1][:2] and len(asked[-1]) == 10
    torch.save({"gain": torch.ones([])}, tmp_path / "weights.pt")
    assert _clip.Clip("tiny", str(tmp_path / "weights.pt")).of_texts(["glow"]).norm() == pytest.approx(1)
    assert not (tmp_path / "none").exists()


def test_resumed_in_labelling_with_the_same_file_and_no_other(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text((made / "mine.py").read_text())
    args = [f"--network={made / 'tiny.pkl'}", f"--feature=validity:{mine}:valid", "--checkpoint-every=60", "--batch-gpu=50", *SMALL]
    alone, _ = ran(*args, f"--outdir={tmp_path / 'alone'}")
    keep, shares = Checkpoints.keep, []

    def keep_and_stop(self: Checkpoints, at: keeping.Moment) -> None:
        if at.name.startswith("label"):
            shares.append(at.share)
            if len(shares) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
        keep(self, at)

    monkeypatch.setattr(Checkpoints, "keep", keep_and_stop)
    args += [f"--outdir={tmp_path / 'runs'}", "--resume=latest"]
    assert "Unfinished" in run(*args)
    mine.write_text(mine.read_text() + "# another\n")
    assert "brought.labelled_by.file_sha256" in run(*args[:-1], f"--resume={next((tmp_path / 'runs').iterdir())}")
    mine.write_text((made / "mine.py").read_text())
    resumed, output = ran(*args)
    assert "Resuming" in output and shares.count(shares[0]) == 1 and shares[1] < shares[2]
    for name in ("network-redacted.pkl", "labels.npz", "before.png"):
        assert (resumed / name).read_bytes() == (alone / name).read_bytes(), name
