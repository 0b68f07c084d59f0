# SPDX-License-Identifier: Apache-2.0
"""A redaction apart from its network: exact at strength 1, half way at half, stacked, and only on the network that it is of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors
import tiny_run
import torch
from click.testing import CliRunner

from stylegan_redact import cli, delta
from stylegan_redact.network import copy_network, load_network, read_snapshot, save_network
from stylegan_redact.pickles import Snapshot
from stylegan_redact.types import Estimate, Network

RECORD = {"feature": "\x1b[2Jglow", "method": "edit", "version": "0"}


def edited(network: Network, seed: int, layer: str) -> Network:
    """As after a redaction: G is G_ema; what changes is by 1e-6 to 1e3 of what it was."""
    after, random = copy_network(network), torch.Generator().manual_seed(seed)
    for name, tensor in after.G_ema.state_dict().items():
        if layer in name and tensor.dtype == torch.float32:
            tensor.add_(10 ** (9 * torch.rand(tensor.shape, generator=random) - 6) * tensor)
    after.G.load_state_dict(after.G_ema.state_dict())
    return after


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, Snapshot, list[Network]]:
    """A base, two redactions of it as pickles and as deltas: 0.pkl, 0.safetensors, ..."""
    tiny_run.write_network(tmp_path / "base.pkl")
    snapshot = read_snapshot(tmp_path / "base.pkl")
    networks = []
    for index, layer in enumerate(("b8.conv", "b16")):
        after = edited(load_network(snapshot), index, layer)
        save_network(after, tmp_path / f"{index}.pkl", original=snapshot, record=RECORD)
        delta.write(after, snapshot, tmp_path / f"{index}.safetensors", RECORD, {delta.FIGURES[1]: Estimate(1, 0, 2, 3, "%")})
        networks.append(after)
    return tmp_path, snapshot, networks


def run(folder: Path, *args: str) -> str:
    chosen, _ = cli.choose(["apply"])
    result = CliRunner().invoke(chosen, [f"--network={folder / 'base.pkl'}", *args, str(folder / "out.pkl")])
    assert result.exit_code == (0 if "Wrote" in result.output else 2), result.output
    return result.output


def tensors(path: Path, key: str = "G") -> dict[str, torch.Tensor]:
    return read_snapshot(path).modules[key].tensors


def test_strength_one_gives_the_very_bits(made: tuple[Path, Snapshot, list[Network]]) -> None:
    folder = made[0]
    assert "\\x1b[2Jglow by edit, strength 1" in run(folder, f"--delta={folder / '0.safetensors'}")
    for key in ("G", "D", "G_ema"):
        there, here = tensors(folder / "0.pkl", key), tensors(folder / "out.pkl", key)
        assert there.keys() == here.keys() and all(torch.equal(there[name], here[name]) for name in there)
    base, after = tensors(folder / "base.pkl"), tensors(folder / "0.pkl")
    assert any(not torch.equal(base[name] + (after[name] - base[name]), after[name]) for name in base)  # Which differences would not do.
    record = read_snapshot(folder / "out.pkl").redaction
    assert record is not None and record["deltas"][0]["strength"] == 1 and record["deltas"][0]["redaction"] == RECORD


def test_half_the_strength_is_half_way_and_stacks_add_up(made: tuple[Path, Snapshot, list[Network]]) -> None:
    folder = made[0]
    run(folder, f"--delta={folder / '0.safetensors'},{folder / '1.safetensors'}", "--strength=0.5,2")
    base, first, second, out = (tensors(folder / name, "G_ema") for name in ("base.pkl", "0.pkl", "1.pkl", "out.pkl"))
    for name, before in base.items():
        wanted = before.double() + 0.5 * (first[name].double() - before.double()) + 2 * (second[name].double() - before.double())
        assert torch.equal(out[name], wanted.to(before.dtype)), name
    assert any(not torch.equal(out[name], base[name]) for name in base)


def test_what_g_and_g_ema_share_is_there_once(made: tuple[Path, Snapshot, list[Network]]) -> None:
    folder = made[0]
    with safetensors.safe_open(folder / "1.safetensors", framework="pt") as file:
        names, told = list(file.keys()), json.loads(file.metadata()["stylegan-redact-delta"])
    assert [name for name in names if name.startswith("G.")] == ["G.synthesis.b4.const"]  # Which differed before.
    assert {name.removeprefix("G_ema.") for name in names if name.startswith("G_ema.")} == set(told["shared"]) != set()
    assert told["figures"] == {delta.FIGURES[1]: [1, 0, 2, 3, "%"]} and told["base"] == made[1].sha256


def test_another_base_is_refused_with_both_hashes(made: tuple[Path, Snapshot, list[Network]]) -> None:
    folder = made[0]
    tiny_run.write_network(folder / "base.pkl", seed=1)
    told = run(folder, f"--delta={folder / '0.safetensors'}")
    assert made[1].sha256 in told and tiny_run.sha256(folder / "base.pkl") in told and not (folder / "out.pkl").exists()


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--strength=0", "above 0"),
        ("--strength=much", "no numbers"),
        ("--strength=1,1", "1 deltas"),
        ("--delta=none.safetensors", "missing"),
        ("--delta=,", "it names no file"),
    ],
)
def test_what_cannot_be_applied_is_refused(made: tuple[Path, Snapshot, list[Network]], option: str, told: str) -> None:
    assert told in run(made[0], f"--delta={made[0] / '0.safetensors'}", option)


def test_the_same_delta_twice_is_refused_under_whatever_name(made: tuple[Path, Snapshot, list[Network]]) -> None:
    folder = made[0]
    (folder / "copy.safetensors").write_bytes((folder / "0.safetensors").read_bytes())
    told = run(folder, f"--delta={folder / '0.safetensors'},{folder / '1.safetensors'},{folder / 'copy.safetensors'}")
    assert "0.safetensors and" in told and "one and the same" in told and not (folder / "out.pkl").exists()


def test_damaged_and_foreign_files_are_refused(made: tuple[Path, Snapshot, list[Network]]) -> None:
    folder = made[0]
    data = (folder / "0.safetensors").read_bytes()
    (folder / "half.safetensors").write_bytes(data[: len(data) // 2])
    safetensors.torch.save_file({"G.a": torch.zeros(1)}, folder / "foreign.safetensors")
    for number, (name, value) in enumerate({"shared": [[1]], "base": 1}.items()):
        with safetensors.safe_open(folder / "0.safetensors", framework="pt") as file:
            told = json.loads(file.metadata()["stylegan-redact-delta"]) | {name: value}
        safetensors.torch.save_file({"G_ema.a": torch.zeros(1)}, folder / f"strange{number}", metadata={"stylegan-redact-delta": json.dumps(told)})
        assert "which network it is of" in run(folder, f"--delta={folder / f'strange{number}'}")
    assert "no whole safetensors" in run(folder, f"--delta={folder / 'half.safetensors'}")
    assert "which network it is of" in run(folder, f"--delta={folder / 'foreign.safetensors'}")
