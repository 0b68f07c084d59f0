# SPDX-License-Identifier: Apache-2.0
"""Where nobody brought a classifier, one is learned from the labels and steers `edit`; it says how well it learned, and never judges."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import tiny_run
import torch
from click.testing import CliRunner
from test_ranks import on_all

from stylegan_redact import cli, evaluation, given, keeping, learned
from stylegan_redact.asking import SEEDS_PER_RUN
from stylegan_redact.checkpoints import Checkpoints
from stylegan_redact.latents import LabelFile, load_labels, save_labels
from stylegan_redact.methods.edit import Edit
from stylegan_redact.network import load_network, sample_w
from stylegan_redact.types import Detector, Estimate, LabelledLatents, RedactError

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "STEPS", 100)


@pytest.fixture(scope="module")
def labels() -> LabelledLatents:
    found = tiny.feature(tiny.network()).latents
    assert found is not None
    return found


def test_it_learns_what_the_labels_say_and_can_steer(labels: LabelledLatents) -> None:
    network, state = tiny.network(), torch.get_rng_state()
    detector, accuracy = learned.learn(network, "beard", labels, batch=250)
    assert isinstance(detector, Detector) and detector.attributes == ("beard",) and detector.differentiable
    assert accuracy.low > 70 and accuracy.n == -(-len(labels.w) // learned.ASIDE) and accuracy.unit == "%"
    fresh, truth = tiny.images(network.G_ema, tiny.MEASURED), tiny.Corners(network.G_ema)
    said, shows = detector.logits(fresh)[:, 0] > 0, truth.logits(fresh)[:, 1] > 0
    assert float(((said[shows]).float().mean() + (~said[~shows]).float().mean()) / 2) > 0.8
    assert abs(float(said.float().mean() - shows.float().mean())) < 0.12  # More of them were shown to it than there are.
    img = fresh[:4].clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(detector.logits(img).sum(), img)
    assert bool((slope.flatten(1).norm(dim=1) > 0).all()) and not any(parameter.requires_grad for parameter in detector.net.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_same_labels_give_the_same_detector_whatever_the_unit_of_small_scores(labels: LabelledLatents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "STEPS", 20)
    monkeypatch.setattr(learned, "LEAST", -1.0)
    tiny_scores = replace(labels, score=labels.score / labels.score.abs().max() / 64)
    one, again, other = (
        learned.learn(tiny.network(), "beard", each, batch=250)[0].net.state_dict()
        for each in (tiny_scores, tiny_scores, replace(tiny_scores, score=tiny_scores.score / 4))
    )
    assert all(torch.equal(one[name], again[name]) and torch.allclose(one[name], other[name], atol=1e-4) for name in one)


def test_labels_that_mean_nothing_and_too_few_are_refused(labels: LabelledLatents) -> None:
    random = torch.randn(len(labels.w), generator=torch.Generator().manual_seed(0))
    with pytest.raises(RedactError, match=r"50 is chance.*--method=fold"):
        learned.learn(tiny.network(), "beard", replace(labels, score=random), batch=250)
    rare = torch.where(torch.arange(len(labels.w)) < 12, 1.0, -1.0)
    with pytest.raises(RedactError, match="12 of .* too few of one kind"):
        learned.learn(tiny.network(), "beard", replace(labels, score=rare), batch=250)


def test_too_few_labels_are_refused_before_anything_is_drawn(
    made: tuple[Path, list[str]], labels: LabelledLatents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned, "generate", None)
    rare = torch.where(torch.arange(len(labels.w)) < 12, 1.0, -1.0)
    with pytest.raises(RedactError, match="12 of 1500 show it, too few of one kind: about 20 that show it and as many that do not are needed"):
        learned.learn(tiny.network(), "beard", replace(labels, score=rare), batch=250)
    file = load_labels(made[0] / "labels.npz")
    some = torch.cat([(file.latents.score > 0).nonzero()[:10, 0], (file.latents.score <= 0).nonzero()[:10, 0]])
    assert file.latents.seeds is not None
    few = LabelledLatents(file.latents.w[some], file.latents.score[some], file.latents.seeds[some])
    save_labels(tmp_path / "few.npz", replace(file, latents=few, source=("person",) * 20))
    told, folder = run(tmp_path / "none", made[1][0], f"--feature=labels:{tmp_path / 'few.npz'}", *made[1][2:], "--dry-run")
    assert "10 of 20 show it, too few of one kind" in told and folder is None


def test_scores_of_any_unit_become_log_odds() -> None:
    certain = torch.tensor([-6.0, 6.0, -0.25, 1.0, -3.0])
    assert torch.equal(learned.log_odds(certain), certain), "as the label page writes them"
    assert learned.log_odds(torch.tensor([1.0, -1.0, -1.0])).tolist() == [2.0, -2.0, -2.0], "a person's yes and no"
    assert learned.log_odds(torch.tensor([0.0, 0.0, 0.0, 1.0])).tolist() == [-2.0, -2.0, -2.0, 2.0], "0 does not show"
    assert learned.log_odds(torch.tensor([0.1, -0.1, 0.2])).tolist() == pytest.approx([2.0, -2.0, 4.0])
    assert bool((learned.log_odds(torch.zeros(3)) < 0).all())


def test_of_labels_that_nearly_all_show_it_learns_from_both_kinds(labels: LabelledLatents, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a batch of 64 would have none that does not."""
    shares: list[float] = []
    monkeypatch.setattr(learned, "_train", lambda net, pictures, target, kinds, share, generator, **_: shares.append(share))
    monkeypatch.setattr(learned, "LEAST", -1.0)
    often = torch.where(torch.arange(len(labels.w)) < len(labels.w) - 25, 1.0, -1.0)
    learned.learn(tiny.network(), "beard", replace(labels, score=often), batch=250)
    assert shares == [0.75]


