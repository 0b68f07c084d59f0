# SPDX-License-Identifier: Apache-2.0
"""A path that is a pipe or a device is refused before it is opened: what is read here is read more than once, and nobody may be writing to it."""

from __future__ import annotations

import os

from stylegan_redact.types import RedactError


def check_no_pipe(path: str | os.PathLike[str]) -> None:
    """Raises RedactError if there is something there that is neither a file nor a folder."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise RedactError(f"{os.fspath(path)} was to be read - it is a pipe or a device, and would be read more than once - save it as a file")
