"""Classes and the table of raw ids for masks that came without one: from a file of names or colours, and from merges.

A file of classes may be text (a name a line; or "id name"; or colours: "R G B name", "name,R,G,B", CVAT's
"name:R,G,B::"), JSON (names; {"name", "color"}; {"0": name}) or a dataset.json. Where the file is a table of colours,
an id is its line: the first is 0.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from terrazzo.classes import IGNORE_16BIT, Classes, Color, Remap, distinct_colors, ignore_value, is_void
from terrazzo.data import class_names
from terrazzo.data.description import FILE, Description, read_description
from terrazzo.errors import DatasetFormatError, MissingPathError, UnreadableFileError, unknown_name

IGNORE = "ignore"  # what a rule merges into when it is not to be scored
COLOR_LINES = (  # of CamVid's label_colors.txt; of class_dict.csv; of CVAT's labelmap.txt
    re.compile(r"(?P<r>\d{1,3})[ ,;]+(?P<g>\d{1,3})[ ,;]+(?P<b>\d{1,3})[ ,;]+(?P<name>\S.*)"),
    re.compile(
        r"(?P<name>[^,;:]+)[,;:] ?(?P<r>\d{1,3}) ?[,;] ?(?P<g>\d{1,3}) ?[,;] ?(?P<b>\d{1,3}) ?(?::.*)?"
    ),
)
HEAD = re.compile(r"#.*|name\s*[,;].*", re.IGNORECASE)  # a comment, or the names of columns
SHOWN = 8  # how many bad lines an error lists


@dataclass(frozen=True)
class Legend:
    """What a file of classes says."""

    names: Mapping[int, str] = field(default_factory=dict)
    """Raw id -> name."""
    colors: Mapping[int, Color] = field(default_factory=dict)
    """Raw id -> colour."""
    ignored: frozenset[int] = frozenset()
    """Raw ids that a dataset.json ignores, named or not."""
    is_by_color: bool = False
    """True for a table of colours, whose ids are nothing but its lines."""
    about: Description | None = None
    """The dataset.json, with what else it says."""


@dataclass(frozen=True)
class Meaning:
    """What raw ids become."""

    classes: Classes
    remap: Remap
    raw_names: Mapping[int, str]
    """Raw id -> name as published, where it is not its class's."""
    notes: tuple[str, ...]
    """What was ignored or merged, a sentence each."""


