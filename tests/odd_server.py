# SPDX-License-Identifier: Apache-2.0
"""A server on this machine that can misbehave in every way that matters to a download, and remembers what it was asked."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace


@dataclass
class Page:
    """What comes at a path."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: tuple[int, ...] = ()
    """After how many bytes the connection breaks, answer by answer; then it holds."""
    ranges: bool = True
    """Whether it knows Range."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, str | None]] = []
        """(path, Range) of every request."""

    def url(self, path: str, page: Page) -> str:
        self.pages[path] = page
        return f"http://127.0.0.1:{self.server_port}{path}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        page = self.server.pages.get(self.path, Page(b"no", 404))
        start, same = 0, self.headers.get("If-Range") == page.headers.get("ETag")
        if wanted and page.ranges and same:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(page.body) > 0:
            self.send_error(416)
            return
        self.send_response(206 if start else page.status)
        headers = {"Content-Length": str(len(page.body) - start)} | page.headers
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(page.body) - 1}/{len(page.body)}"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        end = len(page.body)
        if page.cut:
            end, rest = start + page.cut[0], page.cut[1:]
            self.server.pages[self.path] = replace(page, cut=rest)
        self.wfile.write(page.body[start:end])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Server]:
    """The server, running in a thread."""
    with Server() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.shutdown()
