"""Categories merged and deleted, with all labels that have them: planned first, then done in one transaction."""

import sqlite3
from dataclasses import dataclass

from terrazzo.errors import UsageError
from terrazzo.project import audit
from terrazzo.project.categories import Categories, Category
from terrazzo.project.labels import Labels
from terrazzo.project.samples import COLUMNS, Entry
from terrazzo.project.store import Store
from terrazzo.project.tiles import Tiles


@dataclass(frozen=True)
class Plan:
    """What merging or deleting a category would touch."""

    category: Category
    """The one that would go."""
    into: Category | None
    """The one that its labels would belong to; None: it would be deleted."""
    samples: tuple[str, ...]
    """Whose labels have it."""
    objects: int
    """How many objects are of it."""
    pixels: int
    """How many pixels these have."""


class Migration:
    """Merging and deleting in one project."""

    def __init__(self, store: Store, tiles: Tiles, labels: Labels) -> None:
        self._store, self._tiles, self._labels = store, tiles, labels
        self._categories = Categories(store)

    def plan(self, name: str, into: str | None = None) -> Plan:
        """Return what `merge` of `name` into another category, or `delete`, would touch; nothing is changed."""
        with self._store.reading() as db:
            old = self._categories[name]
            heir = None if into is None else self._categories[into]
            if heir == old:
                raise UsageError(f"The category {name!r} cannot be merged into itself.")
            users, objects, pixels = [], 0, 0
            for one in _labelled(db):
                tree = self._labels.tree(db, one, one.head)
                own = [each.id for each in tree.annotations if each.category_id == old.id]
                if own:
                    counts = self._tiles.counts(db, tree.tiles)
                    users.append(one.name)
                    objects += len(own)
                    pixels += sum(counts.get(number, 0) for number in own)
        return Plan(old, heir, tuple(users), objects, pixels)

    def merge(self, name: str, into: str, *, author: str | None = None) -> Plan:
        """Give all labels of one category to another, and let the first go; returns what was touched.

        Every label that has it gets a new revision; history and releases keep the old one.
        """
        with self._store.transaction() as db:
            planned = self.plan(name, into)
            assert planned.into is not None
            self._let_go(db, planned, author)
            for one in _labelled(db):
                if one.name in planned.samples:
                    self._labels.migrate(db, one, author=author)
        return planned

    def delete(self, name: str, *, author: str | None = None) -> Plan:
        """Let a category go that no label has; UsageError where one does."""
        with self._store.transaction() as db:
            planned = self.plan(name)
            if planned.objects:
                shown = ", ".join(planned.samples[:8]) + (", …" if len(planned.samples) > 8 else "")
                raise UsageError(
                    f"The category {name!r} is used, and was not deleted.",
                    found=f"{planned.objects:,} objects of {planned.pixels:,} pixels in {shown}",
                    hint=f"Merge it into another one: project.merge_category({name!r}, into=…).",
                )
            self._let_go(db, planned, author)
        return planned

    def _let_go(self, db: sqlite3.Connection, planned: Plan, author: str | None) -> None:
        heir = None if planned.into is None else planned.into.id
        db.execute(
            "UPDATE categories SET is_deleted = 1, merged_into = ? WHERE id = ?", (heir, planned.category.id)
        )
        action = "category deleted" if heir is None else "category merged"
        audit.note(
            db, action, author=author, id=planned.category.id, name=planned.category.name, into=heir,
            samples=len(planned.samples),
        )  # fmt: skip


def _labelled(db: sqlite3.Connection) -> list[Entry]:
    rows = db.execute(f"SELECT {COLUMNS} FROM samples WHERE head > 0 ORDER BY name").fetchall()
    return [Entry(*row) for row in rows]
