# SPDX-License-Identifier: Apache-2.0
"""Downloads: what breaks goes on where it broke, what is wrong is one sentence and leaves nothing, offline nobody is asked."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from odd_server import Page, Server, serving

import dnnlib
from stylegan_redact import cli, downloads
from stylegan_redact.downloads import download
from stylegan_redact.types import RedactError

BODY = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(BODY).hexdigest()
ETAG = {"ETag": '"v1"'}
FAR = 3 * 65536 + 1000
"""Past three whole blocks."""


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "downloads"


def left(cache: Path) -> list[str]:
    return sorted(path.name.partition(".")[2] for path in cache.glob("*")) if cache.is_dir() else []


def test_a_download_is_kept_checked_and_shared_with_dnnlib(server: Server, cache: Path) -> None:
    url = server.url("/nets/a.pt", Page(BODY))
    path = download(url, "file")
    assert path.read_bytes() == BODY and path.parent == cache and not list(cache.glob("*.part*"))
    assert download(url, "file", SHA256) == path and len(server.asked) == 1
    assert dnnlib.util.open_url(url, return_filename=True) == str(path) and len(server.asked) == 1
    path.write_bytes(BODY[:-1])  # damaged: fetched again
    assert download(url, "file").read_bytes() == BODY and len(server.asked) == 2


def test_what_dnnlib_stored_is_used(server: Server) -> None:
    url = server.url("/a.pt", Page(BODY))
    path = dnnlib.util.open_url(url, return_filename=True, verbose=False)
    assert download(url, "file") == Path(path) and len(server.asked) == 1


def test_a_redirect_is_followed_and_kept_under_the_first_url(server: Server) -> None:
    server.url("/there", Page(BODY))
    url = server.url("/here", Page(b"", 302, {"Location": "/there"}))
    assert download(url, "file").read_bytes() == BODY
    assert download(url, "file").read_bytes() == BODY and [path for path, _ in server.asked] == ["/here", "/there"]


def test_a_cut_connection_goes_on_where_it_broke(server: Server) -> None:
    url = server.url("/a", Page(BODY, headers=ETAG, cut=(FAR, 70_000)))
    assert download(url, "file", SHA256).read_bytes() == BODY
    starts = [int(wanted[len("bytes=") : -1]) for _, wanted in server.asked if wanted]
    assert server.asked[0] == ("/a", None) and len(server.asked) == 3
    assert 3 * 65536 <= starts[0] <= FAR and starts[0] + 65536 <= starts[1]


def test_another_run_goes_on_where_this_one_was_given_up(server: Server, cache: Path) -> None:
    url = server.url("/a", Page(BODY, headers=ETAG, cut=(FAR, 0, 0, 0, 0)))
    with pytest.raises(RedactError, match="cannot be had .*broke"):
        download(url, "file")
    assert left(cache) == ["part", "part-version"] and len(server.asked) == downloads.ATTEMPTS
    assert download(url, "file").read_bytes() == BODY and server.asked[-1][1] is not None


@pytest.mark.parametrize("change", [{"headers": {"ETag": '"v2"'}}, {"ranges": False}], ids=["another version", "no ranges"])
def test_the_rest_of_another_file_is_not_put_behind_the_beginning(server: Server, change: dict) -> None:
    page = Page(BODY, headers=ETAG, cut=(FAR, 0, 0, 0, 0))
    url = server.url("/a", page)
    with pytest.raises(RedactError):
        download(url, "file")
    server.url("/a", replace(page, body=BODY[::-1], cut=(), **change))
    assert download(url, "file").read_bytes() == BODY[::-1] and server.asked[-1][1] is not None


def test_without_a_version_it_begins_anew(server: Server) -> None:
    for headers in ({}, {"ETag": 'W/"weak"'}):
        url = server.url(f"/{len(headers)}", Page(BODY, headers=headers, cut=(FAR,)))
        assert download(url, "file").read_bytes() == BODY
    assert [wanted for _, wanted in server.asked] == [None] * 4


def test_what_two_runs_wrote_at_once_is_thrown_away(server: Server, cache: Path) -> None:
    url = server.url("/a", Page(BODY, headers=ETAG, cut=(FAR, 0, 0, 0, 0)))
    with pytest.raises(RedactError):
        download(url, "file")
    (part,) = cache.glob("*.part")
    part.write_bytes(part.read_bytes() + BODY)  # longer than the file
    server.url("/a", Page(BODY, headers=ETAG))
    assert download(url, "file").read_bytes() == BODY


@pytest.mark.parametrize(
    ("page", "told"),
    [
        (Page(b"no", 404), r"the server answers 404 Not Found\) - check the URL"),
        (Page(b"<html>log in</html>", headers={"Content-Type": "text/html; charset=utf-8"}), "a web page instead of the file"),
        (Page(b"\n <!DOCTYPE HTML><title>quota</title>"), "a web page instead of the file"),
        (Page(b""), "no data received"),
        (Page(b"busy", 503), "503"),
    ],
    ids=["404", "html", "html that calls itself data", "nothing", "503"],
)
def test_what_cannot_be_had_is_told_and_leaves_nothing(server: Server, cache: Path, page: Page, told: str) -> None:
    url = server.url("/a", page)
    with pytest.raises(RedactError, match=told):
        download(url, "network")
    assert left(cache) == []
    assert len(server.asked) == (1 if page.status == 404 or b"<" in page.body else downloads.ATTEMPTS)


def test_a_wrong_hash_is_told_and_leaves_nothing(server: Server, cache: Path) -> None:
    url = server.url("/a", Page(BODY))
    for asked, pin in ((url, "0" * 64), (f"{url}#sha256={'0' * 64}", None)):
        with pytest.raises(RedactError, match=f"should have sha256 {'0' * 64}, and has {SHA256}"):
            download(asked, "file", pin)
    assert left(cache) == []
    assert download(f"{url}#sha256={SHA256.upper()}", "file").read_bytes() == BODY
    with pytest.raises(RedactError, match="64 hexadecimal digits"):
        download(f"{url}#sha256=12", "file")


def test_a_hash_is_held_for_files_too(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(BODY)
    url = (tmp_path / "a").as_uri()
    with downloads.offline():
        assert download(url, "file", SHA256) == tmp_path / "a"
    with pytest.raises(RedactError, match="should have sha256"):
        download(url, "file", "0" * 64)


def test_offline_makes_no_connection(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    cached, other = server.url("/a", Page(BODY)), server.url("/b", Page(BODY))
    path = download(cached, "file")

    def refuse(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(AssertionError, match="a connection was tried"):  # the counter-check
        download(other, "file")
    with downloads.offline():
        assert download(cached, "file") == path
        with pytest.raises(RedactError, match="not in the cache"):
            download(other, "file")
        with pytest.raises(RedactError, match="with --offline - it would have to be downloaded - give"):
            downloads.refuse_offline("a thing was asked", "give a file")
    downloads.refuse_offline("a thing was asked", "give a file")


def test_the_command_says_it_in_one_sentence_and_exits_with_2(server: Server, tmp_path: Path) -> None:
    url = server.url("/a.pkl", Page(b"<html>"))
    np.save(tmp_path / "w.npy", np.ones(8))
    known = len(server.asked)
    for args in (
        [f"--network={url}", "--feature=beard", "--offline"],
        ["evaluate", f"--before={url}", f"--after={url}", "--feature=beard", "--offline"],
        ["inspect", url, "--offline"],
        ["convert", url, str(tmp_path / "x.pkl"), "--offline"],
        ["fold", url, str(tmp_path / "x.pkl"), f"--direction={tmp_path / 'w.npy'}", "--offline"],
    ):
        chosen, verb = cli.choose(args)
        result = CliRunner().invoke(chosen, args[1:] if verb else args)
        assert result.exit_code == 2 and "not in the cache" in " ".join(result.output.split()), result.output
    assert len(server.asked) == known
    result = CliRunner().invoke(cli.command(), [f"--network={url}", "--feature=beard"])  # offline ended with the command
    assert result.exit_code == 2 and "a web page instead" in " ".join(result.output.split())
    assert len(server.asked) == known + 1
