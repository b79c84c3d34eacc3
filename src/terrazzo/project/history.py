"""The history of a label: every revision there ever was, and the ways back.

Nothing is ever removed from it: undoing, redoing and restoring write a new revision with an old tree. Each revision
knows which one an undo leads to and which one a redo does, so both work in the next session as they did in the last.
They go back and forth over what stands, whoever drew it; whoever undoes says which revision they see.
"""

import sqlite3
from dataclasses import dataclass

from terrazzo.errors import StaleRevisionError, UsageError
from terrazzo.project import categories, statuses
from terrazzo.project.consistency import refuse_loose, settled
from terrazzo.project.labels import Labels
from terrazzo.project.operations import Written
from terrazzo.project.samples import Entry, entry
from terrazzo.project.store import Store
from terrazzo.project.tiles import Tiles


@dataclass(frozen=True)
class Revision:
    """One line of the history of a label."""

    number: int
    """1, 2, … in the order in which they were written."""
    parent: int
    """The revision that it changed; 0: the state before anybody drew."""
    tree_hash: str
    """Of the whole label, hex."""
    kind: str
    """write, branch (refused, and kept), undo, redo, restore, or migrate (categories were merged)."""
    tool: str
    """What it was drawn with."""
    author: str | None
    """Who drew."""
    ms: int
    """How long that took."""
    at: str
    """When, UTC."""


class History:
    """The histories of one project's labels."""

    def __init__(self, store: Store, tiles: Tiles, labels: Labels) -> None:
        self._store, self._tiles, self._labels = store, tiles, labels

    def of(self, name: str, *, before: int | None = None, most: int | None = None) -> list[Revision]:
        """Return the revisions of a label, the newest first, branches among them.

        before: those older than this one; most: so many at most.
        """
        with self._store.reading() as db:
            rows = db.execute(
                "SELECT number, parent, hex(tree), kind, tool, author, ms, at FROM revisions WHERE sample = ? "
                "AND number < ? ORDER BY number DESC LIMIT ?",
                (entry(db, name).id, 1 << 62 if before is None else before, -1 if most is None else most),
            ).fetchall()
        return [Revision(n, parent, tree.lower(), *rest) for n, parent, tree, *rest in rows]

    def restore(
        self, name: str, revision: int, *, base_revision: int | None = None, author: str | None = None
    ) -> Written:
        """Let an old revision, or a branch, or 0 (nobody drew), stand again, as a new revision.

        base_revision: the one that whoever asks sees; where another stands by now, StaleRevisionError.
        """
        with self._store.transaction() as db:
            one = self._current(db, name, base_revision)
            return self._go(db, one, revision, kind="restore", undo_to=one.head, redo_to=None, author=author)

    def undo(self, name: str, *, base_revision: int | None = None, author: str | None = None) -> Written:
        """Take the last change back; UsageError where there is none. Raises as `restore`."""
        with self._store.transaction() as db:
            one = self._current(db, name, base_revision)
            target, _ = self._ways(db, one, one.head)
            if target is None:
                raise UsageError(f"There is nothing to undo in the label of {name!r}.")
            undo_to, _ = self._ways(db, one, target)
            return self._go(db, one, target, kind="undo", undo_to=undo_to, redo_to=one.head, author=author)

    def redo(self, name: str, *, base_revision: int | None = None, author: str | None = None) -> Written:
        """Take the last undo back; UsageError where there is none, or something was drawn since."""
        with self._store.transaction() as db:
            one = self._current(db, name, base_revision)
            _, target = self._ways(db, one, one.head)
            if target is None:
                raise UsageError(f"There is nothing to redo in the label of {name!r}.")
            undo_to, redo_to = self._ways(db, one, target)
            return self._go(db, one, target, kind="redo", undo_to=undo_to, redo_to=redo_to, author=author)

    def _current(self, db: sqlite3.Connection, name: str, base_revision: int | None) -> Entry:
        one = entry(db, name)
        if base_revision not in (None, one.head):
            error = StaleRevisionError(
                f"The label of {name!r} was changed by somebody else.",
                found=f"revision {one.head} stands, not {base_revision}",
                hint="Nothing was changed. Look at it as it is now, then do it again.",
            )
            error.current = one.head
            raise error
        return one

    def _ways(self, db: sqlite3.Connection, one: Entry, number: int) -> tuple[int | None, int | None]:
        """Where undo and redo lead from a revision."""
        row = db.execute(
            "SELECT undo_to, redo_to FROM revisions WHERE sample = ? AND number = ?", (one.id, number)
        ).fetchone()
        return (None, None) if row is None else (row[0], row[1])

    def _go(
        self,
        db: sqlite3.Connection,
        one: Entry,
        number: int,
        *,
        kind: str,
        undo_to: int | None,
        redo_to: int | None,
        author: str | None,
    ) -> Written:
        tree = self._labels.tree(db, one, number)
        where = repr(one.name)
        self._tiles.check(db, tree.tiles, tree.size_hw, where=where)
        there = categories.read(db)
        tree = settled(db, self._tiles, tree, there, where=where)
        refuse_loose(db, self._tiles, tree, there, where=where)
        new = self._labels.append(
            db, one, tree, kind=kind, parent=one.head, author=author, undo_to=undo_to, redo_to=redo_to
        )
        statuses.change(db, one.id, "in_progress", author=author, is_import=True)
        return Written(new, tree.hash.hex())
