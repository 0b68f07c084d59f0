# SPDX-License-Identifier: Apache-2.0
"""torch_utils.custom_ops: what it checks and where it builds; one test really compiles."""

import importlib
import os
import shutil
import subprocess
import sys
import time
import types

import pytest
import torch

from torch_utils import custom_ops

cpp_extension = pytest.importorskip("torch.utils.cpp_extension", reason="needs setuptools")

HEADER = "#pragma once\n#include <torch/extension.h>\n"
SOURCE = """#include "addition.h"
static torch::Tensor add_twice(torch::Tensor a, torch::Tensor b) { return a + 2 * b; }
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) { m.def("add_twice", &add_twice); }
"""


@pytest.fixture(autouse=True)
def clean_state(monkeypatch, tmp_path):
    monkeypatch.setattr(custom_ops, "_plugins", {})
    monkeypatch.setattr(custom_ops, "verbosity", "none")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    yield
    for name in [name for name in sys.modules if name.startswith("test_plugin")]:
        del sys.modules[name]


@pytest.fixture
def source_dir(tmp_path):
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "addition.h").write_text(HEADER)
    (folder / "addition.cpp").write_text(SOURCE)
    return str(folder)


@pytest.fixture
def loads(monkeypatch):
    """Stands in for the compiler; records what it is asked for."""
    calls = []

    def load(**kwargs):
        calls.append(kwargs)
        return types.ModuleType(kwargs["name"])

    monkeypatch.setattr(cpp_extension, "load", load)
    monkeypatch.setattr(cpp_extension, "is_ninja_available", lambda: True)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    return calls


def forget():
    custom_ops._plugins.clear()


def test_both_ways_to_call_build_the_same_files_in_the_same_place(loads, source_dir):
    first = custom_ops.get_plugin("test_plugin", sources=["addition.cpp"], headers=["addition.h"], source_dir=source_dir)
    assert custom_ops.get_plugin("test_plugin", ["nothing"]) is first and len(loads) == 1, "kept by name"
    assert sys.modules["test_plugin"] is first and importlib.import_module("test_plugin") is first
    forget()
    custom_ops.get_plugin("test_plugin", sources=[os.path.join(source_dir, "addition.cpp")])
    assert loads[0] == loads[1]
    folder = loads[0]["build_directory"]
    assert sorted(os.listdir(folder)) == ["addition.cpp", "addition.h"], "ADA names no headers, and needs them"
    assert loads[0]["sources"] == [os.path.join(folder, "addition.cpp")] and loads[0]["verbose"] is False
    parts = folder.split(os.sep)
    assert parts[-2] == "test_plugin" and len(parts[-1].split("-")[0]) == 32 and parts[-1] == parts[-1].lower()


def test_build_folder_belongs_to_the_content_and_the_options(loads, source_dir):
    def build(**kwargs):
        forget()
        custom_ops.get_plugin("test_plugin", sources=["addition.cpp"], source_dir=source_dir, **kwargs)
        return loads[-1]["build_directory"]

    folders = [build(), build(extra_cflags=["-O1"])]
    assert loads[-1]["extra_cflags"] == ["-O1"], "options are passed on"
    for name in ("addition.h", "addition.cpp"):
        with open(os.path.join(source_dir, name), "a") as file:
            file.write("\n")
        folders.append(build())
        with open(os.path.join(folders[-1], name)) as copied, open(os.path.join(source_dir, name)) as original:
            assert copied.read() == original.read()
    assert len(set(folders)) == 4 and build() == folders[-1]


def test_second_build_does_not_touch_the_files(loads, source_dir):
    def ages():
        forget()
        custom_ops.get_plugin("test_plugin", sources=["addition.cpp"], source_dir=source_dir)
        return [os.stat(path).st_mtime_ns for path in loads[-1]["sources"]]

    assert ages() == ages(), "a newer file would be compiled again"


