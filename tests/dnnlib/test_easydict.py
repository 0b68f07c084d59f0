# SPDX-License-Identifier: Apache-2.0
"""EasyDict, and where it and the cache folder are to be found."""

import copy
import os
import pickle
import subprocess
import sys
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

import dnnlib


@given(st.dictionaries(st.text(min_size=1), st.integers()))
def test_attributes_are_items(items):
    easy = dnnlib.EasyDict(items)
    assert easy == items
    for name, value in items.items():
        if not hasattr(dict, name):
            assert getattr(easy, name) == value
        setattr(easy, name, value + 1)
        assert easy[name] == value + 1
        delattr(easy, name)
        assert name not in easy
    assert easy == {}
    assert vars(easy) == {}, "items must not be kept twice: pickles would hold both"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, *(lambda x, p=p: pickle.loads(pickle.dumps(x, p)) for p in range(6))])
def test_copies_keep_type_and_items(copied):
    easy = dnnlib.EasyDict(a=1, b=dnnlib.EasyDict(c=[2]), d={"e": 3})
    twin = copied(easy)
    assert type(twin) is dnnlib.EasyDict and type(twin.b) is dnnlib.EasyDict and type(twin.d) is dict
    assert twin == easy and twin is not easy


def test_missing_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="^absent$"):
        getattr(dnnlib.EasyDict(), "absent")  # noqa: B009
    with pytest.raises(AttributeError, match="^absent$"):
        del dnnlib.EasyDict().absent


def test_pickle_names_the_class_as_nvidia_does():
    assert b"cdnnlib.util\nEasyDict\n" in pickle.dumps(dnnlib.EasyDict(a=1), protocol=2)
    assert dnnlib.util.EasyDict is dnnlib.EasyDict


def test_cache_dir_comes_from_the_first_that_names_one(monkeypatch):
    for name in ("DNNLIB_CACHE_DIR", "HOME", "USERPROFILE"):
        monkeypatch.delenv(name, raising=False)
    assert dnnlib.make_cache_dir_path("x") == os.path.join(tempfile.gettempdir(), ".cache", "dnnlib", "x")
    monkeypatch.setenv("USERPROFILE", "profile")
    assert dnnlib.make_cache_dir_path() == os.path.join("profile", ".cache", "dnnlib")
    monkeypatch.setenv("HOME", "home")
    assert dnnlib.make_cache_dir_path("x", "y") == os.path.join("home", ".cache", "dnnlib", "x", "y")
    monkeypatch.setenv("DNNLIB_CACHE_DIR", "variable")
    assert dnnlib.make_cache_dir_path("x") == os.path.join("variable", "x")
    dnnlib.util.set_cache_dir("chosen")
    try:
        assert dnnlib.make_cache_dir_path("x") == os.path.join("chosen", "x")
    finally:
        dnnlib.util.set_cache_dir(None)
    assert dnnlib.make_cache_dir_path("x") == os.path.join("variable", "x")


def test_import_needs_nothing_optional_and_changes_nothing():
    """A process where the optional packages cannot be imported; filters, handlers, seeds and environment stay as they were."""
    code = """
import os, sys, warnings
absent = ("scipy", "pkg_resources", "distutils", "setuptools", "requests", "ninja", "torch.utils.cpp_extension")
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in absent or name.split(".")[0] in absent:
            raise ModuleNotFoundError(name)
import torch, numpy
for name in list(sys.modules):
    if name in absent or name.split(".")[0] in absent:
        del sys.modules[name]
sys.meta_path.insert(0, Absent())
os.environ["PATH"] = ""
def state():
    seeds = (torch.random.get_rng_state().sum().item(), numpy.random.get_state()[1].sum(), torch.is_grad_enabled())
    return (list(warnings.filters), dict(os.environ), seeds, sys.stdout, sys.stderr, torch.get_default_dtype())
before = state()
import dnnlib, dnnlib.util
from torch_utils import custom_ops, misc, persistence, training_stats
import torch_utils
assert state() == before
assert dnnlib.stylegan_redact is True and torch_utils.stylegan_redact is True
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=os.path.dirname(os.path.dirname(dnnlib.__file__)))
