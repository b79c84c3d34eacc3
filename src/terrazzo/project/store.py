"""The file of a project: one SQLite database, its connection, its transactions, and its errors in words.

Write-ahead log and synchronous FULL: what a transaction committed is on the disk before anybody hears of it, and
survives a kill or a pulled plug; what was not committed never was. Several processes may read and write at a time
(SQLite lets one write after the other); one at most may serve the project, and holds its lock. Pixels, labels and
names are not known here.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from terrazzo.errors import (
    MissingPathError,
    ProjectError,
    ProjectInUseError,
    StorageError,
    TerrazzoError,
    UnreadableFileError,
    UsageError,
)
from terrazzo.project import schema

BUSY = 10.0  # seconds that one process waits for another's transaction
MAGIC = b"SQLite format 3\0"
SYNCHRONOUS_FULL = 2
WRITE, READ = "BEGIN IMMEDIATE", "BEGIN"


class Store:
    """An open project file. Threads may share it: a transaction of one waits for that of another."""

    def __init__(self, path: Path | str, *, create: bool = True, read_only: bool = False) -> None:
        """Open the project at `path`; create it where nothing is there, or only an empty file.

        read_only: nothing can be written, and the folder need not be writable.

        Raises MissingPathError, ProjectError for a file that is no project or of a newer format, StorageError,
        UnreadableFileError for a damaged one.
        """
        self.path = Path(os.path.abspath(Path(path).expanduser()))
        create = create and not read_only
        _refuse_strangers(self.path, create=create)
        self._lock = threading.RLock()
        self._depth, self._is_writing = 0, False
        self.checked_tiles: set[bytes] = set()
        """Hashes of tiles that this process read whole; their content cannot change."""
        self.is_read_only = read_only
        """Whether nothing can be written."""
        with in_words(self.path):
            self._db = _connected(self.path, read_only=read_only)
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection inside a transaction that may write: committed whole at the end, or undone.

        One inside another is part of it.
        """
        with self._within(WRITE) as db:
            yield db

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection inside a transaction that sees one state of the project throughout."""
        with self._within(READ) as db:
            yield db

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the project, as a server does; ProjectInUseError where another process holds it."""
        from filelock import FileLock, Timeout

        lock = FileLock(f"{self.path}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ProjectInUseError(
                f"The project {self.path} is served by another process.",
                expected="one server for a project",
                hint="Use the page that is open, or stop that server first.",
            ) from None
        try:
            yield
        finally:
            lock.release()

    def backup(self, target: Path | str) -> Path:
        """Copy the project as it stands to the new file `target`, whole or not at all, while others go on working."""
        from terrazzo.storage import refuse_existing, replacing

        target = Path(target)
        refuse_existing(target)
        with (
            replacing(target) as beside,
            in_words(self.path),
            contextlib.closing(sqlite3.connect(beside)) as copy,
            self._lock,
        ):
            self._db.backup(copy)
        return target

    def damages(self) -> list[str]:
        """Return what SQLite's own examination of the file finds; [] for a whole file."""
        with self.reading() as db:
            found = [row[0] for row in db.execute("PRAGMA integrity_check(20)")]
            keys = [
                f"{row[0]}: row {row[1]} points to no {row[2]}"
                for row in db.execute("PRAGMA foreign_key_check")
            ]
        return [line for line in found if line != "ok"] + keys

    def close(self) -> None:
        """Close the file; the log is worked into it, so that the file alone is the project."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            if not self.is_read_only:
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()

    @contextlib.contextmanager
    def _within(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._lock, in_words(self.path):
            if self._depth:
                assert begin == READ or self._is_writing, (
                    "a transaction that may write inside one that may not"
                )
                yield self._db
                return
            self._db.execute(begin)
            self._is_writing = begin == WRITE
            self._depth += 1
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # some errors have rolled back already
                    self._db.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    def _prepare(self) -> None:
        with in_words(self.path):
            tables = self._db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            application = _pragma(
                self._db, "application_id"
            )  # after them: another process may make it just now
            if application != schema.APPLICATION and (application or tables):
                raise _no_project(self.path, f"a SQLite database of something else, {tables} tables")
            _refuse_newer(self.path, _pragma(self._db, "user_version"))
            if not self.is_read_only:
                _set_log(self._db)
            self._db.execute(f"PRAGMA synchronous = {SYNCHRONOUS_FULL}")
            self._db.execute("PRAGMA fullfsync = 1")  # macOS: to the disk, not to its cache
            self._db.execute("PRAGMA foreign_keys = 1")
            self._db.execute("PRAGMA trusted_schema = 0")  # the file may come from anybody
        if _pragma(self._db, "user_version") < schema.VERSION and not self.is_read_only:
            with self.transaction() as db:
                for step in range(
                    _pragma(db, "user_version"), schema.VERSION
                ):  # another process may be ahead
                    for statement in _statements(schema.STEPS[step]):
                        db.execute(statement)
                db.execute(f"PRAGMA application_id = {schema.APPLICATION}")
                db.execute(f"PRAGMA user_version = {schema.VERSION}")


def now() -> str:
    """Return the time for people to read, UTC; nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@contextlib.contextmanager
