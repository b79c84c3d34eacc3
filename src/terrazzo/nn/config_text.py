"""The text of a Python config, read with `ast` and never executed: assignments of plain values to names.

Understood are numbers, strings, lists, tuples, dicts, `dict(...)`, arithmetic on literals, names assigned earlier,
their items and keys, and f-strings of such. Whatever else stands there (calls, imports, comprehensions) becomes an
`Unread` value in its place, which hurts only the reader who needs that very value. A config that builds on others
(`_base_`) is refused: what it says lies elsewhere.
"""

import ast
import operator
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from terrazzo.errors import UnreadableFileError, UsageError

MOST_CHARACTERS = 1_000_000  # the longest config of OpenMMLab's has 40,000
MOST_ITEMS = 1_000_000  # in all values together, copies counted
STATEMENT = re.compile(r"^(?=[A-Za-z_]\w* = )", re.MULTILINE)


@dataclass(frozen=True)
class Unread:
    """A value that only running the config would give."""

    source: str
    """What stands there."""


def read_config_text(text: str, *, where: str) -> dict[str, Any]:
    """Return the values of a config's names; `where` names it in errors.

    Raises UsageError for a config that builds on others, UnreadableFileError for what is no Python at all.
    """
    if len(text) > MOST_CHARACTERS:
        raise UnreadableFileError(f"{where} is too long for a config.", found=f"{len(text):,} characters")
    values = Values()
    for statement in _statements(text, where):
        if isinstance(statement, ast.Assign):
            value = _value(statement.value, values)
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    values[target.id] = value
                else:
                    _set(target, value, values)
        elif isinstance(statement, ast.With) and "read_base" in ast.unparse(statement.items[0]):
            raise _builds_on_others(
                where, " ".join(map(ast.unparse, statement.body))
            )  # the newer way of saying _base_
    if values.get("_base_"):
        raise _builds_on_others(where, shown(values["_base_"]))
    return dict(values)


class Values(dict[str, Any]):
    """Values by name, and how many items they may still hold."""

    left = MOST_ITEMS

    def pay(self, count: int) -> None:
        """Count items that are made; ValueError when there are too many for any config."""
        self.left -= count
        if self.left < 0:
            raise ValueError("too many items")


def shown(value: Any) -> str:
    """Return a value for a message: plain ones, and flat lists of them, in full."""
    if isinstance(value, Unread):
        return value.source
    if isinstance(value, str | int | float | None):
        return repr(value)[:200]
    if isinstance(value, list | tuple) and len(value) <= 8:
        inner = ", ".join(shown(one) if not isinstance(one, list | tuple | dict) else "…" for one in value)
        return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
    return f"a {type(value).__name__}"


def _statements(text: str, where: str) -> Iterator[ast.stmt]:
    """The statements of a config; where one of them is no Python (a printed object), the others."""
    try:
        yield from _parsed(text)
        return
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        first = error
    is_any = False
    for piece in STATEMENT.split(text):
        name, equals, _ = piece.partition(" = ")
        try:
            parsed = _parsed(piece)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            if not equals or not name.isidentifier():
                continue
            call = ast.Constant(Ellipsis)  # as anything else that is not understood
            yield ast.Assign(targets=[ast.Name(name, ast.Store())], value=call, lineno=1)
            continue
        is_any = is_any or bool(parsed)
        yield from parsed
    if not is_any:
        raise UnreadableFileError(
            f"{where} is no Python config.",
            found=str(first).splitlines()[0][:200],
            expected="name = value, in lines",
        ) from first


def _parsed(text: str) -> list[ast.stmt]:
    with warnings.catch_warnings():  # of habits in their strings, such as "\\d"
        warnings.simplefilter("ignore")
        return ast.parse(text).body


def _builds_on_others(where: str, bases: str) -> UsageError:
    return UsageError(
        f"{where} builds on other configs, which are not followed.",
        found=f"_base_: {' '.join(bases.split())[:200]}",
        expected="one config with everything in it",
        hint="A training of MMSegmentation writes it into its work_dirs as NAME.py, newer ones into the checkpoint. In "
        "an installation that still works, this prints it:",
        command="python tools/misc/print_config.py CONFIG.py > full.py",
    )


def _set(target: ast.expr, value: Any, values: "Values") -> None:
    """Obey `name["key"] = value`, at any depth."""
    if not isinstance(target, ast.Subscript):
        return
    place, key = _value(target.value, values), _value(target.slice, values)
    is_new = isinstance(place, dict) and isinstance(key, str | int)
    if is_new or (isinstance(place, list) and isinstance(key, int) and -len(place) <= key < len(place)):
        place[key] = value


