"""The samples of a project as a list that is turned page by page: filtered, ordered, counted by SQLite alone.

A page ends with a cursor, the place in the order where the next begins, so that a page costs the same wherever it lies
and samples that come or go meanwhile neither repeat nor hide others.
"""

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from terrazzo.errors import UsageError, unknown_name
from terrazzo.project import orders
from terrazzo.project.leases import TTL
from terrazzo.project.queue import Queue
from terrazzo.project.samples import COLUMNS, Entry
from terrazzo.project.statuses import Status, known
from terrazzo.project.store import Store

ORDERS = ("name", "priority", *orders.ORDERS)
PRIORITY: tuple[Status, ...] = (
    "rejected",
    "in_progress",
    "prelabelled",
    "todo",
    "labelled",
    "skipped",
    "reviewed",
)
FRESH: tuple[Status, ...] = ("in_progress", "prelabelled", "todo")  # nobody finished it, nobody judged it
MOST = 1000  # samples on a page
LAST = "coalesce(q.place, 1 << 60)"
KEYS = {
    "name": "0",
    "priority": "CASE s.status "
    + " ".join(f"WHEN '{one}' THEN {at}" for at, one in enumerate(PRIORITY))
    + " END",
}
COLUMNS_OF_S = ", ".join(f"s.{name}" for name in COLUMNS.split(", "))
FROM = """
FROM samples AS s
LEFT JOIN leases AS l ON l.sample = s.id AND l.until > :now AND l.until <= :now + :ttl
LEFT JOIN queue AS q ON q.sample = s.id AND q.labelset = :labelset AND q.ordering = :order
"""
ISSUES = "(SELECT count(*) FROM issues WHERE issues.sample = s.id AND resolved_at IS NULL)"


@dataclass(frozen=True)
class Line:
    """A sample in a list."""

    entry: Entry
    """The sample."""
    client: str | None
    """Which page has the lease on it."""
    holder: str | None
    """Whose page that is."""
    num_issues: int
    """Open issues."""
    score: float | None
    """The higher, the sooner; where the order has scores."""
    why: str | None
    """Why it has its place, in words."""


@dataclass(frozen=True)
class Page:
    """A part of a list."""

    lines: tuple[Line, ...]
    """The samples."""
    next: str | None
    """Where the next page begins; None at the end."""
    total: int
    """How many samples the whole list has."""


class Listing:
    """The lists of one project's samples."""

    def __init__(self, store: Store, queue: Queue, clock: Callable[[], float]) -> None:
        self._store, self._queue, self._clock = store, queue, clock

    def page(
        self,
        *,
        statuses: Sequence[str] = (),
        search: str | None = None,
        category: int | None = None,
        order: str = "name",
        after: str | None = None,
        limit: int = 100,
        drew: str | None = None,
        is_free: bool = False,
    ) -> Page:
        """Return a page of the samples that have one of these statuses (any, where none is named), this text in their
        name, this category drawn, and this author; is_free: that nobody holds.

        order: "name"; "priority", what waits for somebody first; or one of `orders`, as the newest model's queue has
        it, and then those that are in no queue. after: the `next` of the page before.
        """
        if order not in ORDERS:
            raise unknown_name("order", order, ORDERS)
        if not 1 <= limit <= MOST:
            raise UsageError(f"A page has 1 to {MOST:,} samples.", found=str(limit))
        words = self._words(order)
        where = ["1"]
        if statuses:
            where.append(f"s.status IN ({', '.join(f':status{at}' for at in range(len(statuses)))})")
            words |= {f"status{at}": known(one) for at, one in enumerate(statuses)}
        if drew is not None:
            where.append("s.author = :drew")
            words["drew"] = drew
        if is_free:
            where.append(
                "NOT EXISTS (SELECT 1 FROM leases WHERE leases.sample = s.id AND until > :now AND until <= :now + :ttl)"
            )
        if search:
            where.append("s.name LIKE :search ESCAPE '\\'")
            words["search"] = f"%{_escaped(search)}%"
        if category is not None:
            where.append(
                "EXISTS (SELECT 1 FROM holdings AS h WHERE h.sample = s.id AND h.category = :category)"
            )
            words["category"] = category
        key = self._key(order, words)
        filters = " AND ".join(where)
        with self._store.reading() as db:
            total = db.execute(f"SELECT count(*) FROM samples AS s WHERE {filters}", words).fetchone()[0]
            if after is not None:
                where.append(f"({key}, s.name) > (:key, :name)")
                words["key"], words["name"] = _place(after)
            rows = db.execute(
                f"SELECT {COLUMNS_OF_S}, l.client, l.author, {ISSUES}, q.score, q.why, {key} {FROM} "
                f"WHERE {' AND '.join(where)} ORDER BY {'' if order == 'name' else f'{key}, '}s.name LIMIT :limit",
                {**words, "limit": limit + 1},
            ).fetchall()
        lines = tuple(_line(row) for row in rows[:limit])
        more = json.dumps([rows[limit - 1][-1], lines[-1].entry.name]) if len(rows) > limit else None
        return Page(lines, more, total)

    def next(self, author: str, *, order: str = "name", after: int | None = None) -> Line | None:
        """Return the sample that `author` is to draw on next; None where all is done.

        What was rejected of theirs comes first; then what nobody finished; what was rejected of others at the very end,
        for it goes back to them. Samples that somebody holds are left out. after: the number of the one they come from:
        the order goes on there, and round to its beginning.
        """
        for statuses, drew in ((("rejected",), author), (FRESH, None), (("rejected",), None)):
            start = None if after is None else self._cursor(after, order)
            for cursor in [start, None] if start else [None]:
                page = self.page(
                    statuses=statuses, order=order, after=cursor, limit=2, drew=drew, is_free=True
                )
                found = [line for line in page.lines if line.entry.id != after]
                if found:
                    return found[0]
        return None

    def _cursor(self, number: int, order: str) -> str | None:
        words = self._words(order)
        with self._store.reading() as db:
            row = db.execute(
                f"SELECT {self._key(order, words)}, s.name {FROM} WHERE s.id = :id", {**words, "id": number}
            ).fetchone()
        return None if row is None else json.dumps(row)

    def _key(self, order: str, words: Mapping[str, Any]) -> str:
        if order == "random" and not words["labelset"]:
            return "s.sha256"  # as good as any dice
        return KEYS.get(order, LAST)

    def line(self, number: int, *, order: str = "name") -> Line:
        """Return the line of the sample with this number; UsageError where there is none."""
        with self._store.reading() as db:
            row = db.execute(
                f"SELECT {COLUMNS_OF_S}, l.client, l.author, {ISSUES}, q.score, q.why {FROM} WHERE s.id = :id",
                {**self._words(order), "id": number},
            ).fetchone()
        if row is None:
            raise unknown_name("sample", str(number), ())
        return _line(row)

    def _words(self, order: str) -> dict[str, Any]:
        return {"now": self._clock(), "ttl": TTL, "order": order, "labelset": self._queue.labelset()}


def _line(row: sqlite3.Row | tuple[Any, ...]) -> Line:
    width = COLUMNS.count(",") + 1
    return Line(Entry(*row[:width]), *row[width : width + 5])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _place(cursor: str) -> tuple[int | str, str]:
    try:
        key, name = json.loads(cursor)
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError("That is no cursor of a page.", found=f"{cursor!r:.80}") from error
    if type(key) not in (int, str) or not isinstance(name, str):
        raise UsageError("That is no cursor of a page.", found=f"{cursor!r:.80}")
    return key, name
