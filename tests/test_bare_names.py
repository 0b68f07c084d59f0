# SPDX-License-Identifier: Apache-2.0
"""A bare name walks the chain: what was tried is told, nothing large is downloaded unasked, and the end is every other way, word for word."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import celebahq_pickles as pickles
import pytest
import tiny_run
import torch
from click.testing import CliRunner
from odd_server import Page, Server, serving

from stylegan_redact import cli, detectors
from stylegan_redact.backends import celebahq
from stylegan_redact.backends.find import find

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = ["--num-latents=300", "--num-images=60"]
NAMES = ("Smiling", "No_Beard", "Goatee", "Mustache", "Sideburns", "5_o_Clock_Shadow")


class Six(torch.nn.Module):
    """Answers about the corners of a picture, some of them alike."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        corner, whole = img[:, :, :8, :8].mean([1, 2, 3]) - self.share, img.mean([1, 2, 3])
        return 20 * torch.stack([whole, -corner, corner - 0.1, corner - 0.2, whole - 0.1, -whole], 1)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Server]]:
    """A folder with a network and a judge, and NVIDIA's server with one file; the cache is empty."""
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "open_clip", None)
    tiny_run.write_all(tmp_path)
    with serving() as running:
        url = running.url("/celebahq-classifier-27-no-beard.pkl", Page(pickles.content(pickles.variables(27))))
        monkeypatch.setattr(celebahq, "BASE_URL", url.rpartition("/")[0] + "/")
        yield tmp_path, running


def run(*args: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli.command(), [*args])
    return result.exit_code, result.output


def test_nothing_is_downloaded_unasked_and_every_way_is_told(made: tuple[Path, Server]) -> None:
    folder, server = made
    code, told = run(f"--network={folder / 'tiny.pkl'}", "--feature=beard", "-n")
    assert code == 2 and server.asked == [] and "Traceback" not in told
    start = f"--network={folder / 'tiny.pkl'} --feature=beard"
    for says in (
        "bundled classifiers: none, this is no bundled network; --classifier: not given; --labels: not given; "
        "celebahq: celebahq-classifier-27-no-beard.pkl is not in the cache, and a bare name downloads nothing",
        f"label pictures: python redact.py label {start} --out=labels.npz, then python redact.py {start} --labels=labels.npz",
        f"python redact.py {start} --classifier=FILE --judge=FILE",
        "--classifier=celebahq --judge=FILE, which downloads celebahq-classifier-27-no-beard.pkl",
        "--feature=images:FOLDER:without=FOLDER:name=beard",
        "--feature='text:beard|no beard:name=beard' (open_clip is not installed: pip install 'stylegan-redact[text]')",
        "--feature=validity:FILE.py:FUNCTION:name=beard",
    ):
        assert says in told, (says, told)
    _, told = run(f"--network={folder / 'tiny.pkl'}", "--feature=hamster", "-n")
    assert "celebahq: knows one attribute of CelebA at a time, and this is none" in told and "which downloads" not in told


def test_a_file_that_is_there_steers_if_somebody_judges(made: tuple[Path, Server]) -> None:
    folder, server = made
    network, judge = f"--network={folder / 'tiny.pkl'}", f"--judge={folder / 'judge.pt'}"
    code, told = run(network, "--feature=beard", judge, "-n")
    assert code == 2 and "--judge was given without --classifier" in told and server.asked == []
    find("celebahq", "beard")
    code, told = run(network, "--feature=beard", "-n")
    assert code == 2 and "celebahq-classifier-27-no-beard.pkl is in the cache, but --judge is not given" in told
    code, told = run(network, "--feature=beard", judge, "-n", "--offline")
    assert code == 0, told
    detector = json.loads(told[told.index("{") : told.rindex("}") + 1])["classifiers"]["detector"]
    assert detector["kind"] == "celebahq" and detector["attribute"] == "not no_beard" and len(server.asked) == 1


def test_what_goes_by_the_name_of_a_beard_is_reported_beside_it(tmp_path: Path) -> None:
    G = tiny_run.write_network(tmp_path / "tiny.pkl")
    tiny_run.write_classifier(tmp_path / "corner.pt", G, 8)
    threshold = float(tiny_run.load_torchscript(tmp_path / "corner.pt").threshold)
    for index, name in enumerate(("detector", "judge")):
        detectors.save_torchscript(Six(threshold + 0.01 * index), tmp_path / f"{name}.pt", NAMES)
    options = [f"--{name}={tmp_path / file}.pt" for name, file in (("classifier", "detector"), ("judge", "judge"))]
    code, told = run(f"--network={tmp_path / 'tiny.pkl'}", "--feature=beard", *options, "--method=fold", *SMALL, f"--outdir={tmp_path / 'runs'}")
    assert code == 0, told
    record = json.loads((Path(told.strip().splitlines()[-1]).parent / "redaction.json").read_text())
    figures = record["before_training"]["figures"]
    for name in NAMES[2:]:
        assert figures[f"beard/beside it {name}/prevalence"]["n"] == 300 and f"beard/goes with {name} (phi)" in figures, name
        assert f"beard/beside it {name}/prevalence: " in told
    assert "beard/beside it Smiling/prevalence" not in figures
    assert any("Goatee" in key for key in record["estimates"])  # And what became of it.
