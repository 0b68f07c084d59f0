# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's `torch_utils.custom_ops`: C++ and CUDA plugins, compiled when they are first asked for and kept."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

import torch

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

verbosity = "brief"
"""What to print while a plugin is set up: "none", "brief" or "full". Scripts assign it."""

_HEADERS = (".h", ".hpp", ".cuh", ".inl")
_WAIT_SECONDS = 600
"""How long to wait for another process that builds the same plugin."""
_LOCK_SECONDS = 3600
"""No build takes this long: a lock that is older was left by one that was interrupted."""
_MSVC = r"C:\Program Files*\Microsoft Visual Studio\*\*\VC\Tools\MSVC\*\bin\Hostx64\x64"
_plugins: dict[str, Any] = {}


def get_plugin(
    module_name: str, sources: Sequence[str], headers: Sequence[str] | None = None, source_dir: str | None = None, **build_kwargs: Any
) -> Any:
    """The compiled plugin as a module; compiled unless this process or an earlier one has done so.

    Args:
        module_name:  Name of the module; a second call with the same name returns the same module.
        sources:      C++ and CUDA files.
        headers:      Files that the sources include; default all headers beside the sources.
        source_dir:   Folder of sources and headers; None if their paths say it all.
        build_kwargs: Passed on to torch.utils.cpp_extension.load().

    Raises:
        RuntimeError: a compiler or ninja is missing, or the sources do not compile; one sentence, unless verbosity is "full".
    """
    assert verbosity in ("none", "brief", "full"), f'verbosity is {verbosity!r}, not "none", "brief" or "full"'
    if module_name in _plugins:
        return _plugins[module_name]
    if verbosity != "none":
        print(f'Setting up PyTorch plugin "{module_name}"... ', end="\n" if verbosity == "full" else "", flush=True)
    try:
        source_paths = _absolute(sources, source_dir)
        header_paths = _absolute(headers, source_dir) if headers is not None else _headers_beside(source_paths)
        module = _build(module_name, source_paths, header_paths, build_kwargs)
    except BaseException:
        if verbosity != "none":
            print("Failed!", flush=True)
        raise
    if verbosity != "none":
        print("Done.", flush=True)
    _plugins[module_name] = module
    # The caller may import it by name. cpp_extension.load() no longer leaves it here where pybind11 is new (torch 2.13).
    sys.modules[module_name] = module
    return module


def _absolute(paths: Sequence[str], source_dir: str | None) -> list[str]:
    return [os.path.abspath(os.path.join(source_dir or "", path)) for path in paths]


def _headers_beside(sources: Sequence[str]) -> list[str]:
    folders = sorted({os.path.dirname(source) for source in sources})
    files = [os.path.join(folder, name) for folder in folders for name in sorted(os.listdir(folder))]
    return [file for file in files if file.endswith(_HEADERS)]


def _build(module_name: str, sources: list[str], headers: list[str], build_kwargs: dict[str, Any]) -> Any:
    """Compiles copies of the files, in a folder that belongs to exactly this content, torch and GPU."""
    with _build_environment():
        cpp_extension = _toolchain(module_name, sources, build_kwargs)
        folder = _build_folder(cpp_extension, module_name, sources + headers, build_kwargs)
        with _alone(module_name, folder):
            for path in sources + headers:
                _copy_once(path, os.path.join(folder, os.path.basename(path)))
            copies = [os.path.join(folder, os.path.basename(path)) for path in sources]
            try:
                return cpp_extension.load(name=module_name, sources=copies, build_directory=folder, verbose=verbosity == "full", **build_kwargs)
            except (RuntimeError, subprocess.CalledProcessError) as error:  # the latter of a compiler that does not even tell its version
                if verbosity == "full":
                    raise
                raise RuntimeError(_brief(module_name, str(error))) from None


def _toolchain(module_name: str, sources: list[str], build_kwargs: dict[str, Any]) -> Any:
    """torch.utils.cpp_extension, once it is sure that all the programs are there that it calls."""
    what = f'plugin "{module_name}" cannot be compiled'
    try:
        # Not at the top: it needs setuptools, which nothing else here does.
        cpp_extension = importlib.import_module("torch.utils.cpp_extension")
    except ImportError as error:
        raise RuntimeError(f"{what} - torch.utils.cpp_extension does not import ({error}) - `pip install setuptools`") from error
    if not cpp_extension.is_ninja_available():
        raise RuntimeError(f"{what} - the program ninja is not on the PATH - `pip install ninja`")
    compiler = shlex.split(os.environ.get("CXX", ""))[:1] or ["cl" if os.name == "nt" else "c++"]
    if shutil.which(compiler[0]) is None:
        raise RuntimeError(f"{what} - the C++ compiler {compiler[0]} is not on the PATH - install one (g++, MSVC) or set CXX")
    with_cuda = build_kwargs.get("with_cuda")
    if with_cuda is None:
        with_cuda = any(source.endswith((".cu", ".cuh")) for source in sources)
    if with_cuda and cpp_extension.CUDA_HOME is None:
        raise RuntimeError(f"{what} - nvcc is not on the PATH - install the CUDA toolkit or set CUDA_HOME")
    return cpp_extension


