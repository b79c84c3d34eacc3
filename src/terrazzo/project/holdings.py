"""What the labels that stand hold: for every sample, how many pixels of each category; for lists, sums and checks.

It is told by the tiles' counts, without unpacking any, and kept in a table that follows behind: whoever asks brings it
up to date first, for the samples that were drawn on since. It can be made anew from the labels at any time.
"""

import sqlite3
from typing import Any

from terrazzo.errors import DamagedLabelError
from terrazzo.project.labels import Labels
from terrazzo.project.samples import COLUMNS, Entry
from terrazzo.project.store import Store
from terrazzo.project.tiles import Tiles

AT_ONCE = 200  # samples brought up to date in one transaction


class Holdings:
    """The pixels of each category in one project's labels."""

    def __init__(self, store: Store, tiles: Tiles, labels: Labels) -> None:
        self._store, self._tiles, self._labels = store, tiles, labels

    def refresh(self) -> int:
        """Bring the table up to date, where the project can be written; returns how many samples were looked at."""
        looked = 0
        if self._store.is_read_only:
            return looked
        while True:
            with self._store.reading() as db:
                rows = _behind(db)
            if not rows:
                return looked
            with self._store.transaction() as db:
                for row in _behind(db):
                    self._look(db, Entry(*row))
                    looked += 1

    def pixels(self) -> dict[int, int]:
        """Return {category's number: pixels} over all labels; 0: unlabelled, of the samples that were begun."""
        self.refresh()
        with self._store.reading() as db:
            return dict(db.execute("SELECT category, sum(pixels) FROM holdings GROUP BY category"))

    def of(self, number: int) -> dict[int, int]:
        """Return {category's number: pixels} of a sample; {} where nobody drew."""
        self.refresh()
        with self._store.reading() as db:
            return dict(db.execute("SELECT category, pixels FROM holdings WHERE sample = ?", (number,)))

    def _look(self, db: sqlite3.Connection, one: Entry) -> None:
        total: dict[int, int] = {}
        try:
            tree = self._labels.tree(db, one, one.head)
        except DamagedLabelError:
            total = {}  # it opens read-only and says so; it counts nowhere
        else:
            counts = self._tiles.counts(db, tree.tiles)
            for annotation in tree.annotations:
                pixels = counts.get(annotation.id, 0)
                if pixels:
                    total[annotation.category_id] = total.get(annotation.category_id, 0) + pixels
            total[0] = one.height * one.width - sum(total.values())
        db.execute("DELETE FROM holdings WHERE sample = ?", (one.id,))
        db.executemany(
            "INSERT INTO holdings VALUES (?, ?, ?)",
            [(one.id, number, pixels) for number, pixels in total.items()],
        )
        db.execute("INSERT OR REPLACE INTO held VALUES (?, ?)", (one.id, one.head))


def _behind(db: sqlite3.Connection) -> list[tuple[Any, ...]]:
    columns = ", ".join(f"s.{name}" for name in COLUMNS.split(", "))
    return db.execute(
        f"SELECT {columns} FROM samples AS s LEFT JOIN held ON held.sample = s.id "
        "WHERE s.head > 0 AND held.revision IS NOT s.head LIMIT ?",
        (AT_ONCE,),
    ).fetchall()
