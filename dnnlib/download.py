# SPDX-License-Identifier: Apache-2.0
"""Files by URL: downloaded once, kept in a cache that NVIDIA's own code shares, and checked whenever they are used again."""

from __future__ import annotations

import contextlib
import hashlib
import html
import io
import os
import re
import urllib.parse
import uuid
from typing import Any

from dnnlib.cache import make_cache_dir_path

_PAGE_SIZE = 8192
"""Shorter bodies may be a page that Google Drive sends in place of a file."""
_TRY_AGAIN = (408, 425, 429)
"""Refusals (4xx) that may pass; the others stay however often one asks."""

_TIMEOUT = (30, 120)
"""Seconds to wait for a connection, and between two pieces of the content."""


class _Refused(OSError):
    """An answer that will not change."""


def is_url(obj: Any, allow_file_urls: bool = False) -> bool:
    """True for a http, https or ftp address whose host has a dot in it (so "https://localhost/x" is none)."""
    if not isinstance(obj, str) or "://" not in obj:
        return False
    if allow_file_urls and obj.startswith("file://"):
        return True
    try:
        parts = urllib.parse.urlparse(obj)
    except ValueError:
        return False
    return parts.scheme in ("http", "https", "ftp") and "." in parts.netloc


def open_url(
    url: str,
    cache_dir: str | None = None,
    num_attempts: int = 10,
    verbose: bool = True,
    return_filename: bool = False,
    cache: bool = True,
    *,
    sha256: str | None = None,
) -> Any:
    """The content behind a URL or a local path: a binary file object to read from, or the name of a file that has it.

    A download is stored as `<md5 of the URL>_<name>` in one atomic step, beside the sha256 of what arrived. A stored file
    that no longer has that sha256 is downloaded again; one that NVIDIA's code stored has none and is taken as it is.

    Args:
        url:             http(s) or file URL, or a path.
        cache_dir:       Where downloads are kept; default "downloads" in dnnlib's cache folder.
        num_attempts:    How often to try, at least 1. A refusal such as "404 Not Found" is not tried again.
        verbose:         Print progress.
        return_filename: Return the name of the file instead of the open file; needs the cache.
        cache:           False neither reads nor writes the cache.
        sha256:          64 hexadecimal digits that the content must have.

    Raises:
        OSError: nothing, too little, or something else than `sha256` arrived. The cache then holds nothing of it.
    """
    assert num_attempts >= 1
    assert cache or not return_filename, "return_filename needs cache=True"
    pin = sha256.lower() if sha256 is not None else None
    if not re.match("^[a-z]+://", url) or url.startswith("file://"):
        path = _local_path(url)
        if pin is not None:
            _check_pin(url, _file_sha256(path), pin)
        return path if return_filename else open(path, "rb")
    assert is_url(url), f"{url} is neither a path nor a URL"

    cache_dir = cache_dir if cache_dir is not None else make_cache_dir_path("downloads")
    key = hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()
    if cache:
        cached = _find(cache_dir, key, pin)
        if cached is not None:
            return cached if return_filename else open(cached, "rb")

    name, data = _download(url, num_attempts, verbose)
    digest = hashlib.sha256(data).hexdigest()
    if pin is not None:
        _check_pin(url, digest, pin)
    if cache:
        path = _store(cache_dir, key, name, data, digest)
        if return_filename:
            return path
    return io.BytesIO(data)


def _local_path(url: str) -> str:
    if not url.startswith("file://"):
        return url
    path = urllib.parse.urlparse(url).path
    path = path[1:] if re.match("^/[a-zA-Z]:", path) else path  # /C:/x => C:/x
    return path if os.path.exists(path) else urllib.parse.unquote(path)


def _check_pin(url: str, digest: str, pin: str) -> None:
    if digest != pin:
        raise OSError(f"{url} should have sha256 {pin} - it has {digest} - it is damaged or not the file you want")


def _file_sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------------------------
# The cache


def _entries(cache_dir: str, key: str) -> list[str]:
    """Files in the cache for this URL. Zero or one, unless something went wrong."""
    if not os.path.isdir(cache_dir):
        return []
    return [os.path.join(cache_dir, name) for name in sorted(os.listdir(cache_dir)) if name.startswith(f"{key}_")]


def _digest_path(cache_dir: str, key: str) -> str:
    """Where the sha256 of an entry stands. NVIDIA's code takes any `<key>_*` for the entry: this name is not of that form."""
    return os.path.join(cache_dir, f"{key}.sha256")


