# SPDX-License-Identifier: Apache-2.0
"""Files by URL, kept in dnnlib's cache: broken downloads go on where they stopped, hashes are checked, offline means that nobody is asked."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import urllib.parse
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stylegan_redact.pipes import check_no_pipe
from stylegan_redact.types import RedactError

PIN = "#sha256="
"""A URL may end with this and the 64 digits that the file must have."""
ATTEMPTS = 5
_BLOCK = 1 << 16
"""Bytes of a download that are lost at most where the connection breaks."""
_TIMEOUT = (30, 120)
"""Seconds to wait for a connection, and between two pieces of the content."""
_TRY_AGAIN = (408, 425, 429)
"""Refusals (4xx) that may pass; the others stay however often one asks."""
_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html|head|\?xml)", re.IGNORECASE)
_GOOGLE = ("drive.google.com", "docs.google.com")
"""Answer with a page first; dnnlib knows the way around it."""
_offline: ContextVar[bool] = ContextVar("offline", default=False)


class _Refused(OSError):
    """An answer that will not change."""


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Within it no connection is tried: what is not in the cache is refused."""
    token = _offline.set(True)
    try:
        yield
    finally:
        _offline.reset(token)


def refuse_offline(asked: str, instead: str) -> None:
    """Raises RedactError within `offline`; for what downloads by itself.

    Args:
        asked:   What was asked.
        instead: What to do.
    """
    if _offline.get():
        raise RedactError(f"{asked} with --offline - it would have to be downloaded - {instead}")


def download(url: str, what: str, sha256: str | None = None) -> Path:
    """The file behind an http(s) or file URL.

    A download is stored in dnnlib's cache under the name that dnnlib gives it, `<md5 of the URL>_<name>`, its sha256 beside it, and checked
    whenever it is used again. What arrived before a connection broke is kept beside the cache's files, and the next try, in this run or another
    one, asks for the rest, if the server can tell that the file is still the same.

    Args:
        url:    Where it is; `#sha256=` and 64 digits may follow.
        what:   It is, for messages.
        sha256: 64 hexadecimal digits that the file must have, if they are known.

    Raises:
        RedactError: no such URL, it cannot be had, is a web page, has another hash, or there is no connection to be made.
    """
    from dnnlib import util  # NVIDIA's own inside a checkout: one cache for both.

    dnnlib: Any = util
    url, pinned, digits = url.partition(PIN)
    asked = f"the {what} {url!r} was asked"
    pin = (digits if pinned else sha256 or "").lower()
    if pin and not re.fullmatch("[0-9a-f]{64}", pin) or (pinned and not pin):
        raise RedactError(f"{asked} with {PIN}{digits} - a sha256 has 64 hexadecimal digits - copy it whole, or leave it out")
    if not dnnlib.is_url(url, allow_file_urls=True):
        raise RedactError(f"{asked} - this is no http, https, ftp or file URL - check its spelling, or download it yourself")
    place = _Place(Path(dnnlib.make_cache_dir_path("downloads")), hashlib.md5(url.encode(), usedforsecurity=False).hexdigest())
    parts = urllib.parse.urlparse(url)
    remote = parts.scheme != "file"
    found = place.find(pin) if remote else None
    if found is not None:
        return found
    if remote:
        refuse_offline(asked, f"run it once without --offline, or download it and give its path (it is not in the cache, {place.folder})")
    try:
        if remote and parts.scheme != "ftp" and parts.hostname not in _GOOGLE:
            return _download(url, what, place, pin)
        path = Path(dnnlib.open_url(url, return_filename=True))
        _check_pin(path, pin)
        return path
    except OSError as error:
        raise RedactError(f"{asked} - it cannot be had ({_reason(error)}) - check the URL, or download it and give its path") from error


def cached(url: str) -> Path | None:
    """What was downloaded from there before and is whole, or None; no connection is made."""
    from dnnlib import util

    dnnlib: Any = util
    return _Place(Path(dnnlib.make_cache_dir_path("downloads")), hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()).find("")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """64 hexadecimal digits of a file's content.

    Raises:
        RedactError: it cannot be read.
    """
    digest = hashlib.sha256()
    check_no_pipe(path)
    try:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise RedactError(f"{os.fspath(path)} was to be read - {error.strerror or error} - check the name and that you may read it") from error
    return digest.hexdigest()


