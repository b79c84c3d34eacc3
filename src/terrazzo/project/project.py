"""A labelling project: one file, opened once, with a room for each thing one does with it.

    project = tz.open_project("street.db")
    project.add_folder("photos")
    project.categories.add("road")
    project.write_mask("photos/a.jpg", mask, status="labelled")
    project.releases.create("v1")

The rooms do the work; what is used every day stands here too, under one roof.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

from numpy.typing import NDArray

from terrazzo.errors import MissingPathError
from terrazzo.project import audit, checks, statuses
from terrazzo.project.categories import Categories
from terrazzo.project.history import History, Revision
from terrazzo.project.holdings import Holdings
from terrazzo.project.issues import Issues
from terrazzo.project.labels import Label, Labels
from terrazzo.project.leases import Leases
from terrazzo.project.listing import Listing
from terrazzo.project.migration import Migration, Plan
from terrazzo.project.models import Models
from terrazzo.project.operations import Operation, Written
from terrazzo.project.origins import Origins
from terrazzo.project.predictions import Predictions
from terrazzo.project.queue import Place, Queue
from terrazzo.project.releases import Releases
from terrazzo.project.samples import Entry, Samples
from terrazzo.project.store import Store
from terrazzo.project.tiles import Tiles
from terrazzo.project.trees import Annotation


class Project:
    """An open project; `open_project` makes one. It may be used by several threads, and closed by `with`."""

    def __init__(self, store: Store, root: Path) -> None:
        self.store, self.root = store, root
        self.path = store.path
        self.name = store.path.stem
        self._tiles = Tiles(store)
        self.samples = Samples(store, root)
        self.categories = Categories(store)
        self.labels = Labels(store, self._tiles)
        self.history = History(store, self._tiles, self.labels)
        self.predictions = Predictions(store, self.labels)
        self.models = Models(store)
        self.origins = Origins(store, self._tiles, self.labels)
        self.leases = Leases(store)
        self.issues = Issues(store)
        self.holdings = Holdings(store, self._tiles, self.labels)
        self.queue = Queue(store, self.holdings)
        self.listing = Listing(store, self.queue, self.leases.clock)
        self.releases = Releases(store, self._tiles, self.samples, self.name)
        self._migration = Migration(store, self._tiles, self.labels)

    # -- images ------------------------------------------------------------------------------------------------------

    def add_images(
        self, paths: Iterable[Path | str], *, split: str | None = None, author: str | None = None
    ) -> list[str]:
        """Add images, by reference; returns the names of the new ones. See `samples.Samples.add`."""
        return self.samples.add(paths, split=split, author=author)

    def add_folder(
        self, folder: Path | str, *, split: str | None = None, author: str | None = None
    ) -> list[str]:
        """Add the images in a folder and those below it; returns the names of the new ones."""
        return self.samples.add_folder(folder, split=split, author=author)

    def read_image(self, name: str) -> NDArray[Any]:
        """Return the image (H, W, C), upright; DataError where it is gone or has changed under its label."""
        return self.samples.read(name)

    def sample(self, name: str) -> Entry:
        """Return what is known of a sample; UnknownNameError with the nearest name."""
        return self.samples.get(name)

    def __len__(self) -> int:
        return sum(self.counts().values())

    def counts(self) -> dict[str, int]:
        """Return {status: samples}, every status among them."""
        with self.store.reading() as db:
            found = dict(db.execute("SELECT status, count(*) FROM samples GROUP BY status"))
        return {status: found.get(status, 0) for status in statuses.STATUSES}

    # -- labels ------------------------------------------------------------------------------------------------------

    def read_mask(self, name: str, revision: int | None = None) -> NDArray[Any]:
        """Return the label as category ids (H, W) uint16, 0 where nobody drew."""
        return self.labels.read(name, revision).mask()

    def read_objects(self, name: str, revision: int | None = None) -> Label:
        """Return the label as objects: `object_map` (H, W) uint16 and `annotations`."""
        return self.labels.read(name, revision)

    def write_mask(self, name: str, mask: NDArray[Any], **words: Any) -> Written:
        """Write a whole label as category ids (H, W), 0 where nobody drew. See `labels.Labels.write_mask`."""
        return self.labels.write_mask(name, mask, **words)

    def write_objects(
        self,
        name: str,
        object_map: NDArray[Any],
        annotations: Iterable[Annotation | Mapping[str, Any]],
        **words: Any,
    ) -> Written:
        """Write a whole label as object ids (H, W) and the objects. See `labels.Labels.write_objects`."""
        return self.labels.write_objects(name, object_map, annotations, **words)

    def write(self, name: str, operation: Operation, *, status: str | None = None) -> Written:
        """Do one operation: the tiles that a stroke touched. See `labels.Labels.write`."""
        return self.labels.write(name, operation, status=status)

    def revisions(self, name: str) -> list[Revision]:
        """Return the history of a label, the newest first."""
        return self.history.of(name)

    def restore(self, name: str, revision: int, **words: Any) -> Written:
        """Let an old revision stand again, as a new one."""
        return self.history.restore(name, revision, **words)

    def undo(self, name: str, **words: Any) -> Written:
        """Take the last change back, in whichever session it was made."""
        return self.history.undo(name, **words)

    def redo(self, name: str, **words: Any) -> Written:
        """Take the last undo back."""
        return self.history.redo(name, **words)

    def prelabel(
        self, name: str, mask: NDArray[Any], confidence: NDArray[Any] | None = None, *, model: str
    ) -> bool:
        """Keep what a model says; True where it also became the label, because nobody had drawn yet."""
        return self.predictions.add(name, mask, confidence, model=model) is not None

    def next(self, order: str = "uncertainty", *, after: str | None = None) -> Place | None:
        """Return the sample to draw on next, with the reason; None where all is done. See `queue.Queue.next`."""
        return self.queue.next(order, after=after)

    # -- decisions ---------------------------------------------------------------------------------------------------

    def set_status(
        self,
        name: str,
        status: str,
        *,
        reason: str | None = None,
        author: str | None = None,
        is_alone: bool = True,
    ) -> None:
        """Give a sample another status; ProjectError for a step that is not allowed, a reason for a rejection.

        is_alone: False in a team, where nobody judges what they drew themselves.
        """
        with self.store.transaction() as db:
            one = self.samples.get(name)
            statuses.change(db, one.id, status, reason=reason, author=author, is_alone=is_alone)

    def check(self, name: str) -> list[str]:
        """Return what is worth a second look in a label, a sentence each. See `checks.look`."""
        one = self.samples.get(name)
        return checks.look(self.store, self.labels, self.holdings, one, state=self.samples.state(one))

    def note_roles(self, roles: Mapping[str, str], *, author: str | None = None) -> None:
        """Note in the log whose role is another one since the last time."""
        with self.store.transaction() as db:
            audit.note_roles(db, roles, author=author)

    def set_split(self, names: Sequence[str], split: str | None, *, author: str | None = None) -> None:
        """Say which split samples belong to: train, val, test, or None."""
        self.samples.set_split(names, split, author=author)

    def plan_merge(self, name: str, into: str | None = None) -> Plan:
        """Return which labels merging a category into another one would touch, or deleting it; nothing changes."""
        return self._migration.plan(name, into)

    def merge_category(self, name: str, into: str, *, author: str | None = None) -> Plan:
        """Give all labels of a category to another one, and let it go; returns what was touched."""
        return self._migration.merge(name, into, author=author)

    def delete_category(self, name: str, *, author: str | None = None) -> Plan:
        """Let a category go that no label has; UsageError where one does."""
        return self._migration.delete(name, author=author)

    def audit(self, *, most: int = 1000, before: int | None = None) -> list[audit.Deed]:
        """Return what was decided, the newest first; before: what is older than the line of this number."""
        return audit.log(self.store, most=most, before=before)

    # -- the file ----------------------------------------------------------------------------------------------------

    def held(self) -> AbstractContextManager[None]:
        """Hold the project, as a server does; ProjectInUseError where another process holds it."""
        return self.store.held()

    def backup(self, target: Path | str) -> Path:
        """Copy the project's file as it stands, while others go on working."""
        return self.store.backup(target)

    def close(self) -> None:
        """Close the file."""
        self.store.close()

    def __enter__(self) -> "Project":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Project({str(self.path)!r})"


