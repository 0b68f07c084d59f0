# SPDX-License-Identifier: Apache-2.0
"""Inside NVIDIA's checkouts: shims where today's Python lacks something, and what is missing said in a sentence; real ones: test_dropin_host.py."""

import importlib
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from stylegan_redact import host

ROOT = Path(__file__).parent.parent


@pytest.fixture
def plain_linux(monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "confstr", lambda name: "glibc 2.36", raising=False)
    monkeypatch.setattr(os.path, "exists", lambda path: False)


def test_allocator_settings_are_wanted_once_on_glibc(plain_linux):
    assert host.wants_allocator({})
    assert not host.wants_allocator({host.MARKER: "set"}) and not host.wants_allocator({host.MARKER: "off"})
    assert not host.wants_allocator({"MALLOC_MMAP_MAX_": "5"})


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_allocator_settings_are_not_for_other_systems(plain_linux, monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    assert not host.wants_allocator({})


def test_allocator_settings_are_not_for_other_c_libraries(plain_linux, monkeypatch):
    def unknown(name):
        raise ValueError

    monkeypatch.setattr(os, "confstr", unknown, raising=False)
    assert not host.wants_allocator({})


def test_allocator_settings_are_not_for_gpus(plain_linux, monkeypatch):
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/dev/nvidiactl")
    assert not host.wants_allocator({})
    assert host.wants_allocator({"CUDA_VISIBLE_DEVICES": ""})


def test_the_restart_keeps_the_command_line(plain_linux, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "execve", lambda *args: calls.append(args))
    monkeypatch.setattr(os, "environ", {"A": "b"})
    monkeypatch.setattr(sys, "orig_argv", ["python", "-W", "error", "redact.py", "--seed=1"])
    host.prepare()
    ((program, argv, environ),) = calls
    assert (program, argv) == (sys.executable, [sys.executable, "-W", "error", "redact.py", "--seed=1"])
    assert environ == {"A": "b", **host.ALLOCATOR, host.MARKER: "set"}
    assert not host.wants_allocator(environ)


def test_our_own_modules_are_no_checkout():
    assert not host.inside_checkout()


def test_versions_compare_by_number():
    assert host.parse_version("2.13.0+cpu") == (2, 13, 0) > host.parse_version("2.4") > host.parse_version("1.11.0a0+git")
    assert host.parse_version("unknown") == ()


@pytest.mark.parametrize(("text", "value"), [("Yes", 1), ("1", 1), ("on", 1), ("f", 0), ("FALSE", 0), ("no", 0)])
def test_words_for_yes_and_no(text, value):
    assert host.strtobool(text) == value


def test_no_word_for_yes_or_no():
    with pytest.raises(ValueError, match="perhaps"):
        host.strtobool("perhaps")


def test_a_plug_in_that_was_built_can_be_imported_by_name(monkeypatch):
    built = ModuleType("built_plugin")
    load = host.registering(lambda name, sources, is_python_module=True: built if is_python_module else "path")
    monkeypatch.delitem(sys.modules, "built_plugin", raising=False)
    assert load("built_plugin", [], is_python_module=False) == "path" and "built_plugin" not in sys.modules
    assert load(name="built_plugin", sources=[]) is built is importlib.import_module("built_plugin")
    del sys.modules["built_plugin"]


def test_a_toolkit_without_a_gpu_is_not_talked_about_and_all_else_is(monkeypatch, capsys):
    """Torch prints it, or hands it to logging, when the module is imported: before any of our sentences, in some builds."""
    module = ModuleType("torch.utils.cpp_extension")

    def imported(name):
        sys.stderr.write("No CUDA runtime is found, using CUDA_HOME='/usr/local'\nsomething else\n")
        return module

    monkeypatch.setattr(importlib, "import_module", imported)
    assert host._cpp_extension() is module
    assert capsys.readouterr().err == "something else\n"


FAKE = {
    "torch_utils/__init__.py": "# nothing\n",
    "torch_utils/custom_ops.py": "from pkg_resources import parse_version\nfrom distutils.util import strtobool\n"
    "NEW = parse_version('2.13') >= parse_version('1.7')\n",
    "dnnlib/__init__.py": "",
    # What does not exist any more must not come from an installed setuptools either.
    "pkg_resources.py": "raise ImportError('gone')\n",
    "distutils/__init__.py": "raise ImportError('gone')\n",
}


def in_fake_checkout(tmp_path, *command, files=FAKE):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    shutil.copy(ROOT / "redact.py", tmp_path)
    shutil.copytree(
        ROOT / "stylegan_redact", tmp_path / "stylegan_redact", ignore=shutil.ignore_patterns("*.pkl", "*.safetensors", "__pycache__", ".*")
    )
    environ = {**os.environ, host.MARKER: "off", "PYTHONPATH": str(tmp_path)}
    return subprocess.run([sys.executable, *command], cwd=tmp_path, env=environ, capture_output=True, text=True)


def test_shims_bring_a_checkout_to_life(tmp_path):
    code = (
        "from stylegan_redact import host; assert host.inside_checkout(); host.install_shims(); from torch_utils import custom_ops; "
        "import torch.utils.cpp_extension as e; assert custom_ops.NEW and custom_ops.strtobool('yes') == 1 and e.load.stylegan_redact"
    )
    done = in_fake_checkout(tmp_path, "-c", code)
    assert done.returncode == 0, done.stderr
    # The counter-check: without them it does not start.
    bare = subprocess.run([sys.executable, "-c", "from torch_utils import custom_ops"], cwd=tmp_path, capture_output=True, text=True)
    assert "ImportError: gone" in bare.stderr


def test_a_checkout_that_imports_what_is_deprecated_starts_without_a_word(tmp_path):
    warns = "import warnings\nwarnings.warn('pkg_resources is deprecated as an API', UserWarning)\nfrom stylegan_redact.host import parse_version\n"
    code = "from stylegan_redact import host; host.install_shims(); from torch_utils import custom_ops; assert custom_ops.NEW"
    files = {name: text for name, text in FAKE.items() if not name.startswith("distutils")} | {"pkg_resources.py": warns}
    done = in_fake_checkout(tmp_path, "-c", code, files=files)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    bare = subprocess.run([sys.executable, "-c", "import pkg_resources"], cwd=tmp_path, capture_output=True, text=True)
    assert "UserWarning: pkg_resources is deprecated" in bare.stderr


WHOLE = {
    "torch_utils/ops/__init__.py": "",
    "dnnlib/__init__.py": "",
    "torch_utils/__init__.py": "",
    "distutils/__init__.py": "",
    "distutils/util.py": "",
} | {f"{name.replace('.', '/')}.py": "" for name in host.NEEDED}


@pytest.mark.parametrize(
    ("planted", "says"),
    [
        ({"dnnlib/util.py": "import no_such_package.deep"}, r"needs the module no_such_package, .* - \S+ -m pip install no_such_package$"),
        ({"setuptools/__init__.py": "raise ModuleNotFoundError('gone', name='setuptools')"}, r"module setuptools, .* -m pip install setuptools$"),
    ],
)
def test_what_a_checkout_lacks_is_said_in_one_sentence(tmp_path, planted, says):
    done = in_fake_checkout(tmp_path, "redact.py", "--help", files=WHOLE | planted)
    assert done.returncode == 2 and done.stdout == "", done.stderr
    (sentence,) = done.stderr.splitlines()
    assert re.match(r"Error: ", sentence) and re.search(says, sentence), sentence


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ModuleNotFoundError("gone", name="pkg_resources.extern"), r"the module pkg_resources.extern, .* -m pip install \"setuptools<82\"$"),
        (ModuleNotFoundError("gone", name="PIL.Image"), r"-m pip install pillow$"),
        (ModuleNotFoundError("gone", name="dnnlib"), r"there is no dnnlib beside it - copy"),
        (ModuleNotFoundError("no fma", name="torch_utils.ops.fma"), r"the torch_utils of .* does not fit: no fma - take an unmodified checkout"),
        (ImportError("no such name", name="torch_utils.ops"), r"the torch_utils of .* does not fit: no such name - take an unmodified checkout"),
        (ImportError("libclick.so", name="click"), r"that fails: libclick.so - look whether"),
        (ImportError("without a name"), r"that fails: without a name - look whether"),
    ],
)
def test_every_failing_import_has_its_sentence(error, says):
    assert re.search(says, host.explain(error))


def test_a_folder_that_is_no_checkout_is_told_so(tmp_path):
    done = in_fake_checkout(
        tmp_path, "-S", "redact.py", files={"sitecustomize.py": ""}
    )  # -S: without packages, an installed torch_utils of ours included.
    assert done.returncode == 2 and re.match(r"Error: redact.py was started in .* - there is no torch_utils beside it - copy", done.stderr), (
        done.stderr
    )


def test_importing_the_module_imports_nothing_heavy():
    code = "import sys; from stylegan_redact import host; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 0


def test_ctrl_c_while_the_program_starts_shows_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("stylegan_redact.host.prepare", interrupted)
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / "redact.py"), run_name="__main__")
    assert left.value.code == 130 and capsys.readouterr().err == "\nAborted!\n"
