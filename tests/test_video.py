# SPDX-License-Identifier: Apache-2.0
"""`redact.py video`: what is in the frames, who writes them, and that all this is known before anything is drawn."""

from __future__ import annotations

import gc
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import torch
from click.testing import CliRunner, Result
from PIL import Image

from stylegan_redact import cli
from stylegan_redact.network import sample_w, synthesize
from stylegan_redact.types import RedactError
from stylegan_redact.verbs import _film, _video


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[torch.nn.Module]]:
    """Two networks of one shape: their options, and their G_ema."""
    folder = tmp_path_factory.mktemp("pair")
    nets = [tiny_run.write_network(folder / f"{name}.pkl", seed=seed) for seed, name in enumerate(("before", "after"))]
    return [f"--{name}={folder / name}.pkl" for name in ("before", "after")], list(nets)


@pytest.fixture
def no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio", None)
    monkeypatch.setitem(sys.modules, "imageio.v2", None)


def run(*args: str) -> Result:
    return CliRunner().invoke(cli.choose(["video"])[0], [*args])


def frames_in(path: Path) -> list[np.ndarray]:
    with Image.open(path) as film:
        found = []
        for index in range(film.n_frames):
            film.seek(index)
            found.append(np.asarray(film.convert("RGB")))
    return found


def uint8(img: torch.Tensor) -> np.ndarray:
    return (img[0] * 127.5 + 128).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()


def test_each_half_is_what_its_network_draws_of_the_seed(pair: tuple[list[str], list[torch.nn.Module]], tmp_path: Path) -> None:
    options, nets = pair
    result = run(*options, f"--out={tmp_path / 'walk.webp'}", "--seeds=5,2-3", "--frames=4", "--fps=10")
    assert (result.exit_code, result.output) == (0, f"Wrote {tmp_path / 'walk.webp'}: 12 frames, 1.2 s, before on the left and after on the right\n")
    frames = frames_in(tmp_path / "walk.webp")
    assert len(frames) == 12 and {frame.shape for frame in frames} == {(16, 32, 3)}
    for place, seed in enumerate((5, 2, 3)):
        for G, half in zip(nets, np.split(frames[4 * place], 2, axis=1), strict=True):
            assert np.abs(half.astype(int) - uint8(synthesize(G, sample_w(G, [seed])))).max() <= 1
    with Image.open(tmp_path / "walk.webp") as film:
        assert film.info["loop"] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["walk.webp"]


def test_the_walk_is_a_smooth_closed_curve_through_the_places() -> None:
    places = torch.randn([5, 3, 2], generator=torch.Generator().manual_seed(0))
    walk = _video.steps(places, 40)
    assert walk.shape == (200, 3, 2)
    torch.testing.assert_close(walk[::40], places)
    around = torch.cat([walk, walk[:2]])
    speed, bend = around.diff(dim=0), around.diff(dim=0).diff(dim=0)
    assert bend.abs().max() < 0.2 * speed.abs().max()  # No corner anywhere, at the seam neither: lines from place to place bend by up to their speed.


def test_projected_codes_come_first_and_are_fed_to_both_as_they_are(pair: tuple[list[str], list[torch.nn.Module]], tmp_path: Path) -> None:
    options, nets = pair
    code = torch.randn([1, nets[0].num_ws, 8], generator=torch.Generator().manual_seed(0))
    np.savez(tmp_path / "projected_w.npz", w=code.numpy())
    done = run(
        *options, f"--out={tmp_path / 'walk.webp'}", f"--codes={tmp_path / 'projected_w.npz'}", "--seeds=9", "--frames=2", "--scale=3", "--trunc=0.5"
    )
    assert done.exit_code == 0, done.output
    frames = frames_in(tmp_path / "walk.webp")
    assert [frame.shape for frame in frames] == [(48, 96, 3)] * 4
    for G, half in zip(nets, np.split(frames[0], 2, axis=1), strict=True):
        enlarged = Image.fromarray(uint8(synthesize(G, code))).resize((48, 48), Image.Resampling.BICUBIC)
        assert np.abs(half.astype(int) - np.asarray(enlarged))[:, 4:-4].max() <= 1  # At the seam the halves are enlarged together.
        truncated = Image.fromarray(uint8(synthesize(G, sample_w(G, [9], truncation_psi=0.5)))).resize((48, 48), Image.Resampling.BICUBIC)
        other = np.split(frames[2], 2, axis=1)[0 if G is nets[0] else 1]
        assert np.abs(other.astype(int) - np.asarray(truncated))[:, 4:-4].max() <= 1


def test_mp4_without_an_encoder_is_a_webp_and_says_so_before_it_draws(
    pair: tuple[list[str], list[torch.nn.Module]], tmp_path: Path, no_encoder: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_video, "frames_of", interrupted)
    result = run(*pair[0], f"--out={tmp_path / 'walk.mp4'}")
    assert "imageio" in result.output and "an animated WebP instead, walk.webp" in result.output and result.exit_code == 1
    monkeypatch.undo()
    monkeypatch.setattr(_film, "missing_encoder", lambda: "it is not there")
    assert run(*pair[0], f"--out={tmp_path / 'walk.mp4'}", "--seeds=0-1", "--frames=2").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["walk.webp"] and len(frames_in(tmp_path / "walk.webp")) == 4