def open_project(
    path: Path | str, *, root: Path | str | None = None, create: bool = True, read_only: bool = False
) -> Project:
    """Return the labelling project in the file `path`, such as "street.db"; it is made where there is none.

    root: the folder below which its images lie, by default the one of the file; it is kept in the project, relative to
    it, and may be given again where images have moved. create: False to open only what is there. read_only: nothing can
    be written. Raises MissingPathError, ProjectError for a file that is no project or a newer one, UnreadableFileError.
    """
    store = Store(path, create=create, read_only=read_only)
    try:
        if root is not None and not read_only:
            folder = Path(root).expanduser()
            if not folder.is_dir():
                raise MissingPathError(
                    f"There is no folder {folder}.", expected="the folder below which images lie"
                )
            with store.transaction() as db:
                relative = Path(
                    os.path.relpath(os.path.realpath(folder), os.path.realpath(store.path.parent))
                )
                db.execute("INSERT OR REPLACE INTO about VALUES ('root', ?)", (relative.as_posix(),))
        with store.reading() as db:
            row = db.execute("SELECT value FROM about WHERE key = 'root'").fetchone()
        base = Path(os.path.realpath(store.path.parent))
        return Project(store, base if row is None else Path(os.path.normpath(base / row[0])))
    except BaseException:
        store.close()
        raise
