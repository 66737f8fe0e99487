"""A real browser, driven through its own debugging protocol over two pipes: nothing listens on any port.

Protocol: https://chromedevtools.github.io/devtools-protocol/ (messages are JSON, each ended by a NUL).
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SECONDS = 60
"""The longest that a browser may take to answer."""


class Silence(Exception):
    """The browser does not answer."""


def find() -> str | None:
    """A browser of that kind on this machine."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """A tab. ``requests`` are the addresses that it asked for, ``errors`` what its console complained of."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._rest = write, read, b""
        self._number, self._session = 0, ""
        self._end = time.monotonic() + SECONDS
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._events: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """Send a command and wait for its result; what happens meanwhile is noted."""
        self._number += 1
        self._end = time.monotonic() + SECONDS
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _next(self) -> Any:
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], max(0, self._end - time.monotonic()))[0]:
                raise Silence(f"the browser has not answered within {SECONDS} s")
            part = os.read(self._read, 1 << 16)
            assert part, "the browser has ended"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(line)
        method, params = message.get("method", ""), message.get("params", {})
        self._events.append(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"][:200])
        elif method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.errors.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(json.dumps(params["args"])[:500])
        return message

    def open(self, path: Path, *, script: bool = True) -> None:
        """Load a file and wait until it is loaded."""
        self.requests.clear()
        self.errors.clear()
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self._events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while "Page.loadEventFired" not in self._events:
            self._next()

    def size(self, width: int, height: int, *, media: str = "") -> None:
        """The window's size in CSS pixels, and the medium: screen, or print."""
        self.call("Emulation.setEmulatedMedia", media=media)
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def click(self, selector: str) -> None:
        """Press the mouse in the middle of an element."""
        place = f"""(() => {{
            const element = document.querySelector({json.dumps(selector)});
            element.scrollIntoView({{block: "center"}});
            const box = element.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }})()"""
        x, y = self.ask(place)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def pdf(self) -> bytes:
        """The page as the browser prints it, on A4."""
        answer = self.call("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
        return base64.b64decode(answer["data"])


@contextmanager
def browser(program: str, profile: Path) -> Iterator[Page]:
    """A browser with nothing but a page; gone with the ``with`` block."""
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    argv = [
        program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe",
        "--disable-background-networking", "--disable-dev-shm-usage", f"--user-data-dir={profile}",
    ]  # fmt: skip

    def place() -> None:  # the protocol's file descriptors are 3 (to the browser) and 4 (from it)
        os.dup2(to_read, 10)
        os.dup2(from_write, 11)
        os.dup2(10, 3)
        os.dup2(11, 4)

    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    with subprocess.Popen(argv, preexec_fn=place, close_fds=False, **quiet) as process:  # noqa: PLW1509
        os.close(to_read)
        os.close(from_write)
        try:
            yield Page(to_write, from_read)
        finally:  # not asked to end: it may go before it answers, while a process of its own keeps the pipe open
            os.killpg(process.pid, signal.SIGKILL)
            os.close(to_write)
            os.close(from_read)
