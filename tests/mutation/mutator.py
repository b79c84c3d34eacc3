"""Files made wrong, the same way each time: bytes that changed on their way, and JSON that somebody wrote on purpose.

Every function takes a `random.Random` and returns the new content; nothing here reads or knows terrazzo. `forms.py` has
the fields of binary formats.
"""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

Change = Callable[[random.Random, bytes], bytes]

COUNTS = (0, 1, 2, 7, 127, 128, 255, 256, 32_767, 32_768, 65_535, 65_536, 1 << 24, (1 << 31) - 1, 1 << 31,
          (1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)  # fmt: skip
NUMBERS = (0, -1, 1, 255, 256, 65_535, 65_536, 2**31, -(2**31), 2**53 + 1, 2**63, -(2**63), 10**30, 10**400, 0.5, -0.0,
           1e-320, 1e38, 1e308, float("nan"), float("inf"), -float("inf"))  # fmt: skip
TEXTS = (
    "",
    " ",
    "\0",
    "a\0b",
    "\x1b[31mred\x07",
    "line\nline\r\n",
    "\u202egnp.exe",  # read from right to left
    "\u2066\u200f\ufeff",
    "\ud800",  # half a character
    "e\u0301" * 50,
    "<img src=x onerror=alert(1)>",
    "{{7*7}}${7*7}%s%n{0.__class__}",
    "=1+1",
    "__proto__",
    "__class__",
    "null",
    "NaN",
    "con",
    "nul.png",
    ".",
    "..",
    "../../../escaped",
    "..\\..\\escaped",
    "/tmp/terrazzo-escaped",
    "C:\\escaped",
    "~/escaped",
    "file:///etc/passwd",
    "http://127.0.0.1:9/x.png",
    "a/" * 500 + "b",
    "x" * 300,
    "y" * 100_000,
    "-1",
    "1e9",
    "٣",  # a digit, and not one of ours
    "²",
    "(a+)+$" + "a" * 40,
    "-rf",
)


# -- bytes -------------------------------------------------------------------------------------------------------------


def change_bytes(rng: random.Random, data: bytes, *, other: bytes = b"") -> bytes:
    """Change some bytes of a file; now and then in several ways. `other` is what pieces are taken from, too."""
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        data = rng.choice(BYTE_CHANGES)(rng, data, other or data)
    return data


def _place(rng: random.Random, data: bytes) -> int:
    """A position: anywhere, or near the beginning or the end, where headers and directories are."""
    near = min(len(data), 64)
    return rng.choice(
        (rng.randrange(len(data) + 1), rng.randrange(near + 1), len(data) - rng.randrange(near + 1))
    )


def _flip(rng: random.Random, data: bytes, other: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 64)) if data else 0):
        changed[min(_place(rng, data), len(data) - 1)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: _place(rng, data)]


def _insert(rng: random.Random, data: bytes, other: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.randbytes(rng.choice((1, 2, 4, 100, 5000))) + data[at:]


def _remove(rng: random.Random, data: bytes, other: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + data[at + rng.choice((1, 2, 4, 100)) :]


def _splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A piece of another file, or of this one, in place of what is here, or between."""
    at, begin, count = _place(rng, data), _place(rng, other), rng.choice((4, 16, 256))
    return data[:at] + other[begin : begin + count] + data[at + rng.choice((0, count)) :]


def _overwrite(rng: random.Random, data: bytes, other: bytes) -> bytes:
    at, count = _place(rng, data), rng.choice((1, 4, 32, 1000))
    return data[:at] + bytes([rng.choice((0, 1, 0x7F, 0x80, 0xFF))]) * count + data[at + count :]


def _length(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A number of 2, 4 or 8 bytes, as a length is, in either order."""
    at, width = _place(rng, data), rng.choice((2, 4, 8))
    number = rng.choice((*COUNTS, len(data), len(data) + 1)) & ((1 << 8 * width) - 1)
    return data[:at] + number.to_bytes(width, rng.choice(("little", "big"))) + data[at + width :]


def _empty(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return rng.choice((b"", b"\0", data[:1], b"\0" * len(data), data + data, other))


BYTE_CHANGES = (_flip, _flip, _truncate, _insert, _remove, _splice, _overwrite, _length, _length, _empty)


# -- JSON --------------------------------------------------------------------------------------------------------------


def change_json(rng: random.Random, data: bytes) -> bytes:
    """Change the fields of a JSON file, or, now and then, its bytes."""
    if rng.random() < 0.15:
        return change_bytes(rng, data)
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 6))):
        value = change_value(rng, value)
    return written(value)


