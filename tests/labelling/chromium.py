"""The labelling page in a real Chromium, before a real `terrazzo label`: started, drawn on with the mouse, and killed.

What is true is the label that the API tells, as NumPy arrays; nothing is compared with a screenshot.

    with Server(folder) as server, chromium() as browser:
        desk = Desk.open(browser.new_context(), server, sample=1)
        desk.choose("road").set(size=20).stroke([(10, 10), (60, 40)])
        desk.saved()
        assert (server.mask(1) == swept([...], 20, hw)).all()
"""

import base64
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.typing import NDArray

from labelling.strokes import Point

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Playwright

TILE = 512
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT = 30.0  # seconds: far more than anything here takes, for machines that do other things too
Truth = NDArray[np.uint16]


def executable() -> str:
    """Where Chromium is; the test is skipped where there is none."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium: scripts/test brings it where it may; else apt-get install chromium")
    return path


@contextmanager
def playwright() -> Iterator["Playwright"]:
    """Playwright, running."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as running:
        yield running


@contextmanager
def chromium(running: "Playwright | None" = None, *arguments: str) -> Iterator["Browser"]:
    """A headless Chromium that keeps nothing."""
    path = executable()
    if running is None:
        with playwright() as own, chromium(own, *arguments) as browser:
            yield browser
        return
    browser = running.chromium.launch(executable_path=path, args=[*ARGUMENTS, *arguments])
    try:
        yield browser
    finally:
        browser.close()