@pytest.mark.parametrize(
    ("verbosity", "outcome", "expected"),
    [
        ("none", True, ""),
        ("brief", True, 'Setting up PyTorch plugin "test_plugin"... Done.\n'),
        ("brief", False, 'Setting up PyTorch plugin "test_plugin"... Failed!\n'),
        ("full", True, 'Setting up PyTorch plugin "test_plugin"... \nDone.\n'),
    ],
)
def test_verbosity(loads, source_dir, monkeypatch, capsys, verbosity, outcome, expected):
    monkeypatch.setattr(custom_ops, "verbosity", verbosity)
    if not outcome:
        monkeypatch.setattr(shutil, "which", lambda name: None)
    try:
        custom_ops.get_plugin("test_plugin", sources=["addition.cpp"], source_dir=source_dir)
    except RuntimeError:
        assert not outcome
    assert capsys.readouterr().out == expected
    assert not outcome or loads[-1]["verbose"] == (verbosity == "full")
    monkeypatch.setattr(custom_ops, "verbosity", "loud")
    with pytest.raises(AssertionError, match="loud"):
        custom_ops.get_plugin("test_plugin", [])


def test_missing_programs_are_named_in_one_sentence(loads, source_dir, monkeypatch):
    def message(**kwargs):
        with pytest.raises(RuntimeError) as caught:
            custom_ops.get_plugin("test_plugin", sources=["addition.cpp"], source_dir=source_dir, **kwargs)
        text = str(caught.value)
        assert text.startswith('plugin "test_plugin" cannot be compiled - ') and "\n" not in text and len(text) < 200
        return text

    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    assert "nvcc" in message(with_cuda=True)
    monkeypatch.setenv("CXX", "ccache my-compiler -v")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "ccache" in message()
    monkeypatch.setattr(cpp_extension, "is_ninja_available", lambda: False)
    assert "ninja" in message()
    assert loads == [] and "test_plugin" not in sys.modules


def test_compiler_errors_become_one_sentence(loads, source_dir, monkeypatch):
    log = (
        "Error building extension 'test_plugin': [1/2] c++ -MMD ...\nFAILED: addition.o\n/x/addition.cpp:2:5: error: 'foo' was not declared\n"
        + "trace\n" * 200
    )

    def load(**kwargs):
        raise RuntimeError(log)

    monkeypatch.setattr(cpp_extension, "load", load)
    with pytest.raises(RuntimeError) as caught:
        custom_ops.get_plugin("test_plugin", sources=["addition.cpp"], source_dir=source_dir)
    assert "error: 'foo' was not declared" in str(caught.value) and "\n" not in str(caught.value) and '"full"' in str(caught.value)
    monkeypatch.setattr(custom_ops, "verbosity", "full")
    with pytest.raises(RuntimeError, match="trace\ntrace"):
        custom_ops.get_plugin("test_plugin", sources=["addition.cpp"], source_dir=source_dir)


def test_a_compiler_that_does_not_run_is_one_sentence_too(loads, source_dir, monkeypatch):
    def load(**kwargs):
        raise subprocess.CalledProcessError(1, ["c++", "--version"])

    monkeypatch.setattr(cpp_extension, "load", load)
    with pytest.raises(RuntimeError, match=r"does not compile - .*c\+\+.*--version.*exit status 1"):
        custom_ops.get_plugin("test_plugin", sources=["addition.cpp"], source_dir=source_dir)


def test_lock_of_an_interrupted_build_is_no_obstacle(loads, source_dir):
    custom_ops.get_plugin("test_plugin", sources=["addition.cpp"], source_dir=source_dir)
    lock = os.path.join(loads[-1]["build_directory"], "lock")
    with open(lock, "w"):
        pass
    forget()
    custom_ops.get_plugin("test_plugin", sources=["addition.cpp"], source_dir=source_dir)
    assert not os.path.exists(lock), "torch would wait for ever on it"


