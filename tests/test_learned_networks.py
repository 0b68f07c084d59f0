# SPDX-License-Identifier: Apache-2.0
"""Detectors learned from labels on networks of other kinds: decoders of one channel, classes, StyleGAN3, float16."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_conditional
import tiny_decoder
import tiny_run
import torch
from attacks.test_architectures import made as made_of
from click.testing import CliRunner

from stylegan_redact import cli, delta, learned, redact
from stylegan_redact.api import apply
from stylegan_redact.labels import Labels, all_of
from stylegan_redact.latents import LabelFile, save_labels
from stylegan_redact.methods.edit import Edit
from stylegan_redact.network import load_network, read_snapshot, sample_w, save_network, synthesize
from stylegan_redact.networks.export import write_network_pickle
from stylegan_redact.types import Feature, LabelledLatents

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "STEPS", 60)


def run(outdir: Path, *options: str) -> tuple[str, Path]:
    result = CliRunner().invoke(cli.command(), [*options, "--num-images=40", "--kimg=0.04", "--batch=8", f"--outdir={outdir}"])
    assert result.exit_code == 0, result.output
    return result.output, next(outdir.iterdir())


def test_a_decoder_of_one_channel(tmp_path: Path) -> None:
    options = tiny_decoder.write_all(tmp_path)
    threshold = float(tiny_run.load_torchscript(tmp_path / "detector.pt").threshold)
    (tmp_path / "mine.py").write_text(f"def valid(picture):\n    return picture[:8, :8].mean() < {threshold * 127.5 + 128}\n")
    kept = [option for option in options if not option.startswith(("--feature", "--classifier"))]
    told, folder = run(tmp_path / "runs", *kept, f"--feature=validity:{tmp_path / 'mine.py'}:valid:name=glow", "--num-latents=300")
    assert "steered by one that is learned from the labels" in told
    record = json.loads((folder / "redaction.json").read_text())
    assert record["provenance"]["method"] == "edit" and record["provenance"]["detector"] == {"learned_from": "validity"}


@pytest.mark.parametrize("classes", ["1", "all"])
def test_a_class_of_a_conditional_network(classes: str, tmp_path: Path) -> None:
    """Labels of several classes, or of the one that the feature is to go in; of the others, bystanders are held."""
    net = tiny_conditional.network()
    write_network_pickle(tmp_path / "net.pkl", G=net.G, D=net.D, G_ema=net.G_ema)
    labels = all_of(3) if classes == "all" else Labels(3, (1,))
    G = load_network(tmp_path / "net.pkl").G_ema
    c = labels(range(400))
    w = sample_w(G, range(400), c=c)
    with torch.no_grad():
        bright = synthesize(G, w)[:, :, :8, :8].mean([1, 2, 3])
    latents = LabelledLatents(w, 6 * torch.sign(bright - bright.quantile(0.75)), torch.arange(400), c=c)
    save_labels(tmp_path / "labels.npz", LabelFile("glow", latents, ("person",) * 400, ""))
    told, folder = run(tmp_path / "runs", f"--network={tmp_path / 'net.pkl'}", f"--feature=labels:{tmp_path / 'labels.npz'}", f"--class={classes}")
    assert "steered by one that is learned" in told and json.loads((folder / "redaction.json").read_text())["provenance"]["class"] == classes


@pytest.mark.parametrize("name", ["stylegan3-t", "stylegan3-t conditional", "stylegan2 float16"])
def test_other_architectures_and_their_deltas(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learned, "LEAST", -1.0)  # What random weights draw hardly differs.
    net, _ = made_of(name)
    write_network_pickle(tmp_path / "net.pkl", G=net.G, D=net.D, G_ema=net.G_ema)
    snapshot = read_snapshot(tmp_path / "net.pkl")
    network = load_network(snapshot)
    G = network.G_ema
    c = all_of(3)(range(400)) if G.c_dim else None
    w = sample_w(G, range(400), c=c)
    with torch.no_grad():
        bright = synthesize(G, w)[:, :, :8, :8].mean([1, 2, 3])
    latents = LabelledLatents(w, 6 * torch.sign(bright - bright.quantile(0.75)), torch.arange(400), c=c)
    detector, _ = learned.learn(network, "glow", latents, batch=100)
    after = redact(network, Feature("glow", latents, detector=detector), Edit(kimg=0.016, batch=8))
    save_network(after, tmp_path / "after.pkl", original=snapshot, record={"feature": "glow"})
    delta.write(after, snapshot, tmp_path / "delta.safetensors", {"feature": "glow"}, {})
    again, file = apply(network, tmp_path / "delta.safetensors"), load_network(tmp_path / "after.pkl")
    for key in ("G", "G_ema"):
        states = [getattr(each, key).state_dict() for each in (again, file)]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
