"""From raw ids and their names to the one label space: K classes, the table, and what was ignored, said aloud.

A data set's own list may hold names that are no classes ("unlabeled", "void-static"); those ids become ignore, unless
`keep_void`. The raw ids and names stay known, so predictions can be given in them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from terrazzo.classes import Classes, Color, Remap, distinct_colors, ignore_value, is_void
from terrazzo.errors import DatasetFormatError


@dataclass(frozen=True)
class LabelSpace:
    """What raw ids mean."""

    classes: Classes
    """The K classes that are trained and scored."""
    remap: Remap
    """Raw id -> class id or ignore."""
    raw_names: Mapping[int, str]
    """Raw id -> name as published, for every raw id that has one."""
    notes: tuple[str, ...] = ()
    """What was decided, one sentence each, for people to read."""


def from_raw_names(raw_names: Mapping[int, str], *, keep_void: bool = False) -> LabelSpace:
    """Return the label space of a plain list {raw id: name}, as `id2label.json` and `classes.txt` give it."""
    raws = sorted(raw_names)
    names = [raw_names[raw] for raw in raws]
    table: dict[int, int | None] = {raw: position for position, raw in enumerate(raws)}
    table.setdefault(ignore_value(len(names)), None)
    return settle(names, (), table, raw_names=raw_names, keep_void=keep_void)


def settle(
    names: Sequence[str],
    colors: Sequence[Color],
    table: Mapping[int, int | None],
    *,
    raw_names: Mapping[int, str] | None = None,
    keep_void: bool = False,
) -> LabelSpace:
    """Return the label space of `names` (position = class id) and `table` (raw id -> class id or None).

    Void names among `names` become ignore. With `keep_void` they stay, and raw ids that the table ignores but
    `raw_names` names become classes after the others.
    """
    names, colors = list(names), list(colors) or list(distinct_colors(len(names)))
    table = dict(table)
    has_ignore = table.get(ignore_value(len(names)), 0) is None
    named = {
        raw: names[class_id]
        for raw, class_id in table.items()
        if class_id is not None and class_id < len(names)
    }
    named.update({int(raw): str(name) for raw, name in (raw_names or {}).items()})
    notes: list[str] = []
    if keep_void:
        added = _keep_named(names, colors, table, named)
        if added:
            notes.append(f"Kept as classes, as asked: {', '.join(added)}.")
    else:
        void = [name for name in names if is_void(name)]
        if void and len(void) < len(names):
            names, colors, table = _without(void, names, colors, table)
            notes.append(
                f"Ignored, not trained and not scored: {', '.join(void)} "
                f"({len(void)} of {len(names) + len(void)} names). --keep-void keeps them as classes."
            )
        elif void:
            notes.append(f"Every name means 'not labelled' ({', '.join(void)}); all are kept as classes.")
    if has_ignore:  # its value follows the count of classes
        table.setdefault(ignore_value(len(names)), None)
    return LabelSpace(Classes(tuple(names), tuple(colors)), Remap(table, len(names)), named, tuple(notes))


def merge(space: LabelSpace, merges: Sequence[str]) -> LabelSpace:
    """Return the label space in which classes are joined: "car+truck=vehicle" makes one class of two.

    The new class stands where the first of its parts stood and has its colour; a new name that is an existing class
    takes that class in too.
    """
    goes_to = {name: name for name in space.classes.names}
    for rule in merges:
        parts, equals, new = rule.partition("=")
        old = [part.strip() for part in parts.split("+") if part.strip()]
        if not equals or not new.strip() or not old:
            raise DatasetFormatError(
                f"The merge {rule!r} cannot be read.", expected='"old+old=new", such as "car+truck=vehicle"'
            )
        for name in old:
            space.classes.id_of(name)
            goes_to[name] = new.strip()
    names = list(dict.fromkeys(goes_to[name] for name in space.classes.names))
    colors: dict[str, Color] = {}
    for name, color in zip(space.classes.names, space.classes.colors, strict=True):
        colors.setdefault(goes_to[name], color)
    table = {
        raw: None if class_id is None else names.index(goes_to[space.classes.names[class_id]])
        for raw, class_id in space.remap.to_class.items()
    }
    note = f"Merged: {'; '.join(merges)}. {len(names)} classes remain of {len(space.classes)}."
    classes = Classes(tuple(names), tuple(colors[name] for name in names))
    return LabelSpace(classes, Remap(table, len(names)), space.raw_names, (*space.notes, note))


def _keep_named(
    names: list[str], colors: list[Color], table: dict[int, int | None], raw_names: Mapping[int, str]
) -> list[str]:
    added: list[str] = []
    for raw in sorted(raw for raw, class_id in table.items() if class_id is None and raw in raw_names):
        if raw_names[raw] not in names:
            names.append(raw_names[raw])
            added.append(raw_names[raw])
        table[raw] = names.index(raw_names[raw])
    fresh = (color for color in distinct_colors(len(names) + len(colors)) if color not in colors)
    colors.extend(next(fresh) for _ in added)
    return added


def _without(
    void: Sequence[str], names: Sequence[str], colors: Sequence[Color], table: Mapping[int, int | None]
) -> tuple[list[str], list[Color], dict[int, int | None]]:
    kept = [class_id for class_id, name in enumerate(names) if name not in void]
    new_id = {old: new for new, old in enumerate(kept)}
    new_table = {raw: None if old is None else new_id.get(old) for raw, old in table.items()}
    return [names[i] for i in kept], [colors[i] for i in kept], new_table
