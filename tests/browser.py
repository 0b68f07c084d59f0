# SPDX-License-Identifier: Apache-2.0
"""Headless Chromium over its debugging pipe, with nothing but the standard library: pages opened, keys pressed, pictures taken."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SECONDS = 60
"""To wait for an answer at most."""
_LAUNCH = """
import fcntl, os, sys
ours, theirs = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])  # Out of the way of 3 and 4, whatever these are.
os.dup2(ours, 3), os.dup2(theirs, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_KEYS = {"ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40, "Home": 36, "End": 35, "Escape": 27, "Tab": 9, "Enter": 13}
_TEXTS = {"Enter": "\r"}


class Browser:
    """One tab. `errors` has what the page complained of on its console, `requests` what it asked the network for."""

    def __init__(self, profile: Path) -> None:
        (read, self._to), (self._from, write) = os.pipe(), os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars"]
        flags += ["--remote-debugging-pipe", f"--user-data-dir={profile}", "--disable-background-networking", "--disable-extensions"]
        command = [sys.executable, "-c", _LAUNCH, str(read), str(write), str(CHROMIUM), *flags, "about:blank"]
        self._process = subprocess.Popen(command, pass_fds=(read, write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(read), os.close(write)
        self._numbers, self._waiting = itertools.count(1), b""
        self.errors: list[str] = []
        self.requests: list[str] = []
        self._session: str | None = None
        try:
            (page,) = [each for each in self._wait_for_page() if each["type"] == "page"]
            self._session = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def call(self, method: str, **params: Any) -> Any:
        """The result of a command of the DevTools protocol."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer)

    def open(self, page: Path | str, width: int, height: int) -> None:
        """A file, or an address, in a window of that size, loaded."""
        address = page.as_uri() if isinstance(page, Path) else page
        self.resize(width, height)
        self.call("Page.navigate", url=address)
        self.until(f"document.readyState == 'complete' && location.href == {json.dumps(address)}")

    def resize(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def media(self, kind: str = "", scheme: str = "light") -> None:
        """print or screen; light or dark."""
        self.call("Emulation.setEmulatedMedia", media=kind, features=[{"name": "prefers-color-scheme", "value": scheme}])

    def value(self, expression: str) -> Any:
        """Of a JavaScript expression; promises are awaited."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, expression: str) -> None:
        """Waits for the expression to become true."""
        end = time.monotonic() + SECONDS
        while not self.value(expression):
            assert time.monotonic() < end, f"never true: {expression}; the page: {self.value('document.body.innerText')}"
            time.sleep(0.05)

    def press(self, key: str, times: int = 1) -> None:
        """A key by its name, or a character."""
        number, text = (_KEYS[key], _TEXTS.get(key, "")) if key in _KEYS else (ord(key.upper()), key)
        told: dict[str, Any] = {"key": key, "windowsVirtualKeyCode": number}
        if len(key) > 1:
            told["code"] = key
        for _ in range(times):
            self.call("Input.dispatchKeyEvent", type="keyDown", **told, **({"text": text} if text else {}))
            self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def click(self, selector: str) -> None:
        """The mouse, on the middle of an element."""
        x, y = self.value(f"(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector({json.dumps(selector)}).getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def picture(self, path: Path, whole: bool = False) -> None:
        """A screenshot."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._to), os.close(self._from)

    def _wait_for_page(self) -> list[dict[str, Any]]:
        for _ in range(100):
            found = self.call("Target.getTargets")["targetInfos"]
            if any(each["type"] == "page" for each in found):
                return found
            time.sleep(0.05)
        raise AssertionError("Chromium opened no page")

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._waiting:
            ready, _, _ = select.select([self._from], [], [], SECONDS)
            assert ready, f"Chromium did not answer within {SECONDS} s"
            data = os.read(self._from, 1 << 16)
            assert data, "Chromium ended"
            self._waiting += data
        text, _, self._waiting = self._waiting.partition(b"\0")
        return json.loads(text)

    def _note(self, event: dict[str, Any]) -> None:
        told = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"]))
        if event.get("method") == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning"):
            self.errors.append(str(told["args"]))
        if event.get("method") == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.errors.append(told["entry"]["text"])
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
