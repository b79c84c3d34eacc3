"""A labelling server in a thread of the test's own process, on a real socket, over a project made for the test."""

import base64
import json
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asking import Answer, ask
from labelled import make_project
from terrazzo.labelling.access import Access, Person
from terrazzo.labelling.limits import Limits
from terrazzo.labelling.opening import Opened
from terrazzo.labelling.running import run
from terrazzo.labelling.shelf import Shelf
from terrazzo.project import Project
from terrazzo.project.tiles import TILE
from terrazzo.web.doors import names_of
from terrazzo.web.server import bind

ME = Person("ann", "admin")
API = "/api/v1"
OURS = {"X-Terrazzo": "1", "Content-Type": "application/json"}
BYTES = {"X-Terrazzo": "1", "Content-Type": "application/octet-stream"}
THINGS = [
    {"id": 1, "category_id": 1, "source": "manual", "attributes": {}},
    {"id": 2, "category_id": 2, "source": "manual", "attributes": {}},
]


@dataclass
class Client:
    """Somebody who asks, with what they send along every time."""

    port: int
    shelf: Shelf
    headers: dict[str, str] = field(default_factory=dict)
    project: str = "street"

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask for an absolute path, with these headers and no others."""
        return ask(self.port, method, path, body, {**self.headers, **(headers or {})})

    def get(self, path: str) -> Answer:
        """Ask for something of the project."""
        return self.ask("GET", f"{API}/projects/{self.project}{path}")

    def send(self, method: str, path: str, value: Any = None) -> Answer:
        """Change something of the project."""
        body = None if value is None else json.dumps(value).encode()
        return self.ask(method, f"{API}/projects/{self.project}{path}", body, OURS)

    def op(
        self,
        sample: int,
        tiles: Mapping[tuple[int, int], NDArray[Any]],
        annotations: Any = None,
        *,
        base: int,
        seq: int = 1,
        client: str = "page",
        tool: str = "brush",
    ) -> Answer:
        """Post one operation."""
        value = {
            "client_id": client,
            "seq": seq,
            "base_revision": base,
            "tiles": [
                {"row": row, "col": column, "data": packed(tile)} for (row, column), tile in tiles.items()
            ],
            "annotations": annotations,
            "tool": tool,
            "ms": 120,
        }
        return self.send("POST", f"/samples/{sample}/ops", value)

    def finished(self, job: str) -> Any:
        """Wait for a job; returns what is told of it."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            told = self.ask("GET", f"{API}/jobs/{job}").json
            if told["state"] not in ("waiting", "running"):
                return told
            time.sleep(0.02)
        raise AssertionError(f"the job {job} does not end")

    def object_map(self, sample: int, revision: int | None = None) -> NDArray[np.uint16]:
        """Return the object ids (H, W) of a label, put together by NumPy from what the server sends."""
        query = "" if revision is None else f"?revision={revision}"
        label = self.get(f"/samples/{sample}/label{query}").json
        body = self.get(f"/samples/{sample}/tiles{query}").body
        whole = np.empty((label["height"], label["width"]), np.uint16)
        at = 0
        for row in range(label["rows"]):
            for column in range(label["columns"]):
                (length,) = struct.unpack_from("<I", body, at)
                place = whole[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
                pixels = np.frombuffer(zlib.decompress(body[at + 4 : at + 4 + length]), "<u2")
                place[...] = pixels.reshape(place.shape)
                at += 4 + length
        assert at == len(body)
        return whole


def packed(tile: NDArray[Any]) -> str:
    """A tile as the page sends it."""
    return base64.b64encode(zlib.compress(np.ascontiguousarray(tile, "<u2").tobytes())).decode()


def refused(answer: Answer, status: int, kind: str) -> dict[str, Any]:
    """Look at a refusal: its status, its kind, and that it says what it is in our four parts."""
    told: dict[str, Any] = answer.json
    assert (answer.status, told["type"]) == (status, f"urn:terrazzo:{kind}"), told
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert told["title"] and told["detail"].startswith(told["title"]) and told["status"] == status
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    return told


@contextmanager
def label_served(
    folder: Path,
    *,
    project: Project | None = None,
    people: Mapping[str, Person] | None = None,
    limits: Limits | None = None,
    names: tuple[str, ...] = (),
) -> Iterator[Client]:
    """Serve folder/street.db until the block ends; people: {token: person}, or one admin without a token."""
    if project is None and not (folder / "street.db").exists():
        project = make_project(folder)
    if project is not None:
        project.close()
    stop = threading.Event()
    with bind("127.0.0.1", 0, command="") as listener:
        access = Access(names_of("127.0.0.1", names), None if people else ME, people or {})
        access.wrong_tokens = (limits or Limits()).wrong_tokens
        shelf = Shelf(folder, access, limits)

        def serve() -> None:
            try:
                run(shelf, Opened(folder, "street"), listener, links={}, stop=stop)
            finally:
                listener.close()  # whoever still asks is refused, and does not wait

        thread = threading.Thread(target=serve)
        thread.start()
        client = Client(listener.getsockname()[1], shelf)
        try:
            assert client.ask("GET", "/healthz").status == 200
            yield client
        finally:
            stop.set()
            thread.join(30)
            shelf.close()
    assert not thread.is_alive()
