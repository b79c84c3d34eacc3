"""Operations as the page posts them: tiles of pixels, base64 of zlib, into arrays; nothing is unpacked beyond its size.

By its place a tile says how many pixels it has; so how many bytes it may unpack to, and how long its text may be, are
known before any memory is taken for it.
"""

import base64
import binascii
import zlib
from typing import Any

from terrazzo.labelling.bodies import Told
from terrazzo.project.operations import Operation
from terrazzo.project.tiles import ObjectMap, Place, grid_hw, tile_hw
from terrazzo.web.problems import RefusalError

NAMES = ("client_id", "seq", "base_revision", "tiles", "annotations", "tool", "ms")
MAX_OBJECTS = 65_535


def operation(told: Told, size_hw: tuple[int, int], author: str) -> Operation:
    """Return what a client asks for of a label of this size; RefusalError for what cannot be."""
    rows, columns = grid_hw(size_hw)
    listed = told.listed("tiles", [])
    if len(listed) > rows * columns:
        raise _bad(
            "There are more tiles than the label has.", f"{len(listed):,}", f"{rows * columns:,} at most"
        )
    tiles: dict[Place, ObjectMap] = {}
    for one in listed:
        place = _place(one, rows, columns)
        if place in tiles:
            raise _bad("A tile came twice.", str(place), "each place once")
        tiles[place] = unpacked(one["data"], tile_hw(place, size_hw), where=f"tile {place}")
    annotations = told.get("annotations")
    is_list = isinstance(annotations, list) and all(isinstance(one, dict) for one in annotations)
    if annotations is not None and (not is_list or len(annotations) > MAX_OBJECTS):
        raise _bad(
            "'annotations' is no list of objects.", f"{annotations!r:.80}", "null, or all objects afterwards"
        )
    return Operation(
        told.whole("base_revision"),
        tiles,
        annotations,
        client_id=told.text("client_id"),
        seq=told.whole("seq"),
        tool=told.text("tool", "manual"),
        ms=told.whole("ms", 0),
        author=author,
    )


def unpacked(text: str, hw: tuple[int, int], *, where: str) -> ObjectMap:
    """Return the tile (h, w) uint16 in a text: base64 of zlib of little-endian numbers, exactly as many as it has."""
    import numpy as np

    length = hw[0] * hw[1] * 2
    longest = length + length // 1000 + 64  # what zlib makes of bytes that do not pack
    if len(text) > -(-longest // 3) * 4:
        raise _bad(
            f"The pixels of {where} are longer than they can be.",
            f"{len(text):,} characters",
            "base64 of zlib",
        )
    try:
        packed = base64.b64decode(text, validate=True)
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(packed, length + 1)
    except (ValueError, binascii.Error, zlib.error) as error:
        raise _bad(
            f"The pixels of {where} cannot be unpacked.", str(error)[:200], "base64 of zlib"
        ) from error
    if len(data) != length or not unpacker.eof or unpacker.unused_data:
        found = f"{len(data):,} bytes" if len(data) <= length else f"more than {length:,} bytes"
        raise _bad(
            f"The pixels of {where} are not as many as it has.", found, f"{length:,} bytes: {hw[0]} x {hw[1]}"
        )
    return np.frombuffer(data, "<u2").reshape(hw).astype(np.uint16)


def _place(one: Any, rows: int, columns: int) -> Place:
    if not isinstance(one, dict) or set(one) != {"row", "col", "data"} or not isinstance(one["data"], str):
        raise _bad("A tile is not said as it must be.", f"{one!r:.80}", '{"row": 0, "col": 0, "data": "…"}')
    row, column = one["row"], one["col"]
    if type(row) is not int or type(column) is not int or not (0 <= row < rows and 0 <= column < columns):
        raise _bad(
            "The label has no such tile.",
            f"row {row!r:.20}, col {column!r:.20}",
            f"{rows} rows, {columns} columns",
        )
    return row, column


def _bad(what: str, found: str, expected: str) -> RefusalError:
    return RefusalError(400, what, kind="bad-operation", found=found, expected=expected)
