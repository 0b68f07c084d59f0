# SPDX-License-Identifier: Apache-2.0
"""The programs that make the pictures of docs/ do what the pages say, in small: the real ones take four whole runs."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from stylegan_redact.detectors import load_bundled
from stylegan_redact.network import copy_network, generate, load_network, read_snapshot, sample_w, save_network
from stylegan_redact.network_files import bundled

DOCS = Path(__file__).parents[1] / "docs"
SHIFT = 0.1
"""Of every pixel, by the networks that stand for redacted ones."""


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_gallery_shows_the_first_fresh_seeds_before_after_and_what_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = program("gallery")
    monkeypatch.setattr(gallery, "LOOKED_AT", 40)
    monkeypatch.setenv("STYLEGAN_REDACT_KERNELS", "off")
    snapshot = read_snapshot(bundled()["portraits64"])
    network = load_network(snapshot)
    for name in ("smile", "grey_hair"):
        after = copy_network(network)
        for net in (after.G, after.G_ema):
            net.synthesis.b64.torgb.bias.data += SHIFT
        save_network(after, tmp_path / f"{name}.pkl", original=snapshot, record={"feature": name})
    out = tmp_path / "made" / "gallery.png"
    files = [str(tmp_path / f"{name}.pkl") for name in ("smile", "grey_hair")]
    done = CliRunner().invoke(gallery.main, [*files, f"--out={out}", "--having=2", "--lacking=1"])
    assert done.exit_code == 0, done.output

    judge, size = load_bundled("judge"), 64 * gallery.SCALE
    before = torch.cat(list(generate(network.G_ema, sample_w(network.G_ema, range(5_000_000, 5_000_040)), batch=64)))
    sheet = np.asarray(Image.open(out).convert("RGB")).astype(float)
    for left, name in ((gallery.LEFT, "grey_hair"), (gallery.LEFT + 3 * size + gallery.GAP, "smile")):  # In alphabetical order.
        shows = judge.logits(before)[:, judge.attributes.index(name)] > 0
        for column, seed in enumerate([*shows.nonzero().flatten().tolist()[:2], int((~shows).nonzero()[0])]):
            expected = gallery.pixels(before[seed : seed + 1])[0].resize((size, size), Image.Resampling.LANCZOS)
            x, tops = left + column * size, [gallery.TITLE + row * size for row in range(3)]
            was, now, changed = (sheet[top : top + size, x : x + size] for top in tops)
            assert np.array_equal(was, np.asarray(expected))
            assert 0 < (now - was).mean() < 1.5 * SHIFT * 127.5
            share = SHIFT * gallery.AMPLIFIED / 2
            assert np.abs(changed - ((1 - share) * np.array(gallery.PAPER) + share * np.array(gallery.CHANGED))).max() <= 1
    assert sheet[: gallery.TITLE, gallery.LEFT :].min() < 100  # The words.


def test_what_did_not_change_is_paper() -> None:
    gallery, img = program("gallery"), torch.zeros([1, 3, 4, 4])
    other = img.clone()
    other[0, 1, 0, 0] = -0.5  # A quarter of the range: fully coloured.
    levels = np.asarray(gallery.change_maps(img, other)[0])
    assert tuple(levels[0, 0]) == gallery.CHANGED and (levels.reshape(-1, 3)[1:] == gallery.PAPER).all()


def test_photographs_are_of_one_person_four_times(tmp_path: Path) -> None:
    photos = program("person_photos")
    photos.main(tmp_path / "a", 3)
    photos.main(tmp_path / "b", 3)
    photos.main(tmp_path / "other", 4)
    files = [sorted((tmp_path / folder).iterdir()) for folder in ("a", "b", "other")]
    assert [[path.name for path in folder] for folder in files] == [[f"{index}.png" for index in range(4)]] * 3
    mine, again, others = ([path.read_bytes() for path in folder] for folder in files)
    assert mine == again and len({*mine, *others}) == 8
    seen = [np.stack([np.asarray(Image.open(path)).astype(float) for path in folder]) for folder in files]
    assert seen[0].shape == (4, 64, 64, 3)
    judge = load_bundled("judge")
    hat, glasses, male = (judge.attributes.index(name) for name in ("hat", "eyeglasses", "male"))
    logits = judge.logits(torch.from_numpy(seen[0]).permute(0, 3, 1, 2).float() / 127.5 - 1)
    for column in (hat, glasses, male):
        assert len({bool(value > 0) for value in logits[:, column]}) == 1
    assert len({bool(value > 0) for value in logits[:, judge.attributes.index("smile")]}) == 2  # It smiles in some.