def read_legend(path: Path) -> Legend:
    """Return what the file says; raises MissingPathError, UnreadableFileError or DatasetFormatError."""
    if not path.is_file():
        raise MissingPathError(f"There is no file {path}.", expected="class names: text or JSON")
    if path.name == FILE:
        about = read_description(path.parent)
        table = about.remap.to_class if about.remap else {i: i for i in range(len(about.classes))}
        classed = {raw: class_id for raw, class_id in table.items() if class_id is not None}
        return Legend(
            {raw: about.classes.names[class_id] for raw, class_id in classed.items()},
            {raw: about.classes.colors[class_id] for raw, class_id in classed.items()},
            frozenset(table) - frozenset(classed),
            about=about,
        )
    if path.suffix.lower() == ".json":
        return _checked(Legend(*class_names.names_in_json(path)), path)
    try:
        lines = [" ".join(line.split()) for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFileError(f"{path} cannot be read as text.", found=str(error)) from error
    lines = [line for line in lines if line and not HEAD.fullmatch(line)]
    rows = [next((m for pattern in COLOR_LINES if (m := pattern.fullmatch(line))), None) for line in lines]
    if not any(rows):
        return _checked(Legend(*class_names.names_in_text(path)), path)
    colors = {raw: (int(m["r"]), int(m["g"]), int(m["b"])) for raw, m in enumerate(rows) if m}
    odd = [line for line, m in zip(lines, rows, strict=True) if not m]
    odd += [lines[raw] for raw, color in colors.items() if max(color) > 255]
    odd += [f"{color}: twice" for color, count in Counter(colors.values()).items() if count > 1]
    if odd:
        raise DatasetFormatError(
            f"{path} is no table of colours.",
            found="\n" + "\n".join(odd[:SHOWN]),
            expected='"R G B name" in every line, 0-255, each colour once',
        )
    names = {raw: m["name"].strip() for raw, m in enumerate(rows) if m}
    return _checked(Legend(names, colors, is_by_color=True), path)


def settle(legend: Legend, merges: Sequence[str], ignored: Sequence[str]) -> Meaning:
    """Return classes and table: names that say "not labelled" are ignored, then `merges`, then `ignored`, always 255.

    merges: "car+26=vehicle". A part, or one of `ignored`, is a name of the legend or a raw id; the classes of raw ids
    without a legend are what they are merged into. An unknown name gets its nearest.
    """
    goes_to: dict[int, str | None] = dict.fromkeys(legend.ignored)
    goes_to.update({raw: legend.names[raw] for raw in sorted(legend.names)})
    notes = []
    void = [raw for raw, name in legend.names.items() if is_void(name)]
    if 0 < len(void) < len(goes_to):
        goes_to.update(dict.fromkeys(void))
        notes.append(f"Ignored, not trained and not scored: {', '.join(legend.names[raw] for raw in void)}.")
    rules = [(rule, *_rule(rule)) for rule in _rules(merges)]
    for rule, parts, new in rules:
        raws = [raw for part in parts for raw in _raws(part, legend)]
        goes_to.update(dict.fromkeys(raws, None if new.lower() == IGNORE else new))
        notes.append(f"Merged: {rule}.")
    for part in ignored:
        goes_to.update(dict.fromkeys(_raws(part, legend)))
    names = list(dict.fromkeys(name for name in goes_to.values() if name is not None))
    if not names:
        raise DatasetFormatError("No class is left.", found="every id is ignored")
    if ignore_value(len(names)) not in goes_to:
        goes_to[ignore_value(len(names))] = None
    first = {name: raw for raw, name in reversed(goes_to.items()) if name is not None}
    chosen = distinct_colors(len(names))
    colors = [legend.colors.get(first[name], chosen[i]) for i, name in enumerate(names)]
    table = {raw: None if name is None else names.index(name) for raw, name in goes_to.items()}
    published = {raw: name for raw, name in legend.names.items() if goes_to[raw] != name}
    if legend.about is not None:
        published = {**legend.about.raw_names, **published}
    return Meaning(Classes(tuple(names), tuple(colors)), Remap(table, len(names)), published, tuple(notes))


def _checked(legend: Legend, path: Path) -> Legend:
    """Refuse names that are no names, or there twice: which of two is meant would be a guess."""
    bad = [repr(name)[:80] for name in legend.names.values() if not name.strip() or not name.isprintable()]
    bad += [
        f"{name!r:.80} is there {count} times"
        for name, count in Counter(legend.names.values()).items()
        if count > 1
    ]
    if bad or not legend.names:
        raise DatasetFormatError(
            f"{path} does not name classes.",
            found="\n" + "\n".join(bad[:SHOWN]) if bad else "no name",
            expected="different, printable names; classes are joined with --merge",
        )
    return legend


def _rules(merges: Sequence[str]) -> list[str]:
    """The rules themselves: what has no "=" is a file of them, one a line."""
    rules: list[str] = []
    for one in merges:
        if "=" in one:
            rules.append(one)
            continue
        try:
            lines = Path(one).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise MissingPathError(
                f"{one} is neither a rule nor a file of rules.",
                found=str(error),
                expected='"car+truck=vehicle", or a file of such lines',
            ) from error
        rules += [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return rules


def _rule(rule: str) -> tuple[list[str], str]:
    """("car+26=vehicle") -> (["car", "26"], "vehicle")."""
    old, equals, new = rule.partition("=")
    parts = [part.strip() for part in old.split("+")]
    if not equals or not new.strip() or not all(parts) or not new.isprintable():
        raise DatasetFormatError(
            f"The merge {rule!r} cannot be read.", expected='"old+old=new", such as "car+26=vehicle"'
        )
    return parts, new.strip()


def _raws(part: str, legend: Legend) -> list[int]:
    """The raw ids that a name stands for; a number stands for itself."""
    named = [raw for raw, name in legend.names.items() if name == part]
    if not named and part.isascii() and part.isdigit() and int(part) <= IGNORE_16BIT:
        return [int(part)]
    if not named:
        raise unknown_name("class", part, list(dict.fromkeys(legend.names.values())))
    return named
