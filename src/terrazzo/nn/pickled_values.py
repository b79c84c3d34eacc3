"""What a pickle's plain parts become: Python's containers, and numpy's numbers and arrays of numbers.

`pickled.py` takes a pickle down as data; the answers here are the few calls it makes good on. Arguments are checked
first, nothing of objects or records is made, and what is copied is paid for.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from terrazzo.nn.pickled import Answer, Inert, Machine, MalformedError, hashable


def _ordered(machine: Machine, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """A dict, from nothing, from pairs, or from another dict."""
    given = arguments[0] if arguments else ()
    if isinstance(given, dict):
        machine.pay(len(given))
        return dict(given)
    if not isinstance(given, list | tuple) or not all(len(pair) == 2 for pair in given):
        raise MalformedError("a dict of it is made of something else than pairs")
    machine.pay(len(given))
    return {hashable(pair[0]): pair[1] for pair in given}


def _default(machine: Machine, arguments: tuple[Any, ...]) -> dict[Any, Any]:
    return {}  # a dict with a factory, which is not needed to read it


def _sequence(kind: Callable[[Any], Any], is_hashed: bool = False) -> Answer:
    def answer(machine: Machine, arguments: tuple[Any, ...]) -> Any:
        given = arguments[0] if arguments else ()
        if not isinstance(given, list | tuple | set | frozenset):
            raise MalformedError("a list of it is made of something else")
        machine.pay(len(given))
        return kind(map(hashable, given) if is_hashed else given)

    return answer


def _encoded(machine: Machine, arguments: tuple[Any, ...]) -> bytes:
    """bytes, as protocol 2 writes them: text in latin-1."""
    if not arguments:
        return b""
    if not isinstance(arguments[0], str | bytes):
        raise MalformedError("bytes of it are no text")
    machine.pay(len(arguments[0]))
    return arguments[0].encode("latin-1") if isinstance(arguments[0], str) else arguments[0]


def _complex(machine: Machine, arguments: tuple[Any, ...]) -> complex:
    if len(arguments) != 2 or not all(isinstance(part, int | float) for part in arguments):
        raise MalformedError("a complex number of it is none")
    return complex(*arguments)


class NumpyType:
    """A numpy type of numbers, in either byte order; types of objects and of records are refused."""

    def __init__(self, code: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"[<>=|]?([biufc]\d{1,2}|[?bBhHiIlLqQefdFD])", code):
            raise MalformedError("a numpy array of it holds something else than numbers")
        self.dtype = np.dtype(code)

    def set_order(self, state: Any) -> None:
        """Take the byte order from what numpy pickles of a type: (version, order, …)."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise MalformedError("a numpy type of it has no byte order")
        self.dtype = self.dtype.newbyteorder(order)


def _numpy_type(machine: Machine, arguments: tuple[Any, ...]) -> NumpyType:
    return NumpyType(arguments[0] if arguments else None)


def _numpy_scalar(machine: Machine, arguments: tuple[Any, ...]) -> Any:
    kind, raw = _typed(arguments)
    if len(raw) != kind.dtype.itemsize:
        raise MalformedError("a numpy number of it has too few bytes")
    return np.frombuffer(raw, kind.dtype)[0]


def _numpy_array(machine: Machine, arguments: tuple[Any, ...]) -> Any:
    """An empty array, which `build` fills."""
    if not arguments or str(arguments[0]) != "numpy.ndarray":
        return Inert("numpy.core.multiarray._reconstruct", arguments)
    return np.empty(0, np.uint8)


def _numpy_buffer(machine: Machine, arguments: tuple[Any, ...]) -> Any:
    """An array as protocol 5 writes it: bytes, type, shape, order."""
    if len(arguments) != 4:
        raise MalformedError("a numpy array of it is incomplete")
    kind, raw = _typed((arguments[1], arguments[0]))
    return np.frombuffer(raw, kind.dtype).reshape(_shape(arguments[2]), order=_order(arguments[3] == "F"))


def _fill_array(machine: Machine, array: np.ndarray[Any, Any], state: Any) -> None:
    if not isinstance(state, tuple) or len(state) != 5:
        raise MalformedError("a numpy array of it is incomplete")
    _, shape, kind, is_fortran, raw = state
    kind, raw = _typed((kind, raw.encode("latin-1") if isinstance(raw, str) else raw))
    shape = _shape(shape)
    machine.pay(len(raw))
    if len(raw) != kind.dtype.itemsize * int(np.prod(shape, dtype=object)):
        raise MalformedError("a numpy array of it has another size than its shape")
    filled: Any = (1, shape, kind.dtype, bool(is_fortran), raw)
    array.__setstate__(filled)


def _typed(arguments: tuple[Any, ...]) -> tuple[NumpyType, bytes]:
    if len(arguments) != 2 or not isinstance(arguments[0], NumpyType) or not isinstance(arguments[1], bytes):
        raise MalformedError("a numpy value of it is no number")
    return arguments[0], arguments[1]


def _shape(value: Any) -> tuple[int, ...]:
    if (
        not isinstance(value, tuple)
        or len(value) > 32
        or not all(isinstance(n, int) and 0 <= n < 1 << 48 for n in value)
    ):
        raise MalformedError("a numpy array of it has no shape")
    return value


def _order(is_fortran: bool) -> Any:
    return "F" if is_fortran else "C"


PLAIN: Mapping[str, Answer] = {
    "collections.OrderedDict": _ordered,
    "collections.Counter": _ordered,
    "collections.defaultdict": _default,
    "builtins.dict": _ordered,
    "builtins.list": _sequence(list),
    "builtins.tuple": _sequence(tuple),
    "builtins.set": _sequence(set, is_hashed=True),
    "builtins.frozenset": _sequence(frozenset, is_hashed=True),
    "builtins.bytes": _encoded,
    "builtins.bytearray": _encoded,
    "builtins.complex": _complex,
    "_codecs.encode": _encoded,
    "torch.Size": _sequence(tuple),
    "numpy.dtype": _numpy_type,
    "numpy.core.multiarray.scalar": _numpy_scalar,
    "numpy.core.multiarray._reconstruct": _numpy_array,
    "numpy.core.numeric._frombuffer": _numpy_buffer,
}

FILLED: Mapping[type, Callable[[Machine, Any, Any], None]] = {
    np.ndarray: _fill_array,
    NumpyType: lambda _, kind, state: kind.set_order(state),
}
