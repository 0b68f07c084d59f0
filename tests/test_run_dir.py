# SPDX-License-Identifier: Apache-2.0
"""Numbered folders and files that are whole or not there."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny

from stylegan_redact import network_files, run_dir
from stylegan_redact.types import RedactError


def test_numbers_follow_the_highest_that_is_there(tmp_path):
    assert run_dir.make_run_dir(tmp_path / "new" / "deep", "first").name == "00000-first"
    for name in ("00003-x", "7-short", "12", "notes", "99x", "x-100"):
        (tmp_path / name).mkdir()
    assert run_dir.make_run_dir(tmp_path, "a").name == "00013-a"
    assert run_dir.make_run_dir(tmp_path, "a").name == "00014-a"


def test_a_number_taken_meanwhile_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "00000-a").mkdir()
    monkeypatch.setattr(run_dir, "next_run_id", lambda outdir: 0)
    assert run_dir.make_run_dir(tmp_path, "a").name == "00001-a"


def test_names_are_safe_on_every_disk(tmp_path):
    assert run_dir.make_run_dir(tmp_path, "redact-a/b:c d").name == "00000-redact-a_b_c_d"


def test_an_outdir_in_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RedactError, match="is no folder"):
        run_dir.make_run_dir(tmp_path / "file" / "below", "a")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_an_outdir_without_rights_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RedactError, match="may not be written to"):
        run_dir.check_outdir(tmp_path / "below")
    tmp_path.chmod(0o700)


def test_checking_makes_nothing(tmp_path):
    run_dir.check_outdir(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []


def test_a_file_takes_its_name_at_the_end(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with run_dir.whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old" and temporary.parent == tmp_path
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_a_file_that_fails_leaves_the_old_one_and_no_trace(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), run_dir.whole_file(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_disk_error_is_explained(tmp_path):
    with pytest.raises(RedactError, match="was to be written"):
        run_dir.write_json(tmp_path / "missing" / "x.json", {})
    with pytest.raises(RedactError, match="was to be written"):
        run_dir.append_text(tmp_path, "a folder cannot be appended to")


def test_json_is_strict_and_plain(tmp_path):
    path = tmp_path / "x.json"
    run_dir.write_json(path, {"nan": float("nan"), "inf": [float("inf"), 1.5], "tuple": (1, "a"), "path": Path("a"), "none": None, 3: True})
    text = path.read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text) == {"nan": None, "inf": [None, 1.5], "tuple": [1, "a"], "path": "a", "none": None, "3": True}


def test_a_disk_that_is_too_small_for_a_run_is_told_before_it(tmp_path, monkeypatch):
    net = tiny.network()
    size = sum(4 * tensor.numel() for part in (net.G, net.D, net.G_ema) for tensor in (*part.parameters(), *part.buffers()))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3 * size))
    told = network_files.scarce(net, tmp_path)
    assert told is not None and f"{3 * size / 2**20:.0f} MiB are free in {tmp_path}" in told and "make room" in told
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * size))
    assert network_files.scarce(net, tmp_path) is None
