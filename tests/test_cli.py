# SPDX-License-Identifier: Apache-2.0
"""The command as a user meets it: what it refuses, what it leaves behind, and that it does the same twice."""

import hashlib
import json
import pickle
import sys
from pathlib import Path

import click
import pytest
import tiny_run
import torch
from click.testing import CliRunner
from PIL import Image

from stylegan_redact import asking, cli, detectors, job, network_files, run_dir
from stylegan_redact.network import load_network, sample_w, synthesize
from stylegan_redact.pickles import read_snapshot

SMALL = ["--num-latents=300", "--num-images=150"]
FILES = {"options.json", "redaction.json", "stats.jsonl", "log.txt", "before.png", "after.png", "diff.png", "network-redacted.pkl"}
FILES |= {"redaction.safetensors", "labels.npz", "report.html", "README.md"}


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A folder with tiny.pkl, detector.pt and judge.pt, and the options that name them."""
    folder = tmp_path_factory.mktemp("made")
    return folder, tiny_run.write_all(folder)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory, and methods that take no time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(asking, "METHODS", "planted_methods")
    return tmp_path


@pytest.fixture
def as_bundled(made, monkeypatch):
    """The tiny network as a bundled one, whose classifiers know three attributes."""
    folder, _ = made
    parts = [tiny_run.load_torchscript(folder / name) for name in ("detector.pt", "judge.pt", "detector.pt")]

    class Three(torch.nn.Module):
        def forward(self, img):
            return torch.stack([part(img) for part in parts], 1)

    monkeypatch.setattr(network_files, "bundled", lambda: {"tiny64": folder / "tiny.pkl"})
    monkeypatch.setattr(detectors, "load_bundled", lambda role, device="cpu": detectors.Classifier(Three(), ("beard", "bald", "grey_hair")))


def run(*args):
    return CliRunner().invoke(cli.command(), [*args])


def ran(*args):
    """The run directory that a command leaves, which must end well."""
    result = run(*args)
    assert result.exit_code == 0, result.output
    return Path(result.output.strip().splitlines()[-1]).parent, result.output


def refused(here, *args, exit_code=2):
    """The message of a command that must end with that code and leave nothing."""
    result = run(*args)
    assert result.exit_code == exit_code, result.output
    assert list(here.iterdir()) == []
    assert "Error: " in result.output and "Traceback" not in result.output
    return result.output


# ---------------------------------------------------------------------------------------------------------------------
# Options


def test_help_lists_the_options_of_command_and_methods(here):
    result = run("--help")
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    for name in ("--network", "--feature", "--outdir", "--seed", "--batch-gpu", "--kimg", "--dry-run", "--classifier", "--judge", "--keep"):
        assert name in text
    assert "[edit: default 2.0, at least 0, at most 10; idle: default 1.0, at least 0, at most 1]" in text
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("flag", ["-n", "--dry-run", "--dry_run"])
def test_dry_run_says_what_and_how_long_and_writes_nothing(here, made, flag):
    result = run(*made[1], *SMALL, flag)
    assert result.exit_code == 0, result.output
    assert list(here.iterdir()) == []
    assert '"num_latents": 300' in result.output and "on this machine (cpu): labelling" in result.output
    assert "redacting" in result.output and "measuring" in result.output


def test_underscores_are_dashes(here, made):
    spelt = [run(*made[1], "-n", f"--num{sep}images=77", f"--batch{sep}gpu=3", f"--num{sep}latents=300").output for sep in "-_"]
    options = [text[text.index("{") : text.rindex("}") + 1] for text in spelt]
    assert options[0] == options[1]
    assert json.loads(options[0])["num_images"] == 77 and json.loads(options[0])["batch_gpu"] == 3


def test_method_options_arrive_with_their_types(here, made):
    result = run(*made[1], "-n", "--strength=3", "--rounds=5", "--careful=1", "--kimg=0.5")
    options = json.loads(result.output[result.output.index("{") : result.output.rindex("}") + 1])["method_options"]
    assert options == {"strength": 3.0, "kimg": 0.5, "rounds": 5, "careful": True}


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--no-such-option=1", "No such option"),
        ("--method=nothing", "'edit', 'idle'"),
        ("--seed=-1", "-1"),
        ("--seed=429", "428"),
        ("--num-images=0", "1<=x"),
        ("--device=abacus", "'auto', 'cpu', 'cuda'"),
        ("--strength=11", "at most 10"),
        ("--strength=nan", "at least 0"),
        ("--strength=much", "float"),
        ("--rounds=2.5", "int"),
        ("--careful=perhaps", "bool"),
        ("--access=z,x", "z, w, w_plus"),
        ("--keep=glow", "take it out of --keep"),
        ("--keep=hat", "knows: glow"),
    ],
)
def test_wrong_values_are_refused_with_what_there_is(here, made, option, told):
    assert told in refused(here, *made[1], *SMALL, option)


def test_an_option_of_another_method_is_refused(here, made):
    told = refused(here, *made[1], *SMALL, "--method=idle", "--kimg=1")
    assert "'kimg'" in told and "there is: strength" in told


@pytest.mark.parametrize("left_out", ["--network", "--feature"])
def test_network_and_feature_must_be_given(here, made, left_out):
    assert left_out in refused(here, *(option for option in made[1] if not option.startswith(left_out)))


def test_cuda_where_there_is_none(here, made, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in refused(here, *made[1], "--device=cuda")


# ---------------------------------------------------------------------------------------------------------------------
# Networks, features, classifiers


def bad_networks():
    whole = None

    def truncated(folder):
        return (folder / "tiny.pkl").read_bytes()[:-1000]

    class Foreign:
        def __reduce__(self):
            return (Path.touch, (Path("executed"),))

    return {
        "html": lambda folder: b"<!DOCTYPE html><html><body>Not found</body></html>",
        "jpeg": lambda folder: b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01" + bytes(500),
        "truncated": truncated,
        "empty": lambda folder: b"",
        "foreign": lambda folder: pickle.dumps({"G": Foreign(), "D": None, "G_ema": whole}, protocol=4),
        "dict": lambda folder: pickle.dumps({"weights": [1.0, 2.0]}, protocol=4),
    }


@pytest.mark.parametrize("kind", sorted(bad_networks()))
def test_files_that_are_no_network_are_refused_in_a_sentence(here, made, tmp_path_factory, kind):
    bad = tmp_path_factory.mktemp("bad") / "bad.pkl"
    bad.write_bytes(bad_networks()[kind](made[0]))
    assert "bad.pkl" in refused(here, f"--network={bad}", *made[1][1:], exit_code=3 if kind == "foreign" else 2)


def test_missing_networks_are_refused(here, made):
    assert "no such file" in refused(here, f"--network={here / 'none.pkl'}", *made[1][1:])
    assert "folder" in refused(here, f"--network={made[0]}", *made[1][1:])
    assert "URL" in refused(here, "--network=s3://bucket/x.pkl", *made[1][1:])
    assert "no such file" in refused(here, f"--network=file://{here}/none.pkl", *made[1][1:]).replace("No such", "no such")


def test_an_unknown_name_lists_the_bundled_networks(here, as_bundled):
    assert "bundled are: tiny64" in refused(here, "--network=ffhq", "--feature=beard")


def test_a_file_url_is_a_path(here, made):
    assert run(f"--network=file://{made[0] / 'tiny.pkl'}", *made[1][1:], "-n").exit_code == 0


def test_a_conditional_network_is_refused(here, made, tmp_path_factory):
    path = tmp_path_factory.mktemp("conditional") / "net.pkl"
    tiny_run.write_network(path, c_dim=2)
    assert "conditional" in refused(here, f"--network={path}", *made[1][1:])


def test_an_unknown_feature_lists_what_the_detector_knows(here, as_bundled):
    told = refused(here, "--network=tiny64", "--feature=bread")
    assert "knows: beard, bald, grey_hair" in told and "did you mean beard" in told


def test_attribute_names_may_have_dashes(here, as_bundled):
    result = run("--network=tiny64", "--feature=Grey-Hair", "--keep=bald", "-n")
    assert '"feature": "grey_hair"' in result.output


def test_a_network_of_ones_own_needs_classifier_and_judge(here, made):
    network, feature, classifier, judge = made[1]
    told = refused(here, network, feature)
    assert (
        "none, this is no bundled network; --classifier: not given; --labels: not given" in told
        and "--feature=glow --classifier=FILE --judge=FILE" in told
    )
    assert "without --judge" in refused(here, network, feature, classifier)
    assert "without --classifier" in refused(here, network, feature, judge)
    assert "same file" in refused(here, network, feature, classifier, classifier.replace("--classifier", "--judge"))


@pytest.mark.parametrize("option", ["--classifier", "--judge"])
def test_bad_classifiers_are_refused(here, made, tmp_path_factory, option):
    folder = tmp_path_factory.mktemp("bad")
    (folder / "text.pt").write_text("no TorchScript")
    tiny_run.save_torchscript(torch.nn.Conv2d(1, 1, 3), folder / "channels.pt")
    tiny_run.save_torchscript(torch.nn.Flatten(), folder / "many.pt")
    for name in ("none.pt", "text.pt", "channels.pt", "many.pt"):
        assert name in refused(here, *made[1], f"{option}={folder / name}")


@pytest.mark.parametrize(("threshold", "told"), [(-100, "300 of 300"), (100, "0 of 300")])
def test_features_too_common_or_too_rare_are_refused_with_the_rate(here, made, tmp_path_factory, threshold, told):
    folder = tmp_path_factory.mktemp("threshold")
    tiny_run.save_torchscript(tiny_run.BrightRegion(8, threshold), folder / "c.pt")
    assert told in refused(here, *made[1], *SMALL, f"--classifier={folder / 'c.pt'}")


@pytest.mark.parametrize("option", ["--network", "--classifier", "--labels", "--outdir", "--resume", "--feature=direction:"])
def test_a_name_that_no_disk_takes_is_refused_in_a_sentence(here, made, option):
    equals = "" if ":" in option else "="
    told = refused(here, *made[1], "--method=idle", f"{option}{equals}{'n' * 5000}")
    assert "n" * 50 in told


def test_a_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    for word, meant_by_it in (
        ("--outdir=~/runs", "--outdir=/home/me/runs"),
        ("--feature=labels:~/a.npz", "--feature=labels:/home/me/a.npz"),
        ("--delta=~/a,~/b", "--delta=/home/me/a,/home/me/b"),
        ("--outdir=~", "--outdir=/home/me"),
        ("--network=https://example.org/?a=~/b", "--network=https://example.org/?a=~/b"),
        ("--outdir=a~/b", "--outdir=a~/b"),
        ("~/a.pkl", "~/a.pkl"),
    ):
        assert asking.at_home(word) == meant_by_it
    seen = []
    command = click.Command("verb", params=[click.Option(["--out"])], callback=lambda out: seen.append(out))
    monkeypatch.setattr(cli, "choose", lambda words: (command, "verb"))
    monkeypatch.setattr(sys, "argv", ["redact.py", "verb", "--out=~/x"])
    with pytest.raises(SystemExit):
        cli.main()
    assert seen == ["/home/me/x"]


def test_an_outdir_that_is_a_file_is_refused_before_the_work(here, made, tmp_path_factory):
    taken = tmp_path_factory.mktemp("taken") / "file"
    taken.write_text("")
    assert "is no folder" in refused(here, *made[1], f"--outdir={taken / 'sub'}", "-n")


# ---------------------------------------------------------------------------------------------------------------------
# Whole runs


def test_a_run_leaves_all_files_and_a_redacted_network(here, made):
    folder, output = ran(*made[1], *SMALL, "--access=z,w")
    assert folder == Path("redact-runs/00000-redact-glow-tiny-edit")
    assert {path.name for path in folder.iterdir()} == FILES
    record = json.loads((folder / "redaction.json").read_text())
    options = json.loads((folder / "options.json").read_text())

    before, after = load_network(made[0] / "tiny.pkl"), load_network(folder / "network-redacted.pkl")
    judge = tiny_run.load_torchscript(made[0] / "judge.pt")
    seeds = range(5_000_000, 5_000_150)
    for net, key in ((before, "rate_before"), (after, "rate_after")):
        img = synthesize(net.G_ema, sample_w(net.G_ema, seeds)).clamp(-1, 1)
        estimate = record["estimates"][f"residual_rate/{key}"]
        assert estimate["value"] == pytest.approx(100 * float((judge(img) > 0).float().mean()), abs=1e-6)
        assert estimate["low"] <= estimate["value"] <= estimate["high"] and estimate["n"] == 150
    assert record["estimates"]["residual_rate/rate_before"]["value"] > 10 > record["estimates"]["residual_rate/rate_after"]["value"] == 0
    assert "w_residual_rate/removed" in record["estimates"] and "residual rate" in output
    assert (
        options["seeds"]
        == record["seeds"]
        == {
            "labelled": {"first": 0, "last": 299, "count": 300},
            "measured": {"first": 5_000_000, "last": 5_000_149, "count": 150},
        }
    )
    assert options["network_sha256"] == hashlib.sha256((made[0] / "tiny.pkl").read_bytes()).hexdigest()
    assert record["network_redacted_sha256"] == hashlib.sha256((folder / "network-redacted.pkl").read_bytes()).hexdigest()
    assert {target["met"] for target in record["targets"]} <= {True, False} and "met" in output


def test_the_log_has_every_stage(here, made):
    folder, _ = ran(*made[1], *SMALL)
    events = [json.loads(line) for line in (folder / "stats.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(event["stage"] for event in events)) == ["label", "edit", "measure"]
    assert [event["loss"] for event in events if event["stage"] == "edit"] == [1, 1 / 2, 1 / 3]
    log = (folder / "log.txt").read_text()
    assert "Redaction options:" in log and "This will take about" in log and "label" in log and "targets met" in log


def test_pictures_show_the_feature_in_the_upper_half(here, made):
    folder, _ = ran(*made[1], *SMALL)
    told = json.loads((folder / "redaction.json").read_text())["pictures"]
    detector, G = tiny_run.load_torchscript(made[0] / "detector.pt"), load_network(made[0] / "tiny.pkl").G_ema
    for key, shows in (("with_feature", True), ("without_feature", False)):
        assert bool(((detector(synthesize(G, sample_w(G, told[key]))) > 0) == shows).all())
    assert len(told["with_feature"]) == len(told["without_feature"]) == told["columns"] * 3
    for name in ("before", "after", "diff"):
        with Image.open(folder / f"{name}.png") as picture:
            assert picture.size == (told["columns"] * 16, 6 * 16)


def test_same_command_same_bytes_and_the_next_number(here, made):
    folders = [ran(*made[1], *SMALL)[0] for _ in range(2)]
    assert [folder.name[:5] for folder in folders] == ["00000", "00001"]
    for name in ("network-redacted.pkl", "before.png", "after.png", "diff.png", "options.json"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes(), name
    assert (folders[0] / "network-redacted.pkl").read_bytes() != (ran(*made[1], *SMALL, "--strength=3")[0] / "network-redacted.pkl").read_bytes()


def test_the_pickle_says_what_was_done_and_nothing_of_the_machine(here, made):
    folder, _ = ran(*made[1], *SMALL, "--seed=7")
    record = read_snapshot(folder / "network-redacted.pkl").redaction
    assert record["feature"] == "glow" and record["method"] == "edit" and record["seed"] == 7
    assert record["options"] == {"strength": 2.0, "kimg": 0.1, "rounds": 3, "careful": False}
    assert record["network_sha256"] == hashlib.sha256((made[0] / "tiny.pkl").read_bytes()).hexdigest()
    content = (folder / "network-redacted.pkl").read_bytes()
    assert str(made[0]).encode() not in content and str(here).encode() not in content


def test_a_second_feature_keeps_the_record_of_the_first_and_the_bundled_classifiers(here, as_bundled):
    first, _ = ran("--network=tiny64", "--feature=beard", "--strength=0.02", *SMALL)
    second, _ = ran(f"--network={first / 'network-redacted.pkl'}", "--feature=grey_hair", *SMALL)
    assert second.name == "00001-redact-grey_hair-network-redacted-edit"
    record = read_snapshot(second / "network-redacted.pkl").redaction
    assert record["feature"] == "grey_hair" and record["earlier"]["feature"] == "beard"


def test_a_method_that_changes_nothing_ends_without_a_pickle(here, made):
    result = run(*made[1], *SMALL, "--method=idle")
    assert result.exit_code == 2 and "unchanged" in result.output
    (folder,) = (here / "redact-runs").iterdir()
    assert not {"redaction.json", "network-redacted.pkl"} & {path.name for path in folder.iterdir()}
    assert "Error: " in (folder / "log.txt").read_text()


def test_redaction_json_comes_last(here, made, monkeypatch):
    def full(path, value, write=run_dir.write_json):
        if path.name == "redaction.json":
            raise job.RedactError("stopped here")
        write(path, value)

    monkeypatch.setattr(run_dir, "write_json", full)
    assert run(*made[1], *SMALL).exit_code == 2
    (folder,) = (here / "redact-runs").iterdir()
    assert {path.name for path in folder.iterdir()} == FILES - {"redaction.json"} | {"checkpoint"}


def test_what_was_dropped_is_said(here, made, monkeypatch):
    save = network_files.save_network
    monkeypatch.setattr(network_files, "save_network", lambda *args, **kwargs: (*save(*args, **kwargs), "training_set_kwargs.path"))
    folder, output = ran(*made[1], *SMALL)
    assert "may be private: training_set_kwargs.path" in output
    assert json.loads((folder / "redaction.json").read_text())["dropped"] == ["training_set_kwargs.path"]


def test_other_errors_stay_tracebacks(here, made, monkeypatch):
    monkeypatch.setattr(job, "carry_out", lambda *_: 1 / 0)
    assert isinstance(run(*made[1], *SMALL).exception, ZeroDivisionError)


def test_fold_end_to_end(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, _ = ran(*made[1], "--num-latents=600", "--num-images=150", "--method=fold")
    estimates = json.loads((folder / "redaction.json").read_text())["estimates"]
    assert estimates["residual_rate/rate_before"]["value"] > 10
    assert estimates["residual_rate/rate_after"]["high"] < estimates["residual_rate/rate_before"]["low"]
