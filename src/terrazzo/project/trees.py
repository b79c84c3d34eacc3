"""One state of a label: its tiles in order and its annotations, under one hash; and two states brought together.

A tree is to a label what a commit's tree is to files: equal labels have equal hashes, so undoing gives the hash back
that was there before. Two people's changes since a common base merge where they touch different tiles and different
objects; where they touch the same, nothing is guessed.
"""

import hashlib
import json
import re
import sqlite3
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from terrazzo.errors import DamagedLabelError, DatasetFormatError
from terrazzo.project.tiles import MAX_ID, Place, places

SOURCE = re.compile(r"manual|superpixel|sam|grabcut|import|model:[0-9a-f]{1,64}")
HASH = 32  # bytes of a sha256
MAX_DOCUMENT = 1 << 28  # bytes of a list of annotations, unpacked
SHOWN = 8


@dataclass(frozen=True)
class Annotation:
    """One object of a label: what its pixels are, and where they come from."""

    id: int
    """1 … 65,535: the number that its pixels hold."""
    category_id: int
    """What it is."""
    source: str = "manual"
    """manual, superpixel, sam, grabcut, import, or model:HASH, by which the model is known."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What else was said of it; plain JSON."""

    def to_json(self) -> dict[str, Any]:
        """Return the plain form."""
        return {
            "id": self.id,
            "category_id": self.category_id,
            "source": self.source,
            "attributes": dict(self.attributes),
        }


@dataclass(frozen=True)
class Tree:
    """One state of a label."""

    size_hw: tuple[int, int]
    """(height, width), as its image."""
    tiles: tuple[bytes, ...]
    """The names of its tiles, row by row."""
    annotations: tuple[Annotation, ...]
    """Its objects, by id."""

    @property
    def document(self) -> bytes:
        """The annotations as canonical JSON: keys sorted, nothing between, UTF-8."""
        return canonical([one.to_json() for one in self.annotations])

    @property
    def hash(self) -> bytes:
        """sha256 over size, names of tiles, and annotations."""
        height, width = self.size_hw
        parts = (f"{height}x{width}:".encode(), *self.tiles, self.document)
        return hashlib.sha256(b"".join(parts)).digest()

    def changed_since(self, other: "Tree") -> set[Place]:
        """Return the places of the tiles that differ."""
        order = places(self.size_hw)
        return {place for place, a, b in zip(order, self.tiles, other.tiles, strict=True) if a != b}


def canonical(value: Any) -> bytes:
    """Return JSON that is the same bytes for the same value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode()


def as_annotations(listed: Iterable[Annotation | Mapping[str, Any]], *, where: str) -> tuple[Annotation, ...]:
    """Return annotations, by id, of values or plain JSON; DatasetFormatError with everything that is wrong."""
    found: dict[int, Annotation] = {}
    problems: list[str] = []
    for one in listed:
        plain: Any = one.to_json() if isinstance(one, Annotation) else one
        if not isinstance(plain, Mapping):
            problems.append(f"{one!r:.60}, which is no annotation")
            continue
        number, category = plain.get("id"), plain.get("category_id")
        source, attributes = plain.get("source", "manual"), plain.get("attributes") or {}
        if type(number) is not int or not 1 <= number <= MAX_ID:
            problems.append(f"an object with id {number!r:.40}, not 1-{MAX_ID:,}")
        elif number in found:
            problems.append(f"two objects with id {number}")
        elif type(category) is not int:
            problems.append(f"object {number} of category {category!r:.40}")
        elif not isinstance(source, str) or not SOURCE.fullmatch(source):
            problems.append(f"object {number} from {source!r:.40}")
        elif not isinstance(attributes, Mapping) or not _is_plain(attributes):
            problems.append(f"object {number} with attributes that are no plain JSON")
        else:
            found[number] = Annotation(number, category, source, json.loads(canonical(attributes)))
    if problems:
        more = [f"… {len(problems)} problems in all"] if len(problems) > SHOWN else []
        raise DatasetFormatError(
            f"The annotations for {where} cannot be used.",
            found="\n" + "\n".join(problems[:SHOWN] + more),
            expected='[{"id": 1, "category_id": 3, "source": "manual", "attributes": {}}, …]',
        )
    return tuple(found[number] for number in sorted(found))


def merge(base: Tree, mine: Tree, theirs: Tree, *, things: frozenset[int]) -> Tree | None:
    """Return what both made of `base`, or None where they changed the same tile or object.

    things: categories whose objects are each one of their own; two new objects of one number are two there, and no
    merge, while everybody's sky is the same sky.
    """
    tiles: list[bytes] = []
    for before, own, other in zip(base.tiles, mine.tiles, theirs.tiles, strict=True):
        if own != before and other not in (before, own):
            return None
        tiles.append(own if own != before else other)
    was, own_ones, other_ones = (_by_id(tree.annotations) for tree in (base, mine, theirs))
    merged: list[Annotation] = []
    for number in sorted({*was, *own_ones, *other_ones}):
        root, ours, others = was.get(number), own_ones.get(number), other_ones.get(number)
        if ours != root and others != root:
            is_new_thing = root is None and ours is not None and ours.category_id in things
            if ours != others or is_new_thing:
                return None
        chosen = ours if ours != root else others
        if chosen is not None:
            merged.append(chosen)
    return Tree(base.size_hw, tuple(tiles), tuple(merged))


def keep(db: sqlite3.Connection, tree: Tree) -> bytes:
    """Store a tree, if it is not there yet; returns its hash. Its tiles are there already."""
    name = tree.hash
    if db.execute("SELECT 1 FROM trees WHERE hash = ?", (name,)).fetchone() is None:
        document = tree.document
        digest = hashlib.sha256(document).digest()
        db.execute("INSERT OR IGNORE INTO documents VALUES (?, ?)", (digest, zlib.compress(document)))
        height, width = tree.size_hw
        db.execute(
            "INSERT INTO trees VALUES (?, ?, ?, ?, ?)", (name, height, width, b"".join(tree.tiles), digest)
        )
    return name


def load(db: sqlite3.Connection, name: bytes, *, where: str) -> Tree:
    """Return the tree with this hash; DamagedLabelError naming `where` if it is not what its hash says."""
    row = db.execute(
        "SELECT height, width, tiles, data FROM trees LEFT JOIN documents ON documents.hash = document "
        "WHERE trees.hash = ?",
        (name,),
    ).fetchone()
    try:
        if row is None:
            raise ValueError("it is missing")
        height, width, tiles, packed = row
        if packed is None:
            raise ValueError("its annotations are missing")
        document = zlib.decompressobj().decompress(packed, MAX_DOCUMENT)
        names = tuple(tiles[start : start + HASH] for start in range(0, len(tiles), HASH))
        tree = Tree((height, width), names, as_annotations(json.loads(document), where=where))
        if tree.hash != name:
            raise ValueError("its content is not what its hash says")
    except (ValueError, zlib.error, DatasetFormatError) as error:
        raise DamagedLabelError(
            f"The label of {where} cannot be read.",
            found=str(error).splitlines()[0],
            hint="It opens read-only, and nothing is written over it. An earlier revision can be restored "
            "(project.history, project.restore), or the file from a backup.",
        ) from error
    return tree


def _by_id(annotations: Sequence[Annotation]) -> dict[int, Annotation]:
    return {one.id: one for one in annotations}


def _is_plain(value: Any) -> bool:
    try:
        canonical(value)
    except (TypeError, ValueError):
        return False
    return True
