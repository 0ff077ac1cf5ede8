"""A headless Chromium for tests, driven through the DevTools protocol on a pipe, by the standard library alone."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from select import select

from processes import until

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "chromium-headless-shell")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --mute-audio "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars --remote-debugging-pipe"
).split()
# the protocol's pipes are descriptors 3 and 4 of the browser
START = (
    "import os, sys; r, w = map(int, sys.argv[1:3]); os.dup2(r, 3); os.dup2(w, 4); os.execvp(sys.argv[3], sys.argv[3:])"
)


def find_browser() -> str | None:
    """PCM3_BROWSER, or the first browser on the PATH; None = there is none."""
    given = os.environ.get("PCM3_BROWSER")
    return given or next((path for name in NAMES if (path := shutil.which(name))), None)


def _above(descriptor: int) -> int:
    """The same descriptor under a number that is neither 3 nor 4."""
    import fcntl

    copy = fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10)
    os.close(descriptor)
    return copy


class Page:
    """One page of a browser of its own. errors: exceptions and messages of level error; requests: addresses asked for."""

    def __init__(self, browser: str, profile, width=1100, height=900, mobile=False, dark=False):
        theirs_in, self._out = map(_above, os.pipe())
        self._in, theirs_out = map(_above, os.pipe())
        command = [sys.executable, "-c", START, str(theirs_in), str(theirs_out)]
        command += [browser, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        log = open(os.path.join(profile, "log.txt"), "wb")
        self._process = subprocess.Popen(command, pass_fds=(theirs_in, theirs_out), stdout=log, stderr=log)
        log.close()
        os.close(theirs_in)
        os.close(theirs_out)
        self._number, self._read, self._session = 0, b"", None
        self.errors, self.requests = [], []
        targets = self.ask("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        self._session = self.ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.ask(f"{domain}.enable")
        self.resize(width, height, mobile)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def close(self) -> None:
        os.close(self._out)
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _message(self, seconds: float) -> dict:
        end = time.monotonic() + seconds
        while b"\0" not in self._read:
            ready = select([self._in], [], [], max(end - time.monotonic(), 0))[0]
            chunk = os.read(self._in, 2**20) if ready else b""
            if not chunk:
                raise AssertionError("the browser does not answer")
            self._read += chunk
        message, _, self._read = self._read.partition(b"\0")
        return json.loads(message)

    def ask(self, method: str, **parameters) -> dict:
        """A command's result; events that come before it are kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._out, data) :]
        while (answer := self._message(60)).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _note(self, event: dict) -> None:
        method, about = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            detail = about["exceptionDetails"]
            self.errors.append(detail.get("exception", {}).get("description", detail["text"]))
        elif method == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.errors.append(about["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])

    def open(self, address: str, before: str = "") -> None:
        """before: a script that runs before those of the page."""
        self.ask("Page.addScriptToEvaluateOnNewDocument", source=before)
        self.ask("Page.navigate", url=address)
        until(lambda: self.js("document.readyState + ' ' + location.href") == f"complete {address}", address)

    def resize(self, width: int, height: int, mobile: bool = False) -> None:
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def js(self, code: str):
        """The value of a JavaScript expression (a promise is waited for)."""
        answer = self.ask("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, (code, answer["exceptionDetails"])
        return answer["result"].get("value")

    def at(self, selector: str, across: float = 0.5, down: float = 0.5) -> tuple[float, float]:
        """Scrolls to an element; returns a place in it, as shares of its width and height, on the window."""
        box = self.js(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
            " const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()"
        )
        return box[0] + across * box[2], box[1] + down * box[3]

    def mouse(self, kind: str, x: float, y: float, **more) -> None:
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def hover(self, selector: str, across: float = 0.5, down: float = 0.5) -> None:
        self.mouse("mouseMoved", *self.at(selector, across, down))

    def click(self, selector: str, across: float = 0.5, down: float = 0.5) -> None:
        x, y = self.at(selector, across, down)
        for kind in ("mousePressed", "mouseReleased"):
            self.mouse(kind, x, y, button="left", buttons=int(kind == "mousePressed"), clickCount=1)

    def picture(self, path, whole: bool = False) -> None:
        """A PNG of the window, or of the whole page."""
        png = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        with open(path, "wb") as file:
            file.write(base64.b64decode(png))