def in_words(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about the file at `path` into ours."""
    try:
        yield
    except TerrazzoError:
        raise
    except OverflowError as error:  # from SQLite's door: its numbers have 64 bits
        raise UsageError("A number is larger than any there is.", found=str(error)) from error
    except sqlite3.Error as error:
        told = _told(error, path)
        if told is None:
            raise
        raise told from error


def _told(error: sqlite3.Error, path: Path) -> TerrazzoError | None:
    code = getattr(error, "sqlite_errorcode", None)
    kind = None if code is None else code & 0xFF  # the rest says more of the same
    intact = "What was there before is intact."
    if kind == sqlite3.SQLITE_FULL:
        return StorageError(
            f"The disk is full: {path} could not be written.",
            found=str(error),
            hint=f"{intact} Free some space, then do the same again.",
        )
    if kind == sqlite3.SQLITE_IOERR:
        return StorageError(f"{path} could not be written or read.", found=str(error), hint=intact)
    if kind in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StorageError(
            f"{path} cannot be written to.",
            found=str(error),
            expected="a file in a folder that you may write to: a log lies beside it while it is open",
        )
    if kind in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return ProjectInUseError(
            f"The project {path} is being written to by another process.",
            found=f"{error}, for {BUSY:g} s",
            hint="Nothing was written. Do it again when the other has finished.",
        )
    if kind == sqlite3.SQLITE_NOTADB:
        return _no_project(path, str(error))
    if kind == sqlite3.SQLITE_CORRUPT:
        return UnreadableFileError(
            f"The project {path} is damaged.",
            found=str(error),
            hint="Nothing was changed. Restore the file from a backup; `sqlite3 FILE .recover` saves what can be read.",
        )
    return None


def _refuse_strangers(path: Path, *, create: bool) -> None:
    """Raise for what is no file of SQLite before SQLite touches it."""
    if path.is_dir():
        raise _no_project(path, "a folder")
    if not path.exists():
        if create and path.parent.is_dir():
            return
        what = f"file {path}" if path.parent.is_dir() else f"folder {path.parent}"
        raise MissingPathError(f"There is no {what}.", expected="a labelling project, such as street.db")
    try:
        with open(path, "rb") as file:
            head = file.read(len(MAGIC))
    except OSError as error:
        raise UnreadableFileError(f"{path} cannot be read.", found=error.strerror or str(error)) from error
    if head != MAGIC and (head or not create):
        raise _no_project(
            path, f"{path.stat().st_size:,} bytes of something else" if head else "an empty file"
        )


def _no_project(path: Path, found: str) -> ProjectError:
    return ProjectError(
        f"{path} holds no labelling project.",
        found=found,
        expected="a file that terrazzo made, or a new path ending in .db",
        hint="It was not touched.",
    )


def _refuse_newer(path: Path, version: int) -> None:
    if version > schema.VERSION:
        raise ProjectError(
            f"The project {path} was written by a newer terrazzo.",
            found=f"format version {version}",
            expected=f"{schema.VERSION}, which this terrazzo reads and writes",
            hint="It was not touched. Upgrade:",
            command="pip install --upgrade terrazzo",
        )


def _connected(path: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open the file. To read where others may write, SQLite must write too: the log's index lies beside the file."""
    words: dict[str, Any] = {"timeout": BUSY, "isolation_level": None, "check_same_thread": False}
    if not read_only:
        return sqlite3.connect(path, **words)
    if os.access(path, os.W_OK) and os.access(path.parent, os.W_OK):
        db = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, **words)
        db.execute("PRAGMA query_only = 1")
        return db
    if Path(f"{path}-wal").exists():  # somebody else writes
        return sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, **words)
    return sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True, **words)  # nobody can


def _set_log(db: sqlite3.Connection) -> None:
    """Turn the write-ahead log on; where another process is doing the same, SQLite does not wait of itself."""
    until = time.monotonic() + BUSY
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.02)


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one: executescript would commit before it begins."""
    statement = ""
    for line in script.splitlines():
        statement += line + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
