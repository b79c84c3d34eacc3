"""The images of a project: named by their path, known by their content, left where they are.

Images are referenced, never copied or changed. They lie below the project's root, by default the folder of its file,
and are named by their path below it; a path that leaves the root, by ".." or by a link, is refused. Everything is said
of the upright image: width and height are those a person sees, with EXIF's orientation noted beside them. An image that
is gone, or whose bytes are not those that were labelled, is an error when it is read.
"""

import hashlib
import os
import sqlite3
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from terrazzo.errors import DataError, MissingPathError, ProjectError, TerrazzoError, UsageError, unknown_name
from terrazzo.images import IMAGE_SUFFIXES, decode_image, size_of
from terrazzo.project import audit
from terrazzo.project.statuses import Status
from terrazzo.project.store import Store

SHOWN = 10  # how many problems an error lists
MAX_NAME = 1000  # characters
COLUMNS = "id, name, path, sha256, height, width, orientation, split, status, reason, author, head"


@dataclass(frozen=True)
class Entry:
    """A sample of a project, as its table of contents has it."""

    id: int
    """Its number in the file."""
    name: str
    """As people call it: its path below the root when it was added, with '/'."""
    path: str
    """Where the image lies, relative to the root, with '/'."""
    sha256: str
    """Of the image's file, hex."""
    height: int
    """Of the upright image."""
    width: int
    """Of the upright image."""
    orientation: int
    """EXIF's, 1 (stored as it is shown) to 8."""
    split: str | None
    """train, val or test, where somebody said so."""
    status: Status
    """How far its label is."""
    reason: str | None
    """Why it was rejected or skipped."""
    author: str | None
    """Who labelled it last."""
    head: int
    """The number of the revision that stands; 0 where nobody ever drew."""

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the upright image."""
        return self.height, self.width


@dataclass(frozen=True)
class Look:
    """What is kept of an image's file."""

    path: str
    sha256: str
    bytes: int
    mtime_ns: int
    size_hw: tuple[int, int]
    orientation: int


