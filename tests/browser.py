# SPDX-License-Identifier: Apache-2.0
"""A headless Chromium, driven by its DevTools protocol over a pipe: no package, no port."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-extensions",
          "--disable-dev-shm-usage", "--hide-scrollbars", "--remote-debugging-pipe", "about:blank")  # fmt: skip
_KEYS = {"Enter": ("Enter", 13, "\r"), "Escape": ("Escape", 27, ""), " ": ("Space", 32, " "), "ArrowRight": ("ArrowRight", 39, ""),
         "ArrowDown": ("ArrowDown", 40, "")}  # fmt: skip


class Browser:
    """One page. Close it."""

    def __init__(self, profile: Path, *, seconds: float = 60) -> None:
        """Starts; every wait is at most so long."""
        assert CHROMIUM is not None
        self._seconds, self._last, self._held = seconds, 0, b""
        low_in, self._out = os.pipe()
        self._in, low_out = os.pipe()
        # Away from 3 and 4, where Chromium looks for them.
        theirs_in, theirs_out = (fcntl.fcntl(low, fcntl.F_DUPFD, 20) for low in (low_in, low_out))
        os.close(low_in)
        os.close(low_out)
        command = ["bash", "-c", f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}', CHROMIUM, f"--user-data-dir={profile}", *_FLAGS]
        self._process = subprocess.Popen(command, pass_fds=[theirs_in, theirs_out], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        target = self.call("Target.createTarget", {"url": "about:blank"}, page=False)["targetId"]
        self._page = ""
        self._page = self.call("Target.attachToTarget", {"targetId": target, "flatten": True}, page=False)["sessionId"]
        self.call("Page.enable")
        self.call("Log.enable")

    def call(self, method: str, params: dict[str, Any] | None = None, *, page: bool = True) -> Any:
        """What the browser answers to a command."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params or {}} | ({"sessionId": self._page} if page else {})
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + self._seconds
        while time.monotonic() < end:
            while b"\0" in self._held:
                text, _, self._held = self._held.partition(b"\0")
                said = json.loads(text)
                if said.get("id") == self._last:
                    assert "error" not in said, said
                    return said["result"]
            if select.select([self._in], [], [], 0.5)[0]:
                self._held += os.read(self._in, 1 << 16)
        raise TimeoutError(method)

    def open(self, url: str) -> None:
        self.call("Page.navigate", {"url": url})

    def run(self, script: str) -> Any:
        """The value of an expression of JavaScript, waited for if it is a promise."""
        said = self.call("Runtime.evaluate", {"expression": script, "returnByValue": True, "awaitPromise": True})
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def until(self, script: str) -> Any:
        """The value of the expression, once it is true."""
        end = time.monotonic() + self._seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"never true: {script}; the page: {self.run('document.body.innerText')}"
            time.sleep(0.05)
        return value

    def key(self, key: str) -> None:
        """One key, pressed and let go."""
        code, number, text = _KEYS[key] if key in _KEYS else (f"Key{key.upper()}", ord(key.upper()), key)
        both = {"key": key, "code": code, "windowsVirtualKeyCode": number}
        self.call("Input.dispatchKeyEvent", {"type": "keyDown", **both, **({"text": text} if text else {})})
        self.call("Input.dispatchKeyEvent", {"type": "keyUp", **both})

    def click(self, selector: str) -> None:
        """A mouse click on the middle of an element."""
        x, y = self.run(f"(r => [r.x + r.width / 2, r.y + r.height / 2])(document.querySelector({json.dumps(selector)}).getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1})

    def size(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone})
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"features": [scheme]})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", {"format": "png"})["data"]))

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
