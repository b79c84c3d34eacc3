"""The leaves of composed configs: their names, their sentences, and how text or JSON becomes their value.

A config is a frozen dataclass whose fields are other configs (sections) or leaves: int, float, bool, str, a `Literal`,
a tuple of those, each perhaps `| None`. A leaf is called by its path, "train.steps". Its sentence is the string written
under the field in the source. It knows no recipe: `recipe.py` says which configs there are and which values make sense.
"""

import ast
import math
import re
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from functools import cache
from typing import Any, Literal, get_args, get_origin

NUMBER_SEPARATOR = re.compile(r"\s*[,xX×]\s*|\s+")  # 256x320, "256, 320", "256 320"
WORDS_OF_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
WORDS_OF_ABSENCE = ("null", "none")
QUOTES = ("'", '"')


@dataclass(frozen=True)
class Leaf:
    """One value a user may set."""

    name: str
    """The path from the top, such as "train.steps"."""
    annotation: Any
    """The resolved type: int, float, bool, str, a Literal, a tuple of those, or such a type `| None`."""
    default: Any
    """The value where a config does not say; `dataclasses.MISSING` where it has to."""
    doc: str
    """The sentence under the field in the source, on one line."""

    @property
    def type_text(self) -> str:
        """The type as one would write it: "int | None", "original | short"."""
        return _type_text(self.annotation)


def leaves(config: type) -> dict[str, Leaf]:
    """Return every leaf of a config class by its path, in the order of the source."""
    return dict(_leaves(config))


@cache
def _leaves(config: type) -> Mapping[str, Leaf]:
    found: dict[str, Leaf] = {}
    hints, docs = typing.get_type_hints(config), field_docs(config)
    for field in fields(config):
        annotation = hints[field.name]
        if is_dataclass(annotation):
            inner = _leaves(typing.cast(type, annotation)).values()
            found.update(
                {
                    f"{field.name}.{leaf.name}": replace(leaf, name=f"{field.name}.{leaf.name}")
                    for leaf in inner
                }
            )
            continue
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        found[field.name] = Leaf(field.name, annotation, default, docs.get(field.name, ""))
    return types.MappingProxyType(found)


def sections(config: type) -> dict[str, type]:
    """Return the fields of a config class that are configs themselves, by name."""
    hints = typing.get_type_hints(config)
    return {field.name: hints[field.name] for field in fields(config) if is_dataclass(hints[field.name])}


def get(config: object, path: str) -> Any:
    """Return the value of the leaf at `path`."""
    for part in path.split("."):
        config = getattr(config, part)
    return config


