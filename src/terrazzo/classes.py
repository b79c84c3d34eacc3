"""One label space: class names, colours, the ignore value, and the table from raw ids to class ids.

Raw ids are remapped once, where data enters, through an explicit `Remap` that is kept with the data set. Afterwards
ids are 0 … K-1 and one ignore value. The literals 255 and 65535 stand here alone. Nothing here shifts ids by one.
"""

import colorsys
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import DatasetFormatError, MaskValueError, unknown_name

Mask = NDArray[np.unsignedinteger[Any]]  # (H, W) class ids, uint8 or uint16
Color = tuple[int, int, int]  # RGB, 0-255

IGNORE_8BIT = 255  # Cityscapes, ADE20K and PASCAL VOC ignore; the top of a uint8
IGNORE_16BIT = 65535  # the same for data sets of more than 255 classes
VOID_NAMES = ("unlabeled", "unlabelled", "void", "ignore", "unknown")  # and every name that begins "void-"


LONGEST_NAME = 200  # characters of a class name; ADE20K's longest, with all its synonyms, has 101
UNSEEN = set(
    "\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff"
)  # Unicode TR9


@dataclass(frozen=True)
class Classes:
    """The K classes of a data set: their names and colours; a class id is a position in them."""

    names: tuple[str, ...]
    """K distinct names; position is class id."""
    colors: tuple[Color, ...] = ()
    """K RGB colours, 0-255; empty means distinct ones are chosen."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(str(name) for name in self.names))
        if not self.names:
            raise DatasetFormatError("A data set needs at least one class.", found="no class names")
        blank = [str(position) for position, name in enumerate(self.names) if not name.strip()]
        if blank:
            raise DatasetFormatError(
                "Every class needs a name.", found=f"none at position {', '.join(blank)}"
            )
        broken = [str(position) for position, name in enumerate(self.names) if not _is_text(name)]
        if broken:
            raise DatasetFormatError(
                "Class names must be text that can be written down.",
                found=f"half a character (a lone surrogate) in the name at position {', '.join(broken)}",
            )
        if len(self.names) > IGNORE_16BIT:
            raise DatasetFormatError(
                f"At most {IGNORE_16BIT} classes fit a mask.", found=f"{len(self.names)} names"
            )
        twice = sorted(name for name, count in Counter(self.names).items() if count > 1)
        if twice:
            raise DatasetFormatError(
                "Class names must be distinct.", found=f"{', '.join(twice)} more than once"
            )
        colors = tuple(color_of(color) for color in self.colors) or distinct_colors(len(self.names))
        if len(colors) != len(self.names):
            raise DatasetFormatError(
                "Every class needs one colour.", found=f"{len(self.names)} names and {len(colors)} colours"
            )
        object.__setattr__(self, "colors", colors)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def ignore(self) -> int:
        """The mask value of pixels that are neither trained on nor scored."""
        return ignore_value(len(self.names))

    @property
    def mask_dtype(self) -> np.dtype[Any]:
        """uint8 while K <= 255, else uint16."""
        return np.dtype(np.uint8 if self.ignore == IGNORE_8BIT else np.uint16)

    @property
    def palette(self) -> NDArray[np.uint8]:
        """(K, 3) uint8 RGB."""
        return np.asarray(self.colors, dtype=np.uint8)

    def id_of(self, name: str) -> int:
        """Return the class id of `name`; raises UnknownNameError with the nearest names."""
        if name not in self.names:
            raise unknown_name("class", name, self.names)
        return self.names.index(name)

    def check_mask(self, mask: NDArray[Any], *, where: str) -> None:
        """Raise MaskValueError if `mask` (H, W) holds anything but 0 … K-1 and `ignore`; `where` names it."""
        bad = (mask >= len(self.names)) & (mask != self.ignore)
        if mask.dtype.kind != "u":
            bad |= mask < 0
        if not bad.any():
            return
        ids, counts = np.unique(mask[bad], return_counts=True)
        raise MaskValueError(
            f"{where} has class id {ids[0]}; this data set has ids 0-{len(self.names) - 1} and {self.ignore} (ignore).",
            found=_counted(ids, counts),
            hint="If these are raw ids, import them once with a table (remap) in dataset.json. "
            "To see every such file:",
            command="terrazzo check DATA",
        )

    def to_json(self) -> list[dict[str, Any]]:
        """Return [{"name": ..., "color": [r, g, b]}, …] in id order."""
        return [{"name": n, "color": list(c)} for n, c in zip(self.names, self.colors, strict=True)]

    @classmethod
    def from_json(cls, entries: Sequence[Mapping[str, Any] | str]) -> "Classes":
        """Read what `to_json` writes; plain strings and entries without "color" get distinct colours."""
        if not isinstance(entries, Sequence) or isinstance(entries, str):
            raise DatasetFormatError("Classes are a list.", found=repr(entries)[:80])
        named: list[Any] = [{"name": entry} if isinstance(entry, str) else entry for entry in entries]
        missing = [
            str(position)
            for position, entry in enumerate(named)
            if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str)
        ]
        if missing:
            raise DatasetFormatError(
                "Every class needs a name.", found=f"none at position {', '.join(missing[:20])}"
            )
        chosen = distinct_colors(len(named))
        given: list[Any] = [entry.get("color") for entry in named]
        colors = tuple(chosen[i] if color is None else color_of(color) for i, color in enumerate(given))
        return cls(tuple(entry["name"] for entry in named), colors)


@dataclass(frozen=True)
class Remap:
    """The table from raw ids, as a data set was published, to class ids; None stands for ignore.

    Applied once where data enters. A raw id that is not in the table is an error, never a guess.
    """

    to_class: Mapping[int, int | None]
    """raw id -> class id, or None for ignore."""
    num_classes: int
    """K; class ids in the table are below it."""

    def __post_init__(self) -> None:
        # index, not int: 1.5 is no id
        table = {index(raw): None if c is None else index(c) for raw, c in self.to_class.items()}
        object.__setattr__(self, "to_class", table)
        out = sorted({c for c in table.values() if c is not None and not 0 <= c < self.num_classes})
        if out or any(not 0 <= raw <= IGNORE_16BIT for raw in table):
            raise DatasetFormatError(
                "The remap table leaves the label space.",
                found=f"class ids {out}, raw ids {min(table)}-{max(table)}",
                expected=f"class ids 0-{self.num_classes - 1} or null for ignore, raw ids 0-{IGNORE_16BIT}",
            )

    @property
    def is_identity(self) -> bool:
        """True when every class keeps its number and only the ignore value is ignored."""
        ignore = ignore_value(self.num_classes)
        return all(raw == (ignore if c is None else c) for raw, c in self.to_class.items())

    def __call__(self, raw: NDArray[Any], *, where: str) -> Mask:
        """Return the mask (H, W) of class ids for `raw` (H, W) integers; raises MaskValueError naming `where`."""
        if raw.dtype.kind not in "uib":
            raise MaskValueError(
                f"{where} is not a map of ids.", found=f"{raw.dtype} values", expected="whole numbers"
            )
        table, is_known = self._tables(raw.dtype)
        place = raw if raw.dtype == np.uint8 else _place(raw, len(table))
        known = is_known[place]
        if not known.all():
            ids, counts = np.unique(raw[~known], return_counts=True)
            raise MaskValueError(
                f"{where} has raw id {ids[0]}, which is not in the data set's table.",
                found=_counted(ids, counts),
                expected=_listed([str(raw_id) for raw_id in sorted(self.to_class)], 40),
                hint="Add the id to the remap table in dataset.json, with a class id or null for ignore. "
                "To see every such file:",
                command="terrazzo check DATA",
            )
        mapped: Mask = table[place]
        return mapped

    def _tables(self, dtype: np.dtype[Any]) -> tuple[Mask, NDArray[np.bool_]]:
        """Return (class id by raw id, whether the raw id is in the table); the last entry is of no raw id.

        As long as an 8-bit raw id needs, so that such masks are looked up as they are.
        """
        ignore = ignore_value(self.num_classes)
        size = max(max(self.to_class, default=0) + 2, 256 if dtype == np.uint8 else 0)
        table: Mask = np.zeros(size, dtype=np.uint8 if ignore == IGNORE_8BIT else np.uint16)
        is_known = np.zeros(size, dtype=np.bool_)
        for raw_id, class_id in self.to_class.items():
            table[raw_id] = ignore if class_id is None else class_id
            is_known[raw_id] = True
        return table, is_known

    def inverse(self, mask: NDArray[Any]) -> NDArray[np.uint16]:
        """Return raw ids (H, W) uint16 for a mask of class ids; the first raw id of a class stands for it."""
        ignore = ignore_value(self.num_classes)
        table = np.full(max(self.num_classes, ignore) + 1, ignore, dtype=np.uint16)
        for raw_id, class_id in sorted(self.to_class.items(), reverse=True):
            table[ignore if class_id is None else class_id] = raw_id
        return table[mask]

    def to_json(self) -> dict[str, int | None]:
        """Return {"raw id": class id or null}, JSON's keys being strings."""
        return {str(raw): class_id for raw, class_id in sorted(self.to_class.items())}

    @classmethod
    def from_json(cls, table: Mapping[str, int | None], num_classes: int) -> "Remap":
        """Read what `to_json` writes."""
        try:
            return cls({int(raw): class_id for raw, class_id in table.items()}, num_classes)
        except (AttributeError, TypeError, ValueError) as error:
            raise DatasetFormatError(
                "The remap table cannot be read.",
                found=repr(table)[:200],
                expected='{"raw id": class id, or null for ignore}',
            ) from error

    @classmethod
    def identity(cls, num_classes: int) -> "Remap":
        """Ids that are class ids already, and the ignore value."""
        return cls({**{i: i for i in range(num_classes)}, ignore_value(num_classes): None}, num_classes)


