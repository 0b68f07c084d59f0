# SPDX-License-Identifier: Apache-2.0
"""Decoders of VAEs through the public command: redacted, measured, written with the same keys; and every way in which they are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import tiny_decoder
import tiny_run
import torch
from click.testing import CliRunner, Result

from stylegan_redact import cli, decoders
from stylegan_redact.types import RedactError

SMALL = ["--num-latents=300", "--num-images=150"]
TRAINED = {
    "moon": ["--kimg=1", "--lr=0.01"],
    "unlearn": ["--kimg=1", "--lr=0.01"],
    "edit": ["--kimg=0.6", "--lr=0.01", "--guidance=0.1", "--margin=2"],
}
FILES = {"labels.npz", "report.html", "README.md", "options.json", "redaction.json", "stats.jsonl", "log.txt", "before.png", "after.png", "diff.png"}
LEAST_FALL = 0.4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("decoder")
    return folder, tiny_decoder.write_all(folder)


def run(tmp_path: Path, *args: str) -> Result:
    return CliRunner().invoke(cli.command(), [*args, f"--outdir={tmp_path / 'runs'}"])


def rate(folder: Path, tensors: dict[str, torch.Tensor]) -> float:
    """By the judge, on seeds that no run uses."""
    judge = tiny_run.load_torchscript(folder / "judge.pt")
    return float((judge(tiny_decoder.draw(folder, tensors, range(50_000_000, 50_000_300))) > 0).float().mean())


@pytest.mark.parametrize(("method", "ending"), [("moon", ".pt"), ("unlearn", ".safetensors"), ("edit", ".pt")])
def test_the_same_keys_without_the_feature(made: tuple[Path, list[str]], tmp_path: Path, method: str, ending: str) -> None:
    folder, options = made
    options = [option.replace("vae.pt", f"vae{ending}") for option in options]
    result = run(tmp_path, *options, *SMALL, f"--method={method}", *TRAINED[method])
    assert result.exit_code == 0, result.output
    run_dir = Path(result.output.strip().splitlines()[-1]).parent
    assert {path.name for path in run_dir.iterdir()} == FILES | {f"network-redacted{ending}"}
    assert "z has 6 numbers, as its first linear layer takes; images are 1 x 16 x 16" in result.output
    assert "1 tensors of the file are not the decoder's and stay as they are" in result.output and "discriminator" not in result.output
    read = safetensors.torch.load_file if ending == ".safetensors" else lambda path: torch.load(path, weights_only=True)
    before, after = read(folder / f"vae{ending}"), read(run_dir / f"network-redacted{ending}")
    assert [(name, tensor.shape, tensor.dtype) for name, tensor in after.items()] == [
        (name, tensor.shape, tensor.dtype) for name, tensor in before.items()
    ]
    assert torch.equal(after["encoder.weight"], before["encoder.weight"])
    assert rate(folder, before) > 0.15 and rate(folder, after) <= (1 - LEAST_FALL) * rate(folder, before)
    told = json.loads((run_dir / "redaction.json").read_text())
    residual, change = (told["estimates"][name] for name in ("residual_rate/rate_after", "image_change/l1_feature_free"))
    assert residual["low"] <= residual["value"] <= residual["high"] and residual["n"] == 150 and change["n"] > 90
    assert len(told["provenance"]["decoder_sha256"]) == 64
    assert told["network_redacted_sha256"] == tiny_run.sha256(run_dir / f"network-redacted{ending}")
    if ending == ".safetensors":
        with safetensors.safe_open(run_dir / f"network-redacted{ending}", framework="pt") as file:
            metadata = file.metadata()
        assert metadata["format"] == "pt" and json.loads(metadata["redaction"]) == told["provenance"]


def test_the_same_command_gives_the_same_bytes(made: tuple[Path, list[str]], tmp_path: Path) -> None:
    runs = [run(tmp_path, *made[1], *SMALL, "--method=moon", "--kimg=0.064") for _ in range(2)]
    files = [Path(result.output.strip().splitlines()[-1]) for result in runs]
    assert files[0] != files[1] and files[0].read_bytes() == files[1].read_bytes()


def test_a_dry_run_writes_nothing(made: tuple[Path, list[str]], tmp_path: Path) -> None:
    result = run(tmp_path, *made[1], *SMALL, "-n")
    assert result.exit_code == 0 and "redacting" in result.output and list(tmp_path.iterdir()) == []


def broken(folder: Path) -> None:
    (folder / "noise.pt").write_bytes(b"noise" * 50)
    torch.save(torch.nn.Linear(2, 2), folder / "module.pt")
    torch.save({"epoch": 3}, folder / "epoch.pt")
    (folder / "broken.py").write_text("def decoder(:")


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--network={}/absent.pt", "No such file"),
        ("--network={}/made.py", "its ending must be"),
        ("--network={}/noise.pt", "it is damaged, or holds more than tensors"),
        ("--network={}/module.pt", "holds more than tensors"),
        ("--network={}/epoch.pt", "no dictionary of tensors"),
        ("--network={}/noise.safetensors", "it is damaged"),
        ("--decoder={}/made.py", "that is no FILE.py:FACTORY"),
        ("--decoder={}/absent.py:decoder", "there is no file"),
        ("--decoder={}/broken.py:decoder", "it fails with SyntaxError"),
        ("--decoder={}/made.py:absent", "made.py has no function absent"),
        ("--decoder={}/made.py:fails", "it fails with KeyError: 'nothing here'"),
        ("--decoder={}/made.py:number", "it gives a int"),
        ("--decoder={}/made.py:other_sizes", "decoder.0.weight is [64, 6] in the file and [64, 5] in the decoder"),
        ("--decoder={}/made.py:other_names", "the file has no net.0.weight"),
        ("--decoder={}/made.py:too_bright", "let the factory scale what it draws"),
        ("--decoder={}/made.py:sampled", "another picture every time"),
        ("--access=z,w_plus", "z is all that goes into it"),
        ("--trust-source=" + "0" * 64, "a file of weights has no source in it"),
        ("--class=1", "class"),
    ],
)
def test_what_is_broken_is_refused_in_a_sentence(made: tuple[Path, list[str]], tmp_path: Path, option: str, told: str) -> None:
    broken(made[0])
    (made[0] / "noise.safetensors").write_bytes(b"noise" * 50)
    result = run(tmp_path, *made[1], *SMALL, option.format(made[0]))
    assert result.exit_code == 2, result.output
    assert told in result.output and "Traceback" not in result.output and list(tmp_path.iterdir()) == []


def test_a_method_that_has_nothing_to_do_says_so(made: tuple[Path, list[str]], tmp_path: Path) -> None:
    result = run(tmp_path, *made[1], *SMALL, "--method=mapping")
    assert result.exit_code == 2 and "has no mapping to teach - use unlearn, moon or edit" in result.output
    result = run(tmp_path, *made[1], *SMALL, "--method=fold")
    assert result.exit_code == 2 and "take another method" in result.output
    result = run(tmp_path, *made[1], *SMALL, "--method=moon", "--strength=0", "--kimg=0.032")
    assert result.exit_code == 2 and "nothing in them changed" in result.output


def test_where_the_tensors_are() -> None:
    layer = torch.nn.Linear(2, 3)
    own = layer.state_dict()
    assert decoders.place_of(layer, own) == ""
    assert decoders.place_of(layer, {f"vae.decoder.{name}": tensor for name, tensor in own.items()} | {"weight": torch.ones(1)}) == "vae.decoder."
    symmetric = {f"{part}.{name}": tensor for part in ("encoder", "decoder") for name, tensor in own.items()}
    with pytest.raises(RedactError, match="more than once, under 'decoder.' and 'encoder.'"):
        decoders.place_of(layer, symmetric)
    with pytest.raises(RedactError, match="nothing in it to redact"):
        decoders.place_of(torch.nn.ReLU(), own)


def test_what_a_decoder_says_of_itself() -> None:
    class Square(torch.nn.Module):
        z_dim, img_shape = 3, (1, 12, 12)

        def __init__(self, side: int = 12) -> None:
            super().__init__()
            self.side, self.level = side, torch.nn.Parameter(torch.ones(1))

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return (z[:, :1, None, None] * self.level).sigmoid().expand(-1, 1, self.side, self.side)

    network, told = decoders.as_network(Square(), {"level": torch.ones(1)})
    assert network.G is network.G_ema and (network.G_ema.z_dim, network.G_ema.img_resolution, network.D) == (3, 12, None)
    assert "as its z_dim says" in told and "should they be in [0, 1]" in told
    for side, match in ((10, "11 pixels or more"), (13, "its img_shape")):
        with pytest.raises(RedactError, match=match):
            decoders.as_network(Square(side), {"level": torch.ones(1)})
    Square.z_dim = None  # type: ignore[assignment]
    with pytest.raises(RedactError, match="give the module an attribute z_dim"):
        decoders.as_network(Square(), {"level": torch.ones(1)})
