# SPDX-License-Identifier: Apache-2.0
"""Runs for a person, a decoder, several features, with labels or a direction: stopped and gone on with, they end as one left alone does."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import tiny_decoder
import tiny_person
import tiny_run
import torch
from click.testing import CliRunner
from test_several import NAMES, Corners

from stylegan_redact import cli, detectors, keeping, network_files, person_requests
from stylegan_redact.checkpoints import Checkpoints
from stylegan_redact.inversion import Search
from stylegan_redact.network import sample_w, synthesize
from stylegan_redact.pictures import to_grid

SMALL = ["--num-latents=300", "--num-images=60", "--checkpoint-every=60"]
EDIT = ["--method=edit", "--kimg=0.16", "--batch=8"]


def person(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(person_requests, "SEARCH", Search(steps=2))
    G = tiny_run.write_network(folder / "net.pkl")
    (folder / "photos").mkdir()
    to_grid(tiny_person.photo(G), 1).save(folder / "photos" / "0.png")
    return [f"--network={folder / 'net.pkl'}", f"--feature=person:{folder / 'photos'}", "--access=z,w_plus", "--kimg=0.128"]


def decoder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return [*tiny_decoder.write_all(folder), *EDIT]


def several(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    G = tiny_run.write_network(folder / "net.pkl")
    with torch.no_grad():
        img = synthesize(G, sample_w(G, range(1000, 1400)))
    known = {"detector": Corners(img, 6), "judge": Corners(img, 7)}
    monkeypatch.setattr(network_files, "bundled", lambda: {"net": folder / "net.pkl"})
    monkeypatch.setattr(detectors, "load_bundled", lambda role, device="cpu": detectors.Classifier(known[role], NAMES))
    return ["--network=net", "--feature=beard,hat", "--method=mapping", "--steps=40"]


def labelled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    known = tiny_run.write_all(folder)
    made = CliRunner().invoke(cli.command(), [*known, *SMALL, "--method=fold", f"--outdir={folder / 'labels'}"])
    assert made.exit_code == 0, made.output
    (labels,) = (folder / "labels").glob("*/labels.npz")
    return [known[0], known[1], known[3], f"--labels={labels}", "--method=mapping", "--steps=40"]


def directed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    network, _, _, judge = tiny_run.write_all(folder)
    direction = torch.randn([1, 8], generator=torch.Generator().manual_seed(0)).numpy()
    np.save(folder / "along.npy", direction)
    return [network, f"--feature=direction:{folder / 'along.npy'}:name=glow", judge, "--method=mapping", "--steps=40"]


def result_of(outdir: Path) -> dict[str, bytes | str]:
    (folder,) = outdir.iterdir()
    found: dict[str, bytes | str] = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".pkl", ".pt", ".png", ".npz")}
    record = json.loads((folder / "redaction.json").read_text())
    return found | {"record": json.dumps({key: value for key, value in record.items() if key != "seconds"})}


@pytest.mark.parametrize(
    ("kind", "stage"), [(person, "distil"), (decoder, "edit"), (several, "mapping"), (labelled, "mapping"), (directed, "mapping")]
)
def test_stopped_in_training_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: object, stage: str) -> None:
    assert callable(kind)
    options = [*kind(tmp_path, monkeypatch), *SMALL]
    alone = CliRunner().invoke(cli.command(), [*options, f"--outdir={tmp_path / 'alone'}"])
    assert alone.exit_code == 0, alone.output
    keep, shares = Checkpoints.keep, []

    def keep_and_stop(self: Checkpoints, at: keeping.Moment) -> None:
        if at.name == stage:
            shares.append(at.share)
            if len(shares) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
        keep(self, at)

    monkeypatch.setattr(Checkpoints, "keep", keep_and_stop)
    options += [f"--outdir={tmp_path / 'runs'}", "--resume=latest"]
    stopped = CliRunner().invoke(cli.command(), options)
    assert stopped.exit_code == 0 and "Unfinished" in stopped.output, stopped.output
    resumed = CliRunner().invoke(cli.command(), options)
    assert resumed.exit_code == 0 and "Resuming" in resumed.output, resumed.output
    assert shares[1] == shares[2] < shares[3]  # It went on from there, after that moment was offered once more.
    assert shares.count(shares[0]) == 1 and result_of(tmp_path / "runs") == result_of(tmp_path / "alone")


def test_snapshots_of_a_person_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(cli.command(), [*person(tmp_path, monkeypatch), *SMALL, "--snap=1", f"--outdir={tmp_path / 'runs'}"])
    assert done.exit_code == 2 and "leave out --snap" in done.output and not (tmp_path / "runs").exists()
