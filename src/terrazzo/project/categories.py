"""The categories of a project: what people may call what they draw.

A category has a number that never changes and is never given again, for labels and releases quote it; 0 is no
category. Changing a name or a colour touches no label. A category that labels use is not simply deleted: it is merged
into another one, and `labels.migrate` then writes a new revision of every label that has it. One that was merged or
deleted stays in the table, so that history and releases can still be read.
"""

import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from terrazzo.classes import Color, distinct_colors
from terrazzo.errors import ProjectError, UsageError, unknown_name
from terrazzo.project import audit
from terrazzo.project.store import Store

MAX_NAME = 200  # characters
MAX_CATEGORIES = 65_535
COLOR = re.compile(r"#[0-9a-f]{6}")


@dataclass(frozen=True)
class Category:
    """What a region may be called."""

    id: int
    """1 … 65,535, for ever."""
    name: str
    """As people call it; no other living category's."""
    color: Color
    """RGB, 0-255."""
    has_instances: bool = False
    """True where every object is one of its own (a car); False where all there is, is one (the sky)."""
    is_ignore: bool = False
    """True where its pixels are neither trained on nor scored."""
    attributes: Any = field(default_factory=list)
    """What may be said of its objects, as Segments.ai describes it; plain JSON."""
    merged_into: int | None = None
    """The category that its labels belong to since it was merged."""
    is_deleted: bool = False
    """True since it was merged or deleted."""

    def to_json(self) -> dict[str, Any]:
        """Return the form that releases keep."""
        return {
            "id": self.id,
            "name": self.name,
            "color": list(self.color),
            "has_instances": self.has_instances,
            "is_ignore": self.is_ignore,
            "attributes": self.attributes,
        }


class Categories:
    """The categories of one project, by name: `project.categories["road"]`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __iter__(self) -> Iterator[Category]:
        return iter(self.all())

    def __len__(self) -> int:
        return len(self.all())

    def __contains__(self, name: object) -> bool:
        return any(one.name == name for one in self.all())

    def __getitem__(self, name: str) -> Category:
        """Return the category called `name`; UnknownNameError with the nearest."""
        by_name = {one.name: one for one in self.all()}
        if name not in by_name:
            raise unknown_name("category", name, by_name)
        return by_name[name]

    def all(self, *, deleted: bool = False) -> tuple[Category, ...]:
        """Return the categories in the order of their numbers; deleted: with those that were merged or deleted."""
        with self._store.reading() as db:
            return tuple(one for one in read(db) if deleted or not one.is_deleted)

    def add(
        self,
        name: str,
        *,
        color: Sequence[int] | None = None,
        has_instances: bool = False,
        is_ignore: bool = False,
        attributes: Any = (),
        author: str | None = None,
    ) -> Category:
        """Add a category; its colour is chosen where none is given. UsageError where the name is taken or none."""
        name = _name(name)
        chosen = None if color is None else _color(color)
        with self._store.transaction() as db:
            there = read(db)
            _refuse_taken(name, there)
            number = max((one.id for one in there), default=0) + 1
            if number > MAX_CATEGORIES:
                raise UsageError(f"A project has at most {MAX_CATEGORIES:,} categories.")
            taken = {one.color for one in there}
            spare = next(one for one in distinct_colors(len(taken) + 1) if one not in taken)
            added = Category(number, name, chosen or spare, has_instances, is_ignore, _json(attributes))
            db.execute(
                "INSERT INTO categories (id, name, color, has_instances, is_ignore, attributes) "
                "VALUES (?, ?, ?, ?, ?, ?)",
                (number, name, _hex(added.color), has_instances, is_ignore, json.dumps(added.attributes)),
            )
            audit.note(db, "category added", author=author, **added.to_json())
        return added

    def rename(self, name: str, new: str, *, author: str | None = None) -> Category:
        """Call a category otherwise; no label changes."""
        return self._change(name, {"name": _name(new)}, author)

    def recolor(self, name: str, color: Sequence[int], *, author: str | None = None) -> Category:
        """Give a category another colour."""
        return self._change(name, {"color": _hex(_color(color))}, author)

    def set_ignore(self, name: str, is_ignore: bool, *, author: str | None = None) -> Category:
        """Say whether a category is neither trained on nor scored; releases that exist stay as they are."""
        return self._change(name, {"is_ignore": int(is_ignore)}, author)

    def _change(self, name: str, columns: dict[str, Any], author: str | None) -> Category:
        with self._store.transaction() as db:
            one = self[name]
            if "name" in columns and columns["name"] != one.name:
                _refuse_taken(columns["name"], read(db))
            assignments = ", ".join(f"{column} = ?" for column in columns)
            db.execute(f"UPDATE categories SET {assignments} WHERE id = ?", (*columns.values(), one.id))
            audit.note(db, "category changed", author=author, id=one.id, old=one.to_json(), new=columns)
            return next(other for other in read(db) if other.id == one.id)


def read(db: sqlite3.Connection) -> tuple[Category, ...]:
    """Return all categories there ever were, by number."""
    rows = db.execute(
        "SELECT id, name, color, has_instances, is_ignore, attributes, merged_into, is_deleted FROM categories "
        "ORDER BY id"
    )
    return tuple(
        Category(
            number, name, _rgb(color), bool(things), bool(ignore), json.loads(attributes), merged, bool(gone)
        )
        for number, name, color, things, ignore, attributes, merged, gone in rows
    )


def heirs(categories: Sequence[Category]) -> dict[int, Category]:
    """Return {number: the living category that labels with this number belong to}; deleted ones have none."""
    by_id = {one.id: one for one in categories}
    found = {}
    for one in categories:
        heir = one
        while heir.merged_into is not None:
            heir = by_id[heir.merged_into]
        if not heir.is_deleted:
            found[one.id] = heir
    return found


def _refuse_taken(name: str, there: Sequence[Category]) -> None:
    if any(one.name == name and not one.is_deleted for one in there):
        raise UsageError(
            f"There is a category {name!r} already.", hint="Merge the two, or choose another name."
        )


def _name(name: str) -> str:
    name = name.strip() if isinstance(name, str) else ""
    if not name or not name.isprintable() or len(name) > MAX_NAME:
        raise UsageError(
            "A category needs a name that can be shown.",
            found=f"{name!r:.80}",
            expected=f"1 to {MAX_NAME} characters, without control characters",
        )
    return name


def _color(color: Sequence[int]) -> Color:
    values = tuple(color)
    if len(values) != 3 or not all(type(value) is int and 0 <= value <= 255 for value in values):
        raise UsageError("A colour is three whole numbers, 0-255.", found=repr(color)[:80])
    return values[0], values[1], values[2]


def _hex(color: Color) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _rgb(text: str) -> Color:
    if not COLOR.fullmatch(text):
        raise ProjectError("A category has a colour that is none.", found=f"{text!r:.40}", expected="#rrggbb")
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)


def _json(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise UsageError("Attributes must be plain JSON.", found=str(error)[:200]) from error
