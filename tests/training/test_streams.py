# SPDX-License-Identifier: Apache-2.0
"""Pictures to train on: files in NVIDIA's layout and what is wrong with them, streams and what is wanted of them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tiny_run
import torch
from PIL import Image

from stylegan_redact.network import sample_w
from stylegan_redact.training.images import open_images
from stylegan_redact.training.invalid import InvalidPictures
from stylegan_redact.training.streams import Images, Mixed, Stream, from_files, generated, mixed, only, stored
from stylegan_redact.types import RedactError

SHAPE = (3, 4, 4)
LEVELS = (0, 85, 170, 255)
CPU = torch.device("cpu")


def png(level: int, size: int = 4, mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (size, size), level if mode == "L" else (level,) * 3).save(file, "png")
    return file.getvalue()


def files(labels: object = None) -> dict[str, bytes]:
    """Four pictures in two folders, as dataset_tool.py writes them."""
    made = {f"0000{row // 2}/img{row:08d}.png": png(level) for row, level in enumerate(LEVELS)}
    return made | {"dataset.json": json.dumps({"labels": labels}).encode(), "readme.txt": b"no picture"}


def write(path: Path, content: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in content.items():
                archive.writestr(name, data)
        return path
    for name, data in content.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def random(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_portions_change_how_many_are_drawn_at_once_and_not_which(tmp_path: Path) -> None:
    G = tiny_run.generator()
    w = sample_w(G, range(30))
    sizes: list[int] = []
    G.synthesis.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))

    def bright(img: torch.Tensor, seeds: object = None) -> torch.Tensor:
        sizes.append(len(img))
        return img.mean([1, 2, 3]) > 0

    found = open_images(write(tmp_path / "set", files()), SHAPE)

    def streams() -> list[Stream]:
        drawn = generated(G, w)
        return [drawn, only(drawn, bright, "it"), mixed([drawn, drawn]), from_files(found, 0, CPU, bright), InvalidPictures(G, bright)]

    for one, other in zip(streams(), streams(), strict=True):
        sizes.clear()
        whole = one(10, random()).img
        assert max(sizes) > 3
        sizes.clear()
        torch.testing.assert_close(other(10, random(), 3).img, whole, rtol=1e-5, atol=1e-5)
        assert max(sizes) == 3


@pytest.mark.parametrize("name", ["set", "set.zip"])
def test_a_folder_and_a_zip_are_read_alike(tmp_path: Path, name: str) -> None:
    labels = [[f"0000{row // 2}/img{row:08d}.png", row % 2] for row in range(4)]
    found = open_images(write(tmp_path / name, files(labels)), SHAPE)
    assert len(found) == 4 and found.labels == (0, 1, 0, 1)
    img = found.read([3, 0, 1])
    assert img.shape == (3, 3, 4, 4) and torch.allclose(img[:, 0, 0, 0], torch.tensor([1.0, -1.0, 85 / 127.5 - 1]))
    assert found.one_hot(0) is None
    one_hot = found.one_hot(2)
    assert one_hot is not None and one_hot.tolist() == [[1, 0], [0, 1], [1, 0], [0, 1]]
    with pytest.raises(RedactError, match="not of 1 classes"):
        found.one_hot(1)


def test_greyscale_and_jpeg(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full([4, 4], 200, np.uint8)).save(file, "jpeg")
    found = open_images(write(tmp_path / "set", {"a.jpg": file.getvalue()}), (1, 4, 4))
    assert found.labels is None and float(found.read([0]).mean()) == pytest.approx(200 / 127.5 - 1, abs=0.02)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"a.png": png(1, size=8)}, "8x8"),
        ({"a.png": png(1, mode="L")}, "1 channels"),
        ({"a.png": b"no picture"}, "a.png"),
        ({"a.png": png(1)[:44]}, "a.png"),
        ({"a.txt": b""}, "no .png"),
        ({"a.png": png(1), "dataset.json": b"{"}, "cannot be read"),
        ({"a.png": png(1), "dataset.json": b'{"labels": [["b.png", 1]]}'}, "none for a.png"),
    ],
)
def test_what_is_wrong_with_a_set_is_said(tmp_path: Path, content: dict[str, bytes], told: str) -> None:
    with pytest.raises(RedactError, match=told):
        open_images(write(tmp_path / "set", content), SHAPE).read([0])


def test_no_such_set_and_no_labels(tmp_path: Path) -> None:
    with pytest.raises(RedactError, match="no such folder"):
        open_images(tmp_path / "nowhere", SHAPE)
    (tmp_path / "file.zip").write_bytes(b"text")
    with pytest.raises(RedactError, match="no zip"):
        open_images(tmp_path / "file.zip", SHAPE)
    with pytest.raises(RedactError, match="no labels"):
        from_files(open_images(write(tmp_path / "set", files()), SHAPE), 3, CPU)


def test_only_what_is_wanted_is_drawn_and_each_file_asked_about_once(tmp_path: Path) -> None:
    asked: list[float] = []

    def dark(img: torch.Tensor) -> torch.Tensor:
        asked.extend(img[:, 0, 0, 0].tolist())
        return img[:, 0, 0, 0] < 0

    labels = [[f"0000{row // 2}/img{row:08d}.png", row] for row in range(4)]
    stream = from_files(open_images(write(tmp_path / "set", files(labels)), SHAPE), 4, CPU, dark)
    drawn = stream(50, random())
    more = stream(50, random(1))
    assert drawn.c is not None and len(set(asked)) == 4 and len(asked) <= 50 and len(more.img) == 50
    assert set(drawn.c.argmax(1).tolist()) == {0, 1}
    levels = torch.tensor(LEVELS)[drawn.c.argmax(1)] / 127.5 - 1  # Each with its own label.
    assert torch.allclose(drawn.img[:, 0, 0, 0], levels)
    with pytest.raises(RedactError, match="0 will do"):
        from_files(open_images(tmp_path / "set", SHAPE), 0, CPU, lambda img: img[:, 0, 0, 0] > 2)(4, random())


def test_mixtures_have_equal_parts_with_their_labels() -> None:
    parts = [stored(torch.full([1, 1, 2, 2], float(level)), torch.eye(3)[[level]]) for level in range(3)]
    drawn = mixed(parts)(8, random())
    assert drawn.c is not None and torch.equal(drawn.c.argmax(1).float(), drawn.img[:, 0, 0, 0])
    assert sorted(drawn.c.sum(0).tolist()) == [2, 3, 3]


def test_what_does_not_divide_goes_to_each_in_turn_and_memories_are_kept() -> None:
    class Counting:
        def __init__(self, level: float) -> None:
            self.level, self.drawn = level, 0

        def __call__(self, n: int, generator: torch.Generator, at_a_time: int | None = None) -> Images:
            self.drawn += n
            return Images(torch.full([n, 1, 2, 2], self.level))

        def state_dict(self) -> dict[str, int]:
            return {"drawn": self.drawn}

        def load_state_dict(self, state_dict: dict[str, int]) -> None:
            self.drawn = state_dict["drawn"]

    parts = [Counting(0.0), stored(torch.ones([1, 1, 2, 2])), Counting(2.0)]
    stream, generator = mixed(parts), random()
    for _ in range(300):
        assert len(stream(4, generator).img) == 4
    assert all(370 < part.drawn < 430 for part in parts if isinstance(part, Counting)), "else a batch smaller than the sets would leave one out"
    other = mixed([Counting(0.0), parts[1], Counting(2.0)])
    assert isinstance(stream, Mixed) and isinstance(other, Mixed)
    other.load_state_dict(stream.state_dict())
    assert [getattr(part, "drawn", None) for part in other.streams] == [getattr(part, "drawn", None) for part in parts]


def test_only_gives_as_many_as_are_asked_for() -> None:
    img = torch.arange(10.0).view(10, 1, 1, 1)
    drawn = only(stored(img, torch.eye(10)), lambda img: img[:, 0, 0, 0] < 2, "these")(20, random())
    assert len(drawn.img) == 20 and float(drawn.img.max()) == 1
    assert drawn.c is not None and torch.equal(drawn.c.argmax(1).float(), drawn.img[:, 0, 0, 0])
    with pytest.raises(RedactError, match="these"):
        only(stored(img), lambda img: img[:, 0, 0, 0] < 0, "these")(2, random())


def test_portions_keep_labels() -> None:
    parts = Images(torch.arange(5.0).view(5, 1, 1, 1), torch.eye(5)).split(2)
    assert [len(part.img) for part in parts] == [2, 2, 1]
    assert all(part.c is not None and torch.equal(part.c.argmax(1).float(), part.img.flatten()) for part in parts)
