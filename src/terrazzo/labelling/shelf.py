"""The projects in one folder, opened when they are first asked for, each held so that no second server writes to it."""

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fastapi import Depends
from starlette.requests import Request

from terrazzo.errors import ProjectError, TerrazzoError, UsageError, unknown_name
from terrazzo.exchange.exports import RESERVED
from terrazzo.labelling.access import Access, Person, Role
from terrazzo.labelling.bodies import Told, read
from terrazzo.labelling.events import Events
from terrazzo.labelling.jobs import Jobs
from terrazzo.labelling.limits import Limits
from terrazzo.labelling.parcels import forget_parcels
from terrazzo.labelling.pictures import Pictures
from terrazzo.labelling.refusals import told, without_place
from terrazzo.project import Project, open_project, schema
from terrazzo.project.audit import note
from terrazzo.web.bodies import Intake
from terrazzo.web.problems import RefusalError, parts

NAME = re.compile(r"[^\W_][\w.-]{0,99}")  # of a project that is made here
SUFFIX = ".db"
DECODERS = 3  # images decoded at a time
APPLICATION_AT = 68  # in the head of a SQLite file: https://www.sqlite.org/fileformat.html


class Shelf:
    """The projects that one server serves, and what their requests share."""

    def __init__(self, folder: Path, access: Access, limits: Limits | None = None) -> None:
        self.folder = Path(os.path.realpath(folder))
        self.access = access
        self.limits = limits or Limits()
        self.intake = Intake(self.limits.held_bytes, self.limits.body_seconds)
        self.events = Events(self.limits.listeners)
        self.jobs = Jobs(self.events, lambda error: parts(without_place(told(error), self.folder)))
        self.drawing = ThreadPoolExecutor(DECODERS, "pictures")
        """Threads that make pictures: strokes do not stand behind them in the line of all other requests."""
        self._lock = threading.RLock()
        self._open: dict[str, Project] = {}
        self._pictures: dict[str, Pictures] = {}
        self.scratch = self.folder if os.access(self.folder, os.W_OK) else Path(tempfile.gettempdir())
        """Where exports lie while they are made."""
        forget_parcels(self.scratch)
        self._held = contextlib.ExitStack()
        self.models_of: Callable[[str], list[dict[str, Any]]] = lambda name: []
        """What is attached to a project, plain JSON; the routes of models say it."""
        self.sam: Callable[[], dict[str, Any]] = lambda: {"ready": False, "says": "not asked for"}
        """Whether masks by SAM are ready, plain JSON; the routes of assistance say it."""

    # -- people ----------------------------------------------------------------------------------------------------

    @property
    def is_single_user(self) -> bool:
        """Whether one person does everything, reviews of their own work included."""
        return self.access.is_single_user

    def who(self, request: Request) -> Person:
        """Return who asks."""
        person: Person = request.state.person
        return person

    def need(self, request: Request, role: Role) -> Person:
        """Return who asks; RefusalError where they may not do what this role does."""
        person = self.who(request)
        if not person.may(role):
            raise RefusalError(
                403,
                "You may not do that here.",
                kind="role",
                found=f"{person.name}, {person.role}",
                expected=role,
                hint="Whoever runs the server gives roles.",
            )
        return person

    def tell(self, project: str, kind: str, **words: object) -> None:
        """Tell all pages of a project of a change of some kind."""
        self.events.send(project, {"kind": kind, **words})

    async def body(self, request: Request, most: int) -> bytes:
        """Return the body of a request, `most` bytes at most."""
        return await read(self.intake, request, most)

    def said(self, *names: str, most: int | None = None) -> Any:
        """Return what FastAPI is to give a route: the JSON object of its request, with members of these names."""

        async def said(request: Request) -> Told:
            return Told.of(await self.body(request, most or self.limits.max_json_bytes), names)

        return Depends(said)

    # -- projects --------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Return the names of the projects in the folder."""
        found = []
        with os.scandir(self.folder) as entries:
            for one in entries:
                stem, suffix = os.path.splitext(one.name)
                if suffix == SUFFIX and stem.isprintable() and one.is_file() and is_project(Path(one.path)):
                    found.append(stem)
        return sorted(found, key=str.casefold)

    def project(self, name: str) -> Project:
        """Return an open project; UnknownNameError, or ProjectInUseError where another server has it."""
        with self._lock:
            if name in self._open:
                return self._open[name]
            if name not in self.names():
                raise unknown_name("project", name[:80], self.names())
            return self._take(name)

    def writable(self, name: str) -> Project:
        """Return an open project that can be written to; RefusalError 423 otherwise."""
        project = self.project(name)
        refuse_read_only(project)
        return project

    def pictures(self, name: str) -> Pictures:
        """Return the pictures of a project's images."""
        project = self.project(name)
        with self._lock:
            if name not in self._pictures:
                self._pictures[name] = Pictures(project, self.limits)
            return self._pictures[name]

    def create(self, name: str, author: str) -> Project:
        """Make a project, with a folder of its name for its images; UsageError where the name is taken or none."""
        if not NAME.fullmatch(name) or RESERVED.fullmatch(name) or name.endswith("."):
            raise UsageError(
                f"A project cannot be called {name!r:.80}.",
                expected="letters, digits, '.', '_' and '-', such as street",
            )
        with self._lock:
            taken = {one.casefold() for one in os.listdir(self.folder)}
            if {f"{name}{SUFFIX}".casefold(), name.casefold()} & taken:
                raise UsageError(f"There is something called {name!r} already.", hint="Choose another name.")
            root = self.folder / name
            root.mkdir()
            open_project(self.folder / f"{name}{SUFFIX}", root=root).close()
            project = self._take(name)
            with project.store.transaction() as db:
                note(db, "project made", author=author, name=name)
            return project

    def counts(self, name: str) -> dict[str, Any]:
        """Return what the list of projects says of one; a project that nobody has opened yet is only looked into."""
        with self._lock:
            project = self._open.get(name)
        if project is not None:
            return _counts(project)
        try:
            with open_project(self.folder / f"{name}{SUFFIX}", create=False, read_only=True) as looked:
                return _counts(looked)
        except TerrazzoError as error:
            return {
                "name": name,
                "counts": {},
                "samples": 0,
                "categories": 0,
                "releases": 0,
                "problem": error.what,
            }

    def close(self) -> None:
        """End jobs and listeners, and close the projects: their logs are worked into their files."""
        self.events.close()
        self.jobs.close()
        self.drawing.shutdown(cancel_futures=True)
        with self._lock:
            self._open.clear()
            self._held.close()

    def _take(self, name: str) -> Project:
        path = self.folder / f"{name}{SUFFIX}"
        is_writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
        with contextlib.ExitStack() as until_open:
            project = open_project(path, create=False, read_only=not is_writable)
            until_open.callback(project.close)
            if is_writable:
                until_open.enter_context(project.held())
                project.note_roles(self.access.roles())
            else:
                _refuse_older(project)
            self._held.push(until_open.pop_all())
        self._open[name] = project
        return project


def is_project(path: Path) -> bool:
    """Whether a file is a labelling project, by its first bytes."""
    try:
        with open(path, "rb") as file:
            head = file.read(APPLICATION_AT + 4)
    except OSError:
        return False
    return head[APPLICATION_AT:] == schema.APPLICATION.to_bytes(4, "big")


def refuse_read_only(project: Project) -> None:
    """Raise RefusalError where nothing can be written."""
    if project.store.is_read_only:
        raise RefusalError(
            423,
            f"The project {project.name} is read-only.",
            kind="read-only",
            found=f"no permission to write {project.path}",
        )


def _refuse_older(project: Project) -> None:
    with project.store.reading() as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
    if version < schema.VERSION:
        raise ProjectError(
            f"The project {project.path} is older than this terrazzo, and cannot be brought up to date here.",
            found=f"format version {version}, and no permission to write",
            expected=f"format version {schema.VERSION}",
        )


def _counts(project: Project) -> dict[str, Any]:
    counts = project.counts()
    return {
        "name": project.name,
        "counts": counts,
        "samples": sum(counts.values()),
        "categories": len(project.categories),
        "releases": len(project.releases),
    }