def test_old_lock_is_found_where_the_system_has_none(loads, source_dir, monkeypatch):
    monkeypatch.setattr(custom_ops, "fcntl", None)
    custom_ops.get_plugin("test_plugin", sources=["addition.cpp"], source_dir=source_dir)
    lock = os.path.join(loads[-1]["build_directory"], "lock")
    with open(lock, "w"):
        pass
    forget()
    custom_ops.get_plugin("test_plugin", sources=["addition.cpp"], source_dir=source_dir)
    forget()
    os.utime(lock, (time.time() - 7200,) * 2)
    with pytest.raises(RuntimeError, match="locked since 120 minutes.*delete the file"):
        custom_ops.get_plugin("test_plugin", sources=["addition.cpp"], source_dir=source_dir)


@pytest.mark.skipif(custom_ops.fcntl is None, reason="no locks of the system")
def test_a_build_elsewhere_is_waited_for_and_not_for_ever(loads, source_dir, monkeypatch):
    custom_ops.get_plugin("test_plugin", sources=["addition.cpp"], source_dir=source_dir)
    forget()
    monkeypatch.setattr(custom_ops, "_WAIT_SECONDS", 0.2)
    with open(loads[-1]["build_directory"] + ".lock", "w") as elsewhere:
        custom_ops.fcntl.flock(elsewhere, custom_ops.fcntl.LOCK_EX)
        with pytest.raises(RuntimeError, match="another process has been building it for over 0 minutes.*end that process"):
            custom_ops.get_plugin("test_plugin", sources=["addition.cpp"], source_dir=source_dir)
    custom_ops.get_plugin("test_plugin", sources=["addition.cpp"], source_dir=source_dir)
    assert len(loads) == 2


def test_environment_is_put_back(loads, source_dir, monkeypatch):
    seen = []
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "3.5")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: [(9, 0), (8, 6), (9, 0)][index])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200 (80GB)")
    monkeypatch.setattr(cpp_extension, "load", lambda **kwargs: seen.append((os.environ["TORCH_CUDA_ARCH_LIST"], kwargs["build_directory"])))
    custom_ops.get_plugin("test_plugin", sources=["addition.cpp"], source_dir=source_dir)
    assert seen[0][0] == "8.6;9.0" and seen[0][1].endswith("-nvidia-h200--80gb-")
    assert os.environ["TORCH_CUDA_ARCH_LIST"] == "3.5"


def test_files_of_one_name_are_refused(loads, source_dir, tmp_path):
    (tmp_path / "addition.cpp").write_text(SOURCE)
    with pytest.raises(AssertionError, match="same name"):
        custom_ops.get_plugin("test_plugin", sources=["addition.cpp", str(tmp_path / "addition.cpp")], source_dir=source_dir)


REAL = """
import importlib, sys, torch
from torch_utils import custom_ops
plugin = custom_ops.get_plugin("test_plugin_real", sources=["addition.cpp"], headers=["addition.h"], source_dir=sys.argv[1], extra_cflags=["-O0"])
assert importlib.import_module("test_plugin_real") is plugin
assert plugin.add_twice(torch.ones(2), torch.arange(2.0)).tolist() == [1, 3]
"""


@pytest.mark.slow
@pytest.mark.skipif(not cpp_extension.is_ninja_available(), reason="no ninja")
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "c++")) is None, reason="no C++ compiler")
def test_really_compiles_and_finds_it_again(source_dir):
    """Half a minute; the second process takes what the first has built."""
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(custom_ops.__file__))}
    seconds = []
    for _process in range(2):
        start = time.monotonic()
        done = subprocess.run([sys.executable, "-c", REAL, source_dir], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout == 'Setting up PyTorch plugin "test_plugin_real"... Done.\n'
        seconds.append(time.monotonic() - start)
    assert seconds[1] < seconds[0] / 2


@pytest.mark.slow
@pytest.mark.skipif(not cpp_extension.is_ninja_available(), reason="no ninja")
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "c++")) is None, reason="no C++ compiler")
def test_really_reports_the_first_error(source_dir):
    with open(os.path.join(source_dir, "addition.cpp"), "w") as file:
        file.write("int x = not_declared;\n")
    with pytest.raises(RuntimeError, match="does not compile - .*addition.cpp:1.*not_declared") as caught:
        custom_ops.get_plugin("test_plugin_bad", sources=["addition.cpp"], source_dir=source_dir)
    assert "\n" not in str(caught.value)
