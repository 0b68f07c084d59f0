# SPDX-License-Identifier: Apache-2.0
"""The command with labels or a direction of one's own: a run's labels steer the next one, strangers' are refused, the verb writes files."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_run
import torch
from click.testing import CliRunner
from PIL import Image

from stylegan_redact import cli, given, steering
from stylegan_redact.latents import LabelFile, load_labels, save_labels
from stylegan_redact.network import load_network, sample_w
from stylegan_redact.types import Feature, LabelledLatents

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = ["--num-latents=300", "--num-images=60"]


def run(*args: str) -> str:
    chosen, verb = cli.choose([*args])
    result = CliRunner().invoke(chosen, [*args][bool(verb) :])
    assert result.exception is None or result.exit_code == 2, result.exception
    return result.output


def folder_of(output: str) -> Path:
    return Path(output.strip().splitlines()[-1]).parent


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], Path]:
    """A folder with network and classifiers, the options that name them, and a run that labelled with them."""
    folder = tmp_path_factory.mktemp("sources")
    options = tiny_run.write_all(folder)
    done = folder_of(run(*options, *SMALL, "--method=fold", f"--outdir={folder / 'first'}"))
    return folder, options, done


def test_a_run_leaves_labels_and_says_what_it_knew_before(made: tuple[Path, list[str], Path]) -> None:
    folder, _, done = made
    labels = load_labels(done / "labels.npz")
    assert labels.feature == "glow" and labels.network_sha256 == tiny_run.sha256(folder / "tiny.pkl")
    assert labels.source == (f"classifier {tiny_run.sha256(folder / 'detector.pt')}",) * 300
    assert labels.latents.seeds is not None and labels.latents.seeds.tolist() == list(range(300))
    before = json.loads((done / "redaction.json").read_text())["before_training"]
    assert before["figures"]["glow/prevalence"]["value"] == pytest.approx(100 * float((labels.latents.score > 0).float().mean()))
    assert before["figures"]["glow/labels and judge agree (kappa)"]["low"] > 0.3 and before["warnings"] == []
    log = (done / "log.txt").read_text()
    assert "glow was looked for: bundled classifiers: none, this is no bundled network; --classifier: given" in log
    assert "glow/prevalence: " in log and "n = 300" in log


def test_its_labels_steer_the_next_run_to_the_same_network(made: tuple[Path, list[str], Path], tmp_path: Path) -> None:
    folder, options, done = made
    again = folder_of(run(options[0], "--feature=glow", f"--labels={done / 'labels.npz'}", *SMALL, "--method=fold", f"--outdir={tmp_path}"))
    one, other = (load_network(path / "network-redacted.pkl").G_ema.state_dict() for path in (done, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    record = json.loads((again / "redaction.json").read_text())
    by = list({*load_labels(done / "labels.npz").source})
    assert record["provenance"]["labels"] == {"sha256": tiny_run.sha256(done / "labels.npz"), "n": 300, "by": by}
    assert record["judge"] is None and "all/l1" in record["estimates"] and "residual_rate/rate_after" not in record["estimates"]
    for text in ((again / name).read_text() for name in ("report.html", "README.md")):
        assert "Nobody said which pictures show glow" in text and "judged by nobody" in text
        assert "--labels=labels.npz" in text and str(done) not in text
    assert (again / "labels.npz").read_bytes() == (done / "labels.npz").read_bytes()
    assert '"feature": "glow"' in run(options[0], f"--feature=labels:{done / 'labels.npz'}", "-n", *SMALL)


def test_what_is_refused(made: tuple[Path, list[str], Path], tmp_path: Path) -> None:
    folder, options, done = made
    known = load_labels(done / "labels.npz")
    network = options[0]
    labels = f"--labels={done / 'labels.npz'}"
    stranger = tmp_path / "stranger.npz"
    save_labels(stranger, LabelFile("glow", known.latents, known.source, "f" * 64))
    shifted = tmp_path / "shifted.npz"
    latents = known.latents
    save_labels(shifted, LabelFile("glow", type(latents)(latents.w.flip(0), latents.score, latents.seeds), known.source, ""))
    measured = tmp_path / "measured.npz"
    seeds = torch.arange(5_000_000, 5_000_300)
    w = sample_w(load_network(folder / "tiny.pkl").G_ema, seeds.tolist())
    save_labels(measured, LabelFile("glow", type(latents)(w, latents.score, seeds), known.source, ""))
    out = f"--outdir={tmp_path / 'none'}"
    for args, says in (
        ([network, "--feature=hat", labels], "the file is about 'glow'"),
        ([network, "--feature=glow", f"--labels={stranger}"], "they are of the network ffffffffffff"),
        ([network, "--feature=glow", f"--labels={shifted}"], "makes other latents of the same seeds"),
        ([network, "--feature=glow", f"--labels={measured}"], "seed 5000000 was labelled and was to be measured on"),
        ([network, "--feature=class:1", labels], "unconditional"),
        ([network, "--feature=glow", f"--labels={folder / 'tiny.pkl'}"], "cannot be read"),
        ([network, "--feature=moon:1"], "there is no source 'moon'"),
        ([network, "--feature=images:"], "nothing stands behind images:"),  # An empty variable of the shell; not the folder that one is in.
        ([network, "--feature=direction:nothing.npy"], "there is no such file"),
        ([network, "--feature=sefa:x"], "give sefa:0"),
        ([network, "--feature=sefa:0:depth=3"], "'depth'"),
    ):
        assert says in run(*args, *SMALL, out), args
    assert not (tmp_path / "none").exists()


def test_a_direction_is_not_written_over_what_it_is_made_from(made: tuple[Path, list[str], Path], tmp_path: Path) -> None:
    folder, options, done = made
    (tmp_path / "here.npy").write_bytes(b"")
    for args, out, name in (
        (options, folder / "judge", "judge.pt"),
        ([*options[:3], f"--judge={tmp_path / 'here.pt'}"], tmp_path / "here", "here.pt"),
        ([*options[:2], f"--classifier={tmp_path / 'net.pt2'}"], tmp_path / "net", "net.json"),
        ([options[0], f"--feature=direction:{tmp_path / 'here.npy'}"], tmp_path / "here", "here.npy"),
    ):
        told = run("direction", *args, f"--out={out}")
        assert "would be written over" in told and name in told
    assert "that is a folder" in run("direction", *options, "--out=.")


def test_a_direction_from_the_verb_redacts_as_its_labels_do(
    made: tuple[Path, list[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, options, done = made
    monkeypatch.chdir(tmp_path)
    Path("redact-runs").write_text("")  # No folder for runs is needed here.
    (tmp_path / "glow.json").write_text("{}")
    told = run("direction", *options, "--num-latents=300", f"--out={tmp_path / 'glow'}", "--steps=5")
    assert "Wrote " + ", ".join(f"{tmp_path / 'glow'}{ending}" for ending in (".npy", ".pt", ".json", ".png")) in told
    assert "was replaced: glow.json" in told and "balanced accuracy" in told
    unit = np.load(tmp_path / "glow.npy")
    assert unit.shape == (1, 8) and np.linalg.norm(unit) == pytest.approx(1, abs=1e-6)
    assert torch.equal(torch.load(tmp_path / "glow.pt", weights_only=True), torch.from_numpy(unit))
    with Image.open(tmp_path / "glow.png") as strip:
        assert strip.size == (5 * 16, 4 * 16)
        bright = np.asarray(strip).reshape(4, 16, 5, 16, 3)[:, :8, :, :8].mean((0, 1, 3, 4))
    assert bright[0] < bright[2] < bright[4]
    # Turned round: the labels turn it back, so that the result is that of the labels' own direction.
    np.save(tmp_path / "glow.npy", -unit)
    both = folder_of(
        run(options[0], f"--feature=direction:{tmp_path / 'glow.npy'}", f"--labels={done / 'labels.npz'}", *SMALL, f"--outdir={tmp_path}")
    )
    one, other = (load_network(path / "network-redacted.pkl").G_ema.state_dict() for path in (done, both))
    assert all(torch.allclose(one[name], other[name], atol=1e-4) for name in one)
    assert "--feature=direction:glow.npy" in (both / "report.html").read_text() and str(tmp_path) not in (both / "report.html").read_text()
    provenance = json.loads((both / "redaction.json").read_text())["provenance"]["direction"]
    assert provenance["path"] == "glow.npy" and provenance["file_sha256"] == tiny_run.sha256(tmp_path / "glow.npy")


def test_the_bundled_classifiers_know_everyday_names_of_labels() -> None:
    file: Any = SimpleNamespace(bundled="portraits64")
    nobody: Any = None
    for name, known in (("glasses", True), ("no_beard", True), ("moustaches", False)):
        detector, judge, told = steering.those_given(name, None, None, file=file, network=nobody, device=torch.device("cpu"))
        assert (name in detector.attributes) == (name in judge.attributes) == (told["detector"] is not None) == known


def test_what_labels_and_runs_leave_has_a_name_that_a_disk_takes(tmp_path: Path) -> None:
    latents = LabelledLatents(torch.zeros([2, 4]), torch.ones(2), torch.arange(2))
    part = SimpleNamespace(name="a/b", latents=latents, label=None, detector=None)
    several: Any = SimpleNamespace(each=(part,), parts=(part, part))
    given.save_label_files(several, None, {}, "", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["labels-a_b.npz"]


def test_a_direction_of_the_weights_alone(made: tuple[Path, list[str], Path], tmp_path: Path) -> None:
    done = folder_of(run(made[1][0], "--feature=sefa:1:name=tint:quantile=0.7", *SMALL, f"--outdir={tmp_path}"))
    labels = load_labels(done / "labels.npz")
    assert labels.feature == "tint" and set(labels.source) == {"sefa"}
    assert float((labels.latents.score > 0).float().mean()) == pytest.approx(0.3, abs=0.01)


def test_features_whose_names_make_one_file_name_keep_their_labels_apart(tmp_path: Path) -> None:
    w, seeds = torch.zeros([2, 8]), torch.arange(2)
    parts = [
        Feature(name, LabelledLatents(w, torch.full([2], score), seeds)) for name, score in (("grey hair", 1.0), ("grey/hair", 2.0), ("hat", 3.0))
    ]
    feature = Feature("all", parts[0].latents, parts=tuple(parts))
    given.save_label_files(feature, None, {}, "a" * 64, tmp_path)
    found = {path.name: load_labels(path) for path in tmp_path.iterdir()}
    assert {name: (each.feature, float(each.latents.score[0])) for name, each in found.items()} == {
        "labels-grey_hair.npz": ("grey hair", 1.0),
        "labels-grey_hair-2.npz": ("grey/hair", 2.0),
        "labels-hat.npz": ("hat", 3.0),
    }
