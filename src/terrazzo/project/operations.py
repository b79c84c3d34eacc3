"""Operations: what a client asks for, and what became of it; done once however often it is asked.

The answer to an operation may be lost on its way. A client that asks again with the same (client_id, seq) is told what
became of it then; the same numbers with another content are refused, for one of the two would be lost.
"""

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import UsageError
from terrazzo.project.samples import Entry
from terrazzo.project.tiles import Place
from terrazzo.project.trees import Annotation, canonical

MAX_SEQ = (1 << 53) - 1  # what JavaScript counts to
MAX_NAME = 200  # characters of a client's name
MAX_MS = 24 * 3600 * 1000


@dataclass(frozen=True, eq=False)
class Operation:
    """What one stroke, click or accepted proposal makes of a label."""

    base_revision: int
    """The revision that whoever drew saw; 0 for a label that nobody had begun."""
    tiles: Mapping[Place, NDArray[Any]] = field(default_factory=dict)
    """(row, column) in the grid of 512-pixel tiles -> the whole tile, object ids."""
    annotations: Sequence[Annotation | Mapping[str, Any]] | None = None
    """All objects of the label afterwards; None: as they were."""
    client_id: str | None = None
    """Whose operation; with `seq` it is done once, however often it comes."""
    seq: int = 0
    """Its number with that client."""
    tool: str = "manual"
    """What it was drawn with."""
    ms: int = 0
    """How long that took, milliseconds of work."""
    author: str | None = None
    """Who drew."""


@dataclass(frozen=True)
class Written:
    """What became of an operation."""

    revision: int
    """Its number."""
    tree_hash: str
    """Of the label afterwards, hex."""
    is_merged: bool = False
    """True where others had written since the revision it saw."""
    is_replay: bool = False
    """True where it had been done before."""


@dataclass(frozen=True)
class Outcome:
    """What became of an operation, accepted or not."""

    written: Written
    """The revision, or the branch that keeps what was refused."""
    current: int
    """The revision that stood afterwards."""
    is_refused: bool = False
    """True where somebody else had changed the same."""


def checked(operation: Operation) -> None:
    """Raise UsageError for numbers and names that cannot be."""
    client, seq, ms = operation.client_id, operation.seq, operation.ms
    if client is not None and not (isinstance(client, str) and 0 < len(client) <= MAX_NAME):
        raise UsageError(f"A client_id is a text of up to {MAX_NAME} characters.", found=f"{client!r:.80}")
    if type(seq) is not int or not 0 <= seq <= MAX_SEQ:
        raise UsageError("The seq of an operation is a whole number from 0 on.", found=f"{seq!r:.80}")
    if type(ms) is not int or not 0 <= ms <= MAX_MS:
        raise UsageError(
            "The time of an operation is whole milliseconds, a day at most.", found=f"{ms!r:.80}"
        )
    if len(operation.tool) > MAX_NAME or len(operation.author or "") > MAX_NAME:
        raise UsageError(f"Names of tools and authors have at most {MAX_NAME} characters.")


def digest_of(sample: Entry, operation: Operation) -> bytes:
    """Return what tells an operation that comes again from another one."""
    total = hashlib.sha256(canonical([sample.id, operation.base_revision, operation.tool]))
    for place, tile in sorted(operation.tiles.items()):
        pixels = np.asarray(tile)
        total.update(canonical([*map(int, place), *pixels.shape]) + pixels.astype("<u4").tobytes())
    if operation.annotations is not None:
        listed = [
            one.to_json() if isinstance(one, Annotation) else dict(one) for one in operation.annotations
        ]
        total.update(canonical(listed))
    return total.digest()


def replayed(db: sqlite3.Connection, operation: Operation, digest: bytes) -> Outcome | None:
    """Return what became of an operation when it came before; None for one that is new."""
    if operation.client_id is None:
        return None
    row = db.execute(
        "SELECT operations.digest, revision, current, is_refused, tree FROM operations "
        "JOIN revisions ON revisions.sample = operations.sample AND number = revision WHERE client = ? AND seq = ?",
        (operation.client_id, operation.seq),
    ).fetchone()
    if row is None:
        return None
    known, revision, current, is_refused, tree = row
    if known != digest:
        raise UsageError(
            f"The client {operation.client_id!r:.80} used the number {operation.seq} twice, for two operations.",
            expected="a number of its own for every operation",
            hint="Nothing was written. Ask again with the next number.",
        )
    return Outcome(Written(revision, tree.hex(), is_replay=True), current, bool(is_refused))


def remember(
    db: sqlite3.Connection, sample: Entry, operation: Operation, digest: bytes, outcome: Outcome
) -> None:
    """Keep what became of an operation, in its own transaction."""
    if operation.client_id is not None:
        values = (operation.client_id, operation.seq, digest, sample.id, outcome.written.revision)
        db.execute(
            "INSERT INTO operations VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*values, outcome.current, int(outcome.is_refused)),
        )
