# SPDX-License-Identifier: Apache-2.0
"""Objects by their dotted names."""

import collections
import os
import sys

import numpy as np
import pytest

import dnnlib
from dnnlib import util


def top_level(x, y=0):
    return x + y


class Holder:
    def method(self):
        return 1


def test_longest_module_wins_and_the_rest_is_the_local_name():
    assert util.get_module_from_obj_name("os.path.join") == (os.path, "join")
    assert util.get_module_from_obj_name("collections.abc") == (collections.abc, "")
    assert util.get_module_from_obj_name("collections.OrderedDict.fromkeys") == (collections, "OrderedDict.fromkeys")
    assert util.get_obj_by_name("np.random.RandomState") is np.random.RandomState
    assert util.get_obj_from_module(os, "") is os


def test_shorthand_is_only_for_the_first_part(tmp_path, monkeypatch):
    (tmp_path / "np_names.py").write_text("class np:\n    tf = 5\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert util.get_obj_by_name("np_names.np.tf") == 5


def test_name_shadowed_by_an_attribute_of_the_package(tmp_path, monkeypatch):
    """`package.thing` is a module, and also a class that the package shows under that name."""
    (tmp_path / "shadow_package").mkdir()
    (tmp_path / "shadow_package" / "__init__.py").write_text("from shadow_package.thing import thing\n")
    (tmp_path / "shadow_package" / "thing.py").write_text("class thing:\n    inner = 7\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert util.get_obj_by_name("shadow_package.thing.inner") == 7


def test_errors_say_which_kind_of_absence(tmp_path, monkeypatch):
    with pytest.raises(ModuleNotFoundError, match="no_such_module.thing"):
        util.get_obj_by_name("no_such_module.thing")
    with pytest.raises(AttributeError, match="no_such_name"):
        util.get_obj_by_name("os.path.no_such_name")
    (tmp_path / "broken_module.py").write_text("import missing_requirement\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="missing_requirement"):
        util.get_obj_by_name("broken_module.Thing")


def test_calls_and_constructions():
    name = f"{__name__}.top_level"
    assert util.call_func_by_name(2, func_name=name, y=3) == 5
    assert util.call_func_by_name(2, func_name=top_level, y=3) == 5
    easy = dnnlib.util.construct_class_by_name(class_name="dnnlib.EasyDict", a=1)
    assert type(easy) is dnnlib.EasyDict and easy.a == 1
    assert util.construct_class_by_name([("b", 2)], class_name=dnnlib.EasyDict).b == 2
    with pytest.raises(AssertionError, match="os.sep"):
        util.call_func_by_name(func_name="os.sep")


def test_top_level_functions(monkeypatch):
    assert util.is_top_level_function(top_level)
    assert not util.is_top_level_function(Holder().method)
    assert not util.is_top_level_function(lambda: 0)
    assert not util.is_top_level_function(5)
    name = util.get_top_level_function_name(top_level)
    assert util.get_obj_by_name(name) is top_level
    assert util.get_module_dir_by_obj_name(name) == os.path.dirname(os.path.abspath(__file__))
    monkeypatch.setattr(top_level, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "top_level", top_level, raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", os.path.join("some", "script.py"), raising=False)
    assert util.get_top_level_function_name(top_level) == "script.top_level"
