"""What comes into a project: images, what was drawn on them, and what that is called; let in all together, or not."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from terrazzo.classes import Color
from terrazzo.errors import DataError, MaskSizeError, TerrazzoError
from terrazzo.project import Project, statuses
from terrazzo.project.categories import Category
from terrazzo.project.statuses import Status
from terrazzo.project.tiles import MAX_ID
from terrazzo.project.trees import Annotation

SHOWN = 10  # how many problems an error lists
SAMPLES = 1_000_000


@dataclass(frozen=True)
class Kind:
    """A category, as it is called elsewhere."""

    name: str
    """By which one of the project is found."""
    color: Color | None = None
    """Of one that is added."""
    has_instances: bool = False
    """Of one that is added."""
    is_ignore: bool = False
    """Of one that is added."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """What was drawn on one image."""

    object_map: NDArray[np.unsignedinteger]
    """(H, W): the number of the thing at every pixel, upright, 0 for none; any width."""
    kinds: dict[int, str]
    """Number -> the name of its category."""


@dataclass(frozen=True)
class Arrival:
    """One sample that comes."""

    image: Path
    """Where its image lies."""
    draw: Callable[[], Drawn] | None
    """Reads its label; None where it has none."""
    status: Status = "labelled"
    """How far the label is."""
    split: str | None = None
    """train, val or test."""
    where: str = ""
    """What names its label to a person."""


@dataclass(frozen=True)
class Arrivals:
    """Everything that comes."""

    kinds: tuple[Kind, ...]
    """Its categories."""
    samples: tuple[Arrival, ...]
    """Its samples."""
    notes: tuple[str, ...] = ()
    """What somebody should hear, a sentence each."""


@dataclass(frozen=True)
class Brought:
    """What came of an import."""

    samples: tuple[str, ...]
    """Names of the samples that are new."""
    labels: tuple[str, ...]
    """Names of the samples that got a label."""
    kept: tuple[str, ...]
    """Names of samples that had a label, and kept it."""
    categories: tuple[str, ...]
    """Names of the categories that were added."""
    notes: tuple[str, ...] = field(default=())
    """What somebody should hear, a sentence each."""

    def text(self) -> str:
        """Return it for people to read."""
        lines = [f"{len(self.labels):,} labels, {len(self.samples):,} new images"]
        if self.kept:
            lines.append(f"  {len(self.kept):,} samples had a label already, and kept it")
        if self.categories:
            lines.append(f"  new categories: {', '.join(self.categories)}")
        return "\n".join([*lines, *(f"  {note}" for note in self.notes)])


def let_in(project: Project, arrivals: Arrivals, *, author: str | None = None) -> Brought:
    """Bring everything in, in one transaction; a DataError lists what is wrong, and then nothing came."""
    problems: list[str] = []
    labels: list[str] = []
    kept: list[str] = []
    with project.store.transaction() as db:
        added = [
            _add(project, kind, author)
            for kind in arrivals.kinds
            if kind.name.strip() not in project.categories
        ]
        by_name = {one.name: one for one in project.categories}
        new = project.add_images([one.image for one in arrivals.samples], author=author)
        for one in arrivals.samples:
            name = project.samples.name_of(one.image)
            entry = project.sample(name)
            if one.split is not None and name in new:
                project.set_split([name], one.split, author=author)
            if entry.head:
                kept.append(name)
                continue
            try:
                if one.draw is not None:
                    drawn = one.draw()
                    if drawn.object_map.shape != entry.size_hw:
                        raise _other_size(one, drawn, entry.size_hw)
                    object_map, annotations = as_label(drawn, by_name)
                    project.write_objects(name, object_map, annotations, author=author, tool="import")
                    labels.append(name)
                if name in new or one.draw is not None:
                    statuses.change(db, entry.id, one.status, author=author, is_import=True)
            except TerrazzoError as error:
                problems.append(
                    f"{one.where or name}: {error.what}" + (f" ({error.found})" if error.found else "")
                )
        if problems:
            more = [f"… {len(problems)} in all"] if len(problems) > SHOWN else []
            raise DataError(
                f"{len(problems)} of {len(arrivals.samples)} labels cannot be brought in; nothing was.",
                found="\n" + "\n".join(problems[:SHOWN] + more),
            )
    return Brought(tuple(new), tuple(labels), tuple(kept), tuple(added), arrivals.notes)


def as_label(drawn: Drawn, by_name: dict[str, Category]) -> tuple[NDArray[np.uint16], tuple[Annotation, ...]]:
    """Return (object map, annotations): things numbered anew from 1; what has no instances, is one."""
    numbers, place = np.unique(drawn.object_map, return_inverse=True)
    table = np.zeros(len(numbers), dtype=np.uint16)
    annotations: list[Annotation] = []
    one_of: dict[int, int] = {}
    for position, number in enumerate(numbers.tolist()):
        name = drawn.kinds.get(number)
        if number == 0 or name is None:
            continue
        category = by_name[name.strip()]  # as categories are called: without blanks around
        known = None if category.has_instances else one_of.get(category.id)
        if known is None:
            known = len(annotations) + 1
            if known > MAX_ID:
                raise DataError(f"More than {MAX_ID:,} things are drawn on one image.")
            annotations.append(Annotation(known, category.id, "import"))
            one_of.setdefault(category.id, known)
        table[position] = known
    return table[place.reshape(drawn.object_map.shape)], tuple(annotations)


def paint(size_hw: tuple[int, int], regions: Iterable[tuple[str, object, NDArray[np.bool_]]]) -> Drawn:
    """Return regions (name, key, mask (H, W)) painted one over the other; equal (name, key) are one thing.

    key None: a thing of its own.
    """
    object_map = np.zeros(size_hw, dtype=np.uint32)
    kinds: dict[int, str] = {}
    known: dict[tuple[str, object], int] = {}
    for name, key, region in regions:
        number = len(kinds) + 1 if key is None else known.setdefault((name, key), len(kinds) + 1)
        kinds[number] = name
        object_map[region] = number
    return Drawn(object_map, kinds)


def fresh_kinds(names: Iterable[str], *, has_instances: bool = True) -> tuple[Kind, ...]:
    """Return a kind for each distinct name, in the order in which they first come."""
    return tuple(Kind(name, has_instances=has_instances) for name in dict.fromkeys(names))


def find_image(names: Sequence[str], folders: Sequence[Path]) -> Path | None:
    """Return the first file of one of these relative names below one of these folders; nothing outside is looked at."""
    for folder in folders:
        for name in names:
            if (
                not name
                or name.startswith(("/", "\\"))
                or ".." in name.replace("\\", "/").split("/")
                or "\0" in name
            ):
                continue
            path = folder / name
            try:
                if path.is_file():
                    return path
            except OSError:  # a name that no file can have
                continue
    return None


def _add(project: Project, kind: Kind, author: str | None) -> str:
    project.categories.add(
        kind.name, color=kind.color, has_instances=kind.has_instances, is_ignore=kind.is_ignore, author=author
    )
    return kind.name.strip()


def _other_size(one: Arrival, drawn: Drawn, size_hw: tuple[int, int]) -> MaskSizeError:
    found = f"{drawn.object_map.shape[0]} x {drawn.object_map.shape[1]}"
    return MaskSizeError(
        "the label has another size than its image",
        found=f"label {found}, image {size_hw[0]} x {size_hw[1]} upright (height x width)",
    )
