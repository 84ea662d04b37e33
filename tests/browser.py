"""Debian's chromium without a window, driven over a pipe by the DevTools protocol: one browser, any number of pages."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("chromium-headless-shell", "chromium")
# Seconds.
_DEADLINE, _PAUSE = 60.0, 0.3
_OPTIONS = (
    "--headless",
    "--remote-debugging-pipe",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_KEYS = {
    "ArrowDown": 40,
    "ArrowUp": 38,
    "End": 35,
    "Home": 36,
    "Enter": 13,
    "Escape": 27,
    "PageDown": 34,
    "Tab": 9,
    "/": 191,
}


class Browser:
    """A browser that runs."""

    def __init__(self, process: subprocess.Popen[bytes], commands: int, answers: int) -> None:
        self.process = process
        self._commands, self._answers = commands, answers
        self._buffer = b""
        self._last = 0
        self._pages: dict[str, Page] = {}

    def open(self, url: str, *, width: int = 1280, height: int = 800, dark: bool = False, **headers: str) -> Page:
        """Open a page, and return once its document is loaded. `headers`: sent with each request."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = self._pages[session] = Page(self, session, target)
        for domain in ("Page", "Runtime", "Network", "Log"):
            page.call(f"{domain}.enable")
        page.resize(width, height, dark=dark)
        if headers:
            page.call("Network.setExtraHTTPHeaders", headers=headers)
        page.call("Page.navigate", url=url)
        page.until("document.readyState === 'complete' && location.href !== 'about:blank'")
        while page.interrupted:
            # Files of the page are missing.
            page.interrupted = 0
            time.sleep(_PAUSE)
            page.call("Page.reload")
            page.until("document.readyState === 'complete'")
        return page

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters} | (
            {"sessionId": session} if session else {}
        )
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                assert "error" not in answer, f"{method}: {answer}"
                result: dict[str, Any] = answer["result"]
                return result
            if page := self._pages.get(answer.get("sessionId", "")):
                page.take(answer["method"], answer["params"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._answers, 1 << 16)
            assert data, "the browser has ended"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found


class Page:
    """A page of the browser. `requests`: the addresses it asked for. `complaints`: errors, and what was blocked."""

    def __init__(self, browser: Browser, session: str, target: str) -> None:
        self._browser, self._session, self._target = browser, session, target
        self.requests: list[str] = []
        self.complaints: list[str] = []
        # How many requests chromium has ended because a device or an address of the host came or went: other tests
        # make some. The page itself asks again for what it needs later.
        self.interrupted = 0

    def take(self, method: str, parameters: dict[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            if "ERR_NETWORK_CHANGED" in parameters["entry"]["text"]:
                self.interrupted += 1
            else:
                self.complaints.append(parameters["entry"]["text"])

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **parameters)

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def value(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript, as plain data."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all elements that match a selector of CSS, as they are in the document."""
        return list(self.value(f"[...document.querySelectorAll({json.dumps(selector)})].map(each => each.textContent)"))

    def text(self, selector: str) -> str:
        return self.texts(selector)[0]

    def until(self, expression: str, seconds: float = _DEADLINE) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.value(expression):
            if time.monotonic() > end:
                pytest.fail(f"not in {seconds:.0f} s: {expression}\n{self.value('document.body.innerText')[:3000]}")
            time.sleep(0.02)

    def press(self, key: str) -> None:
        event = {"key": key, "windowsVirtualKeyCode": _KEYS[key], "code": "Slash" if key == "/" else key}
        text = {"Enter": "\r", "/": "/"}.get(key)
        self.call("Input.dispatchKeyEvent", type="keyDown", **event, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def screenshot(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        self._browser.call("Target.closeTarget", targetId=self._target)


def program() -> str:
    """Return the browser of this host; skip the test if there is none."""
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        pytest.skip("needs a browser: apt-get install chromium-headless-shell")
    return found


@contextmanager
def running(folder: Path, within: Sequence[str] = ()) -> Iterator[Browser]:
    """Run a browser with a profile in this folder during the block. `within`: words before its command."""
    sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
    (its_in, commands), (answers, its_out) = os.pipe(), os.pipe()
    # The browser reads descriptor 3 and writes descriptor 4.
    place = f'exec "$@" 3<&{its_in} 4>&{its_out}'
    words = [*within, program(), *_OPTIONS, *sandbox, f"--user-data-dir={folder}", "about:blank"]
    process = subprocess.Popen(
        ["bash", "-c", place, "bash", *words],
        pass_fds=(its_in, its_out),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(its_in)
    os.close(its_out)
    browser = Browser(process, commands, answers)
    try:
        yield browser
    finally:
        with suppress(AssertionError, OSError):
            browser.call("Browser.close")
        try:
            process.wait(_DEADLINE)
        finally:
            process.kill()
            process.wait()
            os.close(commands)
            os.close(answers)
