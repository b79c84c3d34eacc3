"""Object maps in tiles: cut, packed under the hash of what they hold, read back and checked, joined.

An object map is (H, W) uint16: the id of the object at every pixel, 0 where nobody drew. It is cut into tiles of 512
pixels, those at the right and lower border as small as they are. A tile is stored once, whoever draws it however often;
its name is the sha256 of its size and its pixels (not of the packed bytes, which another zlib would pack otherwise).
Beside it stands how many pixels each object has in it, so that counting needs no unpacking. A tile that is missing or
damaged is an error that says where it lies: never an empty one.
"""

import hashlib
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import DamagedLabelError, MaskValueError
from terrazzo.project.store import Store

TILE = 512  # pixels; a stroke touches one to four of the 48 tiles of 12 megapixels
MAX_ID = 65_535
LEVEL = 3  # of zlib: a tile of CamVid, enlarged twice, one core, 2026-11: 1: 14 kB, 0.9 ms; 3: 10 kB, 0.9; 6: 6 kB, 2.5
AT_ONCE = 500  # hashes in one question to SQLite

ObjectMap = NDArray[np.uint16]
Place = tuple[int, int]  # (row, column) in the grid of tiles


def grid_hw(size_hw: tuple[int, int]) -> tuple[int, int]:
    """Return how many rows and columns of tiles a map of this size has."""
    return -(-size_hw[0] // TILE), -(-size_hw[1] // TILE)


def tile_hw(place: Place, size_hw: tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) of the tile at `place` of a map of this size."""
    return min(TILE, size_hw[0] - place[0] * TILE), min(TILE, size_hw[1] - place[1] * TILE)


def places(size_hw: tuple[int, int]) -> list[Place]:
    """Return the places of all tiles, in the order in which a tree lists them: row by row."""
    rows, columns = grid_hw(size_hw)
    return [(row, column) for row in range(rows) for column in range(columns)]


def cut(object_map: ObjectMap) -> Iterator[tuple[Place, ObjectMap]]:
    """Yield the tiles of a map (H, W), views of it, in the order of `places`."""
    for row, column in places((object_map.shape[0], object_map.shape[1])):
        top, left = row * TILE, column * TILE
        yield (row, column), object_map[top : top + TILE, left : left + TILE]


def name_of(tile: ObjectMap) -> bytes:
    """Return the sha256 by which a tile is known."""
    size = f"{tile.shape[0]}x{tile.shape[1]}:".encode()
    return hashlib.sha256(size + _bytes(tile)).digest()


@lru_cache(maxsize=4096)
def blank(hw: tuple[int, int]) -> bytes:
    """Return the name of a tile on which nobody drew; it is known by its name, and never stored."""
    return name_of(np.zeros(hw, dtype=np.uint16))


@lru_cache(maxsize=64)
def packed_blank(hw: tuple[int, int]) -> bytes:
    """Return such a tile as others are packed."""
    return zlib.compress(bytes(hw[0] * hw[1] * 2), LEVEL)


class Tiles:
    """The tiles in a project's file."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, db: sqlite3.Connection, tile: ObjectMap) -> bytes:
        """Keep a tile, if it is not there yet; returns its name."""
        name = name_of(tile)
        if name == blank((tile.shape[0], tile.shape[1])):
            return name
        if db.execute("SELECT 1 FROM tiles WHERE hash = ?", (name,)).fetchone() is None:
            packed = zlib.compress(_bytes(tile), LEVEL)
            db.execute("INSERT INTO tiles VALUES (?, ?, ?)", (name, packed, _pack_counts(count(tile))))
        return name

    def get(self, db: sqlite3.Connection, name: bytes, hw: tuple[int, int], *, where: str) -> ObjectMap:
        """Return a tile (h, w) uint16; DamagedLabelError naming `where` if it is not what its name says."""
        return self.unpack(self.fetch(db, [name]), name, hw, where=where)

    def fetch(self, db: sqlite3.Connection, names: Iterable[bytes]) -> dict[bytes, bytes]:
        """Return {name: packed tile} of those that are there."""
        found: dict[bytes, bytes] = {}
        for some in _portions(names):
            marks = ",".join("?" * len(some))
            found.update(db.execute(f"SELECT hash, data FROM tiles WHERE hash IN ({marks})", some))
        return found

    def unpack(
        self, packed: Mapping[bytes, bytes], name: bytes, hw: tuple[int, int], *, where: str
    ) -> ObjectMap:
        """Return a tile (h, w) uint16 out of what `fetch` gave; raises as `get`. The project is not read."""
        if name == blank(hw):
            return np.zeros(hw, dtype=np.uint16)
        self._store.checked_tiles.discard(name)  # until it has been read whole again
        if name not in packed:
            raise _damaged(where, "it is missing")
        length = hw[0] * hw[1] * 2
        try:
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(packed[name], length + 1)
        except zlib.error as error:
            raise _damaged(where, str(error)) from error
        if len(data) != length or not unpacker.eof:
            raise _damaged(where, f"{len(data):,} bytes or more instead of {length:,}")
        tile = np.frombuffer(data, dtype="<u2").reshape(hw).astype(np.uint16)
        if name_of(tile) != name:
            raise _damaged(where, "its content is not what its hash says")
        self._store.checked_tiles.add(name)
        return tile

    def check(
        self, db: sqlite3.Connection, names: Sequence[bytes], size_hw: tuple[int, int], *, where: str
    ) -> None:
        """Raise DamagedLabelError unless all tiles of a map can be read; each is read once by a process."""
        for place, name in zip(places(size_hw), names, strict=True):
            if name not in self._store.checked_tiles:
                self.get(db, name, tile_hw(place, size_hw), where=f"{where}, tile {place}")

    def join(
        self, packed: Mapping[bytes, bytes], names: Sequence[bytes], size_hw: tuple[int, int], *, where: str
    ) -> ObjectMap:
        """Return the map (H, W) of these tiles, out of what `fetch` gave; raises as `get`."""
        joined = np.empty(size_hw, dtype=np.uint16)
        for place, name in zip(places(size_hw), names, strict=True):
            hw = tile_hw(place, size_hw)
            top, left = place[0] * TILE, place[1] * TILE
            tile = self.unpack(packed, name, hw, where=f"{where}, tile {place}")
            joined[top : top + hw[0], left : left + hw[1]] = tile
        return joined

    def counts(self, db: sqlite3.Connection, names: Iterable[bytes]) -> dict[int, int]:
        """Return {object id: pixels} over tiles, from what stands beside them; blank tiles are not counted."""
        wanted = list(names)
        total: dict[int, int] = {}
        found = self.beside(db, wanted)
        for name in wanted:
            for one, pixels in found.get(name, {}).items():
                total[one] = total.get(one, 0) + pixels
        return total

    def beside(self, db: sqlite3.Connection, names: Iterable[bytes]) -> dict[bytes, dict[int, int]]:
        """Return {tile: {object id: pixels}}, as it stands beside the tiles that are there."""
        found: dict[bytes, dict[int, int]] = {}
        for some in _portions(names):
            marks = ",".join("?" * len(some))
            for name, packed in db.execute(f"SELECT hash, counts FROM tiles WHERE hash IN ({marks})", some):
                found[name] = _unpack_counts(packed)
        return found


def count(tile: ObjectMap) -> dict[int, int]:
    """Return {object id: pixels}, by id."""
    counts = np.bincount(tile.ravel())
    return {int(one): int(counts[one]) for one in np.flatnonzero(counts)}


def as_object_map(array: NDArray[np.generic], size_hw: tuple[int, int], *, where: str) -> ObjectMap:
    """Return an array of whole numbers as a map of this size; MaskValueError where it is none."""
    if array.shape != size_hw or array.dtype.kind not in "uib":
        raise MaskValueError(
            f"What is to be written for {where} is no map of its image.",
            found=f"shape {array.shape}, {array.dtype}",
            expected=f"shape {size_hw} (height, width), whole numbers",
        )
    if array.size and (int(array.max()) > MAX_ID or int(array.min()) < 0):
        raise MaskValueError(
            f"What is to be written for {where} holds numbers that are no ids.",
            found=f"{array.min()} to {array.max()}",
            expected=f"0 (nobody drew) to {MAX_ID:,}",
        )
    return array.astype(np.uint16)


def _portions(names: Iterable[bytes]) -> Iterator[list[bytes]]:
    distinct = list(dict.fromkeys(names))
    for start in range(0, len(distinct), AT_ONCE):
        yield distinct[start : start + AT_ONCE]


def _bytes(tile: ObjectMap) -> bytes:
    return tile.astype("<u2", copy=False).tobytes()


def _pack_counts(counts: Mapping[int, int]) -> bytes:
    return np.array([*counts.keys(), *counts.values()], dtype="<u4").tobytes()


def _unpack_counts(packed: bytes) -> dict[int, int]:
    ids, pixels = np.frombuffer(packed, dtype="<u4").reshape(2, -1).tolist()
    return dict(zip(ids, pixels, strict=True))


def _damaged(where: str, found: str) -> DamagedLabelError:
    return DamagedLabelError(
        f"The label of {where} cannot be read.",
        found=found,
        hint="It opens read-only, and nothing is written over it. An earlier revision that is whole can be restored "
        "(project.history, project.restore), or the file from a backup.",
    )