def test_its_pictures_are_drawn_once_by_all_ranks_and_a_signal_is_heard(labels: LabelledLatents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "STEPS", 2)
    monkeypatch.setattr(learned, "LEAST", -1.0)
    drawn, real, told, network = [], learned.generate, [], tiny.network()
    monkeypatch.setattr(learned, "generate", lambda G, w, **how: drawn.append(len(w)) or real(G, w, **how))
    alone = learned.learn(network, "beard", labels, batch=250, progress=lambda stage, share, _: told.append((stage, round(share, 2))))
    assert sum(drawn) == 1500 and [share for stage, share in told if stage == learned.DRAWING] == [0.17, 0.33, 0.5, 0.67, 0.83, 1.0]
    drawn.clear()
    both = on_all(2, lambda world: learned.learn(network, "beard", labels, batch=250))
    assert sum(drawn) == 1500
    for detector, accuracy in both:
        assert accuracy == alone[1]
        assert all(torch.equal(one, other) for one, other in zip(detector.net.parameters(), alone[0].net.parameters(), strict=True))

    def stopped() -> None:
        raise keeping.Stopped()

    monkeypatch.setattr(keeping, "check", stopped)
    drawn.clear()
    with pytest.raises(keeping.Stopped):
        learned.learn(tiny.network(), "beard", labels, batch=250)
    assert drawn == [250]


