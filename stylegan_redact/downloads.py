# SPDX-License-Identifier: Apache-2.0
"""Files by URL, kept in dnnlib's cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stylegan_redact.types import RedactError


def download(url: str, what: str) -> Path:
    """The file behind an http(s), ftp or file URL.

    Args:
        url:  Where it is.
        what: It is, for messages.

    Raises:
        RedactError: no such URL, or it cannot be had.
    """
    from dnnlib import util  # NVIDIA's own inside a checkout: one cache for both.

    dnnlib: Any = util
    asked = f"the {what} {url!r} was asked"
    if not dnnlib.is_url(url, allow_file_urls=True):
        raise RedactError(f"{asked} - this is no http, https, ftp or file URL - check its spelling, or download it yourself")
    try:
        return Path(dnnlib.open_url(url, return_filename=True))
    except OSError as error:
        raise RedactError(f"{asked} - it cannot be had ({error}) - check the URL, or download it and give its path") from error
