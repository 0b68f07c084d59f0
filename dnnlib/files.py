# SPDX-License-Identifier: Apache-2.0
"""Lists and copies of folder trees, as training scripts make of their own source."""

from __future__ import annotations

import fnmatch
import os
import shutil
from collections.abc import Iterable, Sequence


def list_dir_recursively_with_ignore(
    dir_path: str, ignores: Sequence[str] | None = None, add_base_to_relative: bool = False
) -> list[tuple[str, str]]:
    """(absolute path, path relative to the folder) of all files below a folder, in a fixed order.

    Args:
        ignores:              Patterns as in a shell; files and folders of a matching name are left out.
        add_base_to_relative: Start the relative paths with the folder's own name.
    """
    assert os.path.isdir(dir_path), f"{dir_path} is not a folder"
    base_name = os.path.basename(os.path.normpath(dir_path))

    def keep(names: Iterable[str]) -> list[str]:
        return sorted(name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in ignores or ()))

    result = []
    for root, dirs, files in os.walk(dir_path):
        dirs[:] = keep(dirs)  # In place: os.walk goes where this list says.
        for name in keep(files):
            path = os.path.join(root, name)
            relative = os.path.relpath(path, dir_path)
            result.append((os.path.abspath(path), os.path.join(base_name, relative) if add_base_to_relative else relative))
    return result


def copy_files_and_create_dirs(files: Iterable[tuple[str, str]]) -> None:
    """Copies files, given as (source, destination), making the folders on the way."""
    for source, destination in files:
        os.makedirs(os.path.dirname(destination) or ".", exist_ok=True)
        shutil.copyfile(source, destination)