def _value(node: ast.expr, values: "Values") -> Any:
    """Return what an expression says; Unread where only running it would tell."""
    reader = READERS.get(type(node))
    try:
        value = reader(node, values) if reader is not None else NotImplemented
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError):
        value = NotImplemented
    return Unread(_shown(node)) if value is NotImplemented else value


def _key(node: ast.expr, values: "Values") -> Any:
    """A key or position: flat, since hashing tuples of tuples could take for ever."""
    key = _value(node, values)
    if not isinstance(key, str | int | float | None):
        raise TypeError("no key")
    return key


def _shown(node: ast.expr) -> str:
    try:
        return " ".join(ast.unparse(node).split())[:80]
    except (RecursionError, ValueError):
        return "an expression"


def _constant(node: Any, values: "Values") -> Any:
    return NotImplemented if node.value is Ellipsis else node.value


def _name(node: Any, values: "Values") -> Any:
    return values.get(node.id, NotImplemented)


def _items(nodes: list[ast.expr], values: "Values") -> list[Any]:
    items: list[Any] = []
    for node in nodes:
        if isinstance(node, ast.Starred):
            items.extend(_value(node.value, values))
        else:
            items.append(_value(node, values))
    values.pay(len(items))
    return items


def _dict(node: Any, values: "Values") -> Any:
    made: dict[Any, Any] = {}
    for key, item in zip(node.keys, node.values, strict=True):
        if key is None:
            made.update(_value(item, values))
        else:
            made[_key(key, values)] = _value(item, values)
    values.pay(len(made))
    return made


def _call(node: Any, values: "Values") -> Any:
    """dict(a=1, **other), list(...) and tuple(...); no other call."""
    name = node.func.id if isinstance(node.func, ast.Name) else None
    given = _items(node.args, values)
    if name == "dict":
        if len(given) > 1 or not all(isinstance(one, dict) for one in given):
            return NotImplemented
        made = dict(*given)
        for keyword in node.keywords:
            value = _value(keyword.value, values)
            made.update(value if keyword.arg is None else {keyword.arg: value})
        values.pay(len(made))
        return made
    if name in ("list", "tuple") and not node.keywords and len(given) <= 1:
        parts = given[0] if given else ()
        if isinstance(parts, list | tuple):
            values.pay(len(parts))
            return list(parts) if name == "list" else tuple(parts)
    return NotImplemented


def _unary(node: Any, values: "Values") -> Any:
    value = _value(node.operand, values)
    sign = SIGNS.get(type(node.op))
    return sign(value) if sign is not None and isinstance(value, bool | int | float) else NotImplemented


def _binary(node: Any, values: "Values") -> Any:
    one, other = _value(node.left, values), _value(node.right, values)
    compute = ARITHMETIC.get(type(node.op))
    if compute is None:
        return NotImplemented
    if isinstance(one, int | float) and isinstance(other, int | float):
        return compute(one, other) if max(abs(one), abs(other)) < 1 << 64 else NotImplemented
    if isinstance(node.op, ast.Add) and isinstance(one, list | tuple | str) and type(one) is type(other):
        values.pay(len(one) + len(other))
        return operator.add(one, other)
    if isinstance(node.op, ast.Mult):
        series, times = (one, other) if isinstance(other, int) else (other, one)
        if isinstance(series, list | tuple | str) and isinstance(times, int):
            values.pay(len(series) * max(0, times))
            return series * times
    return NotImplemented


def _subscript(node: Any, values: "Values") -> Any:
    place = _value(node.value, values)
    return NotImplemented if isinstance(place, Unread) else place[_key(node.slice, values)]


def _joined(node: Any, values: "Values") -> Any:
    """An f-string of plain values, without formats."""
    parts: list[str] = []
    for part in node.values:
        value = part.value if isinstance(part, ast.Constant) else _value(part.value, values)
        if not isinstance(value, str | int | float) or getattr(part, "format_spec", None) is not None:
            return NotImplemented
        parts.append(str(value))
    values.pay(sum(map(len, parts)))
    return "".join(parts)


SIGNS: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}
ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
READERS: dict[type[ast.expr], Callable[[Any, Values], Any]] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.List: lambda node, values: _items(node.elts, values),
    ast.Tuple: lambda node, values: tuple(_items(node.elts, values)),
    ast.Dict: _dict,
    ast.Call: _call,
    ast.UnaryOp: _unary,
    ast.BinOp: _binary,
    ast.Subscript: _subscript,
    ast.JoinedStr: _joined,
}
