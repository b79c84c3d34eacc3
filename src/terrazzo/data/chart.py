"""A data set as it lies there: the facts that an examination takes down, as plain values.

`readings.py` reads them off images and masks, `examination.py` finds where these lie, `symptoms.py` is asked about
them. Per pair of files three kilobytes are kept, whatever their size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from terrazzo.data import description, label_space
from terrazzo.data.alignment import Fit
from terrazzo.data.folder import SplitFolders
from terrazzo.errors import TerrazzoError

Color = tuple[int, int, int]  # RGB, 0-255


@dataclass(frozen=True)
class Item:
    """An image or a mask, where it lies."""

    where: str
    """Path within the data set, or table, row and column."""
    read: Callable[[], Any]
    """Returns its encoded bytes, or the array of a plain table cell."""
    path: Path | None = None
    """Where it is a file."""


@dataclass(frozen=True)
class ImageFacts:
    """What was seen of one image."""

    size_hw: tuple[int, int] = (0, 0)
    """Upright, as it is shown and trained on."""
    channels: int = 0
    dtype: str = ""
    orientation: int = 1
    """EXIF or TIFF orientation: 1 upright, 2-8 to be turned or mirrored."""
    content: str = ""
    """Hash of the pixels."""
    drawing: bytes = b""
    """What changes little when an image is scaled or saved again (`likeness.py`); empty where there is no contrast."""
    mean: tuple[float, ...] = ()
    """Of every channel, in the unit range for whole numbers."""
    square: tuple[float, ...] = ()
    """Mean of the squares of every channel, in the same range."""
    problem: TerrazzoError | None = None
    """Why it cannot be used."""


@dataclass(frozen=True)
class Border:
    """A rim of one raw id around a mask, and its width on every side in pixels."""

    raw: int
    top: int
    bottom: int
    left: int
    right: int


@dataclass(frozen=True)
class MaskFacts:
    """What was seen of one mask."""

    size_hw: tuple[int, int] = (0, 0)
    dtype: str = ""
    orientation: int = 1
    ids: Mapping[int, int] = field(default_factory=dict)
    """Raw id -> pixels."""
    colors: Mapping[Color, int] = field(default_factory=dict)
    """Colour -> pixels, where the mask holds three channels instead of ids; equal channels give `ids` too."""
    content: str = ""
    """Hash of the ids, or of the colours."""
    palette: bytes = b""
    """Colours that viewers show for the ids, three bytes each, as a PNG stores them."""
    borders: int = 0
    """Pairs of neighbours of different ids."""
    between: int = 0
    """Pixels whose id lies between those of two neighbours: what blending leaves along borders."""
    between_ids: int = 0
    """How many different ids these pixels have."""
    specks: Mapping[int, int] = field(default_factory=dict)
    """Raw id -> pixels in areas of a few pixels."""
    frame: Border | None = None
    """The rim of one id around the mask."""
    is_jpeg: bool = False
    """True when a lossy file keeps it from being used."""
    problem: TerrazzoError | None = None
    """Why it cannot be used."""

    @property
    def is_grey(self) -> bool:
        """True for ids that were saved as grey RGB."""
        return bool(self.colors and self.ids)


@dataclass
class Case:
    """One image and its mask; either may be missing."""

    split: str
    name: str
    image: Item | None
    mask: Item | None
    seen: ImageFacts = field(default_factory=ImageFacts)
    """Facts of the image."""
    labelled: MaskFacts | None = None
    """Facts of the mask; None where there is none."""
    fit: Fit | None = None
    """How the mask lies on the image; None where they cannot be compared."""
    turn: int = 1
    """The EXIF orientation in which the mask fits the image, where it lies turned or mirrored on it."""


@dataclass
class Chart:
    """A data set as it lies there."""

    source: str
    """As the user named it."""
    cases: list[Case]
    """Every image and mask, by split and name."""
    root: Path | None = None
    """The folder, where it is one in plain folders."""
    about: description.Description | None = None
    """dataset.json, where it could be read; or what a file of class names says, in the same words."""
    space: label_space.LabelSpace | None = None
    """What ids mean; None where nothing says so."""
    is_described: bool = False
    """True when `about` comes from dataset.json."""
    has_colors: bool = False
    """True when the classes were given colours, not chosen ones."""
    missing: list[str] = field(default_factory=list)
    """Names that dataset.json lists in a split and that are not there."""
    by_lists: bool = False
    """True when dataset.json lists the names of the splits."""
    problems: list[TerrazzoError] = field(default_factory=list)
    """What kept the description, the class names or the folders from being understood."""
    folders: Mapping[str, SplitFolders] = field(default_factory=dict)
    """The split folders of plain folders."""
    bare: list[str] = field(default_factory=list)
    """Splits other than test that have images and no mask at all."""
    pairing_hint: str | None = None
    """Why names may not fit each other, where that can be told."""
    fits: Mapping[str, Fit] = field(default_factory=dict)
    """Split -> how its masks lie on its images, all taken together."""

    @property
    def splits(self) -> list[str]:
        """Their names, in order."""
        return list(dict.fromkeys(case.split for case in self.cases))
