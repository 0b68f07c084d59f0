# SPDX-License-Identifier: Apache-2.0
"""Several features at once, in sequence, and a keep-list, by the command on a small network whose classifiers know three corners."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_run
import torch
from click.testing import CliRunner

from stylegan_redact import api, cli, detectors, network_files
from stylegan_redact.features.attribute import Attribute
from stylegan_redact.methods.mapping import Mapping
from stylegan_redact.network import load_network, sample_w, synthesize
from stylegan_redact.pickles import read_snapshot
from stylegan_redact.types import RedactError

NAMES = ("beard", "hat", "smile")
SMALL = ["--network=corners64", "--num-latents=400", "--num-images=200"]


class Corners(torch.nn.Module):
    """How bright three corners are."""

    def __init__(self, img: torch.Tensor, size: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("thresholds", self.bright(img).quantile(0.75, dim=0))

    def bright(self, img: torch.Tensor) -> torch.Tensor:
        low, high = slice(None, self.size), slice(-self.size, None)
        return torch.stack([img[:, :, rows, columns].mean([1, 2, 3]) for rows, columns in ((low, low), (high, high), (high, low))], 1)

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return 20 * (self.bright(img) - self.thresholds)


class Scripted(torch.nn.Module):
    """The same as TorchScript takes it."""

    def __init__(self, size: int, thresholds: torch.Tensor) -> None:
        super().__init__()
        self.size, self.thresholds = size, thresholds

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        parts = [img[:, :, : self.size, : self.size], img[:, :, -self.size :, -self.size :], img[:, :, -self.size :, : self.size]]
        return 20 * (torch.stack([part.mean(dim=[1, 2, 3]) for part in parts], 1) - self.thresholds)


@pytest.fixture
def corners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory where the network is a bundled one."""
    monkeypatch.chdir(tmp_path)
    G = tiny_run.write_network(tmp_path / "corners64.pkl")
    with torch.no_grad():
        img = synthesize(G, sample_w(G, range(1000, 1400)))
    known = {"detector": Corners(img, 6), "judge": Corners(img, 7)}
    monkeypatch.setattr(network_files, "bundled", lambda: {"corners64": tmp_path / "corners64.pkl"})
    monkeypatch.setattr(detectors, "load_bundled", lambda role, device="cpu": detectors.Classifier(known[role].to(device), NAMES))
    return tmp_path


def run(*args: str) -> Any:
    return CliRunner().invoke(cli.command(), [*SMALL, *args])


def ran(*args: str) -> Path:
    result = run(*args)
    assert result.exit_code == 0, result.output
    return Path(result.output.strip().splitlines()[-1]).parent


@pytest.mark.parametrize("method", ["fold", "leace", "mapping"])
def test_two_features_fall_and_the_order_gives_the_same_bytes(corners: Path, method: str) -> None:
    more = ["--steps=150"] if method == "mapping" else []
    one, other = (ran(f"--feature={names}", f"--method={method}", *more) for names in ("beard,hat", "hat, beard,hat"))
    assert one.name == f"00000-redact-beard_hat-corners64-{method}"
    assert (one / "network-redacted.pkl").read_bytes() == (other / "network-redacted.pkl").read_bytes()
    record = json.loads((one / "redaction.json").read_text())
    assert record["provenance"]["feature"] == "beard,hat"
    for name in ("beard", "hat"):
        rates = [record["estimates"][f"residual_rate/{name}/rate_{side}"]["value"] for side in ("before", "after")]
        assert rates[1] < 0.8 * rates[0] or method == "leace"  # Its promise concerns readers of w: a picture of the mean may show either.
    assert {key.split("/")[1] for key in record["estimates"] if key.startswith("collateral/") and key.count("/") == 2} == {"smile"}
    assert sum(each["text"].startswith("hat, ") for each in record["targets"]) == 2


