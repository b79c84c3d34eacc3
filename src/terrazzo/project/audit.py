"""What was decided in a project, when and by whom: statuses, categories, releases, leases that were taken over.

Strokes are not here: history has them.
"""

import json
import sqlite3
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


def log(store: Store, *, most: int = 1000) -> list[Deed]:
    """Return the last lines of the log, the newest first."""
    with store.reading() as db:
        rows = db.execute(
            "SELECT audit.at, audit.author, action, name, detail FROM audit LEFT JOIN samples ON samples.id = sample "
            "ORDER BY audit.id DESC LIMIT ?",
            (most,),
        ).fetchall()
    return [
        Deed(at, author, action, sample, json.loads(detail)) for at, author, action, sample, detail in rows
    ]