def drop_void(raw_names: Sequence[str]) -> tuple[tuple[str, ...], Remap]:
    """Split raw names (position = raw id) into scored class names and the table that ignores the void ones.

    "unlabeled", "void", "void-*" and their like become ignore; the callers say aloud which. When no class would be
    left, all are kept.
    """
    kept = [i for i, name in enumerate(raw_names) if not is_void(name)] or list(range(len(raw_names)))
    table: dict[int, int | None] = dict.fromkeys(range(len(raw_names)))
    table.update({raw: class_id for class_id, raw in enumerate(kept)})
    table.setdefault(ignore_value(len(kept)), None)
    return tuple(raw_names[i] for i in kept), Remap(table, len(kept))


def check_names(names: Iterable[str]) -> None:
    """Raise DatasetFormatError for names, as data sets bring them, that cannot be shown as they are."""
    odd = [ascii(name)[:60] for name in names if len(name) > LONGEST_NAME or not _is_plain(name)]
    if odd:
        raise DatasetFormatError(
            f"{len(odd)} class names cannot be shown as they are.",
            found=", ".join(odd[:8]),
            expected=f"at most {LONGEST_NAME} characters, without control characters and changes of direction",
        )


def _is_plain(name: str) -> bool:
    """False for names with control characters, half characters, or what turns the direction of reading round."""
    return name.isprintable() or not any(unicodedata.category(c) in ("Cc", "Cs") or c in UNSEEN for c in name)


