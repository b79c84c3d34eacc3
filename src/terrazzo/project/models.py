"""The models attached to a project: known by their hash, their classes mapped to its categories by name.

A model says classes, a project knows categories; which class is which category is a table that is made by equal names
and shown before it counts. A class without a category is added as one, or left out, as somebody says: its pixels are
then 0, "none". The table follows categories that are renamed or merged, for it holds their numbers. What a model said
stays when it is detached; only the list forgets it.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.classes import Color
from terrazzo.errors import UsageError, unknown_name
from terrazzo.project import audit, categories
from terrazzo.project.store import Store, now
from terrazzo.project.trees import SOURCE

Mapped = Mapping[str, int | None]  # class name -> category id; None: left out


@dataclass(frozen=True)
class Match:
    """One class of a model, and what it is in the project."""

    name: str
    """As the model calls it."""
    color: Color
    """As the model draws it."""
    category_id: int | None
    """The category of the same name; None where there is none, or it was left out."""
    similar: str | None = None
    """A category of the same letters ("Road", "road"), for people to look at; nothing is done with it."""


@dataclass(frozen=True)
class Attached:
    """A model of the project."""

    hash: str
    """What it is known by: the beginning of a sha256 over its weights, hex."""
    name: str
    """As people call it: the last part of its path."""
    path: str
    """Where it was attached from."""
    classes: tuple[tuple[str, Color], ...]
    """Its classes, by class id."""
    mapping: Mapped
    """What they are here."""
    report: Mapping[str, Any] | None
    """Its own validation, as `Report.to_json`; None where it has none."""
    at: str
    """When it was attached, UTC."""

    @property
    def labelset(self) -> str:
        """The name of what it predicts."""
        return f"model:{self.hash}"

    def table(self, there: Sequence[categories.Category]) -> NDArray[np.uint16]:
        """Return (K,) uint16: the category id of each class id, 0 for what was left out or is gone.

        there: all categories, the merged ones too, whose heirs then count.
        """
        heirs = categories.heirs(there)
        wanted = [self.mapping.get(name) for name, _ in self.classes]
        heads = [heirs.get(one) if one is not None else None for one in wanted]
        return np.array([0 if head is None else head.id for head in heads], np.uint16)


class Models:
    """The models attached to one project."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __len__(self) -> int:
        return len(self.all())

    def __getitem__(self, model: str) -> Attached:
        """Return the model with this hash (8 characters of it and more), labelset or name; UnknownNameError."""
        there = self.all()
        for one in there:
            if model in (one.hash, one.labelset, one.name) or (
                len(model) >= 8 and one.hash.startswith(model)
            ):
                return one
        raise unknown_name("model", model, [one.name for one in there])

    def all(self) -> list[Attached]:
        """Return the attached models, the newest first."""
        with self._store.reading() as db:
            rows = db.execute(
                "SELECT hash, name, path, classes, mapping, report, at FROM models WHERE NOT is_detached "
                "ORDER BY at DESC, rowid DESC"
            ).fetchall()
        return [_attached(row) for row in rows]

    def newest(self) -> Attached | None:
        """Return the model that was attached last; None where there is none."""
        there = self.all()
        return there[0] if there else None

    def plan(self, classes: Sequence[tuple[str, Color]]) -> list[Match]:
        """Return what each class would be here, by equal names alone; nothing is changed."""
        with self._store.reading() as db:
            living = {one.name: one.id for one in categories.read(db) if not one.is_deleted}
        alike = {_letters(name): name for name in living}
        return [
            Match(name, color, living.get(name), None if name in living else alike.get(_letters(name)))
            for name, color in classes
        ]

    def attach(
        self,
        hash: str,
        *,
        name: str,
        path: str,
        classes: Sequence[tuple[str, Color]],
        add: Sequence[str] = (),
        mapping: Mapped | None = None,
        report: Mapping[str, Any] | None = None,
        author: str | None = None,
    ) -> Attached:
        """Attach a model, or attach it again with another table; returns it.

        add: classes that become new categories, in their own colours. mapping: what classes are, beyond equal names;
        None as a category leaves one out. Classes of neither, and of no category's name, are left out. One transaction.
        Raises UsageError for classes that the model does not have, and numbers that are no category.
        """
        if not SOURCE.fullmatch(f"model:{hash}"):
            raise UsageError("A model is known by its hash.", found=f"{hash!r:.80}", expected="hex digits")
        colors = dict(classes)
        for one in (*add, *(mapping or {})):
            if one not in colors:
                raise unknown_name("class", str(one), colors)
        with self._store.transaction() as db:
            room = categories.Categories(self._store)
            for one in add:
                if one not in room:
                    room.add(one, color=colors[one], author=author)
            living = {one.id for one in room.all()}
            strange = [
                f"{one}: {number}" for one, number in (mapping or {}).items() if number not in {None, *living}
            ]
            if strange:
                raise UsageError(
                    "Classes are mapped to what is no category of this project.",
                    found=", ".join(strange),
                    expected=", ".join(f"{one.id} ({one.name})" for one in room.all()),
                )
            table = {match.name: match.category_id for match in self.plan(classes)} | dict(mapping or {})
            values = (hash, name, path, json.dumps([[one, list(color)] for one, color in classes]))
            db.execute(
                "INSERT OR REPLACE INTO models VALUES (?, ?, ?, ?, ?, ?, ?, 0)",
                (*values, json.dumps(table), None if report is None else json.dumps(report), now()),
            )
            audit.note(db, "model attached", author=author, hash=hash, path=path, mapping=table)
        return self[hash]

    def detach(self, model: str, *, author: str | None = None) -> None:
        """Take a model off the list; what it said of images, and what its objects are marked with, stays."""
        one = self[model]
        with self._store.transaction() as db:
            db.execute("UPDATE models SET is_detached = 1 WHERE hash = ?", (one.hash,))
            for table in ("queue", "disagreements"):
                db.execute(f"DELETE FROM {table} WHERE labelset = ?", (one.labelset,))
            audit.note(db, "model detached", author=author, hash=one.hash)

    def predicted(self, labelset: str) -> int:
        """Return of how many samples a labelset says something."""
        with self._store.reading() as db:
            row = db.execute("SELECT count(*) FROM predictions WHERE labelset = ?", (labelset,)).fetchone()
        return int(row[0])


def _letters(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _attached(row: sqlite3.Row | tuple[Any, ...]) -> Attached:
    hash, name, path, classes, mapping, report, at = row
    named = tuple((one, (int(c[0]), int(c[1]), int(c[2]))) for one, c in json.loads(classes))
    told = None if report is None else json.loads(report)
    return Attached(hash, name, path, named, json.loads(mapping), told, at)
