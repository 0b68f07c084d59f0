# SPDX-License-Identifier: Apache-2.0
"""Products, number types, picklability; lists and copies of folders."""

import ctypes
import os
import threading

import numpy as np
import pytest

from dnnlib import util


def test_tuple_product():
    assert util.tuple_product((2, 3, 4)) == 24 and util.tuple_product(()) == 1


def test_number_types_agree_in_size():
    names = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)] + ["float32", "float64"]
    for name in names:
        for given in (name, getattr(np, name), np.dtype(name)):
            dtype, ctype = util.get_dtype_and_ctype(given)
            assert dtype == np.dtype(name)
            assert np.dtype(ctype) == dtype
    assert util.get_dtype_and_ctype("float32")[1] is ctypes.c_float
    with pytest.raises(RuntimeError, match="cannot infer"):
        util.get_dtype_and_ctype(5)
    with pytest.raises(AssertionError, match="complex64"):
        util.get_dtype_and_ctype("complex64")


def test_is_pickleable():
    assert util.is_pickleable({"a": [1, "b", None, np.zeros(3)]})
    assert not util.is_pickleable(threading.Lock())
    assert not util.is_pickleable(lambda: 0)


def test_folder_list_leaves_out_what_is_ignored_and_copies(tmp_path):
    for name in ("a/x.py", "a/b/y.pyc", "skip/z.py", "top.txt"):
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_text(name)
    src = str(tmp_path / "src")
    everything = util.list_dir_recursively_with_ignore(src)
    assert {relative for _, relative in everything} == {os.path.join(*n.split("/")) for n in ("a/x.py", "a/b/y.pyc", "skip/z.py", "top.txt")}
    chosen = util.list_dir_recursively_with_ignore(src, ignores=["*.pyc", "skip"], add_base_to_relative=True)
    assert chosen == [
        (os.path.join(src, "top.txt"), os.path.join("src", "top.txt")),
        (os.path.join(src, "a", "x.py"), os.path.join("src", "a", "x.py")),
    ]
    util.copy_files_and_create_dirs([(path, str(tmp_path / "dst" / relative)) for path, relative in chosen])
    assert (tmp_path / "dst" / "src" / "a" / "x.py").read_text() == "a/x.py"
    with pytest.raises(AssertionError, match="not a folder"):
        util.list_dir_recursively_with_ignore(str(tmp_path / "nowhere"))
