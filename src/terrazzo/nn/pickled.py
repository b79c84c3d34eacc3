"""A pickle read as data: an opcode machine that imports nothing and calls nothing that the file names.

A pickle is a program for a small stack machine, and two of its instructions make it dangerous: one fetches any name
of any module, the other calls what was fetched. Here a name stays a `Name`, and a call makes an `Inert` object which
remembers what would have been called with what. Only the names that the caller lists are answered, by functions of
ours with checked arguments (`pickled_values.py` has those of plain values). Python's pickle module is not used.

Bounds: an instruction takes at least one byte, so there are no more of them than bytes, and none of ours recurses;
strings are cut from the file; what a function copies is paid from a budget of the file's size, so that repeated copies
of a copy end in an error; what has to be hashed is flat. The machine follows PEP 307, 3154 and 574 as the standard
library's pickletools describes them.
"""

import codecs
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from mmap import mmap
from typing import Any

import numpy as np

Data = bytes | mmap
Answer = Callable[["Machine", tuple[Any, ...]], Any]
Fill = Callable[["Machine", Any, Any], None]

# Nothing of a pickle runs here, whatever it names. A file that names one of these was made to do harm elsewhere, and
# whoever opens it should hear of it.
HARMFUL_MODULES = {"os", "posix", "nt", "subprocess", "pty", "sys", "shutil", "socket", "runpy", "importlib", "ctypes",
                   "webbrowser", "pdb"}  # fmt: skip
HARMFUL_BUILTINS = {
    "eval",
    "exec",
    "execfile",
    "compile",
    "__import__",
    "open",
    "input",
    "breakpoint",
    "globals",
}
RENAMED_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg", "numpy._core.multiarray": "numpy.core.multiarray",
                   "numpy._core.numeric": "numpy.core.numeric"}  # fmt: skip


class MalformedError(ValueError):
    """The bytes are no pickle, or not one that can be taken as data; the caller tells it with the file's name."""


class HarmfulError(ValueError):
    """The pickle names something that runs code; `str` is the name."""


