# SPDX-License-Identifier: Apache-2.0
"""docs/tutorial.md: every command in it is one that there is, and what redacts is resolved, with the bundled network standing in for FFHQ's."""

import re
import shlex
import warnings
from pathlib import Path

import click
import pytest
import tiny_run
import torch
from click.testing import CliRunner

from stylegan_redact import cli
from stylegan_redact.detectors import save_torchscript
from stylegan_redact.latents import LabelFile, save_labels
from stylegan_redact.network import load_network, sample_w
from stylegan_redact.network_files import find_network
from stylegan_redact.types import LabelledLatents

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
COMMANDS = [shlex.split(line)[2:] for line in re.findall(r"^    (python redact\.py .*)$", TEXT, re.MULTILINE)]
REDACTING = [args for args in COMMANDS if args[0].startswith("--")]


def test_there_are_commands_of_every_kind() -> None:
    assert len(REDACTING) >= 4 and {"doctor", "inspect", "label", "evaluate"} <= {args[0] for args in COMMANDS}


@pytest.mark.parametrize("args", COMMANDS, ids=lambda args: args[0])
def test_every_command_is_taken(args: list[str]) -> None:
    """By the parser: names and values of options, and what must be given."""
    chosen, verb = cli.choose(args)
    with chosen.make_context("redact.py", args[1:] if verb else list(args)):
        pass


@pytest.mark.parametrize("args", [["--network=ffhq.pkl", "--feature=beard", "--classifer=x"], ["evaluate", "--before=ffhq.pkl"]])
def test_a_wrong_command_is_not(args: list[str]) -> None:
    with pytest.raises(click.UsageError):
        test_every_command_is_taken(args)


class Attributes(torch.nn.Module):
    """A classifier of three attributes."""

    def forward(self, img: torch.Tensor) -> torch.Tensor:
        return img.mean([2, 3])


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the tutorial names -> what is here."""
    folder = tmp_path_factory.mktemp("tutorial")
    network = load_network(find_network("portraits64").snapshot)
    tiny_run.save_torchscript(tiny_run.BrightRegion(32, 0.0), folder / "celebahq.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        save_torchscript(Attributes(), folder / "attributes.pt", ["beard", "smiling", "male"])
    w = sample_w(network.G_ema, range(400))
    score = torch.where(torch.arange(400) % 6 == 0, 1.0, -1.0)
    latents = LabelledLatents(w, score, torch.arange(400))
    save_labels(folder / "labels.npz", LabelFile("beard", latents, ("person",) * 400, network.sha256))
    return {
        "ffhq.pkl": "portraits64",
        "celebahq": str(folder / "celebahq.pt"),
        **{each: str(folder / each) for each in ("attributes.pt", "labels.npz")},
    }


@pytest.mark.parametrize("args", REDACTING, ids=lambda args: args[-1])
def test_what_redacts_is_resolved(args: list[str], stand_ins: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    swapped = [f"{option}={stand_ins.get(value, value)}" for option, _, value in (each.partition("=") for each in args if each != "--dry-run")]
    result = CliRunner().invoke(cli.command(), [*swapped, "--dry-run", "--device=cpu"])
    assert (result.exit_code, result.output.splitlines()[-1]) == (0, "Dry run; exiting."), result.output
    assert list(tmp_path.iterdir()) == []
