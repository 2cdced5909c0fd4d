"""Headless Chromium, driven through chromedriver's HTTP interface (W3C WebDriver) by the standard library alone."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MISSING = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
SWITCHES = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key that the standard gives references to elements


class Browser:
    """One window of a browser."""

    def __init__(self, port: int, width: int) -> None:
        """Open a window of a width in pixels, without a network: what a page asks of it is an error in its log."""
        self.root = f"http://127.0.0.1:{port}/session"
        options = {"args": [*SWITCHES, f"--window-size={width},1000", "--host-resolver-rules=MAP * ~NOTFOUND"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        session = self._sent("POST", "", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        self.root += f"/{session}"

    def _sent(self, method: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.root + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from error

    def open(self, path: Path) -> None:
        """Show a file."""
        self._sent("POST", "/url", {"url": path.resolve().as_uri()})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function body in JavaScript returns."""
        return self._sent("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def run_async(self, script: str, *arguments: Any) -> Any:
        """What a function body in JavaScript hands to its last argument, a callback."""
        return self._sent("POST", "/execute/async", {"script": script, "args": list(arguments)})

    def _devtools(self, command: str, **parameters: Any) -> None:
        self._sent("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def emulate(self, width: int, height: int, theme: str) -> None:
        """Show pages at a size in pixels, which may be a phone's, in a colour scheme: `light` or `dark`."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._devtools("Emulation.setDeviceMetricsOverride", **size)
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self._devtools("Emulation.setEmulatedMedia", media="", features=features)

    def emulate_print(self) -> None:
        """Show pages as they are printed."""
        self._devtools("Emulation.setEmulatedMedia", media="print")

    def printed(self) -> bytes:
        """The page as PDF."""
        return base64.b64decode(self._sent("POST", "/print", {}))

    def move(self, x: int, y: int) -> None:
        """Move the mouse to a point of the window."""
        moves = [{"type": "pointerMove", "duration": 0, "x": place[0], "y": place[1]} for place in ((x - 9, y), (x, y))]
        mouse = {"type": "pointer", "id": "mouse", "parameters": {"pointerType": "mouse"}, "actions": moves}
        self._sent("POST", "/actions", {"actions": [mouse]})

    def wait(self, script: str, *arguments: Any, seconds: float = 60) -> Any:
        """Wait until a function body returns something that is true, and return it."""
        end = time.monotonic() + seconds
        while not (found := self.run(script, *arguments)):
            assert time.monotonic() < end, f"waited in vain for: {script} {arguments}"
            time.sleep(0.05)
        return found

    @contextlib.contextmanager
    def frame(self) -> Iterator[None]:
        """Inside the page's one frame."""
        element = self._sent("POST", "/element", {"using": "css selector", "value": "iframe"})
        self._sent("POST", "/frame", {"id": {ELEMENT: element[ELEMENT]}})
        try:
            yield
        finally:
            self._sent("POST", "/frame", {"id": None})

    def messages(self) -> list[str]:
        """Warnings and errors of the console since the last call."""
        found = self._sent("POST", "/se/log", {"type": "browser"})
        return [entry["message"] for entry in found if entry["level"] in ("WARNING", "SEVERE")]

    def picture(self, path: Path) -> None:
        """Save what the window shows as PNG."""
        path.write_bytes(base64.b64decode(self._sent("GET", "/screenshot")))

    def close(self) -> None:
        """Close the window and its browser."""
        self._sent("DELETE", "")


@contextlib.contextmanager
def opened(width: int) -> Iterator[Browser]:
    """A browser with a driver of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        browser = Browser(port, width)
        try:
            yield browser
        finally:
            browser.close()
    finally:
        driver.terminate()
        driver.wait(10)


def _wait_for(port: int) -> None:
    """Wait until the driver answers."""
    end = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert time.monotonic() < end, "chromedriver does not answer"
        time.sleep(0.05)