@dataclass(frozen=True)
class Name:
    """A name that the pickle mentions; nothing was imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Inert:
    """What an object would have been: the call that makes it and what is put into it, none of it done."""

    what: str
    """The name of what would have been called, such as "mmengine.logging.history_buffer.HistoryBuffer"."""
    arguments: tuple[Any, ...] = ()
    state: Any = None
    """What would have become its attributes."""
    items: list[Any] = field(default_factory=list)
    """What would have been appended to it."""
    entries: dict[Any, Any] = field(default_factory=dict)
    """What would have been stored in it by key."""

    def __repr__(self) -> str:
        return f"<inert {self.what}>"


def mapping(value: Any) -> Mapping[Any, Any]:
    """Return a dict, or the entries of what would have been a kind of dict; {} for anything else."""
    if isinstance(value, Inert):
        return value.entries or (value.state if isinstance(value.state, dict) else {})
    return value if isinstance(value, dict) else {}


def read_pickle(
    data: Data,
    start: int = 0,
    *,
    known: Mapping[str, Answer],
    filled: Mapping[type, Fill],
    persistent: Callable[[Any], Any] | None = None,
) -> tuple[Any, int]:
    """Return what the pickle that begins at `start` describes, and where it ends.

    known: "module.name" -> answer(machine, arguments). filled: type -> fill(machine, object, state), for objects that
    get their content after they were made. persistent: the object of a persistent id. Raises MalformedError and
    HarmfulError, and whatever else an answer raises.
    """
    return Machine(data, start, known, filled, persistent).run()


class Machine:
    """The stack, the marks on it, and the memo of one pickle."""

    def __init__(
        self,
        data: Data,
        start: int,
        known: Mapping[str, Answer],
        filled: Mapping[type, Fill],
        persistent: Callable[[Any], Any] | None,
    ) -> None:
        self.data, self.at = data, start
        self.known, self.filled, self.persistent = known, filled, persistent
        self.size = len(data)
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.budget = 2 * self.size + 4096  # bytes or items that answers may copy

    def run(self) -> tuple[Any, int]:
        """Obey instructions up to the stop; return the object and the position behind it."""
        while True:
            code = self.take(1)[0]
            if code == STOP:
                return self.pop(), self.at
            instruction = INSTRUCTIONS.get(code)
            if instruction is None:
                raise MalformedError(f"byte {code:#04x} at {self.at - 1:,} is no instruction of a pickle")
            instruction(self)

    # reading

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        end = self.at + count
        if count < 0 or end > self.size:
            raise MalformedError(f"it ends in the middle, at byte {self.size:,}")
        piece = self.data[self.at : end]
        self.at = end
        return piece

    def number(self, form: str) -> Any:
        """Return the next number in `struct`'s form."""
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> bytes:
        """Return the bytes up to the end of the line."""
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise MalformedError("a line of it has no end")
        piece = self.data[self.at : end]
        self.at = end + 1
        return piece

    # the stack

    def push(self, value: Any) -> None:
        """Put a value on top."""
        self.stack.append(value)

    def pop(self) -> Any:
        """Take the top value; never one below the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise MalformedError(f"its stack is empty at byte {self.at:,}")
        return self.stack.pop()

    def top(self) -> Any:
        """Return the top value."""
        value = self.pop()
        self.stack.append(value)
        return value

    def pop_to_mark(self) -> list[Any]:
        """Take everything above the last mark, and the mark."""
        if not self.marks:
            raise MalformedError(f"its stack has no mark at byte {self.at:,}")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def recall(self, place: int) -> None:
        """Push what was remembered as `place`."""
        if place not in self.memo:
            raise MalformedError(f"it recalls number {place}, which it never stored")
        self.push(self.memo[place])

    def pay(self, amount: int) -> None:
        """Take what a copy costs from the budget."""
        self.budget -= amount
        if self.budget < 0:
            raise MalformedError("it copies more than it holds, as no checkpoint does")

    # objects

    def name(self, module: str, name: str) -> Name:
        """Return a name, or refuse one that is only there to do harm."""
        root = module.partition(".")[0]
        module = RENAMED_MODULES.get(module, module)
        if root in HARMFUL_MODULES or (module == "builtins" and name.partition(".")[0] in HARMFUL_BUILTINS):
            raise HarmfulError(f"{module}.{name}"[:200])
        return Name(module, name)

    def call(self, what: Any, arguments: Any) -> Any:
        """Return our answer to a call of a known name, an `Inert` object for any other."""
        if not isinstance(arguments, tuple):
            raise MalformedError("it calls something without a tuple of arguments")
        if isinstance(what, Name):
            answer = self.known.get(str(what))
            return answer(self, arguments) if answer is not None else Inert(str(what), arguments)
        if isinstance(what, Inert):
            return Inert(f"{what.what}()"[:200], (what, *arguments))
        raise MalformedError(f"it calls a {type(what).__name__}")

    def build(self, target: Any, state: Any) -> None:
        """Give an object its attributes, as far as the object is ours to fill."""
        if isinstance(target, Inert):
            target.state = state
        elif type(target) in self.filled:
            self.filled[type(target)](self, target, state)
        elif isinstance(target, str | int | float | tuple | list | Name | None):
            raise MalformedError(f"it gives attributes to a {type(target).__name__}")
        # attributes of dicts and tensors, such as a state dict's _metadata, say nothing that is needed here


def hashable(value: Any) -> Any:
    """Return `value` if it is flat enough to be a key: hashing tuples of tuples could take for ever."""
    if isinstance(value, tuple):
        if not all(isinstance(part, str | bytes | int | float | None | Name) for part in value):
            raise MalformedError("it has a key that is no plain value")
        return value
    if isinstance(value, str | bytes | int | float | None | Name | Inert | np.generic):
        return value
    raise MalformedError(f"it has a {type(value).__name__} for a key")


# instructions -------------------------------------------------------------------------------------------


def _append(machine: Machine, items: list[Any]) -> None:
    target = machine.top()
    if isinstance(target, list):
        target.extend(items)
    elif isinstance(target, set):
        target.update(map(hashable, items))
    elif isinstance(target, Inert):
        target.items.extend(items)
    else:
        raise MalformedError(f"it appends to a {type(target).__name__}")


def _store(machine: Machine, flat: list[Any]) -> None:
    target = machine.top()
    entries = target.entries if isinstance(target, Inert) else target
    if not isinstance(entries, dict):
        raise MalformedError(f"it stores by key in a {type(target).__name__}")
    entries.update(_pairs(flat))


def _pairs(flat: list[Any]) -> dict[Any, Any]:
    if len(flat) % 2:
        raise MalformedError("a key of it has no value")
    return {hashable(key): value for key, value in zip(flat[::2], flat[1::2], strict=True)}


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise MalformedError("a string of it is no text") from None


def _old_string(raw: bytes) -> str | bytes:
    """A string of Python 2: text where it is text."""
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        return raw


def _quoted(raw: bytes) -> str | bytes:
    raw = raw.strip()
    if len(raw) < 2 or raw[:1] != raw[-1:] or raw[:1] not in (b"'", b'"'):
        raise MalformedError("a string of it has no quotes")
    return _old_string(codecs.escape_decode(raw[1:-1])[0])


def _whole(line: bytes) -> int | bool:
    if line in (b"00", b"01"):
        return line == b"01"
    return int(line.rstrip(b"L"))


def _long(raw: bytes) -> int:
    return int.from_bytes(raw, "little", signed=True)


def _memoize(machine: Machine, place: int) -> None:
    machine.memo[place] = machine.top()


def _global(machine: Machine) -> None:
    machine.push(machine.name(_text(machine.line()), _text(machine.line())))


def _stack_global(machine: Machine) -> None:
    name, module = machine.pop(), machine.pop()
    if not isinstance(name, str) or not isinstance(module, str):
        raise MalformedError("it names something with what is no text")
    machine.push(machine.name(module, name))


def _reduce(machine: Machine) -> None:
    arguments, what = machine.pop(), machine.pop()
    machine.push(machine.call(what, arguments))


def _new_with_keywords(machine: Machine) -> None:
    keywords, arguments, what = machine.pop(), machine.pop(), machine.pop()
    if not isinstance(what, Name | Inert) or not isinstance(arguments, tuple):
        raise MalformedError("it makes an object of nothing")
    machine.push(Inert(str(what), (*arguments, keywords)))


def _instance(machine: Machine) -> None:
    what = machine.name(_text(machine.line()), _text(machine.line()))
    machine.push(machine.call(what, tuple(machine.pop_to_mark())))


def _object(machine: Machine) -> None:
    parts = machine.pop_to_mark()
    if not parts:
        raise MalformedError("it makes an object of nothing")
    machine.push(machine.call(parts[0], tuple(parts[1:])))


def _build(machine: Machine) -> None:
    state = machine.pop()
    machine.build(machine.top(), state)


def _persistent(machine: Machine, identity: Any) -> None:
    if machine.persistent is None:
        raise MalformedError("it refers to something outside itself")
    machine.push(machine.persistent(identity))


def _pop(machine: Machine) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.pop()


def _tuple(count: int) -> Callable[[Machine], None]:
    def instruction(machine: Machine) -> None:
        machine.push(tuple([machine.pop() for _ in range(count)][::-1]))

    return instruction


def _skip(count: int) -> Callable[[Machine], None]:
    def instruction(machine: Machine) -> None:
        machine.take(count)

    return instruction


def _refuse(what: str) -> Callable[[Machine], None]:
    def instruction(machine: Machine) -> None:
        raise MalformedError(f"it uses {what}, as no file of torch does")

    return instruction


STOP = ord(".")
INSTRUCTIONS: dict[int, Callable[[Machine], None]] = {
    # numbers
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("I"): lambda m: m.push(_whole(m.line())),
    ord("L"): lambda m: m.push(_whole(m.line())),
    ord("F"): lambda m: m.push(float(m.line())),
    ord("J"): lambda m: m.push(m.number("<i")),
    ord("K"): lambda m: m.push(m.number("<B")),
    ord("M"): lambda m: m.push(m.number("<H")),
    ord("G"): lambda m: m.push(m.number(">d")),
    0x8A: lambda m: m.push(_long(m.take(m.number("<B")))),
    0x8B: lambda m: m.push(_long(m.take(m.number("<i")))),
    # strings and bytes
    ord("S"): lambda m: m.push(_quoted(m.line())),
    ord("T"): lambda m: m.push(_old_string(m.take(m.number("<i")))),
    ord("U"): lambda m: m.push(_old_string(m.take(m.number("<B")))),
    ord("V"): lambda m: m.push(m.line().decode("raw-unicode-escape")),
    ord("X"): lambda m: m.push(_text(m.take(m.number("<I")))),
    0x8C: lambda m: m.push(_text(m.take(m.number("<B")))),
    0x8D: lambda m: m.push(_text(m.take(m.number("<Q")))),
    ord("B"): lambda m: m.push(m.take(m.number("<I"))),
    ord("C"): lambda m: m.push(m.take(m.number("<B"))),
    0x8E: lambda m: m.push(m.take(m.number("<Q"))),
    0x96: lambda m: m.push(m.take(m.number("<Q"))),  # a bytearray; nobody here writes to it
    # containers
    ord("("): lambda m: m.marks.append(len(m.stack)),
    ord(")"): lambda m: m.push(()),
    ord("t"): lambda m: m.push(tuple(m.pop_to_mark())),
    0x85: _tuple(1),
    0x86: _tuple(2),
    0x87: _tuple(3),
    ord("]"): lambda m: m.push([]),
    ord("l"): lambda m: m.push(m.pop_to_mark()),
    ord("a"): lambda m: _append(m, [m.pop()]),
    ord("e"): lambda m: _append(m, m.pop_to_mark()),
    ord("}"): lambda m: m.push({}),
    ord("d"): lambda m: m.push(_pairs(m.pop_to_mark())),
    ord("s"): lambda m: _store(m, [m.pop(), m.pop()][::-1]),
    ord("u"): lambda m: _store(m, m.pop_to_mark()),
    0x8F: lambda m: m.push(set()),
    0x90: lambda m: _append(m, m.pop_to_mark()),
    0x91: lambda m: m.push(frozenset(map(hashable, m.pop_to_mark()))),
    # the stack and the memo
    ord("0"): _pop,
    ord("1"): lambda m: m.pop_to_mark().clear(),
    ord("2"): lambda m: m.push(m.top()),
    ord("p"): lambda m: _memoize(m, int(m.line())),
    ord("q"): lambda m: _memoize(m, m.number("<B")),
    ord("r"): lambda m: _memoize(m, m.number("<I")),
    0x94: lambda m: _memoize(m, len(m.memo)),
    ord("g"): lambda m: m.recall(int(m.line())),
    ord("h"): lambda m: m.recall(m.number("<B")),
    ord("j"): lambda m: m.recall(m.number("<I")),
    # names, calls and attributes: taken down, not obeyed
    ord("c"): _global,
    0x93: _stack_global,
    ord("R"): _reduce,
    0x81: _reduce,
    0x92: _new_with_keywords,
    ord("i"): _instance,
    ord("o"): _object,
    ord("b"): _build,
    ord("P"): lambda m: _persistent(m, _text(m.line())),
    ord("Q"): lambda m: _persistent(m, m.pop()),
    # the frame around
    0x80: _skip(1),
    0x95: _skip(8),
    **dict.fromkeys((0x82, 0x83, 0x84), _refuse("names kept outside itself")),
    **dict.fromkeys((0x97, 0x98), _refuse("buffers kept outside itself")),
}