@dataclass(frozen=True)
class _Place:
    """Where in the cache what came from a URL lies."""

    folder: Path
    key: str

    @property
    def part(self) -> Path:
        """What arrived so far. dnnlib takes any `<key>_*` for the entry: names here are not of that form."""
        return self.folder / f"{self.key}.part"

    @property
    def version(self) -> Path:
        """How the server named the content that `part` is the beginning of."""
        return self.folder / f"{self.key}.part-version"

    @property
    def digest(self) -> Path:
        return self.folder / f"{self.key}.sha256"

    def entries(self) -> list[Path]:
        return sorted(self.folder.glob(f"{self.key}_*"))

    def find(self, pin: str) -> Path | None:
        """The one entry, if it is as it was when it came and as it should be."""
        entries = self.entries()
        known = {pin} - {""}
        with contextlib.suppress(OSError):
            known.add(self.digest.read_text(encoding="ascii").strip())
        return entries[0] if len(entries) == 1 and (not known or known == {sha256_of(entries[0])}) else None

    def begun(self) -> tuple[int, str]:
        """Bytes that arrived, and the version that they are of; 0 where the rest cannot be asked for."""
        try:
            return self.part.stat().st_size, self.version.read_text(encoding="latin1")
        except OSError:
            return 0, ""

    def forget(self) -> None:
        for path in (self.part, self.version):
            path.unlink(missing_ok=True)

    def finish(self, name: str, sha256: str) -> Path:
        """Makes the part the entry."""
        path = self.folder / f"{self.key}_{re.sub('[^0-9a-zA-Z-._]', '_', name)[:128]}"
        for stale in self.entries():
            stale.unlink(missing_ok=True)
        beside = self.digest.with_suffix(".sha256-new")
        beside.write_text(sha256, encoding="ascii")
        os.replace(beside, self.digest)  # The digest first: an entry is never without it.
        os.replace(self.part, path)
        self.forget()
        return path


def _download(url: str, what: str, place: _Place, pin: str) -> Path:
    import requests  # Only a download needs it.

    place.folder.mkdir(parents=True, exist_ok=True)
    with requests.Session() as session:
        session.headers["Accept-Encoding"] = "identity"  # Then lengths are those of the file.
        for attempts_left in reversed(range(ATTEMPTS)):
            try:
                name = _attempt(session, url, what, place)
                break
            except OSError as error:  # Includes all that requests raises.
                if isinstance(error, _Refused) or not attempts_left:
                    raise
    try:
        with place.part.open("rb") as file:
            if _PAGE.match(file.read(512)):
                raise _Refused("the server sent a web page instead of the file")
        return place.finish(name, _check_pin(place.part, pin))
    finally:
        place.forget()


def _attempt(session: Any, url: str, what: str, place: _Place) -> str:
    """One try, from where the last one stopped; the whole file is in `part` then. Returns its name."""
    begun, version = place.begun()
    headers = {"Range": f"bytes={begun}-", "If-Range": version} if begun else {}
    with session.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
        rest = re.fullmatch(rf"bytes {begun}-(\d+)/(\d+)", response.headers.get("Content-Range", "")) if response.status_code == 206 else None
        goes_on = rest is not None and int(rest[1]) + 1 == int(rest[2]) > begun
        if begun and (response.status_code == 416 or (response.status_code == 206 and not goes_on)):
            place.forget()
            raise OSError("the server no longer has the rest of what was begun")
        if 400 <= response.status_code < 500 and response.status_code not in _TRY_AGAIN:
            raise _Refused(f"the server answers {response.status_code} {response.reason}")
        response.raise_for_status()
        if "html" in response.headers.get("Content-Type", "").lower():
            raise _Refused("the server sent a web page instead of the file")
        length = response.headers.get("Content-Length", "")
        expected = int(length) if length.isdigit() and "Content-Encoding" not in response.headers else None
        expected = int(rest[2]) if rest is not None else expected
        if not goes_on:
            place.forget()
            _keep_version(place, response.headers)
        with place.part.open("ab" if goes_on else "wb") as file, _bar(what, expected, file.tell()) as bar:
            for block in response.iter_content(_BLOCK):
                bar.update(file.write(block))
    size = place.part.stat().st_size
    if size == 0 or (expected is not None and size != expected):
        if not 0 < size < (expected or 0):
            place.forget()  # Two runs at once wrote into it.
        raise OSError(f"the connection broke after {size} of {expected} bytes" if size else "no data received")
    found = re.search(r'filename="([^"]*)"|filename=([^";]+)', response.headers.get("Content-Disposition", ""))
    return (found[1] or found[2] or url).strip() if found else url


def _keep_version(place: _Place, headers: Any) -> None:
    """Without one, or with a weak one, nobody knows whether the rest belongs to the beginning (RFC 9110, 13.1.5)."""
    version = headers.get("ETag", "") or headers.get("Last-Modified", "")
    if version and not version.startswith("W/"):
        place.version.write_text(version, encoding="latin1")


def _bar(what: str, total: int | None, initial: int) -> Any:
    """Shown on a terminal only."""
    return tqdm(total=total, initial=initial, desc=f"Downloading the {what}", unit="B", unit_scale=True, disable=None)


def _check_pin(path: Path, pin: str) -> str:
    """The file's sha256, which is the pinned one if there is one."""
    digest = sha256_of(path)
    if pin and digest != pin:
        raise _Refused(f"it should have sha256 {pin}, and has {digest}: it is damaged or another file")
    return digest


def _reason(error: OSError) -> str:
    """Without the addresses of Python's objects that urllib3 puts into its messages."""
    return re.sub(r"<[^<>]* at 0x[0-9a-f]+>:? ?", "", str(error))