def _build_folder(cpp_extension: Any, module_name: str, files: Sequence[str], build_kwargs: dict[str, Any]) -> str:
    """<torch's folder for extensions>/<name>/<md5>-<GPU>."""
    names = [os.path.basename(file) for file in files]
    assert len(set(names)) == len(names), f"files of the same name in different folders: {', '.join(sorted(names))}"
    # What was compiled for one torch, or with other options, must not be taken for another.
    digest = hashlib.md5(repr((torch.__version__, sorted(build_kwargs.items()))).encode(), usedforsecurity=False)
    for name, file in sorted(zip(names, files, strict=True)):
        with open(file, "rb") as content:
            data = content.read()
        digest.update(f"{name} {len(data)} ".encode() + data)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    safe_gpu = re.sub("[^a-z0-9_-]", "-", gpu.lower())
    folder = os.path.join(cpp_extension._get_build_directory(module_name, verbose=False), f"{digest.hexdigest()}-{safe_gpu}")
    os.makedirs(folder, exist_ok=True)
    return folder


@contextlib.contextmanager
def _alone(module_name: str, folder: str) -> Iterator[None]:
    """No other process builds there meanwhile.

    The system opens our lock when its process ends, however it ends. torch's own, a file named "lock", stays behind an interrupted build.

    Raises:
        RuntimeError: another process builds, or holds the lock, for too long.
    """
    leftover = os.path.join(folder, "lock")
    if fcntl is None:  # Windows
        _check_lock(module_name, leftover)
        yield
        return
    with open(f"{folder}.lock", "w") as ours:
        begin = time.monotonic()
        while True:
            try:
                fcntl.flock(ours, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - begin > _WAIT_SECONDS:
                    waited = f"another process has been building it for over {_WAIT_SECONDS / 60:.0f} minutes and holds {ours.name}"
                    raise RuntimeError(f'plugin "{module_name}" is not built - {waited} - end that process, or wait for it') from None
            time.sleep(0.1)
        with contextlib.suppress(FileNotFoundError):  # we are alone, so nobody is going to open it
            os.remove(leftover)
        yield


def _check_lock(module_name: str, lock: str) -> None:
    """torch would wait for ever on a lock that nobody is going to open."""
    with contextlib.suppress(FileNotFoundError):
        age = time.time() - os.path.getmtime(lock)
        if age > _LOCK_SECONDS:
            raise RuntimeError(
                f'plugin "{module_name}" is locked since {age / 60:.0f} minutes by a build that was interrupted - delete the file {lock}'
            )


def _copy_once(source: str, copy: str) -> None:
    """Whole or not at all, and never again: a newer date would make ninja compile again."""
    if not os.path.exists(copy):
        temporary = f"{copy}.{uuid.uuid4().hex}"
        shutil.copyfile(source, temporary)
        os.replace(temporary, copy)


def _brief(module_name: str, log: str) -> str:
    """The first error of a compiler's output, in one sentence."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    first = next((line for line in lines if re.search(r"\berror\b", line.split("Error building extension")[0], re.IGNORECASE)), None)
    reason = first or (lines[0] if lines else "no reason given")
    return f'plugin "{module_name}" does not compile - {reason} - set torch_utils.custom_ops.verbosity = "full" to see all'


@contextlib.contextmanager
def _build_environment() -> Iterator[None]:
    """Environment variables for a build, put back afterwards."""
    changes: dict[str, str] = {}
    if torch.cuda.is_available():
        # Exactly the GPUs that are here; what the user has set may not include them.
        capabilities = {torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())}
        changes["TORCH_CUDA_ARCH_LIST"] = ";".join(f"{major}.{minor}" for major, minor in sorted(capabilities))
    if os.name == "nt" and shutil.which("cl") is None:
        folders = sorted(glob.glob(_MSVC))
        if folders:
            changes["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), folders[-1]])
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