def change_value(rng: random.Random, value: Any) -> Any:
    """Return `value` with one of its fields made wrong; the whole of it where it has none."""
    places = list(_places(value))
    if not places:
        return wrong(rng, value)
    holder, key = rng.choice(places)
    act = rng.randrange(8)
    if act == 0:
        del holder[key]
    elif act == 1 and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder) + 1), holder[key])
    elif act == 1:
        holder[Twice(str(key))] = wrong(rng, holder[key])
    elif act == 2 and isinstance(holder, dict):
        holder[rng.choice(TEXTS)] = holder.pop(key)
    elif act == 3:
        donor, place = rng.choice(places)
        holder[key] = copy.deepcopy(donor[place])
    else:
        holder[key] = wrong(rng, holder[key])
    return value


def wrong(rng: random.Random, value: Any) -> Any:
    """Return something else than `value`, of its type or of another."""
    kinds: list[Any] = [
        rng.choice(NUMBERS),
        rng.choice(TEXTS),
        None,
        True,
        [],
        {},
        [[]],
        {"": None},
        Deep(rng.randrange(2)),
    ]
    if isinstance(value, bool | int | float) and rng.random() < 0.6:
        return rng.choice(
            (
                *NUMBERS,
                -value,
                value + 1,
                value * 1000,
                str(value),
                float(value) if abs(value) < 2**53 else 0.5,
            )
        )
    if isinstance(value, str) and rng.random() < 0.6:
        return rng.choice((*TEXTS, value + rng.choice(TEXTS), value.upper(), value[:-1], value * 100))
    if isinstance(value, list) and rng.random() < 0.6:
        return rng.choice(
            (value[1:], value * 50, value[::-1], [value], [*value, None], [rng.choice(NUMBERS)] * 3)
        )
    if isinstance(value, dict) and rng.random() < 0.6:
        return rng.choice(([value], list(value), list(value.values()), {**value, "extra": value}, {}))
    return rng.choice(kinds)


class Deep:
    """A list in a list in a list …, or objects so, deeper than any parser's stack."""

    def __init__(self, of_objects: int) -> None:
        self.of_objects = bool(of_objects)

    def text(self) -> str:
        depth = 20_000
        return '{"a":' * depth + "1" + "}" * depth if self.of_objects else "[" * depth + "]" * depth


class Twice(str):
    """A key that is written although the object has it already."""

    def __hash__(self) -> int:
        return hash(("twice", str(self)))

    def __eq__(self, other: object) -> bool:
        return self is other


def written(value: Any) -> bytes:
    """JSON with what Python's own writer has no word for: keys that come twice, and depths."""
    if isinstance(value, Deep):
        return value.text().encode()
    if isinstance(value, dict):
        return (
            b"{" + b",".join(written(str(key)) + b":" + written(item) for key, item in value.items()) + b"}"
        )
    if isinstance(value, list):
        return b"[" + b",".join(map(written, value)) + b"]"
    return json.dumps(value).encode()


def _places(value: Any) -> Any:
    """(holder, key) of everything in lists and objects."""
    keys: Any = (
        range(len(value)) if isinstance(value, list) else list(value) if isinstance(value, dict) else ()
    )
    for key in keys:
        yield value, key
        yield from _places(value[key])


# -- text --------------------------------------------------------------------------------------------------------------


def change_text(rng: random.Random, data: bytes) -> bytes:
    """Change the lines of a text file, or its bytes."""
    if rng.random() < 0.3:
        return change_bytes(rng, data)
    lines = data.decode("utf-8", "replace").split("\n")
    at = rng.randrange(len(lines))
    act = rng.randrange(4)
    if act == 0:
        lines[at] = rng.choice(TEXTS)
    elif act == 1:
        lines.insert(at, lines[at])
    elif act == 2:
        del lines[at]
    else:
        lines[at] += rng.choice(TEXTS)
    return "\n".join(lines).encode("utf-8", "surrogatepass")
