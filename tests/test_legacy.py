# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's `legacy` interface."""

from __future__ import annotations

import collections
import io
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import hostile
import pytest
import torch

import dnnlib
import legacy
from stylegan_redact.networks.export import write_network_pickle
from stylegan_redact.networks.stylegan2 import Discriminator, Generator
from stylegan_redact.pickles import read_snapshot
from stylegan_redact.types import RedactError

SMALL: dict[str, Any] = dict(channel_base=64, channel_max=4)
ADA: dict[str, Any] = dict(synthesis_kwargs=SMALL | dict(conv_clamp=None, num_fp16_res=0))
FLAT: dict[str, Any] = SMALL | dict(conv_clamp=None, num_fp16_res=0)


def write(path: Path, layout: dict[str, Any] = FLAT, **more: Any) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        G, G_ema = Generator(5, 0, 6, 16, 3, **layout), Generator(5, 0, 6, 16, 3, **layout)
        write_network_pickle(path, G=G, D=Discriminator(0, 16, 3, **FLAT), G_ema=G_ema, **more)
    return path


def image(G: torch.nn.Module) -> torch.Tensor:
    return G(torch.ones(1, 5), None, noise_mode="const")


@pytest.mark.parametrize("layout", [ADA, FLAT])
def test_what_tools_expect(layout: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "new.pkl", layout)
    with dnnlib.util.open_url(str(path)) as f:
        data = legacy.load_network_pkl(f)
    assert list(data) == ["G", "D", "G_ema", "training_set_kwargs", "augment_pipe"]
    assert data["training_set_kwargs"] is None and data["augment_pipe"] is None
    assert [type(data[key]) for key in ("G", "D", "G_ema")] == [Generator, Discriminator, Generator]
    nets = [data[key] for key in ("G", "D", "G_ema")]
    assert not any(part.training for net in nets for part in net.modules()) and not any(p.requires_grad for net in nets for p in net.parameters())
    tensors = read_snapshot(path).modules["G_ema"].tensors
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in data["G_ema"].state_dict().items())
    assert image(data["G_ema"]).numpy().shape == (1, 3, 16, 16) and not torch.equal(image(data["G"]), image(data["G_ema"]))


def test_the_rest_of_the_file_comes_along(tmp_path: Path) -> None:
    path = write(tmp_path / "new.pkl", training_set_kwargs={"max_size": 7}, redaction={"feature": "beard"})
    data = legacy.load_network_pkl(io.BytesIO(path.read_bytes()))
    assert (data["training_set_kwargs"], data["redaction"]) == ({"max_size": 7}, {"feature": "beard"})
    assert legacy.load_network_pkl(path).keys() == data.keys(), "a path will do as well"


@pytest.mark.parametrize("layout", [ADA, FLAT])
def test_force_fp16_changes_the_precision_and_nothing_else(layout: dict[str, Any], tmp_path: Path) -> None:
    path = write(tmp_path / "new.pkl", layout)
    plain, forced = legacy.load_network_pkl(path), legacy.load_network_pkl(path, force_fp16=True)
    for data, clamp in ((plain, None), (forced, 256)):
        for G in (data["G"], data["G_ema"]):
            assert (G.synthesis.b16.use_fp16, G.synthesis.b16.conv1.conv_clamp, G.synthesis.num_fp16_res) == (bool(clamp), clamp, 4 if clamp else 0)
        assert (data["D"].b16.use_fp16, data["D"].b16.conv0.conv_clamp) == (bool(clamp), clamp)
    for key in ("G", "D", "G_ema"):
        before = plain[key].state_dict()
        assert all(torch.equal(tensor, before[name]) for name, tensor in forced[key].state_dict().items())


def test_nothing_of_the_file_is_run(tmp_path: Path) -> None:
    """The sources in these files raise an error when they are run."""
    path = write(tmp_path / "new.pkl")
    data = path.read_bytes()
    marker = b"import math\n"
    assert data.count(marker) == 1
    path.write_bytes(data.replace(marker, b"raise Boom#\n"))
    assert torch.equal(image(legacy.load_network_pkl(path)["G"]), image(legacy.load_network_pkl(io.BytesIO(data))["G"]))


def test_an_augmentation_pipe_is_left_out_with_a_word(tmp_path: Path) -> None:
    path = write(tmp_path / "new.pkl", augment_pipe=Discriminator(0, 16, 3, **FLAT))
    with pytest.warns(UserWarning, match="augment_pipe of this pickle is not loaded") as told:
        data = legacy.load_network_pkl(path)
    assert data["augment_pipe"] is None and len(told) == 1 and told[0].filename == __file__


def test_other_pickles_are_refused() -> None:
    with pytest.raises(RedactError, match="a pickle, but not of a StyleGAN snapshot"):
        legacy.load_network_pkl(io.BytesIO(b"\x80\x04N."))
    incomplete = hostile.pickle.dumps({"G": collections.OrderedDict()}, protocol=4)
    with pytest.raises(RedactError, match="lacks"):
        legacy.load_network_pkl(io.BytesIO(incomplete))


@pytest.mark.parametrize(
    ("options", "forced"), [([], False), (["--force-fp16"], True), (["--force-fp16", "True"], True), (["--force-fp16=no"], False)]
)
def test_command(options: list[str], forced: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, dest = write(tmp_path / "new.pkl", training_set_kwargs={"max_size": 7}, redaction={"feature": "beard"}), tmp_path / "converted.pkl"
    legacy.main([f"--source={source}", f"--dest={dest}", *options])
    before, after = legacy.load_network_pkl(source), legacy.load_network_pkl(dest)
    assert after["G_ema"].synthesis.b16.use_fp16 is forced
    assert (after["training_set_kwargs"], after["redaction"]) == ({"max_size": 7}, {"feature": "beard"})
    assert torch.equal(image(after["G"]), image(before["G"])) and torch.equal(image(after["G_ema"]), image(before["G_ema"]))
    assert capsys.readouterr().out.splitlines() == [f'Loading "{source}"...', f'Saving "{dest}"...', "Done."]


def test_the_command_leaves_private_paths_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    source, dest, load = write(tmp_path / "new.pkl"), tmp_path / "converted.pkl", legacy.load_network_pkl
    private = {"path": "/home/someone/faces.zip", "max_size": 7}
    monkeypatch.setattr(legacy, "load_network_pkl", lambda *args: load(*args) | {"training_set_kwargs": private})
    legacy.main([f"--source={source}", f"--dest={dest}"])
    assert load(dest)["training_set_kwargs"] == {"max_size": 7} and b"faces.zip" not in dest.read_bytes()
    assert "Left out, a private path: training_set_kwargs.path" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options", [["--source=absent.pkl", "--dest=x.pkl"], ["--source=setup.cfg"], ["--source=a", "--dest=b", "--force-fp16=perhaps"]]
)
def test_the_command_ends_with_code_2_where_it_cannot(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        legacy.main(options)
    assert ended.value.code == 2 and "rror: " in capsys.readouterr().err


def test_it_is_a_script(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, legacy.__file__, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "--force-fp16" in done.stdout


def test_a_file_without_a_pipe_gives_no_warning(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        legacy.load_network_pkl(write(tmp_path / "new.pkl"))
