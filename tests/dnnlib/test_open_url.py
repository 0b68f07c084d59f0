# SPDX-License-Identifier: Apache-2.0
"""open_url against a server on this machine that can misbehave in every way that matters."""

import hashlib
import http.server
import io
import os
import subprocess
import sys
import threading

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from dnnlib import util

SMALL = bytes(range(256))  # Not UTF-8, and shorter than the pages of Google Drive.
LARGE = SMALL * 64


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = {}
        self.requests = []

    def url(self, path, *answers):
        """URL at which these answers come in turn, the last one for ever."""
        self.answers[path] = list(answers)
        return f"http://127.0.0.1:{self.server_port}{path}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *args):
        self.shutdown()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        answers = self.server.answers[self.path]
        status, body, headers = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *args):
        pass


def ok(body, **headers):
    return 200, body, {name.replace("_", "-"): value for name, value in headers.items()}


def cut(body):
    return 200, body, {"Content-Length": str(len(body) + 100)}


@pytest.fixture
def server():
    with Server() as running:
        yield running


@pytest.fixture
def cache(tmp_path):
    return str(tmp_path / "downloads")


def read(url, cache_dir, **kwargs):
    with util.open_url(url, cache_dir=cache_dir, verbose=False, **kwargs) as file:
        return file.read()


def entry(url, cache):
    key = hashlib.md5(url.encode()).hexdigest()
    found = [name for name in os.listdir(cache) if name.startswith(f"{key}_")]
    assert len(found) == 1
    return os.path.join(cache, found[0])


@pytest.mark.parametrize("body", [b"x", SMALL, LARGE])
def test_downloads_once(server, cache, body):
    url = server.url("/nets/a.pkl?x=1", ok(body))
    assert read(url, cache) == body
    assert read(url, cache) == body
    path = util.open_url(url, cache_dir=cache, return_filename=True)
    assert path == entry(url, cache) and server.requests == ["/nets/a.pkl?x=1"]
    assert set(os.path.basename(path)) <= set("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._")
    assert not [name for name in os.listdir(cache) if name.startswith("tmp_")]


def test_without_the_cache_nothing_is_kept(server, cache):
    url = server.url("/a", ok(LARGE))
    assert read(url, cache, cache=False) == LARGE
    assert not os.path.exists(cache)
    with pytest.raises(AssertionError, match="return_filename"):
        util.open_url(url, cache=False, return_filename=True)


@pytest.mark.parametrize("header", ['attachment; filename="net work.pkl"', "attachment; filename=net$work.pkl"])
def test_name_comes_from_the_server_if_it_gives_one(server, cache, header):
    url = server.url("/a", ok(LARGE, Content_Disposition=header))
    assert util.open_url(url, cache_dir=cache, verbose=False, return_filename=True).endswith("_net_work.pkl")


def test_very_long_names_are_cut(server, cache):
    url = server.url("/" + "x" * 900, ok(LARGE))
    assert read(url, cache) == LARGE and read(url, cache) == LARGE
    assert len(server.requests) == 1


def test_redirect_is_followed_and_kept_under_the_first_url(server, cache):
    server.url("/there", ok(LARGE))
    url = server.url("/here", (302, b"", {"Location": "/there"}))
    assert read(url, cache) == LARGE
    assert os.path.exists(entry(url, cache))


def test_refusal_is_told_at_once_and_leaves_nothing(server, cache):
    url = server.url("/gone", (404, b"no", {}))
    with pytest.raises(OSError, match="404"):
        read(url, cache)
    assert server.requests == ["/gone"] and not os.path.exists(cache)


@pytest.mark.parametrize("trouble", [(503, b"busy", {}), (429, b"slow", {}), ok(b""), cut(LARGE), cut(b"x")])
def test_passing_trouble_is_tried_again(server, cache, trouble):
    url = server.url("/a", trouble, trouble, ok(LARGE))
    assert read(url, cache, num_attempts=3) == LARGE
    assert len(server.requests) == 3
    assert read(url, cache) == LARGE and len(server.requests) == 3


