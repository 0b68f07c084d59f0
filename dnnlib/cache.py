# SPDX-License-Identifier: Apache-2.0
"""Where downloads and other things worth keeping are kept."""

from __future__ import annotations

import os
import tempfile

_cache_dir: str | None = None


def set_cache_dir(path: str | None) -> None:
    """Make `path` the cache folder of this process; None goes back to the default."""
    global _cache_dir
    _cache_dir = path


def make_cache_dir_path(*paths: str) -> str:
    """Path in the cache folder; nothing is created.

    The folder is the first of: what set_cache_dir() was given, $DNNLIB_CACHE_DIR, $HOME/.cache/dnnlib,
    %USERPROFILE%\\.cache\\dnnlib, .cache/dnnlib in the folder for temporary files.
    """
    if _cache_dir is not None:
        return os.path.join(_cache_dir, *paths)
    if "DNNLIB_CACHE_DIR" in os.environ:
        return os.path.join(os.environ["DNNLIB_CACHE_DIR"], *paths)
    for variable in ("HOME", "USERPROFILE"):
        if variable in os.environ:
            return os.path.join(os.environ[variable], ".cache", "dnnlib", *paths)
    return os.path.join(tempfile.gettempdir(), ".cache", "dnnlib", *paths)