def is_void(name: str) -> bool:
    """True for names that mean "not labelled" rather than a class."""
    plain = name.strip().lower()
    return plain in VOID_NAMES or plain.startswith(("void-", "void_", "void "))


def ignore_value(num_classes: int) -> int:
    """255 while `num_classes` <= 255, else 65535."""
    return IGNORE_8BIT if num_classes <= IGNORE_8BIT else IGNORE_16BIT


def distinct_colors(count: int) -> tuple[Color, ...]:
    """Return `count` distinct RGB colours: hues by the golden angle, in bands of saturation and value.

    The first 256 take four bands chosen for the eye; beyond, where no eye tells them apart, the bands wander so that
    any count is reached. Colours of a smaller count begin those of a larger one.
    """
    chosen: dict[Color, None] = {}
    step = 0
    while len(chosen) < count:
        hue = (step * 0.618033988749895) % 1.0  # the golden ratio spreads any count of hues evenly
        saturation, value = ((0.65, 0.95), (0.85, 0.70), (0.45, 0.85), (0.90, 0.50))[(step // 7) % 4]
        if step >= 256:  # powers of the plastic number: even in two dimensions, and never periodic
            saturation = 0.3 + 0.7 * ((step * 0.754877666246693) % 1.0)
            value = 0.3 + 0.7 * ((step * 0.569840290998053) % 1.0)
        red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
        chosen[round(red * 255), round(green * 255), round(blue * 255)] = None
        step += 1
    return tuple(chosen)


def _is_text(name: str) -> bool:
    """False for what JSON can spell and UTF-8 cannot: half a character."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def color_of(value: Any) -> Color:
    """Return an RGB colour; DatasetFormatError where `value` is none."""
    try:
        color = tuple(index(channel) for channel in value)
    except TypeError:  # "#ff0000", 0.5: refused rather than read as something else
        color = ()
    if len(color) != 3 or any(not 0 <= channel <= 255 for channel in color):
        raise DatasetFormatError("A colour is three whole numbers, 0-255.", found=repr(value))
    return color


def _place(raw: NDArray[Any], size: int) -> NDArray[np.int64]:
    """Return positions in a table of `size`; ids outside it, negative ones too, take the last."""
    wide = raw.astype(np.int64)
    return np.where((wide < 0) | (wide >= size), size - 1, wide)


def _counted(ids: NDArray[Any], counts: NDArray[Any]) -> str:
    return _listed([f"{i} ({n:,} pixels)" for i, n in zip(ids.tolist(), counts.tolist(), strict=True)], 8)


def _listed(items: Sequence[str], most: int) -> str:
    return ", ".join(items[:most]) + (f", … ({len(items)} in all)" if len(items) > most else "")