def _find(cache_dir: str, key: str, pin: str | None) -> str | None:
    """The one intact entry for this URL, or None. A damaged one is removed."""
    entries = _entries(cache_dir, key)
    if len(entries) != 1:
        return None
    expected = []
    with contextlib.suppress(FileNotFoundError):
        with open(_digest_path(cache_dir, key), encoding="ascii") as file:
            expected.append(file.read().strip())
    if pin is not None:
        expected.append(pin)
    if expected and set(expected) != {_file_sha256(entries[0])}:
        for path in (entries[0], _digest_path(cache_dir, key)):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)
        return None
    return entries[0]


def _store(cache_dir: str, key: str, name: str, data: bytes, digest: str) -> str:
    """Puts the data into the cache, whole or not at all, and returns the path."""
    os.makedirs(cache_dir, exist_ok=True)
    safe_name = re.sub("[^0-9a-zA-Z-._]", "_", name)[:128]
    path = os.path.join(cache_dir, f"{key}_{safe_name}")
    for stale in _entries(cache_dir, key):
        with contextlib.suppress(OSError):  # In use elsewhere: then it stays, and the next look-up downloads again.
            os.remove(stale)
    # The digest first: an entry is never without it.
    for target, content in ((_digest_path(cache_dir, key), digest.encode()), (path, data)):
        temporary = os.path.join(cache_dir, f"tmp_{uuid.uuid4().hex}_{os.path.basename(target)}")
        try:
            with open(temporary, "wb") as file:
                file.write(content)
            os.replace(temporary, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(temporary)
    return path


# ---------------------------------------------------------------------------------------------------------------------
# The network


def _download(url: str, num_attempts: int, verbose: bool) -> tuple[str, bytes]:
    """Name and content of what the URL leads to."""
    import requests  # Only a download needs it.

    if verbose:
        print(f"Downloading {url} ...", end="", flush=True)
    with requests.Session() as session:
        session.headers["Accept-Encoding"] = "identity"  # Then the length of what arrives can be checked.
        for attempts_left in reversed(range(num_attempts)):
            try:
                name, data = _get(session, url)
                break
            except OSError as error:  # Includes all that requests raises.
                if isinstance(error, _Refused) or not attempts_left:
                    if verbose:
                        print(" failed", flush=True)
                    raise
                if verbose:
                    print(".", end="", flush=True)
    if verbose:
        print(" done", flush=True)
    return name, data


def _get(session: Any, url: str) -> tuple[str, bytes]:
    """One attempt, with the detours of Google Drive."""
    target = url
    for _detour in range(3):
        with session.get(target, timeout=_TIMEOUT) as response:
            if 400 <= response.status_code < 500 and response.status_code not in _TRY_AGAIN:
                raise _Refused(f"{url} cannot be had: the server answers {response.status_code} {response.reason}")
            response.raise_for_status()
            data = response.content
            expected = response.headers.get("Content-Length", "")
            if expected.isdigit() and "Content-Encoding" not in response.headers and len(data) != int(expected):
                raise OSError(f"{url}: the connection broke after {len(data)} of {expected} bytes")
            if not data:
                raise OSError(f"{url}: no data received")
            link = _google_drive_link(url, response.cookies, data) if len(data) < _PAGE_SIZE else None
            if link is None:
                return _file_name(response.headers.get("Content-Disposition", ""), url), data
            target = urllib.parse.urljoin(target, link)
    raise _Refused(f"{url}: Google Drive keeps asking instead of sending the file - download it with a browser and give its path")


def _google_drive_link(url: str, cookies: Any, data: bytes) -> str | None:
    """Where the file is, if this is Google Drive's page "cannot be scanned for viruses"; None if this is no such page."""
    page = data.decode("utf-8", errors="ignore")  # Small files need not be text.
    if any("download_warning" in name for name in cookies.keys()):
        links = [html.unescape(link) for link in page.split('"') if "export=download" in link]
        if len(links) == 1:
            return links[0]
    if "Google Drive - Quota exceeded" in page:
        raise _Refused(f"{url}: Google Drive download quota exceeded - try again later or download it with a browser and give its path")
    return None


def _file_name(content_disposition: str, url: str) -> str:
    found = re.search(r'filename="([^"]*)"|filename=([^";]+)', content_disposition)
    return (found.group(1) or found.group(2) or url).strip() if found else url