@pytest.mark.parametrize("trouble", [(503, b"busy", {}), ok(b""), cut(LARGE)])
def test_lasting_trouble_leaves_nothing(server, cache, trouble, capsys):
    url = server.url("/a", trouble)
    with pytest.raises(OSError):
        util.open_url(url, cache_dir=cache, num_attempts=2)
    assert len(server.requests) == 2 and not os.path.exists(cache)
    assert capsys.readouterr().out == f"Downloading {url} .... failed\n"


@pytest.mark.parametrize(("headers", "whole"), [({"Content-Length": "5"}, True), ({"Content-Length": "6"}, False), ({}, True)])
def test_length_is_checked_where_requests_does_not(monkeypatch, headers, whole):
    """requests with urllib3 1 hands out what arrived before the connection broke as if it were all."""

    def send(self, request, **kwargs):
        response = requests.Response()
        response.status_code, response.url, response.raw = 200, request.url, io.BytesIO(b"12345")
        response.headers.update(headers)
        return response

    monkeypatch.setattr(requests.Session, "send", send)
    if whole:
        assert read("http://127.0.0.1/x", None, cache=False) == b"12345"
    else:
        with pytest.raises(OSError, match="broke after 5 of 6 bytes"):
            read("http://127.0.0.1/x", None, cache=False)


def test_progress(server, cache, capsys):
    url = server.url("/a", ok(LARGE))
    util.open_url(url, cache_dir=cache).close()
    util.open_url(url, cache_dir=cache).close()
    assert capsys.readouterr().out == f"Downloading {url} ... done\n"


def test_server_that_is_not_there(cache):
    with Server() as server:
        url = server.url("/a", ok(LARGE))
    with pytest.raises(OSError):
        read(url, cache, num_attempts=2)
    assert not os.path.exists(cache)


@pytest.mark.parametrize("damage", [b"", LARGE[:-1], LARGE[:100] + b"?" + LARGE[101:]])
def test_damaged_entry_is_downloaded_again(server, cache, damage):
    url = server.url("/a", ok(LARGE))
    read(url, cache)
    with open(entry(url, cache), "wb") as file:
        file.write(damage)
    assert read(url, cache) == LARGE
    assert len(server.requests) == 2
    assert read(url, cache) == LARGE and len(server.requests) == 2


def test_entry_that_nvidia_stored_is_used(server, cache):
    """It has no sha256 beside it, so only a pinned one can be checked."""
    url = server.url("/a", ok(LARGE))
    os.makedirs(cache)
    with open(os.path.join(cache, hashlib.md5(url.encode()).hexdigest() + "_a"), "wb") as file:
        file.write(b"theirs")
    assert read(url, cache) == b"theirs" and server.requests == []
    assert read(url, cache, sha256=hashlib.sha256(LARGE).hexdigest()) == LARGE and len(server.requests) == 1
    assert read(url, cache) == LARGE


def test_several_entries_become_one(server, cache):
    url = server.url("/a", ok(LARGE))
    read(url, cache)
    with open(entry(url, cache) + "_other", "wb") as file:
        file.write(LARGE)
    assert read(url, cache) == LARGE and len(server.requests) == 2
    assert read(url, cache) == LARGE and len(server.requests) == 2


@pytest.mark.parametrize("use_cache", [True, False])
def test_pinned_content(server, cache, use_cache):
    url = server.url("/a", ok(LARGE))
    assert read(url, cache, cache=use_cache, sha256=hashlib.sha256(LARGE).hexdigest().upper()) == LARGE
    wrong = hashlib.sha256(b"else").hexdigest()
    with pytest.raises(OSError, match=f"should have sha256 {wrong} - it has {hashlib.sha256(LARGE).hexdigest()}"):
        read(url, cache, cache=use_cache, sha256=wrong)
    assert not os.path.exists(cache) or os.listdir(cache) == []


