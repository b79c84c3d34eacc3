"""Labels written and read: one operation is one transaction, one revision, and never anybody's loss.

An operation says which revision it saw. Is that still the one that stands, it becomes the next. Did others write
meanwhile, both are merged where they touch different tiles and objects; where they touch the same, the operation is
refused with the number of the revision that stands, and kept beside it as a branch, so that nothing drawn is gone.
Operations carry (client_id, seq), and one that comes again, because its answer was lost, is answered again and not
done again. Every pixel belongs to an object that is annotated, every object to a living category.
"""

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import (
    DamagedLabelError,
    DatasetFormatError,
    MaskValueError,
    ProjectError,
    StaleRevisionError,
    UsageError,
    unknown_name,
)
from terrazzo.project import categories, statuses, trees
from terrazzo.project.consistency import refuse_loose, settled
from terrazzo.project.objects import as_objects
from terrazzo.project.operations import Operation, Outcome, Written, checked, digest_of, remember, replayed
from terrazzo.project.samples import Entry, entry
from terrazzo.project.store import Store, now
from terrazzo.project.tiles import ObjectMap, Tiles, as_object_map, blank, cut, packed_blank, places, tile_hw
from terrazzo.project.trees import Annotation, Tree, as_annotations

AFTERWARDS = ("prelabelled", "in_progress", "labelled")  # what a sample may be called when it was drawn on


@dataclass(frozen=True, eq=False)
class Label:
    """A label as it was read: pixels and what they mean."""

    object_map: ObjectMap
    """(H, W) uint16: the id of the object at every pixel, 0 where nobody drew."""
    annotations: tuple[Annotation, ...]
    """The objects, by id."""
    revision: int
    """The number of the revision; 0 where nobody ever drew."""
    tree_hash: str
    """Hex; equal labels have equal ones."""

    def mask(self) -> NDArray[np.uint16]:
        """Return category ids (H, W), 0 where nobody drew."""
        table = np.zeros(1 << 16, dtype=np.uint16)
        for one in self.annotations:
            table[one.id] = one.category_id
        mask: NDArray[np.uint16] = table[self.object_map]
        return mask


