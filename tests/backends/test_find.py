# SPDX-License-Identifier: Apache-2.0
"""What --classifier and --judge may name: words of CelebA, one file fetched and no other, the command from end to end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import celebahq_pickles as pickles
import pytest
import tiny_run
import torch
from click.testing import CliRunner
from odd_server import Page, Server, serving

from stylegan_redact import cli, job, names
from stylegan_redact.backends import celebahq
from stylegan_redact.backends.find import find, was_steering
from stylegan_redact.proof import judges
from stylegan_redact.types import RedactError

SHAPE = (3, 16, 16)
FILES = {27: "no-beard", 20: "goatee", 0: "male"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """NVIDIA's, with some of its files; the cache is empty."""
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    with serving() as running:
        for number, slug in FILES.items():
            url = running.url(f"/celebahq-classifier-{number:02d}-{slug}.pkl", Page(pickles.content(pickles.variables(number))))
        monkeypatch.setattr(celebahq, "BASE_URL", url.rpartition("/")[0] + "/")
        yield running


def test_words() -> None:
    told = {word: str(names.recipe(word)) for word in ("beard", "No Beard", "Grey-Hair", "glasses", "5_o_Clock_Shadow", "woman", "smile")}
    assert list(told.values()) == ["not no_beard", "no_beard", "gray_hair", "eyeglasses", "5_o_clock_shadow", "not male", "smiling"]
    assert names.recipe("young").index == 39 and names.recipe("beard").index == 24 and names.recipe("beard").sign == -1
    assert set(names.SAME.values()) | set(names.ABSENT.values()) <= set(names.ATTRIBUTES)
    assert not set(names.ATTRIBUTES) & {*names.SAME, *names.ABSENT} and not set(names.SAME) & set(names.ABSENT)
    for typo, meant in (("berd", "beard"), ("moustach", "moustache"), ("wearing_hut", "wearing_hat")):
        with pytest.raises(RedactError, match=f"did you mean .*{meant}"):
            names.recipe(typo)


def test_only_the_file_of_the_attribute_is_fetched_once(server: Server) -> None:
    img = torch.rand([2, *SHAPE], generator=torch.Generator().manual_seed(0))
    file = find("celebahq", "beard")
    assert server.asked == [("/celebahq-classifier-27-no-beard.pkl", None)]
    beard, goatee = file.load(SHAPE), find("celebahq:goatee", "facial_hair").load(SHAPE)
    assert (beard.attributes, goatee.attributes) == (("beard",), ("facial_hair",))
    assert not torch.equal(beard.logits(img), goatee.logits(img))
    assert torch.equal(find("celebahq:no-beard", "clean").load(SHAPE).logits(img), -beard.logits(img))
    assert [path for path, _ in server.asked[1:]] == ["/celebahq-classifier-20-goatee.pkl"]
    assert file.record == {"file_sha256": file.sha256, "kind": "celebahq", "attribute": "not no_beard"} and was_steering(file.record) == file.sha256
    with pytest.raises(RedactError, match="cannot be had .*404"):
        find("celebahq:hat", "hat")


def test_urls(server: Server) -> None:
    url = celebahq.BASE_URL + "celebahq-classifier-00-male.pkl"
    assert find(url, "woman").record["attribute"] == "not male"
    with pytest.raises(RedactError, match="it tells male - give celebahq-classifier-20-goatee.pkl"):
        find(url, "goatee")


@pytest.mark.parametrize(("name", "told"), [("mine.pkl", "of pickles only NVIDIA's"), ("absent.pt", "No such file"), ("text.pt", "of another kind")])
def test_other_files_are_refused(tmp_path: Path, name: str, told: str) -> None:
    for file in ("mine.pkl", "text.pt"):
        (tmp_path / file).write_text("text")
    with pytest.raises(RedactError, match=told):
        find(str(tmp_path / name), "beard").load(SHAPE)


def test_the_command_takes_them(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    G_ema = tiny_run.write_network(tmp_path / "tiny.pkl")
    tiny_run.write_classifier(tmp_path / "judge.pt", G_ema, 9)
    network, judge = str(tmp_path / "tiny.pkl"), str(tmp_path / "judge.pt")
    plan = job.prepare(job.Request(network, "beard", classifier="celebahq:beard", judge=judge, num_latents=20, num_images=20))
    assert plan.classifiers["detector"]["attribute"] == "not no_beard" and set(plan.classifiers["judge"]) == {"torchscript_sha256"}
    assert plan.detector.attributes == ("beard",) and job.provenance(plan)["detector"] == plan.classifiers["detector"]
    for options, told in (
        (["--classifier=celebahq:beard", "--judge=celebahq:no_beard"], "are the same file"),
        (["--classifier=celebahq:berd", "--judge=celebahq"], "did you mean beard"),
        (["--classifier=celebahq:goatee", f"--judge={judge}", "--offline"], "not in the cache"),
    ):
        result = CliRunner().invoke(cli.command(), [f"--network={network}", "--feature=beard", "-n", *options])
        assert result.exit_code == 2 and told in " ".join(result.output.split()), result.output
    assert [path for path, _ in server.asked] == ["/celebahq-classifier-27-no-beard.pkl"]


def test_who_steered_does_not_judge(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever kind it is of."""
    monkeypatch.setattr(judges, "_steering", lambda files: iter([find("celebahq", "beard").sha256]))

    class Asked:
        judge, second_judge, judge_misses, attacker, positives, feature = "celebahq", "celebahq:goatee", None, None, None, "beard"

    G = tiny_run.generator()
    with pytest.raises(RedactError, match="was to judge - it steered"):
        judges.find(Asked(), [], G, torch.device("cpu"))
    Asked.judge, Asked.second_judge = "celebahq:goatee", "celebahq:male"
    panel = judges.find(Asked(), [], G, torch.device("cpu"))
    assert panel.record["judge"]["attribute"] == "goatee" and panel.record["second_judge"]["attribute"] == "male"
    assert panel.logits(torch.zeros(2, *SHAPE)).shape == (2, 2)