def test_write_that_fails_leaves_no_entry(server, cache, monkeypatch):
    url = server.url("/a", ok(LARGE))
    replace = os.replace

    def full(source, target):
        if target.endswith(".sha256"):
            replace(source, target)
        else:
            raise OSError("disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        read(url, cache)
    assert [name for name in os.listdir(cache) if "_" in name] == []


def test_google_drive_detour(server, cache):
    server.url("/uc?export=download&confirm=t", ok(SMALL, Content_Disposition='attachment; filename="net.pkl"'))
    page = b'<html><a id="other" href="/help">help</a><a href="/uc?export=download&amp;confirm=t">anyway</a></html>'
    url = server.url("/uc?id=1", ok(page, Set_Cookie="download_warning_13058876669334088843_1=t"))
    path = util.open_url(url, cache_dir=cache, verbose=False, return_filename=True)
    assert path == entry(url, cache) and path.endswith("_net.pkl")
    with open(path, "rb") as file:
        assert file.read() == SMALL
    quota = server.url("/uc?id=2", ok(b"<title>Google Drive - Quota exceeded</title>"))
    with pytest.raises(OSError, match="quota exceeded"):
        read(quota, cache)
    assert server.requests.count("/uc?id=2") == 1


def test_page_without_the_cookie_is_just_a_file(server, cache):
    page = b'<a href="/uc?export=download">x</a>'
    assert read(server.url("/page", ok(page)), cache) == page


def test_local_paths_and_file_urls(tmp_path):
    file = tmp_path / "a b.bin"
    file.write_bytes(SMALL)
    for url in (str(file), f"file://{file}", file.as_uri()):
        assert read(url, None) == SMALL
        assert util.open_url(url, return_filename=True) == str(file)
        assert read(url, None, sha256=hashlib.sha256(SMALL).hexdigest()) == SMALL
        with pytest.raises(OSError, match="should have sha256"):
            read(url, None, sha256="0" * 64)
    with pytest.raises(FileNotFoundError):
        read(str(tmp_path / "absent"), None)
    with pytest.raises(AssertionError, match="neither a path nor a URL"):
        util.open_url("http://nodot/x")


def test_is_url():
    good = ["https://a.b/c", "http://127.0.0.1:80/", "ftp://a.b"]
    bad = ["https://localhost/x", "a.b/c", "s3://a.b/c", "", "://a.b", "https://", 5, None, "http://[a.b/"]
    assert all(util.is_url(url) for url in good)
    assert not any(util.is_url(url) for url in bad)
    assert util.is_url("file:///x", allow_file_urls=True) and not util.is_url("file:///x")


@given(st.text())
def test_is_url_says_yes_or_no_to_anything(text):
    assert util.is_url(text) in (True, False)
    assert util.is_url(f"https://{text}") in (True, False)


@settings(max_examples=20, deadline=None)
@given(body=st.binary(min_size=1, max_size=300))
def test_any_small_body_arrives(body, tmp_path_factory):
    with Server() as server:
        assert read(server.url("/a", ok(body)), str(tmp_path_factory.mktemp("cache"))) == body


@pytest.mark.host
@pytest.mark.parametrize("variable", ["STYLEGAN3_ROOT", "STYLEGAN2_ADA_ROOT"])
def test_nvidia_finds_our_entry(server, cache, variable):
    root = os.environ.get(variable)
    if not root:
        pytest.skip(f"{variable} is not set")
    url = server.url("/a.pkl", ok(LARGE), (500, b"again", {}))
    read(url, cache)
    code = "import sys, dnnlib; sys.stdout.write(dnnlib.util.open_url(sys.argv[1], cache_dir=sys.argv[2], return_filename=True))"
    done = subprocess.run([sys.executable, "-c", code, url, cache], cwd=root, check=True, capture_output=True, text=True)
    assert done.stdout == entry(url, cache) and len(server.requests) == 1
