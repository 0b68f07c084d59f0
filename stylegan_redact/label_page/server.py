# SPDX-License-Identifier: Apache-2.0
"""The page over HTTP, for this machine alone: on the loopback address, under a random token, checked Host and Origin, nothing from elsewhere."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from typing import Any

from stylegan_redact.label_page.desk import MODES, Desk
from stylegan_redact.label_page.gallery import Gallery
from stylegan_redact.types import RedactError

_STATIC = {"": ("page.html", "text/html"), "page.css": ("page.css", "text/css"), "page.js": ("page.js", "text/javascript")}
_LONGEST_BODY = 1 << 16
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class PageServer(ThreadingHTTPServer):
    """Serves one desk until it is told to shut down; `url` is what to open."""

    daemon_threads = True

    def __init__(self, desk: Desk, gallery: Gallery, *, port: int = 0) -> None:
        """Listens on 127.0.0.1.

        Args:
            port: 0: any that is free.

        Raises:
            RedactError: the port is taken.
        """
        self.desk, self.gallery, self.token = desk, gallery, secrets.token_urlsafe(24)
        self.over = False
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise RedactError(f"a page on port {port} was asked - {error.strerror} - give another --port, or leave it out") from error
        self.hosts = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}

    @property
    def url(self) -> str:
        """With the token; whoever has it may label."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up is no event."""


class _Handler(BaseHTTPRequestHandler):
    """One request."""

    server: PageServer
    server_version, sys_version = "label", ""
    timeout = 60

    def do_GET(self) -> None:
        """The page, its state, its pictures."""
        path = self._path()
        if path is None:
            return
        kind, _, name = path.partition("/")
        if path in _STATIC:
            file, mime = _STATIC[path]
            self._send(resources.files("stylegan_redact.label_page").joinpath(file).read_bytes(), f"{mime}; charset=utf-8")
        elif path == "state":
            self._send_json(self.server.desk.state())
        elif kind in ("small", "large") and self._drawn(name):
            gallery = self.server.gallery
            picture = gallery.thumbnail(int(name)) if kind == "small" else gallery.picture(int(name))
            self._send(picture, "image/jpeg" if kind == "small" else "image/png", cached=True)
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """An action; the state afterwards comes back."""
        path = self._path()
        if path is None:
            return
        if self.headers.get("Origin") not in {f"http://{host}" for host in self.server.hosts}:
            self._refuse(HTTPStatus.FORBIDDEN)
            return
        action = self._action(path)
        if action is None:
            self._refuse(HTTPStatus.BAD_REQUEST)
            return
        try:
            action()
        except RedactError as error:
            self._send_json({"error": str(error)}, HTTPStatus.CONFLICT)
            return
        self._send_json(self.server.desk.state())
        if path == "finish":
            self.server.over = True

    def _action(self, path: str) -> Callable[[], None] | None:
        """What is asked for, checked; None: nothing that there is."""
        desk, value = self.server.desk, self._body()
        if path == "label" and isinstance(value, list) and value and all(map(_is_answer, value)):
            return lambda: desk.label([(seed, shows) for seed, shows in value])
        if path == "turn" and isinstance(value, str) and value in MODES:
            return lambda: desk.turn(value)
        return {"undo": desk.undo, "finish": desk.finish}.get(path) if value is None else None

    def _body(self) -> Any:
        """JSON; False for what is none, or too long."""
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > _LONGEST_BODY or self.headers.get_content_type() != "application/json":
            return False
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            return False

    def _path(self) -> str | None:
        """What follows the token; None, and refused, if the host or the token is wrong."""
        if self.headers.get("Host") not in self.server.hosts:
            self._refuse(HTTPStatus.FORBIDDEN)
            return None
        token, slash, path = self.path.removeprefix("/").partition("/")
        if not slash or not secrets.compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.NOT_FOUND)
            return None
        return path

    def _drawn(self, name: str) -> bool:
        gallery = self.server.gallery
        return name.isascii() and name.isdigit() and len(name) < 12 and 0 <= int(name) - gallery.seeds.start < gallery.drawn

    def _refuse(self, status: HTTPStatus) -> None:
        self.close_connection = True
        self._send(f"{status.value} {status.phrase}\n".encode(), "text/plain; charset=utf-8", status)

    def _send_json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(value, allow_nan=False).encode(), "application/json", status)

    def _send(self, body: bytes, mime: str, status: HTTPStatus = HTTPStatus.OK, *, cached: bool = False) -> None:
        self.send_response(status)
        for name, text in (_HEADERS | ({"Cache-Control": "private, max-age=86400"} if cached else {})).items():
            self.send_header(name, text)
        self.send_header("Content-Type", mime)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is printed: the token stands in every line."""


def _is_answer(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and type(value[0]) is int and (value[1] is None or type(value[1]) is bool)
