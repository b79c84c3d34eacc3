"""What people say about a pixel of an image, and to each other, until it is resolved."""

import sqlite3
from dataclasses import dataclass

from terrazzo.errors import UsageError
from terrazzo.project.samples import entry
from terrazzo.project.store import Store, now

MAX_TEXT = 10_000  # characters


@dataclass(frozen=True)
class Comment:
    """One thing that somebody said."""

    author: str | None
    text: str
    at: str


@dataclass(frozen=True)
class Issue:
    """A talk about one pixel."""

    id: int
    """Its number in the project."""
    sample: str
    """On which sample."""
    x: int
    """The pixel's column, upright."""
    y: int
    """The pixel's row, upright."""
    comments: tuple[Comment, ...]
    """The oldest first."""
    resolved_at: str | None
    """When; None while it is open."""
    resolved_by: str | None
    """By whom."""


class Issues:
    """The issues of one project."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def of(self, name: str | None = None, *, resolved: bool = False) -> list[Issue]:
        """Return the open issues of a sample, or of all; resolved: those that are settled too."""
        with self._store.reading() as db:
            wanted = None if name is None else entry(db, name).id
            rows = db.execute(
                "SELECT issues.id, name, x, y, resolved_at, resolved_by FROM issues "
                "JOIN samples ON samples.id = issues.sample WHERE (?1 IS NULL OR sample = ?1) "
                "AND (?2 OR resolved_at IS NULL) ORDER BY issues.id",
                (wanted, int(resolved)),
            ).fetchall()
            return [
                Issue(number, sample, x, y, _comments(db, number), resolved_at, resolved_by)
                for number, sample, x, y, resolved_at, resolved_by in rows
            ]

    def add(self, name: str, x: int, y: int, text: str, *, author: str | None = None) -> Issue:
        """Open an issue at column `x`, row `y` of a sample's upright image."""
        with self._store.transaction() as db:
            one = entry(db, name)
            if type(x) is not int or type(y) is not int or not (0 <= x < one.width and 0 <= y < one.height):
                raise UsageError(
                    f"There is no pixel ({x!r:.20}, {y!r:.20}) in {name!r}.",
                    expected=f"x from 0 to {one.width - 1}, y from 0 to {one.height - 1}",
                )
            row = db.execute("INSERT INTO issues (sample, x, y) VALUES (?, ?, ?)", (one.id, x, y))
            number = int(row.lastrowid or 0)
            self.reply(number, text, author=author)
            return self._get(db, number)

    def reply(self, number: int, text: str, *, author: str | None = None) -> Issue:
        """Say something to an issue."""
        if not isinstance(text, str) or not text.strip() or len(text) > MAX_TEXT:
            raise UsageError(f"A comment has 1 to {MAX_TEXT:,} characters.", found=f"{text!r:.40}")
        with self._store.transaction() as db:
            self._get(db, number)
            values = (number, author, text.strip(), now())
            db.execute("INSERT INTO comments (issue, author, text, at) VALUES (?, ?, ?, ?)", values)
            return self._get(db, number)

    def resolve(self, number: int, *, author: str | None = None, is_open: bool = False) -> Issue:
        """Settle an issue; is_open: open it again."""
        with self._store.transaction() as db:
            self._get(db, number)
            values = (None, None) if is_open else (now(), author)
            db.execute("UPDATE issues SET resolved_at = ?, resolved_by = ? WHERE id = ?", (*values, number))
            return self._get(db, number)

    def _get(self, db: sqlite3.Connection, number: int) -> Issue:
        found = [one for one in self.of(resolved=True) if one.id == number]
        if not found:
            raise UsageError(f"There is no issue {number!r:.20}.")
        return found[0]


def _comments(db: sqlite3.Connection, number: int) -> tuple[Comment, ...]:
    rows = db.execute("SELECT author, text, at FROM comments WHERE issue = ? ORDER BY id", (number,))
    return tuple(Comment(*row) for row in rows)
