# SPDX-License-Identifier: Apache-2.0
"""`redact.py evaluate`: any two pickles, judged by whoever is handed in; what it refuses, resumes and repeats."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_conditional
import tiny_run
from click.testing import CliRunner, Result
from PIL import Image

from stylegan_redact import asking, cli, evaluation, job
from stylegan_redact.attacks import resurface
from stylegan_redact.detectors import load_torchscript
from stylegan_redact.network import load_network, read_snapshot, save_network
from stylegan_redact.networks.export import write_network_pickle
from stylegan_redact.networks.stylegan2 import Discriminator, Generator
from stylegan_redact.proof import attacking, judges, pair_store, plan
from stylegan_redact.proof import run as proof_run
from stylegan_redact.proof.plan import Request
from stylegan_redact.types import RedactError

N = 300


def run(*args: str) -> Result:
    chosen, verb = cli.choose(args)
    return CliRunner().invoke(chosen, list(args[1:] if verb else args))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """before.pkl, after.pkl (a darker corner, by nobody's method), judge.pt, second.pt, detector.pt."""
    folder = tmp_path_factory.mktemp("files")
    G_ema = tiny_run.write_network(folder / "before.pkl")
    for name, size in (("detector", 8), ("judge", 9), ("second", 7)):
        tiny_run.write_classifier(folder / f"{name}.pt", G_ema, size)
    original = read_snapshot(folder / "before.pkl")
    network = load_network(original)
    digest = tiny_run.sha256(folder / "detector.pt")
    for G in (network.G, network.G_ema):
        G.synthesis.b16.torgb.bias -= 1.0
    save_network(network, folder / "after.pkl", original=original, record={"detector": {"torchscript_sha256": digest}, "feature": "glow"})
    return folder


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def measured(files: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of an evaluation, and what it printed."""
    result = run(*options(files, tmp_path_factory.mktemp("measured")))
    return finished(result), result.output


def options(files: Path, outdir: Path, **other: str) -> list[str]:
    named = {"before": files / "before.pkl", "after": files / "after.pkl", "feature": "glow", "judge": files / "judge.pt", "outdir": outdir}
    named |= {"num-images": N, "second-judge": files / "second.pt", "judge-misses": "3/100", **other}
    return ["evaluate", *(f"--{name}={value}" for name, value in named.items())]


def finished(result: Result) -> Path:
    assert result.exit_code == 0, result.output
    return Path(result.output.strip().splitlines()[-1]).parent


def contents(folder: Path) -> dict[str, bytes]:
    """All but what tells the time."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("log.txt", "stats.jsonl", "options.json")
    }


def test_two_files_are_measured(files: Path, measured: tuple[Path, str]) -> None:
    folder, output = measured
    assert str(files) not in (folder / "evaluation.json").read_text() and str(files) in (folder / "options.json").read_text()
    found = json.loads((folder / "evaluation.json").read_text())
    after = found["estimates"]["residual_rate/rate_after"]
    before = found["estimates"]["residual_rate/rate_before"]
    assert after["n"] == N and after["value"] < before["value"] / 3 and 15 < before["value"] < 35
    bound = found["estimates"]["residual_rate/bound"]
    assert bound["high"] > after["high"] / (1 - 0.03) and bound["value"] == pytest.approx(after["value"] / 0.97)
    assert found["estimates"]["second_judge_residual_rate/rate_after"]["value"] < before["value"] / 2
    assert {"residual_rate at psi 0.7, const noise, z/rate_after", "residual_rate at psi 1, random noise, z/rate_after"} <= set(found["estimates"])
    assert found["estimates"]["quality/fd-D_after"]["n"] > 0
    assert "z ~ N(0, I)" in output and "300 fresh seeds" in output and "psi 1 and 0.7" in output
    assert str(folder.parent) not in (folder / "evaluation.json").read_text() and not (folder / "pairs").exists()


def test_lines_have_the_form_of_nvidias_metrics(measured: tuple[Path, str]) -> None:
    folder, _ = measured
    lines = [json.loads(line) for line in (folder / "metric-residual_rate.jsonl").read_text().splitlines()]
    assert len(lines) == 4 and {line["metric"] for line in lines} == {"residual_rate"} and {line["snapshot_pkl"] for line in lines} == {"after.pkl"}
    assert [line["sampling"] for line in lines][0] == {"psi": 1.0, "noise": "const", "access": "z"}
    assert all(isinstance(value, float) for line in lines for value in line["results"].values())
    assert lines[0]["estimates"]["rate_after"]["n"] == N


def test_the_sheet_has_the_highest_scores_first(files: Path, measured: tuple[Path, str]) -> None:
    folder, _ = measured
    rows = json.loads((folder / "highest.json").read_text())
    scores = [row["score"] for row in rows["images"]]
    assert rows["of"] == N and len(scores) == 100 and scores == sorted(scores, reverse=True)
    before, after = (load_network(files / f"{name}.pkl") for name in ("before", "after"))
    judge = load_torchscript(files / "judge.pt", "glow", (3, 16, 16))
    pairs = evaluation.measure_pairs(before, after, judge, range(7_500_000, 7_500_000 + N), batch=64)
    assert scores[0] == pytest.approx(float(pairs.logits_after.max()), abs=1e-3)
    assert rows["images"][0]["seed"] == int(pairs.seeds[pairs.logits_after[:, 0].argmax()])


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    files: Path, measured: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pair_store, "PORTION", 128)  # Of whole batches, so that random noise is the same.
    whole = contents(measured[0])
    measure, calls = evaluation.measure_pairs, []

    def killed(*args: object, **kwargs: object) -> object:
        calls.append(kwargs["seeds"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return measure(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(evaluation, "measure_pairs", killed)
    assert run(*options(files, tmp_path / "b")).exit_code != 0
    again = finished(run(*options(files, tmp_path / "b")))
    assert len(list((tmp_path / "b").iterdir())) == 1
    quarter = range(7_500_000, 7_500_000 + N // 4)  # Of two cells with random noise; the other two have three portions.
    assert calls.count(range(7_500_000, 7_500_128)) == 2 == calls.count(quarter) and len(calls) == 2 * 3 + 2 + 1  # and one that was killed
    assert contents(again) == whole and whole.keys() >= {"evaluation.json", "table.txt", "highest.png", "change_map.png", "report.html"}


def test_the_same_command_gives_the_same_bytes_and_another_seed_others(files: Path, measured: tuple[Path, str], tmp_path: Path) -> None:
    again, other = (contents(finished(run(*options(files, tmp_path, **extra)))) for extra in ({}, {"seed": "1"}))
    assert again == contents(measured[0]) and again["highest.png"] != other["highest.png"]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"judge": "detector"}, "it steered the redaction"),
        ({"second-judge": "judge"}, "the same file"),
        ({"judge-misses": "5/3"}, "MISSES/N"),
        ({"psi": "much"}, "psi is a number from 0 to 2"),
        ({"psi": ""}, "--psi= was asked - psi is a number from 0 to 2"),
        ({"keep": "glow"}, "'glow' was to be redacted and kept"),
        ({"noise": "loud"}, "const, random"),
        ({"extractor": "nothing.pt"}, "nothing.pt"),
        ({"attacks": "gradient"}, "give --attacker"),
        ({"attacks": "sorcery"}, "attacks plug-in 'sorcery'"),
        ({"attacks": "latent,inversion:steps=3", "attacker": "detector"}, "--positives=DIR"),
        ({"feature": "class:1"}, "name an attribute"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(files: Path, tmp_path: Path, change: dict[str, str], told: str) -> None:
    paths = {name: str(files / f"{value}.pt") if name in ("judge", "second-judge", "attacker") else value for name, value in change.items()}
    result = run(*options(files, tmp_path, **paths))
    assert result.exit_code == 2 and told in result.output and not list(tmp_path.iterdir())


def test_a_judge_has_to_know_the_feature(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = judges.find
    monkeypatch.setattr(judges, "find", lambda *args: dataclasses.replace(find(*args), feature="gleam"))
    result = run(*options(files, tmp_path))
    assert result.exit_code == 2 and "'gleam' was asked" in result.output


def test_two_equal_commands_at_once_get_two_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof_run, "resolved", lambda plan: {"a": 1})
    plan: Any = SimpleNamespace(request=SimpleNamespace(outdir=tmp_path), feature="glow", files=(SimpleNamespace(name="a"),) * 2)
    with proof_run._folder(plan) as first, proof_run._folder(plan) as second:
        assert first != second
    with proof_run._folder(plan) as again:
        assert again == second


def test_a_psi_is_measured_once_however_it_is_written(files: Path, tmp_path: Path) -> None:
    """Of two the figures would go by one name, and the files of one over those of the other."""
    result = run(*options(files, tmp_path, psi="0,1,1.0,1.0000001,-0"), "--dry-run")
    assert result.exit_code == 0 and '"cells": [\n    "psi 0, const noise, z",\n    "psi 1, const noise, z",\n    "psi 0, random' in result.output


def test_what_the_files_are_to_each_other_is_told_before_anything_is_measured(files: Path, tmp_path: Path) -> None:
    """Exchanged, one as good as unrelated, and psi 0, where many seeds are one picture: figures alone would not show any of it."""

    def notes(before: Path, after: Path, **other: Any) -> str:
        asked = Request(str(before), str(after), "glow", str(tmp_path), judge=str(files / "judge.pt"), num_images=N, extractor="none", **other)
        return "\n".join(plan.prepare(asked).notes)

    before, after, other = files / "before.pkl", tmp_path / "after.pkl", tmp_path / "other.pkl"
    original, network = read_snapshot(before), load_network(str(files / "after.pkl"))
    save_network(network, after, original=original, record={"network_sha256": original.sha256, "feature": "glow"})
    deeper, D = tiny_conditional.generator3(c_dim=0), network.D
    assert D is not None
    write_network_pickle(other, G=deeper, D=D, G_ema=deeper)
    assert "exchanged" not in notes(before, after) and "other tensors" not in notes(before, after) and "psi 0" not in notes(before, after)
    assert "these two seem to be exchanged" in notes(after, before)
    assert "G_ema has other tensors after than before" in notes(before, other)
    assert "At psi 0 all seeds draw one picture" in notes(before, after, psi=(0.0, 1.0))


@pytest.mark.parametrize("resolution", [4, 8])
def test_networks_that_draw_too_small_are_refused_before_anything_is_drawn(resolution: int, files: Path, tmp_path: Path) -> None:
    """Else a folder is left with nothing in it, and at 4 pixels the discriminator falls over first."""
    kwargs: Any = dict(img_resolution=resolution, img_channels=3, channel_base=64, channel_max=4)
    G, D = Generator(z_dim=4, c_dim=0, w_dim=4, **kwargs), Discriminator(c_dim=0, **kwargs)
    write_network_pickle(tmp_path / "small.pkl", G=G, D=D, G_ema=G)
    small, judge, steers = str(tmp_path / "small.pkl"), str(files / "judge.pt"), str(files / "second.pt")
    told = f"images {resolution} pixels wide was asked"
    with pytest.raises(RedactError, match=told):
        plan.prepare(Request(small, small, "glow", str(tmp_path / "runs"), judge=judge))
    with pytest.raises(RedactError, match=told):
        job.prepare(asking.Request(small, "glow", str(tmp_path / "runs"), classifier=steers, judge=judge))


def test_networks_of_two_shapes_are_refused(files: Path, tmp_path: Path) -> None:
    tiny_run.write_network(tmp_path / "other.pkl", c_dim=2)
    result = run(*options(files, tmp_path / "runs", after=str(tmp_path / "other.pkl")))
    assert result.exit_code == 2 and "c_dim 0 and 2" in result.output


def test_attacks_are_made_on_the_controls_too(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacking, "CLEAN_STEPS", 3)
    monkeypatch.setattr(resurface, "LEARNED_FROM", 100)
    asked = "gradient:space=w_plus:steps=5,relearn:examples=4:steps=2:images=64,resurface:steps=2:images=64"
    more = {"attacks": asked, "attacker": str(files / "detector.pt"), "attacked": "16", "noise": "const", "psi": "1"}
    result = run(*options(files, tmp_path, **more))
    found = json.loads((finished(result) / "evaluation.json").read_text())["attacks"]
    assert list(found) == asked.split(",") and all(set(by) == {"after", "before", "clean"} for by in found.values())
    gradient = {victim: curve["points"]["5"] for victim, curve in found[asked.split(",")[0]].items()}
    assert gradient["before"]["n"] == 16 and gradient["before"]["value"] > gradient["after"]["value"]
    assert "no edit forbids relearning" in result.output
    page = (finished(result) / "report.html").read_text()
    assert page.count('<svg class="chart"') >= 3 and "What it takes to get it back" in page and "resurface" in page


def test_a_conditional_network_is_measured_and_attacked_in_its_class(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacking, "CLEAN_STEPS", 2)
    monkeypatch.setattr(resurface, "LEARNED_FROM", 100)
    tiny_run.write_network(tmp_path / "before.pkl", c_dim=3)
    original = read_snapshot(tmp_path / "before.pkl")
    network = load_network(original)
    for G in (network.G, network.G_ema):
        G.synthesis.b16.torgb.bias -= 1.0
    save_network(network, tmp_path / "after.pkl", original=original, record={"feature": "glow"})
    named = {"before": str(tmp_path / "before.pkl"), "after": str(tmp_path / "after.pkl"), "noise": "const", "psi": "1"}
    refused = run(*options(files, tmp_path / "runs", **named))
    assert refused.exit_code == 2 and "--class=N" in refused.output
    asked = (
        "gradient:space=z:steps=2,cem:population=8:elite=2:generations=2:searches=2,relearn:examples=2:steps=1:images=64,resurface:steps=1:images=64"
    )
    named |= {"attacks": asked, "attacker": str(files / "detector.pt"), "attacked": "8", "class": "1"}
    found = json.loads((finished(run(*options(files, tmp_path / "runs", **named))) / "evaluation.json").read_text())
    rates = [found["estimates"][f"residual_rate/rate_{side}"]["value"] for side in ("before", "after")]
    assert rates[0] > rates[1] and list(found["attacks"]) == asked.split(",") and found["classes"] == "1"


def test_random_noise_is_not_drawn_where_no_layer_adds_any(files: Path, tmp_path: Path) -> None:
    original = read_snapshot(files / "before.pkl")
    network = load_network(original)
    for G in (network.G, network.G_ema):
        for name, parameter in G.named_parameters():
            if name.endswith("noise_strength"):
                parameter.data.zero_()
    save_network(network, tmp_path / "still.pkl", original=original, record={"feature": "none"})
    still = str(tmp_path / "still.pkl")
    silent = run(*options(files, tmp_path, before=still, after=still), "--dry-run").output
    noisy = run(*options(files, tmp_path, before=still), "--dry-run").output
    assert '"psi 0.7, const noise, z"' in silent and "random noise" not in silent and '"psi 1, random noise, z"' in noisy


def test_pictures_of_a_folder_are_inverted_and_features_can_be_left_out(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attacking, "CLEAN_STEPS", 2)
    monkeypatch.setattr(resurface, "LEARNED_FROM", 100)
    (tmp_path / "pictures").mkdir()
    more = {
        "attacks": "inversion:steps=3",
        "attacker": str(files / "detector.pt"),
        "attacked": "4",
        "noise": "const",
        "psi": "1",
        "extractor": "none",
    }
    empty = run(*options(files, tmp_path / "runs", positives=str(tmp_path / "pictures"), **more))
    assert empty.exit_code == 2 and "there are none" in empty.output
    for shade in (200, 255):
        Image.new("RGB", (20, 20), (shade, shade, shade)).save(tmp_path / "pictures" / f"{shade}.png")
    found = json.loads(
        (finished(run(*options(files, tmp_path / "runs", positives=str(tmp_path / "pictures"), **more))) / "evaluation.json").read_text()
    )
    assert found["attacks"]["inversion:steps=3"]["before"]["points"]["3"]["n"] == 2
    assert not any(name.startswith("quality/") for name in found["estimates"])