def field_docs(config: type) -> dict[str, str]:
    """Return the string written under each field of a class, on one line; {} where no source is at hand."""
    path = getattr(sys.modules.get(config.__module__), "__file__", None) or ""
    node = _classes(path).get(config.__qualname__) if path.endswith(".py") else None
    if node is None:
        return {}
    docs: dict[str, str] = {}
    for statement, following in zip(node.body, node.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            match following:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    docs[statement.target.id] = " ".join(text.split())
    return docs


@cache
def _classes(path: str) -> Mapping[str, ast.ClassDef]:
    try:
        with open(path, encoding="utf-8") as file:
            tree = ast.parse(file.read())
    except OSError:
        return {}
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def parse(text: str, annotation: Any) -> Any:
    """Return the value that `text`, as typed, stands for; raises ValueError where it stands for none.

    int: 2000, 2_000, 1e3. float: 1e-3. bool: true, false, yes, no. Literal: one of its choices. tuple: 256x320,
    256,320 or [256,320]; strings between commas. `| None`: null or none. Quotes round a string are taken off, so that
    'none' can be a word.
    """
    text = text.strip()
    inner = _without_none(annotation)
    if get_origin(inner) is Literal and text in get_args(inner):
        return text
    if inner is not annotation and text.lower() in WORDS_OF_ABSENCE:
        return None
    if get_origin(inner) is tuple:
        return _parse_tuple(text, inner)
    if inner is str:
        return text[1:-1] if len(text) >= 2 and text[0] == text[-1] and text[0] in QUOTES else text
    if inner is bool and text.lower() in WORDS_OF_TRUTH:
        return WORDS_OF_TRUTH[text.lower()]
    if inner is float:
        return _finite(float(text))
    if inner is int:
        return _whole(text)
    raise ValueError(text)


def _parse_tuple(text: str, annotation: Any) -> tuple[Any, ...]:
    items = get_args(annotation)
    if len(text) >= 2 and text[0] + text[-1] in ("[]", "()"):
        text = text[1:-1].strip()
    if not text:
        parts: list[str] = []
    elif str in items or get_origin(items[0]) is Literal:
        parts = text.split(",")
    else:
        parts = NUMBER_SEPARATOR.split(text)
    if not all(part.strip() for part in parts):
        raise ValueError(text)
    kinds = [items[0]] * len(parts) if items[-1] is Ellipsis else items
    return tuple(parse(part, kind) for part, kind in zip(parts, kinds, strict=True))


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        number = _finite(float(text))
        if number != int(number) or abs(number) >= 2**53:  # beyond, a float no longer counts one by one
            raise
        return int(number)


def _finite(number: float) -> float:
    try:
        number = float(number)
    except OverflowError:  # a whole number of hundreds of digits
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(number)
    return number


def to_text(value: Any, annotation: Any = None) -> str:
    """Return the text that `parse` reads back as `value`; the type matters where a free string is called "none"."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in QUOTES
        is_free = annotation is not None and get_origin(_without_none(annotation)) is not Literal
        ambiguous = quoted or value != value.strip() or value.lower() in WORDS_OF_ABSENCE
        return f"'{value}'" if is_free and ambiguous else value
    if isinstance(value, tuple):
        is_size = len(value) == 2 and all(type(number) is int for number in value)
        return "x".join(map(str, value)) if is_size else "[" + ",".join(map(to_text, value)) + "]"
    return repr(value)


def conform(value: Any, annotation: Any) -> Any:
    """Return a JSON value as `annotation` wants it: lists as tuples, whole numbers as floats; else ValueError."""
    inner = _without_none(annotation)
    if value is None and inner is not annotation:
        return None
    if get_origin(inner) is Literal and isinstance(value, str) and value in get_args(inner):
        return value
    if get_origin(inner) is tuple and isinstance(value, list | tuple):
        items = get_args(inner)
        kinds = [items[0]] * len(value) if items[-1] is Ellipsis else items
        return tuple(conform(item, kind) for item, kind in zip(value, kinds, strict=True))
    if inner is float and type(value) in (int, float):
        return _finite(value)
    if inner in (int, bool, str) and type(value) is inner:
        return value
    raise ValueError(value)


def expects(annotation: Any) -> str:
    """Return what a value of this type is, in words: "a whole number", "one of poly, constant"."""
    inner = _without_none(annotation)
    if inner is not annotation:
        return f"{expects(inner)} or null"
    if get_origin(inner) is Literal:
        return f"one of {', '.join(get_args(inner))}"
    if get_origin(inner) is tuple:
        items = get_args(inner)
        if get_origin(items[0]) is Literal:
            return f"any of {', '.join(get_args(items[0]))}, with commas between them"
        plural = {int: "whole numbers", float: "numbers", str: "words"}[items[0]]
        if items[-1] is Ellipsis:
            return f"{plural} with commas between them"
        return f"{ {2: 'two', 3: 'three', 4: 'four'}.get(len(items), len(items)) } {plural}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}[inner]


def example(annotation: Any) -> str:
    """Return a text that `parse` takes for this type."""
    inner = _without_none(annotation)
    if get_origin(inner) is Literal:
        return str(get_args(inner)[0])
    if get_origin(inner) is tuple:
        items = get_args(inner)
        if items == (int, int):
            return "256x320"
        if get_origin(items[0]) is Literal:
            return ",".join(get_args(items[0])[:2])
        return {int: "1,2", float: "0.5,2.0", str: "road,sidewalk"}[items[0]]
    return {int: "2000", float: "0.001", bool: "true", str: "name"}[inner]


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) not in (types.UnionType, typing.Union):
        return annotation
    kinds = [kind for kind in get_args(annotation) if kind is not types.NoneType]
    assert len(kinds) == 1, f"a leaf has one type, perhaps | None: {annotation}"
    return kinds[0]


def _type_text(annotation: Any) -> str:
    inner = _without_none(annotation)
    if inner is not annotation:
        return f"{_type_text(inner)} | null"
    if get_origin(inner) is Literal:
        return " | ".join(get_args(inner))
    if get_origin(inner) is tuple:
        items = [("…" if item is Ellipsis else _type_text(item)) for item in get_args(inner)]
        return f"({', '.join(items)})"
    return str(inner.__name__)
