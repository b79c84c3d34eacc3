"""What was decided in a project, when and by whom: statuses, roles, categories, releases, leases that were taken over.

Strokes are not here: history has them.
"""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from terrazzo.project.store import Store, now


@dataclass(frozen=True)
class Deed:
    """One line of the log."""

    at: str
    """When, UTC."""
    author: str | None
    """Who, as they called themselves."""
    action: str
    """Such as "status"."""
    sample: str | None
    """Of which sample."""
    detail: Any
    """What else, plain JSON."""
    number: int = 0
    """Of the line."""


def note(
    db: sqlite3.Connection,
    action: str,
    *,
    author: str | None = None,
    sample: int | None = None,
    **detail: Any,
) -> None:
    """Add a line to the log, in the transaction of what it tells of."""
    db.execute(
        "INSERT INTO audit (at, author, action, sample, detail) VALUES (?, ?, ?, ?, ?)",
        (now(), author, action, sample, json.dumps(detail, sort_keys=True, ensure_ascii=False)),
    )


def note_roles(db: sqlite3.Connection, roles: Mapping[str, str], *, author: str | None = None) -> None:
    """Keep who may do what, and add a line to the log for everybody whose role is another one since the last time."""
    row = db.execute("SELECT value FROM about WHERE key = 'roles'").fetchone()
    before: dict[str, str] = {} if row is None else json.loads(row[0])
    for name in sorted({*before, *roles}):
        if before.get(name) != roles.get(name):
            note(db, "role", author=author, name=name, old=before.get(name), new=roles.get(name))
    if before != dict(roles):
        text = json.dumps(dict(roles), sort_keys=True, ensure_ascii=False)
        db.execute("INSERT OR REPLACE INTO about VALUES ('roles', ?)", (text,))


def log(store: Store, *, most: int = 1000, before: int | None = None) -> list[Deed]:
    """Return the last lines of the log, the newest first; before: those older than the line of this number."""
    with store.reading() as db:
        rows = db.execute(
            "SELECT audit.id, audit.at, audit.author, action, name, detail FROM audit "
            "LEFT JOIN samples ON samples.id = sample WHERE audit.id < ? ORDER BY audit.id DESC LIMIT ?",
            (1 << 62 if before is None else before, most),
        ).fetchall()
    return [
        Deed(at, author, action, sample, json.loads(detail), number)
        for number, at, author, action, sample, detail in rows
    ]