class Writer:
    """As imageio's: writes where it was told to, by the ending."""

    def __init__(self, path: Path, **options: object) -> None:
        assert path.suffix == ".mp4" and options["fps"] == 12
        self.path, self.frames = path, 0

    def append_data(self, frame: np.ndarray) -> None:
        assert frame.shape == (16, 32, 3) and frame.dtype == np.uint8
        self.frames += 1
        self.path.write_text(str(self.frames))

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_mp4_with_an_encoder(pair: tuple[list[str], list[torch.nn.Module]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in (("imageio", {}), ("imageio.v2", {"get_writer": Writer}), ("imageio_ffmpeg", {"get_ffmpeg_exe": lambda: "ffmpeg"})):
        made = types.ModuleType(name)
        vars(made).update(module)
        monkeypatch.setitem(sys.modules, name, made)
    result = run(*pair[0], f"--out={tmp_path / 'walk.mp4'}", "--seeds=0-1", "--frames=3", "--fps=12")
    assert result.exit_code == 0 and (tmp_path / "walk.mp4").read_text() == "6"

    def broken(writer: Writer, frame: np.ndarray) -> None:
        writer.path.write_text("half")
        raise OSError("no space left")

    monkeypatch.setattr(Writer, "append_data", broken)
    result = run(*pair[0], f"--out={tmp_path / 'walk.mp4'}", "--seeds=0-1", "--frames=3", "--fps=12")
    assert result.exit_code == 2 and "no space left" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["walk.mp4"] and (tmp_path / "walk.mp4").read_text() == "6"


@pytest.mark.parametrize(("module", "told"), [("imageio.v2", "imageio"), ("imageio_ffmpeg", "imageio_ffmpeg")])
def test_what_is_missing_is_named(module: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("imageio", "imageio.v2", "imageio_ffmpeg"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module, None)
    assert told in str(_film.missing_encoder())


def test_no_ffmpeg_is_no_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> str:
        raise RuntimeError("No ffmpeg exe could be found.")

    found = types.ModuleType("imageio_ffmpeg")
    vars(found).update(get_ffmpeg_exe=nowhere)
    for name, module in (("imageio", types.ModuleType("imageio")), ("imageio.v2", types.ModuleType("imageio.v2")), ("imageio_ffmpeg", found)):
        monkeypatch.setitem(sys.modules, name, module)
    assert _film.missing_encoder() == "imageio-ffmpeg has no ffmpeg"


def test_no_way_to_write_is_refused(monkeypatch: pytest.MonkeyPatch, no_encoder: None) -> None:
    with pytest.raises(RedactError, match="at most 2048 MiB are held - fewer --frames, or .mp4"):
        _film.writer_for(Path("walk.webp"), 1 << 20, 1 << 12)
    monkeypatch.setattr(_film.features, "check", lambda name: False)
    with pytest.raises(RedactError, match="there is no encoder"):
        _film.writer_for(Path("walk.mp4"), 1, 1)


def test_bad_input_exits_2(pair: tuple[list[str], list[torch.nn.Module]], tmp_path: Path) -> None:
    options, out = pair[0], f"--out={tmp_path / 'walk.webp'}"
    np.savez(tmp_path / "wrong.npz", w=np.zeros([1, 2, 8]))
    np.savez(tmp_path / "empty.npz", other=np.zeros(3))
    np.savez(tmp_path / "objects.npz", w=np.array([None]))
    for args, told in [
        ([out, "--seeds=7-5"], "'7-5' is no seed"),
        ([out, "--seeds=one"], "'one' is no seed"),
        ([out, "--seeds=4294967296"], "is no seed"),
        ([out, "--seeds=3"], "give two places at least"),
        ([out, "--seeds=none"], "give two places at least"),
        ([out, f"--codes={tmp_path / 'wrong.npz'}"], "shape [1, 2, 8]"),
        ([out, f"--codes={tmp_path / 'empty.npz'}"], "no w can be read"),
        ([out, f"--codes={tmp_path / 'objects.npz'}"], "no w can be read"),
        ([out, f"--codes={tmp_path / 'none.npz'}"], "no w can be read"),
        ([out, "--class=1"], "unconditional"),
        ([f"--out={tmp_path / 'walk.gif'}"], ".mp4 or .webp"),
        ([f"--out={tmp_path / 'no' / 'walk.webp'}"], "no such folder"),
    ]:
        result = run(*options, *args)
        assert result.exit_code == 2 and told in result.output, (args, result.output)
    result = run(options[0], "--after=portraits64", out)
    assert result.exit_code == 2 and "img_resolution 16 and 64" in result.output
    assert not list(tmp_path.glob("*walk*"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")  # imageio-ffmpeg leaves its pipes open.
def test_an_mp4_is_one(pair: tuple[list[str], list[torch.nn.Module]], tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg", reason="no encoder: pip install -e '.[video]'")
    import imageio.v2 as imageio

    result = run(*pair[0], f"--out={tmp_path / 'walk.mp4'}", "--seeds=0-1", "--frames=3", "--fps=12")
    assert result.exit_code == 0, result.output
    with imageio.get_reader(tmp_path / "walk.mp4") as reader:
        frames = [np.asarray(frame) for frame in reader]
    del reader
    gc.collect()
    assert len(frames) == 6 and frames[0].shape[1] == 2 * frames[0].shape[0]
    assert [path.name for path in tmp_path.iterdir()] == ["walk.mp4"]