class Samples:
    """The samples of one project."""

    def __init__(self, store: Store, root: Path) -> None:
        self._store, self.root = store, root

    def all(self, *, status: str | None = None) -> list[Entry]:
        """Return the samples, by name; status: those that have it."""
        with self._store.reading() as db:
            where, words = ("WHERE status = ?", (status,)) if status is not None else ("", ())
            rows = db.execute(f"SELECT {COLUMNS} FROM samples {where} ORDER BY name", words).fetchall()
        return [Entry(*row) for row in rows]

    def get(self, name: str) -> Entry:
        """Return the sample called `name`; UnknownNameError with the nearest."""
        with self._store.reading() as db:
            return entry(db, name)

    def numbered(self, number: int) -> Entry:
        """Return the sample with this number; UnknownNameError where there is none."""
        with self._store.reading() as db:
            row = db.execute(f"SELECT {COLUMNS} FROM samples WHERE id = ?", (number,)).fetchone()
        if row is None:
            raise unknown_name("sample", f"{number}", ())
        return Entry(*row)

    def add(
        self,
        paths: Iterable[Path | str],
        *,
        split: str | None = None,
        author: str | None = None,
        problems: list[str] | None = None,
    ) -> list[str]:
        """Add images; returns the names of those that are new. One that is there already, unchanged, stays.

        Whole or not at all: a DataError lists everything that is no image, lies outside the root, or has changed under
        its label. problems: a list to which that is added instead, a sentence each, while all the others come in.
        Every file is read once, for its hash.
        """
        where = list(paths)
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            looks = list(pool.map(self._try_look, where))
        wrong = [str(look.what) + (f" ({look.found})" if look.found else "")
                 for look in looks if isinstance(look, TerrazzoError)]  # fmt: skip
        new: list[str] = []
        with self._store.transaction() as db:
            for look in looks:
                if isinstance(look, Look):
                    _insert(db, look, split, new, wrong)
            if wrong and problems is not None:
                problems += wrong
            elif wrong:
                more = [f"… {len(wrong)} in all"] if len(wrong) > SHOWN else []
                raise DataError(
                    f"{len(wrong)} of {len(where)} images cannot be added; none was.",
                    found="\n" + "\n".join(wrong[:SHOWN] + more),
                    expected=f"images below {self.root}",
                )
            if new:
                audit.note(db, "images added", author=author, count=len(new))
        return new

    def add_folder(
        self,
        folder: Path | str,
        *,
        split: str | None = None,
        author: str | None = None,
        problems: list[str] | None = None,
    ) -> list[str]:
        """Add the images in a folder and the folders in it, hidden ones not; as `add`."""
        folder = Path(folder).expanduser()
        if not folder.is_dir():
            raise MissingPathError(f"There is no folder {folder}.", expected="a folder of images")
        found = [
            os.path.join(place, name)
            for place, _, names in _walk(folder)
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES
        ]
        if not found:
            raise MissingPathError(
                f"There are no images in {folder}.", expected=", ".join(sorted(IMAGE_SUFFIXES))
            )
        return self.add(sorted(found), split=split, author=author, problems=problems)

    def read(self, name: str) -> NDArray[Any]:
        """Return the image (H, W, C), upright; DataError where it is gone or is not the one that was labelled."""
        one = self.get(name)
        return decode_image(self.content(one), where=str(self.root / one.path))

    def content(self, one: Entry, *, sha256: str | None = None) -> bytes:
        """Return the bytes of an image's file, checked against its hash, or against the one that a release has."""
        path = self.place(one.path)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise DataError(
                f"The image of {one.name!r} is gone.",
                found=f"nothing at {path}",
                hint="Its label is intact. Put the image back where it was.",
            ) from None
        except OSError as error:
            raise DataError(
                f"The image {path} cannot be read.", found=error.strerror or str(error)
            ) from error
        wanted = sha256 or one.sha256
        if hashlib.sha256(data).hexdigest() != wanted:
            raise DataError(
                f"The image of {one.name!r} has changed since it was labelled.",
                found=f"{path} with sha256 {hashlib.sha256(data).hexdigest()[:16]}…",
                expected=f"{wanted[:16]}…",
                hint="Its label is intact, and may not fit any more. Put the old image back.",
            )
        return data

    def place(self, path: str) -> Path:
        """Return where a path below the root leads; ProjectError where that is outside, by a link or otherwise."""
        real = (self.root / path).resolve()
        if not real.is_relative_to(self.root.resolve()):
            raise ProjectError(
                f"The image {path!r:.200} leads out of the project's root.",
                found=str(real),
                expected=f"a file below {self.root}",
            )
        return real

    def name_of(self, path: Path | str) -> str:
        """Return the name of the sample whose image lies at `path`; ProjectError where it is outside the root."""
        absolute = Path(os.path.abspath(Path(path).expanduser()))
        absolute = (
            Path(os.path.realpath(absolute.parent)) / absolute.name
        )  # the file itself may be a link: `place`
        base = Path(os.path.realpath(self.root))
        if not absolute.is_relative_to(base):
            raise ProjectError(f"{path!s:.200} lies outside the project's root {base}")
        return absolute.relative_to(base).as_posix()

    def state(self, one: Entry) -> Literal["there", "missing", "changed"]:
        """Return whether an image is still what was labelled; read only where time or size differ from then."""
        try:
            path = self.place(one.path)
            status = path.stat()
        except (OSError, ProjectError):
            return "missing"
        with self._store.reading() as db:
            size, mtime = db.execute("SELECT bytes, mtime_ns FROM samples WHERE id = ?", (one.id,)).fetchone()
        if (status.st_size, status.st_mtime_ns) == (size, mtime):
            return "there"
        try:
            return "there" if _hash(path) == one.sha256 else "changed"
        except OSError:
            return "missing"

    def set_split(self, names: Sequence[str], split: str | None, *, author: str | None = None) -> None:
        """Say which split samples belong to: train, val or test; None: it is made when a release is opened."""
        if split not in (None, "train", "val", "test"):
            raise unknown_name("split", str(split), ("train", "val", "test"))
        with self._store.transaction() as db:
            for name in names:
                db.execute("UPDATE samples SET split = ? WHERE id = ?", (split, entry(db, name).id))
            audit.note(db, "split", author=author, split=split, count=len(names))

    def _try_look(self, path: Path | str) -> Look | TerrazzoError:
        try:
            return self._look(Path(path).expanduser())
        except TerrazzoError as error:
            return error

    def _look(self, path: Path) -> Look:
        from terrazzo.decoding import orientation_of

        below = self.name_of(path)
        if not below.isprintable() or len(below) > MAX_NAME:
            raise UsageError(f"{below!r:.200} is a name that cannot be shown")
        real = self.place(below)
        try:
            status = real.stat()
            data = real.read_bytes()
        except OSError as error:
            raise DataError(f"{path!s:.200} cannot be read", found=error.strerror or str(error)) from error
        size_hw = size_of(data, where=below)
        orientation = orientation_of(data, where=below)
        digest = hashlib.sha256(data).hexdigest()
        return Look(below, digest, len(data), status.st_mtime_ns, size_hw, orientation)


def entry(db: sqlite3.Connection, name: str) -> Entry:
    """Return the sample called `name`; UnknownNameError with the nearest."""
    row = db.execute(f"SELECT {COLUMNS} FROM samples WHERE name = ?", (name,)).fetchone()
    if row is None:
        known = [one for (one,) in db.execute("SELECT name FROM samples ORDER BY name LIMIT 10000")]
        raise unknown_name("sample", name, known)
    return Entry(*row)


def _insert(
    db: sqlite3.Connection, look: Look, split: str | None, new: list[str], problems: list[str]
) -> None:
    there = db.execute("SELECT id, sha256, head FROM samples WHERE path = ?", (look.path,)).fetchone()
    values = (look.sha256, look.bytes, look.mtime_ns, *look.size_hw, look.orientation)
    if there is None:
        db.execute(
            "INSERT INTO samples (name, path, sha256, bytes, mtime_ns, height, width, orientation, split) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (look.path, look.path, *values, split),
        )
        new.append(look.path)
    elif there[1] != look.sha256 and there[2]:
        problems.append(f"{look.path} has changed since it was labelled")
    elif there[1] != look.sha256:
        db.execute(
            "UPDATE samples SET sha256 = ?, bytes = ?, mtime_ns = ?, height = ?, width = ?, orientation = ? "
            "WHERE id = ?",
            (*values, there[0]),
        )


def _walk(folder: Path) -> Iterable[tuple[str, list[str], list[str]]]:
    """As os.walk, without hidden folders and without following links to folders."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield place, folders, names


def _hash(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