class Labels:
    """The labels of one project."""

    def __init__(self, store: Store, tiles: Tiles) -> None:
        self._store, self._tiles = store, tiles

    def read(self, name: str, revision: int | None = None) -> Label:
        """Return the label of a sample as it stands, or as it was; DamagedLabelError where a tile cannot be read."""
        with self._store.reading() as db:
            one = entry(db, name)
            number = one.head if revision is None else revision
            tree = self.tree(db, one, number)
            packed = self._tiles.fetch(db, tree.tiles)
        where = f"{name!r} (revision {number})"
        object_map = self._tiles.join(
            packed, tree.tiles, tree.size_hw, where=where
        )  # others may write meanwhile
        return Label(object_map, tree.annotations, number, tree.hash.hex())

    def look(self, name: str, revision: int | None = None) -> tuple[int, Tree]:
        """Return (number, state) of a label as it stands, or as it was; no tile is read."""
        with self._store.reading() as db:
            one = entry(db, name)
            number = one.head if revision is None else revision
            return number, self.tree(db, one, number)

    def packed(self, tree: Tree, *, where: str) -> list[bytes]:
        """Return the tiles of a state, row by row, each as zlib of uint16, little-endian; DamagedLabelError naming
        `where` unless each is what its name says."""
        with self._store.reading() as db:
            found = self._tiles.fetch(db, tree.tiles)
        told = []
        for place, name in zip(places(tree.size_hw), tree.tiles, strict=True):
            hw = tile_hw(place, tree.size_hw)
            if name == blank(hw):
                told.append(packed_blank(hw))
                continue
            self._tiles.unpack(found, name, hw, where=f"{where}, tile {place}")
            told.append(found[name])
        return told

    def packed_tile(self, name: str, tile: bytes) -> bytes:
        """Return a tile that some revision of a label may have, by its name, as `packed` does; UnknownNameError where
        there is none of that name and of a size that this label's tiles have."""
        with self._store.reading() as db:
            size_hw = entry(db, name).size_hw
            found = self._tiles.fetch(db, [tile])
        sizes = {tile_hw(place, size_hw) for place in places(size_hw)}
        for hw in sizes:
            if tile == blank(hw):
                return packed_blank(hw)
        if tile in found:
            problem: DamagedLabelError | None = None
            for hw in sizes:
                try:
                    self._tiles.unpack(found, tile, hw, where=f"{name!r}, tile {tile.hex()[:16]}…")
                    return found[tile]
                except DamagedLabelError as error:
                    problem = error
            assert problem is not None
            raise problem
        raise unknown_name("tile", tile.hex(), ())

    def check(self, tree: Tree, *, where: str) -> None:
        """Raise DamagedLabelError naming `where` unless every tile of a state can be read; each is read once."""
        with self._store.reading() as db:
            self._tiles.check(db, tree.tiles, tree.size_hw, where=where)

    def write(self, name: str, operation: Operation, *, status: str | None = None) -> Written:
        """Do one operation, durably; raises StaleRevisionError where somebody else changed the same.

        The sample is in progress afterwards, or has the `status` given. Raises UsageError, DatasetFormatError or
        MaskValueError for an operation that makes no label, DamagedLabelError where the label cannot be read.
        """
        return self._do(name, lambda db, one: operation, status)

    def write_objects(
        self,
        name: str,
        object_map: NDArray[Any],
        annotations: Iterable[Annotation | Mapping[str, Any]],
        *,
        base_revision: int | None = None,
        status: str | None = None,
        **words: Any,
    ) -> Written:
        """Write a whole label: (H, W) object ids, and the objects. None as base: whatever stands is replaced.

        words: those of `Operation`, such as tool and author.
        """
        listed = tuple(annotations)

        def operation(db: sqlite3.Connection, one: Entry) -> Operation:
            whole = as_object_map(object_map, one.size_hw, where=repr(name))
            base = one.head if base_revision is None else base_revision
            return Operation(base, dict(cut(whole)), listed, **words)

        return self._do(name, operation, status)

    def write_mask(
        self,
        name: str,
        mask: NDArray[Any],
        *,
        source: str = "manual",
        base_revision: int | None = None,
        status: str | None = None,
        **words: Any,
    ) -> Written:
        """Write a whole label as category ids (H, W), 0 where nobody drew.

        Objects whose pixels keep their category stay. The other pixels of a category become one object: the one that it
        has, where it is one without instances, else a new one.
        """

        def operation(db: sqlite3.Connection, one: Entry) -> Operation:
            wanted = as_object_map(mask, one.size_hw, where=repr(name))
            before = self.read(name, base_revision)
            living = {other.id: other for other in categories.read(db) if not other.is_deleted}
            object_map, annotations = as_objects(
                wanted, before.object_map, before.annotations, living, source=source, where=repr(name)
            )
            return Operation(before.revision, dict(cut(object_map)), annotations, **words)

        return self._do(name, operation, status)

    def tree(self, db: sqlite3.Connection, one: Entry, number: int) -> Tree:
        """Return a state of a label; 0: the one before anybody drew. UsageError for a revision that is none."""
        if number == 0:
            return Tree(
                one.size_hw, tuple(blank(tile_hw(place, one.size_hw)) for place in places(one.size_hw)), ()
            )
        row = db.execute(
            "SELECT tree FROM revisions WHERE sample = ? AND number = ?", (one.id, number)
        ).fetchone()
        if row is None:
            raise UsageError(
                f"The label of {one.name!r} has no revision {number}.",
                expected=f"0 to {one.head}, or a branch",
            )
        return trees.load(db, row[0], where=f"{one.name!r} (revision {number})")

    def append(
        self,
        db: sqlite3.Connection,
        one: Entry,
        tree: Tree,
        *,
        kind: str,
        parent: int,
        tool: str = "",
        author: str | None = None,
        ms: int = 0,
        undo_to: int | None = None,
        redo_to: int | None = None,
        is_head: bool = True,
    ) -> int:
        """Add a revision to the history of a sample, and let it stand unless it is a branch; returns its number."""
        last = db.execute("SELECT max(number) FROM revisions WHERE sample = ?", (one.id,)).fetchone()[0]
        number = (last or 0) + 1
        db.execute(
            "INSERT INTO revisions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (one.id, number, parent, trees.keep(db, tree), kind, tool, author, ms, now(), undo_to, redo_to),
        )
        if is_head:
            db.execute("UPDATE samples SET head = ? WHERE id = ?", (number, one.id))
        return number

    def migrate(self, db: sqlite3.Connection, one: Entry, *, author: str | None) -> int | None:
        """Write a revision in which merged categories are those they were merged into; None where nothing changes."""
        tree = self.tree(db, one, one.head)
        there = categories.read(db)
        after = settled(db, self._tiles, tree, there, where=repr(one.name))
        if after == tree:
            return None
        return self.append(db, one, after, kind="migrate", parent=one.head, author=author)

    def _do(
        self, name: str, make: Callable[[sqlite3.Connection, Entry], Operation], status: str | None
    ) -> Written:
        """Do an operation, made in its own transaction. What is refused is kept before it is told."""
        if status not in (None, *AFTERWARDS):
            raise ProjectError(
                f"What was just drawn on {name!r} cannot be {status} at once.", expected=", ".join(AFTERWARDS)
            )
        with self._store.transaction() as db:
            one = entry(db, name)
            operation = make(db, one)
            checked(operation)
            digest = b"" if operation.client_id is None else digest_of(one, operation)
            outcome = replayed(db, operation, digest)
            if outcome is None:
                outcome = self._write(db, one, operation)
                remember(db, one, operation, digest, outcome)
                if not outcome.is_refused:
                    wanted = status or "in_progress"  # a change is a change, whatever it was before
                    statuses.change(db, one.id, wanted, author=operation.author, is_import=True)
                    db.execute("UPDATE samples SET author = ? WHERE id = ?", (operation.author, one.id))
        if outcome.is_refused:
            raise _stale(name, operation, outcome)
        return outcome.written

    def _write(self, db: sqlite3.Connection, one: Entry, operation: Operation) -> Outcome:
        head = self.tree(db, one, one.head)
        where = repr(one.name)
        self._tiles.check(db, head.tiles, head.size_hw, where=where)
        base = head if operation.base_revision == one.head else self.tree(db, one, operation.base_revision)
        there = categories.read(db)
        mine = settled(db, self._tiles, self._applied(db, base, operation, where), there, where=where)
        refuse_loose(db, self._tiles, mine, there, where=where)
        things = frozenset(other.id for other in there if other.has_instances)
        merged = mine if base is head else trees.merge(base, mine, head, things=things)
        words: dict[str, Any] = {"tool": operation.tool, "author": operation.author, "ms": operation.ms}
        if merged is not None and merged is not mine:
            try:
                refuse_loose(db, self._tiles, merged, there, where=where)
            except (DatasetFormatError, MaskValueError):  # an object deleted here and drawn on there
                merged = None
        if merged is None:
            branch = self.append(
                db, one, mine, kind="branch", parent=operation.base_revision, is_head=False, **words
            )
            return Outcome(Written(branch, mine.hash.hex()), current=one.head, is_refused=True)
        number = self.append(db, one, merged, kind="write", parent=one.head, undo_to=one.head, **words)
        return Outcome(Written(number, merged.hash.hex(), is_merged=base is not head), current=number)

    def _applied(self, db: sqlite3.Connection, base: Tree, operation: Operation, where: str) -> Tree:
        """What an operation makes of the state it saw."""
        names = list(base.tiles)
        order = {place: index for index, place in enumerate(places(base.size_hw))}
        for place, tile in operation.tiles.items():
            if tuple(place) not in order:
                raise UsageError(
                    f"The label of {where} has no tile {place!r:.40}.",
                    expected=f"{len(order)} tiles, (row, column)",
                )
            hw = tile_hw(place, base.size_hw)
            pixels = as_object_map(np.asarray(tile), hw, where=f"{where}, tile {place}")
            names[order[place]] = self._tiles.put(db, pixels)
            self._store.checked_tiles.add(names[order[place]])
        listed = base.annotations
        if operation.annotations is not None:
            listed = as_annotations(operation.annotations, where=where)
        return Tree(base.size_hw, tuple(names), listed)


def _stale(name: str, operation: Operation, outcome: Outcome) -> StaleRevisionError:
    error = StaleRevisionError(
        f"The label of {name!r} was changed by somebody else, in the same place.",
        found=f"revision {outcome.current} stands; this was drawn on {operation.base_revision}",
        hint=f"Nothing is lost: what was drawn is kept as revision {outcome.written.revision}, a branch beside it.",
    )
    error.current, error.branch = outcome.current, outcome.written.revision
    return error
