"""G2: the server is killed at random moments while somebody draws; what it acknowledged is there when it is back.

A page is played over HTTP: it posts strokes one after the other, remembers which were acknowledged, and after a kill
posts the one that was under way again, with the number it had. In the end the label is what all strokes make, by NumPy.
"""

import base64
import http.client
import json
import os
import random
import re
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelled import make_project
from terrazzo.project import open_project
from terrazzo.project.tiles import TILE

HW = (TILE + 8, TILE + 8)
A = "photos/a.png"
OBJECTS = [
    {"id": one, "category_id": category, "source": "manual", "attributes": {}}
    for one, category in ((1, 1), (3, 3))
]
HEADERS = {"X-Terrazzo": "1", "Content-Type": "application/json"}


class Server:
    """`terrazzo label` as a process of its own."""

    def __init__(self, folder: Path) -> None:
        command = [
            sys.executable,
            "-m",
            "terrazzo",
            "label",
            str(folder / "street.db"),
            "--port",
            "0",
            "--no-browser",
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found, f"the server did not start: {line}"
        self.port = int(found[1])

    def end(self, number: int) -> None:
        """Send a signal, and wait."""
        os.kill(self.process.pid, number)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Page:
    """Somebody who draws stroke after stroke, and is told of each."""

    def __init__(self) -> None:
        self.mask = np.zeros(HW, np.uint16)
        self.revision, self.acknowledged = 0, 0
        self.port = 0

    def stroke(self, number: int) -> np.ndarray:
        """The upper left tile after so many strokes."""
        tile = self.mask[:TILE, :TILE].copy()
        tile[number % 500, : 1 + number % TILE] = 1 + 2 * (number % 2)
        return tile

    def draw(self, until: threading.Event) -> None:
        """Draw until the server is gone."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            while not until.is_set():
                self.post(connection)
        except (OSError, http.client.HTTPException):
            return
        finally:
            connection.close()

    def post(self, connection: http.client.HTTPConnection) -> dict[str, Any]:
        """Post the next stroke, or the one whose answer did not come."""
        number = self.acknowledged
        tile = self.stroke(number)
        data = base64.b64encode(zlib.compress(tile.astype("<u2").tobytes(), 1)).decode()
        tiles = [{"row": 0, "col": 0, "data": data}]
        value = {"client_id": "page", "seq": number, "base_revision": self.revision, "tiles": tiles,
                 "annotations": OBJECTS, "tool": "brush", "ms": 5}  # fmt: skip
        connection.request(
            "POST", "/api/v1/projects/street/samples/1/ops", json.dumps(value).encode(), HEADERS
        )
        response = connection.getresponse()
        told = json.loads(response.read())
        assert response.status == 200, told
        self.revision, self.acknowledged = told["revision"], number + 1
        self.mask[:TILE, :TILE] = tile
        return dict(told)


@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.long)])
def test_what_the_server_acknowledged_survives_every_kill(tmp_path: Path, kills: int) -> None:
    make_project(tmp_path, hw=HW, names=(A,)).close()
    dice = random.Random(0)
    page, replays, unacknowledged = Page(), 0, 0
    for kill in range(kills):
        server = Server(tmp_path)
        page.port = server.port
        before = page.acknowledged
        stop = threading.Event()
        drawing = threading.Thread(target=page.draw, args=(stop,))
        drawing.start()
        while page.acknowledged == before and drawing.is_alive():
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.1))
        server.end(signal.SIGKILL)
        stop.set()
        drawing.join(30)
        assert page.acknowledged > before, "nothing was drawn"
        with open_project(tmp_path / "street.db") as project:
            assert project.store.damages() == []
            mask, head = project.read_mask(A), project.sample(A).head
        assert head - page.revision in (0, 1), f"kill {kill}: {page.revision} was acknowledged, {head} stands"
        wanted = page.mask.copy()
        if head > page.revision:  # written, and its answer lost
            wanted[:TILE, :TILE] = page.stroke(page.acknowledged)
            unacknowledged += 1
        assert mask.any() and (mask == wanted).all(), f"kill {kill}"
    server = Server(tmp_path)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    replays += page.post(connection)["is_replay"]
    connection.request("GET", "/api/v1/projects/street/samples/1/tiles")
    body = connection.getresponse().read()
    connection.close()
    server.end(signal.SIGTERM)
    (length,) = struct.unpack_from("<I", body)
    tile = np.frombuffer(zlib.decompress(body[4 : 4 + length]), "<u2").reshape(TILE, TILE)
    assert (tile == page.mask[:TILE, :TILE]).all()
    assert not (tmp_path / "street.db-wal").exists(), "an end in order works the log into the file"
    print(f"{kills} kills of the server, {page.acknowledged} strokes acknowledged, none lost; "
          f"{unacknowledged} were written and their answer lost, and were not done twice")  # fmt: skip