@pytest.mark.parametrize(("resolution", "channels"), [(8, 1), (32, 3), (1024, 3)])
def test_it_looks_at_pictures_of_any_size(resolution: int, channels: int) -> None:
    net = learned.Student(channels, resolution, torch.Generator().manual_seed(0))
    assert net(torch.zeros([2, channels, resolution, resolution])).shape == (2,) and net.size == min(resolution, learned.LARGEST)
    assert sum(parameter.numel() for parameter in net.parameters()) < 1_000_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A network, a judge, and labels by somebody whom nobody knows."""
    folder = tmp_path_factory.mktemp("made")
    network, _, classifier, judge = tiny_run.write_all(folder)
    G = load_network(folder / "tiny.pkl").G_ema
    w, teacher = sample_w(G, range(400)), tiny_run.load_torchscript(Path(classifier.partition("=")[2]))
    score = teacher(tiny.images(G, range(400)))
    save_labels(
        folder / "labels.npz",
        LabelFile("glow", LabelledLatents(w, score, torch.arange(400)), ("person",) * 400, tiny_run.sha256(folder / "tiny.pkl")),
    )
    return folder, [network, f"--feature=labels:{folder / 'labels.npz'}", "--num-images=60", "--kimg=0.04", "--batch=8", judge]


def run(outdir: Path, *options: str) -> tuple[str, Path | None]:
    result = CliRunner().invoke(cli.command(), [*options, f"--outdir={outdir}"])
    assert result.exit_code == (2 if result.output.startswith("Error") or "\nError" in result.output else 0), result.output
    return result.output, next(outdir.iterdir(), None) if outdir.exists() else None


def test_edit_is_steered_by_what_it_learned_and_says_so(made: tuple[Path, list[str]], tmp_path: Path) -> None:
    told, folder = run(tmp_path, *made[1])
    assert folder is not None and "Nobody brought a classifier of glow: edit is steered by one that is learned from the labels" in told
    record = json.loads((folder / "redaction.json").read_text())
    assert record["provenance"]["detector"] == {"learned_from": "labels"} and record["judge"]["torchscript_sha256"]
    assert record["before_training"]["figures"][f"glow/{given.LEARNED}"]["low"] > 60 and "residual_rate/removed" in record["estimates"]
    assert "learned detector, on labels kept aside" in told and "Warning: the judge made" not in told
    report = (folder / "report.html").read_text()
    assert "a detector learned from what the source" in report and "no independent judge" not in report and "comes with None" not in report
    assert '"time"' in (folder / "stats.jsonl").read_text() and (folder / "redaction.safetensors").exists()


def test_without_a_judge_the_report_says_that_nobody_measured(made: tuple[Path, list[str]], tmp_path: Path) -> None:
    _, folder = run(tmp_path, *(option for option in made[1] if not option.startswith("--judge")))
    assert folder is not None and json.loads((folder / "redaction.json").read_text())["judge"] is None
    assert "no independent judge looked, so what is left of the feature was not measured" in (folder / "report.html").read_text()


def test_edit_is_the_default_and_fold_names_it(made: tuple[Path, list[str]], tmp_path: Path) -> None:
    dry, _ = run(tmp_path / "none", *made[1], "--dry-run")
    assert '"method": "edit"' in dry and '"learned_from": "labels"' in dry and "learning " in dry and "labelling " not in dry
    told, folder = run(tmp_path / "fold", *(option for option in made[1] if not option.startswith(("--kimg", "--batch"))), "--method=fold")
    assert folder is not None and "fold follows the labels' direction; --method=edit learns a detector from them" in told


def test_what_only_the_judge_knows_is_not_kept_and_the_refusal_says_so(made: tuple[Path, list[str]], tmp_path: Path) -> None:
    told, _ = run(tmp_path, *(option for option in made[1] if not option.startswith("--judge")), "--keep=hat", "--dry-run")
    assert "'hat' was asked - there is nothing known to the detector and the judge - leave it out, or give classifiers that know it" in told


def test_who_labelled_must_not_judge_unwarned(made: tuple[Path, list[str]], tmp_path: Path) -> None:
    network, nobody = load_network(made[0] / "tiny.pkl"), evaluation.NoClassifier()
    labels = load_labels(made[0] / "labels.npz")
    save_labels(tmp_path / "labels.npz", replace(labels, source=(f"classifier {'a' * 64}",) * 400))
    brought = given.given_by(f"labels:{tmp_path / 'labels.npz'}", None, network)
    assert brought is not None
    for sha256, warned in (("a" * 64, 1), ("b" * 64, 0)):
        told, roles = given.steered(brought, "edit", Edit(), (nobody, nobody, {"detector": None, "judge": {"torchscript_sha256": sha256}}), network)
        assert sum("Warning: the judge made these labels, too" in note for note in told.notes) == warned and told.learns
        assert roles[0].attributes == ("glow",) and roles[1] is nobody
    for mirror in (None, True, False):
        assert given.steered(brought, "edit", Edit(mirror=mirror), (nobody, nobody, {}), network)[0].mirror == (mirror is not False)


def test_where_left_and_right_differ_it_learns_from_no_mirrored_picture(labels: LabelledLatents, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, drawn = [], learned.draw_views
    monkeypatch.setattr(learned, "draw_views", lambda *shape, mirror: asked.append(mirror) or drawn(*shape, mirror=mirror))
    monkeypatch.setattr(learned, "STEPS", 2)
    monkeypatch.setattr(learned, "LEAST", -1.0)
    learned.learn(tiny.network(), "beard", labels, batch=250, mirror=False)
    assert asked == [False, False]


def test_a_source_that_labels_teaches_too_and_a_run_stopped_meanwhile_ends_in_the_same_bytes(
    made: tuple[Path, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(f"def valid(picture):\n    return picture[:8, :8].mean() < {threshold(made[0]) * 127.5 + 128}\n")
    options = [made[1][0], f"--feature=validity:{tmp_path / 'mine.py'}:valid:name=glow", "--num-latents=400", *made[1][2:]]
    keep, stopped = Checkpoints.keep, []

    def keep_and_stop(self: Checkpoints, at: keeping.Moment) -> None:
        if at.name == "learn" and at.images == 50 * learned.BATCH and not stopped:
            stopped.append(os.kill(os.getpid(), signal.SIGTERM))
        keep(self, at)

    told, alone = run(tmp_path / "alone", *options)
    monkeypatch.setattr(Checkpoints, "keep", keep_and_stop)
    halves = [run(tmp_path / "halves", *options, "--resume=latest") for _ in range(2)]
    assert stopped and "Unfinished" in halves[0][0] and "edit is steered by one that is learned from the labels" in told and alone is not None
    assert json.loads((alone / "redaction.json").read_text())["provenance"]["detector"] == {"learned_from": "validity"}
    one, other = ((folder / "network-redacted.pkl").read_bytes() for folder in (alone, halves[1][1]) if folder is not None)
    assert one == other


def threshold(folder: Path) -> float:
    """Mean brightness of the corner past which the planted feature shows."""
    return float(tiny_run.load_torchscript(folder / "detector.pt").threshold)


@pytest.mark.parametrize(("kind", "classifier"), [("zero and one", False), ("small", False), ("zero and one", True)])
def test_labels_that_are_no_log_odds_are_learned_and_edited_by(kind: str, classifier: bool, made: tuple[Path, list[str]], tmp_path: Path) -> None:
    """Scores above -1 would all count as nearly showing the feature."""
    file = load_labels(made[0] / "labels.npz")
    score = (file.latents.score > 0).float() if kind == "zero and one" else file.latents.score / file.latents.score.abs().max() / 4
    save_labels(tmp_path / "labels.npz", replace(file, latents=replace(file.latents, score=score)))
    by = [f"--classifier={made[0] / 'detector.pt'}"] if classifier else []
    told, folder = run(tmp_path / "run", made[1][0], f"--feature=labels:{tmp_path / 'labels.npz'}", *made[1][2:], *by)
    assert folder is not None, told
    assert torch.equal(load_labels(folder / "labels.npz").latents.score, learned.log_odds(score))


def test_another_seed_learns_another_detector(made: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []
    known = (learned.Learned(learned.Student(3, 16, torch.Generator().manual_seed(0)), "glow"), Estimate(90, 80, 95, 80, "%"))
    monkeypatch.setattr(learned, "learn", lambda *_, seed, **__: seeds.append(seed) or known)
    network = load_network(made[0] / "tiny.pkl")
    brought = given.given_by(f"labels:{made[0] / 'labels.npz'}", None, network)
    assert brought is not None
    for seed in (0, 3):
        seeds_of_it = range(seed * SEEDS_PER_RUN, seed * SEEDS_PER_RUN + 400)
        replace(brought, learns=True).gather(network, seeds_of_it, evaluation.NoClassifier(), None, batch=50, half=False, progress=None)
    assert seeds == [0, 3]


def test_a_direction_teaches_nothing(made: tuple[Path, list[str]], tmp_path: Path) -> None:
    told, folder = run(tmp_path / "none", made[1][0], "--feature=sefa:0", "--method=edit", *made[1][2:])
    assert "it needs a detector, and none knows it" in told and "--labels=FILE to learn one from" in told and folder is None