class Server:
    """`terrazzo label FOLDER/street.db` as a process of its own, on a port that stays when it is started again."""

    def __init__(self, folder: Path, name: str = "street") -> None:
        self.folder, self.name, self.port = folder, name, 0
        self.process: subprocess.Popen[str] | None = None
        self.said: list[str] = []

    def start(self) -> "Server":
        """Start it, or start it again; returns when it answers."""
        command = [sys.executable, "-m", "terrazzo", "label", str(self.folder / f"{self.name}.db")]
        self.process = subprocess.Popen(
            [*command, "--port", str(self.port)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        lines = self.process.stdout
        assert lines is not None
        for line in lines:
            self.said.append(line)
            found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
            if found:
                self.port = int(found[1])
                threading.Thread(target=self._listen, args=(lines,), daemon=True).start()
                self._until_it_answers()
                return self
        lines.close()
        self.process.wait()
        raise AssertionError("the server did not start:\n" + "".join(self.said))

    def kill(self) -> None:
        """SIGKILL: no goodbye, nothing flushed."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it in order."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(WAIT)
            except subprocess.TimeoutExpired:
                self.kill()

    @property
    def url(self) -> str:
        """The page."""
        return f"http://127.0.0.1:{self.port}/"

    def ask(self, method: str, path: str, body: Any = None) -> bytes:
        """The bytes of an answer of the API; urllib's HTTPError for a refusal."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-Terrazzo": "1", "Content-Type": "application/json", "Origin": self.url.rstrip("/")}
        request = urllib.request.Request(f"{self.url}api/v1{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            return bytes(answer.read())

    def get(self, path: str) -> Any:
        """What the API tells."""
        return json.loads(self.ask("GET", path))

    def sample(self, number: int, *parts: str) -> str:
        """The path of a sample, and below it."""
        return "/".join([f"/projects/{self.name}/samples/{number}", *parts])

    def label(self, number: int = 1, revision: int | None = None) -> dict[str, Any]:
        """What a label is: revision, tree_hash, annotations, …"""
        told: dict[str, Any] = self.get(
            self.sample(number, "label") + ("" if revision is None else f"?revision={revision}")
        )
        return told

    def objects(self, number: int = 1, revision: int | None = None) -> Truth:
        """The object id of every pixel (H, W)."""
        told = self.label(number, revision)
        body = self.ask("GET", f"{self.sample(number, 'tiles')}?revision={told['revision']}")
        found, at = np.zeros((told["height"], told["width"]), np.uint16), 0
        for index in range(told["rows"] * told["columns"]):
            (length,) = struct.unpack_from("<I", body, at)
            top, left = index // told["columns"] * TILE, index % told["columns"] * TILE
            part = found[top : top + TILE, left : left + TILE]
            part[:] = np.frombuffer(zlib.decompress(body[at + 4 : at + 4 + length]), "<u2").reshape(
                part.shape
            )
            at += 4 + length
        assert at == len(body)
        return found

    def mask(self, number: int = 1, revision: int | None = None) -> Truth:
        """The category id of every pixel (H, W)."""
        table = np.zeros(1 << 16, np.uint16)
        for one in self.label(number, revision)["annotations"]:
            table[one["id"]] = one["category_id"]
        return table[self.objects(number, revision)]

    def write(
        self,
        number: int,
        tiles: dict[tuple[int, int], Truth],
        annotations: list[dict[str, Any]] | None,
        **words: Any,
    ) -> dict[str, Any]:
        """Post an operation, as another client."""
        packed = [
            {
                "row": row,
                "col": column,
                "data": base64.b64encode(zlib.compress(tile.astype("<u2").tobytes())).decode(),
            }
            for (row, column), tile in tiles.items()
        ]
        body = {"client_id": "script", "seq": time.time_ns() // 1000, "base_revision": self.label(number)["revision"],
                "tiles": packed, "annotations": annotations, "tool": "script", "ms": 0, **words}  # fmt: skip
        told: dict[str, Any] = json.loads(self.ask("POST", self.sample(number, "ops"), body))
        return told

    def _listen(self, lines: Any) -> None:
        with lines:
            self.said.extend(lines)

    def _until_it_answers(self) -> None:
        until = time.monotonic() + WAIT
        while self.process is not None and self.process.poll() is None and time.monotonic() < until:
            try:
                urllib.request.urlopen(f"{self.url}healthz", timeout=1).close()
                return
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
        self.stop()
        raise AssertionError("the server does not answer:\n" + "".join(self.said))

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()


class Desk:
    """One open page and its mouse, in pixels of the image."""

    def __init__(self, page: "Page", server: Server) -> None:
        self.page, self.server, self.number = page, server, 0
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        page.on("request", lambda one: self.asked.append(one.url))

    @classmethod
    def open(cls, context: "BrowserContext", server: Server, sample: int = 1) -> "Desk":
        """A new page in `context`, with the editor of a sample."""
        return cls(context.new_page(), server).go(sample)

    def go(self, sample: int) -> "Desk":
        """Open a sample in the editor, and wait until one can draw."""
        self.number = sample
        if self.page.url.startswith(self.server.url):
            self.page.evaluate("hash => { location.hash = hash; }", f"#/{self.server.name}/{sample}")
        else:
            self.page.goto(f"{self.server.url}#/{self.server.name}/{sample}")
        return self.ready(sample)

    def ready(self, sample: int) -> "Desk":
        """Wait until the editor of a sample is there."""
        self.page.wait_for_function(
            "n => window.terrazzo?.editor?.sample.id === n", arg=sample, timeout=1000 * WAIT
        )
        return self

    def leave(self) -> None:
        """Leave the image for the project's page, and wait until the server knows that this page holds none."""
        client = self.js("() => state.client")
        self.page.evaluate("hash => { location.hash = hash; }", f"#/{self.server.name}")
        until = time.monotonic() + WAIT
        while held := [
            one["id"]
            for one in self.server.get(f"/projects/{self.server.name}/samples")["items"]
            if (one["lease"] or {}).get("client") == client
        ]:
            assert time.monotonic() < until, f"images are held still: {held}"
            time.sleep(0.02)

    def choose(self, category: str) -> "Desk":
        """Draw this category from now on."""
        self.js("name => change({category: state.categories.find((one) => one.name === name).id})", category)
        return self

    def tool(self, name: str) -> "Desk":
        """Take a tool."""
        self.page.evaluate("name => window.terrazzo.editor.select(name)", name)
        return self

    def set(self, tool: str = "brush", **options: Any) -> "Desk":
        """Set a tool's options."""
        for name, value in options.items():
            self.page.evaluate(
                "([tool, name, value]) => window.terrazzo.editor.setOption(tool, name, value)",
                [tool, name, value],
            )
        return self

    def change(self, **state: Any) -> "Desk":
        """Change what the page's state holds."""
        self.js("patch => change(patch)", state)
        return self

    def js(self, function: str, argument: Any = None) -> Any:
        """Call a function that may use `state`, `change` and `changeView` of the page's state.js."""
        body = f"""async (argument) => {{
            const {{ state, change, changeView }} = await import("/static/state.js");
            return ({function})(argument);
        }}"""
        return self.page.evaluate(body, argument)

    def read(self, expression: str) -> Any:
        """The value of an expression in which `editor` is the editor."""
        return self.page.evaluate(f"() => {{ const editor = window.terrazzo.editor; return {expression}; }}")

    def bytes(self, expression: str) -> bytes:
        """The bytes of a typed array."""
        text: str = self.page.evaluate(
            f"""() => new Promise((resolve) => {{
                const editor = window.terrazzo.editor, reader = new FileReader();
                reader.onload = () => resolve(reader.result.split(",")[1]);
                reader.readAsDataURL(new Blob([{expression}]));
            }})"""
        )
        return base64.b64decode(text)

    @property
    def drawn(self) -> Truth:
        """The object id of every pixel (H, W) of the label in the page, whether the server has it or not."""
        height, width = self.read("[editor.label.height, editor.label.width]")
        return np.frombuffer(self.bytes("editor.label.ids"), "<u2").reshape(height, width)

    @property
    def view(self) -> tuple[float, float, float]:
        """(scale, left, top): where the image lies, in pixels of CSS in the window."""
        scale, left, top = self.read(
            "(() => { const box = editor.stage.getBoundingClientRect();"
            " return [editor.view.scale, box.left + editor.view.x, box.top + editor.view.y]; })()"
        )
        return scale, left, top

    def place(self, point: Point) -> tuple[int, int]:
        """The whole pixel of the window nearest to a point of the image."""
        scale, left, top = self.view
        return round(point[0] * scale + left), round(point[1] * scale + top)

    def stroke(self, points: Sequence[Point], *, hold: Sequence[str] = (), up: bool = True) -> list[Point]:
        """Draw through points; returns them as the page heard them, exactly. up: False leaves the button down."""
        scale, left, top = self.view
        places = [(round(x * scale + left), round(y * scale + top)) for x, y in points]
        for key in hold:
            self.page.keyboard.down(key)
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place)
        if up:
            self.page.mouse.up()
            for key in hold:
                self.page.keyboard.up(key)
        return [((x - left) / scale, (y - top) / scale) for x, y in places]

    def click(self, point: Point, **words: Any) -> Point:
        """Click; returns where, as the page heard it."""
        scale, left, top = self.view
        x, y = self.place(point)
        self.page.mouse.click(x, y, **words)
        return (x - left) / scale, (y - top) / scale

    def saved(self) -> "Desk":
        """Wait until everything is at the server."""
        self.page.wait_for_function(
            "() => window.terrazzo.editor.sync.waiting === 0 && window.terrazzo.state.saved.state === 'saved'",
            timeout=1000 * WAIT,
        )
        return self

    def kept(self) -> "Desk":
        """Wait until everything is in the journal, or at the server."""
        self.page.wait_for_function(
            "() => [...window.terrazzo.editor.sync.lanes.values()].every((one) => one.drawn === 0)",
            timeout=1000 * WAIT,
        )
        return self

    def quiet(self, *, but: str = "(?!)") -> None:
        """Assert that nothing was complained of, but what `but` matches, and that no other machine was asked."""
        complaints = [line for line in self.complaints if not re.search(but, line)]
        assert not complaints, complaints
        others = [
            url
            for url in self.asked
            if not url.startswith((self.server.url, f"blob:{self.server.url}", "data:"))
        ]
        assert not others, others

    def _heard(self, message: "ConsoleMessage") -> None:
        if message.type == "error":
            place = message.location.get("url", "").removeprefix(self.server.url)
            self.complaints.append(f"{message.text} ({place})" if place else message.text)


class Mortal:
    """A Chromium of its own, with a profile that stays: a process that can be killed, and started again."""

    def __init__(self, running: "Playwright", profile: Path) -> None:
        self.running, self.profile = running, profile
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "BrowserContext":
        """Start it; returns the context of its profile."""
        told = self.profile / "DevToolsActivePort"
        told.unlink(missing_ok=True)
        command = [executable(), "--headless=new", *ARGUMENTS, "--remote-debugging-port=0", "--no-first-run"]
        self.process = subprocess.Popen(
            [*command, f"--user-data-dir={self.profile}", "--window-size=1000,720", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        until = time.monotonic() + WAIT
        while not (told.exists() and told.read_text().count("\n")):
            assert time.monotonic() < until, "Chromium did not start"
            time.sleep(0.02)
        browser = self.running.chromium.connect_over_cdp(f"http://127.0.0.1:{told.read_text().split()[0]}")
        return browser.contexts[0]

    def kill(self) -> None:
        """SIGKILL to it and all its processes."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def __enter__(self) -> "Mortal":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
