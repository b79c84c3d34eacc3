"""A process that writes is killed at random moments: what it was told is written, is there; and two that write at once.

The writer tells every revision it was told of, a line each, before it asks for the next. Whatever the moment of the
kill, the label then is the one of the last line, or of the operation that was under way and not yet told.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from labelled import make_project
from terrazzo.project import open_project
from terrazzo.project.tiles import TILE

A = "photos/a.png"
HW = (TILE + 8, TILE + 8)
WRITER = """
import sys
import numpy as np
from terrazzo.project import open_project
from terrazzo.project.operations import Operation

project, first = open_project(sys.argv[1]), int(sys.argv[2])
for stroke in range(first, 1_000_000):
    base = project.read_objects("photos/a.png")
    tile = base.object_map[:512, :512].copy()
    tile[stroke % 500, : stroke % 512] = 1 + 2 * (stroke % 2)
    annotations = [{"id": 1, "category_id": 1}, {"id": 3, "category_id": 3}]
    operation = Operation(base.revision, {(0, 0): tile}, annotations, client_id="page", seq=stroke)
    written = project.write("photos/a.png", operation)
    print(stroke, written.revision, flush=True)
"""


def state_after(strokes: int) -> np.ndarray:
    """What so many strokes make, by NumPy."""
    mask = np.zeros(HW, np.uint16)
    for stroke in range(strokes):
        mask[stroke % 500, : stroke % 512] = 1 + 2 * (stroke % 2)
    return mask


@pytest.mark.parametrize("kills", [10, pytest.param(100, marks=pytest.mark.long)])
def test_what_was_acknowledged_survives_every_kill(tmp_path: Path, kills: int) -> None:
    make_project(tmp_path, hw=HW, names=(A,)).close()
    dice = random.Random(0)
    done = 0
    for kill in range(kills):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path / "street.db", str(done)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        lines = [writer.stdout.readline()]  # it is up
        time.sleep(dice.uniform(0, 0.08))
        os.kill(writer.pid, signal.SIGKILL)
        lines += writer.stdout.read().splitlines(keepends=True)
        writer.wait()
        writer.stdout.close()
        told = [tuple(map(int, line.split())) for line in lines if line.endswith("\n")]
        assert told, "the writer never wrote"
        with open_project(tmp_path / "street.db") as project:
            assert project.store.damages() == []
            mask, head = project.read_mask(A), project.sample(A).head
        last, revision = told[-1]
        assert head in (revision, revision + 1), (
            f"kill {kill}: revision {revision} was acknowledged, {head} stands"
        )
        done = last + 1 + (head - revision)
        assert (mask == state_after(done)).all(), f"kill {kill}"
    print(f"{kills} kills, {done} strokes, none lost")


def test_two_processes_that_draw_at_once_lose_nothing(tmp_path: Path) -> None:
    """Each on its own tile, from the revision it saw last: all merge; and whole masks of another sample do not tear."""
    make_project(tmp_path, hw=HW, names=(A, "photos/b.png")).close()
    code = """
import sys
import numpy as np
from terrazzo.project import open_project
from terrazzo.project.operations import Operation

project, row = open_project(sys.argv[1]), int(sys.argv[2])
tile = np.zeros((512 if row == 0 else 8, 512), np.uint16)
base = 0
for stroke in range(25):
    tile[stroke % 8, stroke : stroke + 2] = 1
    operation = Operation(base, {(row, 0): tile}, [{"id": 1, "category_id": 1}], client_id=f"page {row}", seq=stroke)
    base = project.write("photos/a.png", operation).revision
    project.write_mask("photos/b.png", np.full((520, 520), 1 + 2 * row, np.uint16))
"""
    running = [
        subprocess.Popen([sys.executable, "-c", code, tmp_path / "street.db", str(row)]) for row in (0, 1)
    ]
    assert [process.wait() for process in running] == [0, 0]
    expected = np.zeros(HW, np.uint16)
    for stroke in range(25):
        expected[stroke % 8, stroke : stroke + 2] = 1
        expected[TILE + stroke % 8, stroke : stroke + 2] = 1
    with open_project(tmp_path / "street.db") as project:
        assert (project.read_mask(A) == expected).all()
        assert len(project.revisions(A)) == 50 and len(project.revisions("photos/b.png")) == 50
        for one in project.revisions("photos/b.png"):
            assert len(np.unique(project.read_mask("photos/b.png", one.number))) == 1
        assert project.store.damages() == []
