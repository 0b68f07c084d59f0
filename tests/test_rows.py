# SPDX-License-Identifier: Apache-2.0
"""What is known of each seed lies in memory or in a file, and nobody who reads it can tell."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch

from stylegan_redact import rows
from stylegan_redact.evaluation import measure_pairs
from stylegan_redact.features.attribute import Attribute
from stylegan_redact.methods.edit import mixed_codes
from stylegan_redact.proof.pair_store import PairStore
from stylegan_redact.training.guide import BARELY
from stylegan_redact.training.pool import Pool
from stylegan_redact.types import RedactError


def in_a_file(tensor: torch.Tensor) -> bool:
    """Whether its memory is that of a file, by what the system says of it."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(number, 16) for number in line.split()[0].split("-"))
        if first <= tensor.data_ptr() < last:
            return len(line.split()) > 5 and not line.split()[5].startswith("[")
    raise AssertionError("nowhere")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_what_is_large_lies_in_a_file_that_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    large, small = rows.zeros([rows.LARGE // 8 + 1, 2]), rows.zeros([1000, 2])
    assert in_a_file(large) and not in_a_file(small) and list(tmp_path.iterdir()) == []
    assert large.shape == (rows.LARGE // 8 + 1, 2) and large.dtype == torch.float32 and not bool(large.any())
    large[-1] = 3
    large[5:7] += 1
    assert float(large.sum()) == 10 and rows.zeros([3], dtype=torch.int64).dtype == torch.int64
    other = rows.zeros([rows.LARGE // 8 + 1, 2])
    assert not bool(other.any()) and torch.equal(large.clone(), large)


def test_a_disk_without_room_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(RedactError, match="8388609 rows, 32 MiB in all, .*No space left on device.* - set TMPDIR"):
        rows.zeros([rows.LARGE // 4 + 1])


def test_no_folder_for_temporary_files_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(
        tempfile, "_get_default_tempdir", lambda *_: (_ for _ in ()).throw(FileNotFoundError(2, "No usable temporary directory found"))
    )
    with pytest.raises(RedactError, match="there is no folder for it .No usable temporary directory found. - set TMPDIR"):
        rows.zeros([rows.LARGE // 4 + 1])


@pytest.mark.parametrize("call", ["missing", "unknown"])
def test_where_no_call_reserves_the_space_it_is_written(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS and Windows: of a file with a hole in it a disk that is full would be found out by a signal that kills."""

    def unknown(*_: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(rows, "LARGE", 1000)
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    if call == "unknown":
        monkeypatch.setattr(os, "posix_fallocate", unknown, raising=False)
    size, real, written = (5 << 20) + 12, tempfile.TemporaryFile, []

    def recorded() -> Any:
        file = real()
        written.append(os.dup(file.fileno()))
        return file

    monkeypatch.setattr(tempfile, "TemporaryFile", recorded)
    large = rows.zeros([size // 4])
    found = os.fstat(written[0])
    os.close(written[0])
    assert len(large) == size // 4 and not bool(large.any()) and found.st_size == size and 512 * found.st_blocks >= size


def test_columns_are_the_parts_one_after_the_other() -> None:
    parts = [(torch.arange(3), torch.ones(3, 2)), (torch.arange(2), torch.zeros(2, 2))]
    found = rows.filled(iter(parts), 5)
    assert all(torch.equal(column, torch.cat(each)) for column, each in zip(found, zip(*parts, strict=True), strict=True))
    assert found[0].dtype == torch.int64 and rows.numbers(range(7, 10)).tolist() == rows.numbers([7, 8, 9]).tolist() == [7, 8, 9]


@pytest.mark.usefixtures("one_thread")
def test_labelled_and_measured_seeds_are_the_same_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = tiny.network()

    def work(folder: Path) -> list[torch.Tensor]:
        latents = Attribute(tiny.FEATURE, tiny.Corners(net.G_ema)).gather(net, range(300), batch=64).latents
        assert latents is not None and latents.logits is not None
        store = PairStore(folder, lambda text: None)
        pairs = store.measure(range(90), "z", None, 0, lambda *_: None, before=net, after=net, judge=tiny.Corners(net.G_ema), batch=32)
        direct = measure_pairs(net, net, tiny.Corners(net.G_ema), range(90), batch=32)
        return [latents.w, latents.logits, pairs.logits_before, direct.logits_before, pairs.l1, direct.dissimilarity, direct.seeds]

    plain = work(tmp_path / "plain")
    monkeypatch.setattr(rows, "LARGE", 0)
    filed = work(tmp_path / "filed")
    assert all(torch.equal(one, other) for one, other in zip(plain, filed, strict=True))
    if Path("/proc/self/maps").exists():
        assert all(in_a_file(each) for each in filed[:6]) and not any(in_a_file(each) for each in plain)


def test_codes_are_drawn_without_a_copy_of_all() -> None:
    w, of = torch.arange(20.0)[:, None], torch.tensor([3, 5, 7, 11])
    part, weights = Pool(w, of=of), torch.tensor([0.0, 1.0, 0.0, 0.0])
    drawn = part.pick(50, torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == set(of.tolist()) and part.w is w
    assert torch.equal(w[drawn], w[of][Pool(w[of]).pick(50, torch.Generator().manual_seed(0))])
    assert set(Pool(w, weights, of).pick(9, torch.Generator().manual_seed(0)).tolist()) == {5}
    latents = SimpleNamespace(w=torch.randn([40, 3]), score=torch.linspace(-9, 9, 40), logits=None, c=None)
    batch = mixed_codes(SimpleNamespace(num_ws=4), latents)(16, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    shows = {tuple(row) for row in latents.w[latents.score > BARELY].tolist()}
    assert len(batch.ws) == 16 and all(tuple(row) in shows for row in batch.ws[:6, 0].tolist())
