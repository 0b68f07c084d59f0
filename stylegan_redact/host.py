# SPDX-License-Identifier: Apache-2.0
"""What must happen before anything heavy is imported: an allocator that keeps its memory, and NVIDIA's own code brought to life if we run inside it.

Importing this module changes nothing and imports nothing but the standard library; `redact.py` calls `prepare`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

ALLOCATOR: Mapping[str, str] = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
"""glibc hands big blocks back to the system and fetches them again, zeroed, at every layer: up to 1.8 times the time on CPUs."""
MARKER = "STYLEGAN_REDACT_ALLOCATOR"
"""Environment: "set" when this process was started anew with ALLOCATOR; set it to "off" to forbid that."""
NEEDED = (
    "dnnlib.util",
    "torch_utils.misc",
    "torch_utils.persistence",
    "torch_utils.ops.bias_act",
    "torch_utils.ops.conv2d_resample",
    "torch_utils.ops.fma",
    "torch_utils.ops.upfirdn2d",
)
"""Modules of a checkout that a redaction runs on."""
_PACKAGES: Mapping[str, str] = {"PIL": "pillow", "pkg_resources": '"setuptools<82"', "distutils": "setuptools"}
"""Module -> what pip calls it, where the two differ."""


def prepare() -> None:
    """Starts the process anew where the allocator's settings are missing, and makes NVIDIA's code importable where we run inside a checkout."""
    if wants_allocator(os.environ):
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **ALLOCATOR, MARKER: "set"})
    if inside_checkout():
        install_shims()
        for name in NEEDED:  # Now, and not in the middle of a run.
            importlib.import_module(name)


def explain(error: ImportError) -> str:
    """One sentence for a module that cannot be imported: who needed it, what is missing, how to mend it."""
    folder, missing = os.getcwd(), error.name or ""
    top = missing.partition(".")[0]
    if missing in ("torch_utils", "dnnlib"):
        return (
            f"redact.py was started in {folder} - there is no {missing} beside it - "
            "copy redact.py and stylegan_redact into a checkout of StyleGAN code, or run it where its own torch_utils and dnnlib are"
        )
    if top in ("torch_utils", "dnnlib", "stylegan_redact"):
        return f"the {top} of {folder} was to be used - it does not fit: {error} - take an unmodified checkout, or run stylegan-redact outside of it"
    if isinstance(error, ModuleNotFoundError):
        return (
            f"the code in {folder} was to be imported - it needs the module {missing}, which this Python does not have - "
            f"{sys.executable} -m pip install {_PACKAGES.get(top, top)}"
        )
    return f"the code in {folder} was to be imported - that fails: {error} - look whether the packages of this Python fit together"


def wants_allocator(environ: Mapping[str, str]) -> bool:
    """True on Linux with glibc and no NVIDIA GPU, unless the user has set one of the variables or was here before."""
    if not sys.platform.startswith("linux") or MARKER in environ or any(name in environ for name in ALLOCATOR):
        return False
    if os.path.exists("/dev/nvidiactl") and environ.get("CUDA_VISIBLE_DEVICES") != "":
        return False
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except ValueError:  # Another C library does not know the name.
        return False


def inside_checkout() -> bool:
    """True if `torch_utils` is NVIDIA's (or a fork's): it lacks the marker that ours has."""
    return not hasattr(importlib.import_module("torch_utils"), "stylegan_redact")


def install_shims() -> None:
    """What NVIDIA's code needs on today's Python, setuptools and torch; each only where it is missing. Call before importing theirs.

    Source: stylegan-compat.md 1.7, B1 (pkg_resources), B2 (compiled plug-ins are not found again), B4 (distutils).
    """
    _importable("setuptools")  # Before distutils, which it replaces with its own: it warns if it comes second.
    with warnings.catch_warnings():  # setuptools 81 tells its users to leave it; theirs will not.
        warnings.filterwarnings("ignore", "pkg_resources is deprecated", UserWarning)
        there = _importable("pkg_resources")
    if not there:
        _add_module("pkg_resources", parse_version=parse_version)
    if not _importable("distutils.util"):
        util = _add_module("distutils.util", strtobool=strtobool)
        _add_module("distutils", util=util, __path__=[])
    extension = _cpp_extension()
    if not hasattr(extension.load, "stylegan_redact"):
        extension.load = registering(extension.load)


def registering(load: Callable[..., Any]) -> Callable[..., Any]:
    """`load` whose module can be imported by its name afterwards, as NVIDIA's code expects."""

    def load_and_register(name: str, *args: Any, **kwargs: Any) -> Any:
        module = load(name, *args, **kwargs)
        if isinstance(module, ModuleType):
            sys.modules[name] = module
        return module

    load_and_register.stylegan_redact = True  # type: ignore[attr-defined]
    return load_and_register


def parse_version(text: str) -> tuple[int, ...]:
    """`2.13.0+cpu` -> (2, 13, 0): enough to compare releases."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found.group().split(".")) if found else ()


def strtobool(text: str) -> int:
    """1 for y, yes, t, true, on, 1 and 0 for their opposites, in any case; ValueError for all else."""
    word = text.lower()
    if word in ("y", "yes", "t", "true", "on", "1"):
        return 1
    if word in ("n", "no", "f", "false", "off", "0"):
        return 0
    raise ValueError(f"{text!r} is neither yes nor no")


def _cpp_extension() -> Any:
    """Torch's module that compiles plug-ins. What it says where there is a CUDA toolkit and no GPU is left out; all else is passed on."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        module = importlib.import_module("torch.utils.cpp_extension")
    sys.stderr.write("".join(line for line in said.getvalue().splitlines(keepends=True) if not line.startswith("No CUDA runtime is found")))
    return module


def _importable(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ImportError:
        return False
    return True


def _add_module(name: str, **content: Any) -> ModuleType:
    module = ModuleType(name, "Stands in for a module that this Python does not have (stylegan_redact.host).")
    vars(module).update(content)
    sys.modules[name] = module
    return module
