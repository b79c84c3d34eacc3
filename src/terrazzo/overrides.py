"""What people write becomes fields of a recipe: overrides such as "train.steps=2000", and the JSON that a run stores.

A value is read by the type of its field (`fields.py`) and held against its range (`ranges.py`); a wrong name gets the
nearest ones; every problem is told at once. Which fields there are is said by the class that is passed in, so this page
knows of recipes no more than that they are composed of configs and have a name.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, replace
from typing import TYPE_CHECKING, Any

from terrazzo import fields as leaf
from terrazzo.errors import RecipeError, nearest
from terrazzo.ranges import out_of_range

if TYPE_CHECKING:
    from terrazzo.recipe import Recipe


def read_overrides(recipe: "Recipe", overrides: Sequence[str]) -> dict[str, Any]:
    """Return {path: value} of overrides; RecipeError with every problem of every one."""
    if isinstance(overrides, str):
        raise RecipeError("Overrides are a list.", found=repr(overrides), expected=repr([overrides]))
    values: dict[str, Any] = {}
    problems: list[RecipeError] = []
    for override in overrides:
        name, equals, text = (part.strip() for part in override.partition("="))
        try:
            known = _field(recipe, name)
            if not equals:
                raise RecipeError(
                    f"The override {override!r} has no value.", expected=_example(recipe, known)
                )
            if name in values:
                raise RecipeError(f"{name} is given twice.", expected="once; the second may be a leftover")
            values[name] = _parsed(recipe, known, text)
        except RecipeError as problem:
            problems.append(problem)
    raise_all(problems, f"in the overrides of recipe {recipe.name!r}")
    return values


def _field(recipe: "Recipe", name: str) -> leaf.Leaf:
    kind = type(recipe)
    known = leaf.leaves(kind)
    if name in known:
        return known[name]
    if name in leaf.sections(kind):
        raise _not_a_field(
            kind, name, f"one of its fields, such as {_example(recipe, known[_inside(kind, name)[0]])}"
        )
    raise _unknown_field(kind, name, command=f"terrazzo recipes {recipe.name}")


def _parsed(recipe: "Recipe", known: leaf.Leaf, text: str) -> Any:
    try:
        value = leaf.parse(text, known.annotation)
    except ValueError as error:
        expected = f"{leaf.expects(known.annotation)}, such as {_example(recipe, known)}"
        raise RecipeError(f"{known.name} cannot be {text!r}.", expected=expected) from error
    if problem := out_of_range(known.name, value):
        raise problem
    return value


def _example(recipe: "Recipe", known: leaf.Leaf) -> str:
    """The field as an override: with its value in this recipe, or one of its type where that says nothing."""
    value = leaf.get(recipe, known.name)
    is_empty = value is None or value == ()
    text = leaf.example(known.annotation) if is_empty else leaf.to_text(value, known.annotation)
    return f"{known.name}={text}"


def read_json_fields(kind: type, value: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return {path: value} of a recipe's JSON for the config class `kind`; RecipeError with every problem in it."""
    known = leaf.leaves(kind)
    required = [path for path, one in known.items() if one.default is MISSING]
    problems = [RecipeError(f"{path} is missing.") for path in required if path not in value]
    values: dict[str, Any] = {}
    for path, item in _flat(kind, value):
        try:
            values[path] = _conformed(kind, path, item)
        except RecipeError as problem:
            problems.append(problem)
    raise_all(problems, f"in {where}")
    return values


def _flat(kind: type, value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if name in leaf.sections(kind) and isinstance(item, Mapping):
            yield from ((f"{name}.{inner}", one) for inner, one in item.items())
        elif name != "format_version":
            yield name, item


def _conformed(kind: type, path: str, item: Any) -> Any:
    known = leaf.leaves(kind).get(path)
    if known is None and path in leaf.sections(kind):
        raise _not_a_field(kind, path, "an object with its fields")
    if known is None:
        raise _unknown_field(kind, path)
    try:
        value = leaf.conform(item, known.annotation)
    except ValueError as error:
        raise RecipeError(f"{path} cannot be {item!r}.", expected=leaf.expects(known.annotation)) from error
    if problem := out_of_range(path, value):
        raise problem
    return value


def replaced(recipe: "Recipe", values: Mapping[str, Any]) -> "Recipe":
    """Return `recipe` with the leaves at these paths replaced, all at once."""
    changed = {path: value for path, value in values.items() if "." not in path}
    for section in leaf.sections(type(recipe)):
        mine = {path.partition(".")[2]: values[path] for path in values if path.startswith(f"{section}.")}
        changed[section] = replace(getattr(recipe, section), **mine)
    return replace(recipe, **changed)


def mistyped(recipe: "Recipe", known: leaf.Leaf) -> RecipeError | None:
    """Return what is wrong with the type of a field's value, None where it is right."""
    value = leaf.get(recipe, known.name)
    try:
        if leaf.conform(value, known.annotation) == value:  # a list is not equal to its tuple
            return None
    except ValueError:
        pass
    example = leaf.parse(leaf.example(known.annotation), known.annotation)
    expected = f"{leaf.expects(known.annotation)}, such as {example!r}"
    return RecipeError(f"{known.name} cannot be {value!r}.", expected=expected)


def _inside(kind: type, section: str) -> list[str]:
    return [path for path in leaf.leaves(kind) if path.startswith(f"{section}.")]


def _not_a_field(kind: type, section: str, expected: str) -> RecipeError:
    what = f"{section} is a section of the recipe, not a field."
    return RecipeError(what, expected=expected, hint=f"Its fields: {', '.join(_inside(kind, section))}.")


def _unknown_field(kind: type, name: str, *, command: str | None = None) -> RecipeError:
    """The nearest fields: with the same last part or one like it, those of the section that was named first."""
    section, _, last = name.rpartition(".")
    by_last: dict[str, list[str]] = {}
    for path in leaf.leaves(kind):
        by_last.setdefault(path.rpartition(".")[2], []).append(path)
    alike = [path for one in ([last] if last in by_last else nearest(last, by_last)) for path in by_last[one]]
    near = [path for path in alike if path.rpartition(".")[0] == section] or alike
    what = f"There is no recipe field {name!r}."
    if near:
        return RecipeError(what, hint=f"Did you mean {' or '.join(near)}?")
    return RecipeError(what, hint="Every field with its value:" if command else None, command=command)


def raise_all(problems: Sequence[RecipeError], where: str) -> None:
    """Raise the one problem, or one error that lists them all; nothing where there is none."""
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise RecipeError(f"{len(problems)} problems {where}.", hint="\n".join(map(str, problems)))
