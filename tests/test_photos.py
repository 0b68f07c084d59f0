# SPDX-License-Identifier: Apache-2.0
"""Photographs from folders, archives and files: cut to the middle, upright, and refused in one sentence where they cannot be read."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_redact import photos
from stylegan_redact.types import RedactError

SHAPE = (3, 16, 16)


def halves(path: Path, size: tuple[int, int] = (64, 32)) -> None:
    """Red on the left, green on the right; a blue border beyond the middle square."""
    width, height = size
    img = Image.new("RGB", size, (0, 0, 255))
    img.paste((255, 0, 0), (width // 2 - height // 2, 0, width // 2, height))
    img.paste((0, 255, 0), (width // 2, 0, width // 2 + height // 2, height))
    img.save(path)


def test_the_middle_is_taken_and_every_second_one_is_held_out(tmp_path: Path) -> None:
    for name in ("a.png", "b.PNG", "c.png"):
        halves(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no photograph")
    found = photos.of_person(tmp_path, SHAPE)
    assert found.known.shape == (2, *SHAPE) and found.held_out.shape == (1, *SHAPE) and len(found.sha256) == 3
    img = found.known[0]
    assert float(img[2].mean()) < -0.98  # nothing of the border
    assert img[:, 8, 3].tolist() == pytest.approx([1, -1, -1], abs=0.1) and img[:, 8, 12].tolist() == pytest.approx([-1, 1, -1], abs=0.1)
    alone = photos.of_person(tmp_path / "a.png", SHAPE)
    assert torch.equal(alone.known[0], img) and len(alone.held_out) == 0
    assert photos.of_person(tmp_path / "a.png", (1, 8, 8)).known.shape == (1, 1, 8, 8)


def test_an_archive_is_a_folder(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        halves(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name in ("b.png", "a.png"):
            archive.write(tmp_path / name, f"inner/{name}")
        archive.writestr("inner/readme.txt", "no photograph")
    packed = photos.of_person(tmp_path / "all.zip", SHAPE)
    (tmp_path / "all.zip").unlink()
    assert packed.sha256 == photos.of_person(tmp_path, SHAPE).sha256


def test_a_photograph_lying_on_its_side_is_turned(tmp_path: Path) -> None:
    halves(tmp_path / "a.png", (32, 32))
    upright = Image.open(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees for viewing
    upright.rotate(90, expand=True).save(tmp_path / "b.jpg", exif=exif, quality=100)
    a, b = (photos.of_person(tmp_path / name, SHAPE).known for name in ("a.png", "b.jpg"))
    assert float((a - b).abs().mean()) < 0.15


def test_sixteen_bits_of_grey_are_the_same_grey(tmp_path: Path) -> None:
    levels = np.linspace(0, 255, 256).round().reshape(16, 16)
    Image.fromarray((levels * 257).astype(np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(levels.astype(np.uint8)).save(tmp_path / "b.png")
    fine, plain = (photos.of_person(tmp_path / name, SHAPE).known for name in ("a.png", "b.png"))
    assert torch.equal(fine, plain) and float(plain.min()) == -1 and float(plain.max()) == 1


def test_what_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(RedactError) as caught:
            photos.of_person(path, SHAPE)
        return str(caught.value)

    assert all("no such folder or file" in refused(tmp_path / name) for name in ("none", "n" * 5000))
    assert "there are none" in refused(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no picture")
    assert "a.png cannot be read" in refused(tmp_path) and "a.png cannot be read" in refused(tmp_path / "a.png")
    halves(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[: len(data) // 2])
    assert "a.png cannot be read" in refused(tmp_path)
    halves(tmp_path / "a.png")
    for name, changes in (("encrypted", {6: 1}), ("packed strangely", {8: 99}), ("corrupt", {40: 255, 41: 255, 42: 255})):
        with zipfile.ZipFile(tmp_path / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(tmp_path / "a.png", "a.png")
        packed = bytearray((tmp_path / "all.zip").read_bytes())
        for place, value in changes.items():
            packed[place] = value
            if place < 30:  # The directory at the end has the header again, two bytes on.
                packed[packed.index(b"PK\x01\x02") + place + 2] = value
        (tmp_path / "all.zip").write_bytes(packed)
        assert "cannot be read" in refused(tmp_path / "all.zip"), name
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big.png", bytes(2000))
    monkeypatch.setattr(photos, "MOST_BYTES", 1000)
    assert "big.png has more than" in refused(tmp_path / "bomb.zip")
    monkeypatch.undo()
    halves(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "a.png cannot be read" in refused(tmp_path)


def test_a_folder_by_the_name_of_a_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").mkdir()
    with pytest.raises(RedactError, match="a.png is a folder - take it out"):
        photos.of_person(tmp_path, SHAPE)


def test_what_is_no_picture_is_told_without_an_address_in_memory(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(RedactError, match=r"a.png cannot be read \(it is no picture of a known kind\)"):
        photos.of_person(tmp_path, SHAPE)
