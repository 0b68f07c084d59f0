# SPDX-License-Identifier: Apache-2.0
"""What this machine has of what StyleGAN code needs, and locks that an interrupted build left behind."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import torch

from stylegan_redact.host import inside_checkout
from stylegan_redact.version import VERSION

STALE_SECONDS = 3600
"""No build takes this long: an older lock belongs to one that was interrupted, and torch would wait on it for ever."""

OPERATIONS = ("bias_act", "upfirdn2d", "filtered_lrelu")
"""What NVIDIA's code compiles, under these names with `_plugin` behind them."""


def findings() -> list[tuple[str, str]]:
    """(what, what there is of it), in the order to be read."""
    return [
        ("stylegan-redact", f"{VERSION}, inside a checkout of other StyleGAN code" if inside_checkout() else VERSION),
        ("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("torch", f"{torch.__version__}, {torch.get_num_threads()} threads"),
        ("CUDA of torch", torch.version.cuda or "none: this torch is for CPUs"),
        ("driver", _driver()),
        ("GPUs", _gpus()),
        ("compiler", _program(shlex.split(os.environ.get("CXX", ""))[:1] or ["cl" if os.name == "nt" else "c++"])),
        ("ninja", _program(["ninja"])),
        ("nvcc", _program([str(Path(os.environ["CUDA_HOME"]) / "bin" / "nvcc")] if "CUDA_HOME" in os.environ else ["nvcc"])),
        ("setuptools", "there" if importlib.util.find_spec("setuptools") else "none (only compiling needs it)"),
        ("operations", _operations(built_plugins(extensions_folder()))),
        ("download cache", _cache()),
    ]


def extensions_folder() -> Path:
    """Where torch keeps what it compiles; need not exist."""
    given = os.environ.get("TORCH_EXTENSIONS_DIR")
    if given:
        return Path(given)
    # torch's own answer, which is empty folders deep in the user's cache; asking it imports setuptools.
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "torch_extensions" if os.name != "nt" else Path(tempfile.gettempdir()) / "torch_extensions"


def stale_locks(folder: Path) -> list[Path]:
    """Lock files of builds that cannot be going on any more."""
    now = time.time()
    return [lock for lock in sorted(folder.rglob("lock")) if lock.is_file() and now - lock.stat().st_mtime > STALE_SECONDS]


def built_plugins(folder: Path) -> list[str]:
    """Names of the compiled extensions there."""
    return sorted({file.stem for ending in ("so", "pyd") for file in folder.rglob(f"*.{ending}")})


def _driver() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return "none: no nvidia-smi on the PATH"
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"not known: {type(error).__name__}"
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else "none that answers"


def _gpus() -> str:
    if not torch.cuda.is_available():
        return "none that torch can use"
    devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return ", ".join(f"{device.name} ({device.total_memory >> 30} GiB, sm_{device.major}{device.minor})" for device in devices)


def _operations(built: list[str]) -> str:
    """Of each operation that NVIDIA's code compiles whether it is built, and what else is there."""
    ours = ", ".join(f"{name} {'built' if f'{name}_plugin' in built else 'not built'}" for name in OPERATIONS)
    others = [name for name in built if name.removesuffix("_plugin") not in OPERATIONS]
    return f"{ours}; " + ("also built: " + ", ".join(others) if others else "what is not built runs in PyTorch, nothing needs to be compiled")


def _program(names: list[str]) -> str:
    """Where the program is and which version it says that it is."""
    found = [path for path in map(shutil.which, names) if path is not None]
    if not found:
        return f"none: {names[0]} is not on the PATH (only compiling needs it)"
    said = _said([found[0], "--version"])
    return f"{found[0]} ({said})" if said else f"{found[0]} (it does not tell its version)"


def _said(command: list[str]) -> str:
    """The line of its output that names a version: nvcc puts three others before it."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    lines = [line.strip() for line in (done.stdout or done.stderr).splitlines() if re.search(r"\d+\.\d+", line)]
    return next((line for line in lines if "release" in line), lines[0] if lines else "")


def _cache() -> str:
    from dnnlib import make_cache_dir_path  # NVIDIA's own inside a checkout: one cache for both.

    folder = Path(make_cache_dir_path())
    if not folder.is_dir():
        return f"{folder} (empty)"
    total = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return f"{folder} ({total / (1 << 20):.0f} MiB)"