def test_in_sequence_the_pickle_knows_of_both(corners: Path) -> None:
    first = ran("--feature=beard", "--method=fold", "--strength=0.2")
    second = ran(f"--network={first / 'network-redacted.pkl'}", "--feature=hat", "--method=fold", "--keep=smile", "--strength=0.2")
    third = ran(f"--network={second / 'network-redacted.pkl'}", "--feature=smile", "--method=leace")
    record = read_snapshot(third / "network-redacted.pkl").redaction
    assert record is not None
    chain = [record, record["earlier"], record["earlier"]["earlier"]]
    assert [each["feature"] for each in chain] == ["smile", "hat", "beard"] and "earlier" not in chain[-1]
    assert chain[1]["keep"] == ["smile"]


def test_what_cannot_be_asked_together(corners: Path) -> None:
    for asked, told in (
        (["--feature=beard,hat", "--method=substitute_class"], "whole classes"),
        (["--feature=beard,scarf"], "'scarf' was asked"),
        (["--feature=,"], "names nothing"),
        (["--feature=beard,hat", "--keep=hat"], "redacted and kept"),
    ):
        result = run(*asked)
        assert result.exit_code == 2 and told in result.output, result.output


def test_files_that_name_their_logits_know_several_features(corners: Path) -> None:
    """A file without names knows one, whatever it is asked."""
    G = load_network("corners64.pkl").G_ema
    with torch.no_grad():
        img = synthesize(G, sample_w(G, range(1000, 1400)))
    for role, size in (("detector", 6), ("judge", 7)):
        detectors.save_torchscript(
            Scripted(size, Corners(img, size).thresholds), f"{role}.pt", NAMES if role == "detector" else ["beard", "Wearing_Hat", "Smiling"]
        )
        tiny_run.write_classifier(Path(f"one-{role}.pt"), G, size)
    options = ["--network=corners64.pkl", "--feature=hat,beard", "--method=fold", "--num-latents=400", "--num-images=200"]
    done = CliRunner().invoke(cli.command(), [*options, "--classifier=detector.pt", "--judge=judge.pt"])
    assert done.exit_code == 0, done.output
    (path,) = Path("redact-runs").glob("*/redaction.json")
    assert {"residual_rate/beard/removed", "residual_rate/hat/removed"} <= set(json.loads(path.read_text())["estimates"])
    refused = CliRunner().invoke(cli.command(), [*options, "--classifier=one-detector.pt", "--judge=one-judge.pt"])
    assert refused.exit_code == 2 and "knows: hat" in refused.output, refused.output


def test_a_method_that_takes_one_feature_refuses_two() -> None:
    class OneOnly(Mapping):
        several = False

    net = tiny.network()
    both = Attribute((tiny.FEATURE, tiny.OTHER), tiny.Corners(net.G_ema)).gather(net, range(400), batch=200)
    assert both.name == f"{tiny.FEATURE},{tiny.OTHER}" and len(both.parts) == 2
    with pytest.raises(RedactError, match="glow,shine was to be redacted by test_several - test_several takes one"):
        api.redact(net, both, OneOnly())


def test_an_edit_of_what_was_edited_holds_the_first_feature(corners: Path) -> None:
    """The second run's detector still knows the first feature, which is then one of the others."""
    first = ran("--feature=beard", "--method=edit", "--kimg=0.5", "--lr=0.003", "--guidance=0.2")
    second = ran(f"--network={first / 'network-redacted.pkl'}", "--feature=hat", "--method=edit", "--kimg=0.5", "--lr=0.003", "--guidance=0.2")
    estimates = json.loads((second / "redaction.json").read_text())["estimates"]
    had = json.loads((first / "redaction.json").read_text())["estimates"]["residual_rate/rate_before"]["value"]
    assert estimates["residual_rate/rate_after"]["value"] < 0.8 * estimates["residual_rate/rate_before"]["value"]
    assert estimates["collateral/beard/rate_after"]["value"] < 0.5 * had
    assert load_network(second / "network-redacted.pkl").sha256 != load_network(first / "network-redacted.pkl").sha256
