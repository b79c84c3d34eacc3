"""The file of a project: made, opened, refused, locked; what SQLite says, in words."""

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from labelled import make_project, scene
from terrazzo.errors import (
    ExistingOutputError,
    MissingPathError,
    ProjectError,
    ProjectInUseError,
    StorageError,
    UnreadableFileError,
)
from terrazzo.project import open_project, schema, store
from terrazzo.project.store import Store


def test_a_new_project_has_the_journal_and_the_durability_that_are_promised(tmp_path: Path) -> None:
    with open_project(tmp_path / "street.db") as project, project.store.reading() as db:
        asked = {name: db.execute(f"PRAGMA {name}").fetchone()[0] for name in
                 ("journal_mode", "synchronous", "foreign_keys", "application_id", "user_version")}  # fmt: skip
    assert asked == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "application_id": 0x54525A4F,
                     "user_version": schema.VERSION}  # fmt: skip


def test_a_closed_project_is_one_file(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    project.write_mask("photos/a.png", scene())
    project.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "street.db"]
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.copy(tmp_path / "street.db", moved)
    with open_project(moved / "street.db", root=tmp_path) as copy:
        assert (copy.read_mask("photos/a.png") == scene()).all()
        assert copy.read_image("photos/a.png").shape == (530, 520, 3)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"GIF89a, a picture", "bytes of something else"),
        (b"SQLite format 3\0" + b"x" * 4096, "file is not a database"),
    ],
)
def test_a_file_that_is_no_project_is_refused_and_not_touched(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    path = tmp_path / "street.db"
    path.write_bytes(content)
    with pytest.raises(ProjectError, match=rf"street.db holds no labelling project.\n  found: .*{sentence}"):
        open_project(path)
    assert path.read_bytes() == content


def test_a_database_of_somebody_else_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "browser.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE history (url TEXT)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(ProjectError, match="a SQLite database of something else, 1 tables"):
        open_project(path)
    assert path.read_bytes() == before


def test_a_newer_format_is_refused_and_not_touched(tmp_path: Path) -> None:
    open_project(tmp_path / "street.db").close()
    db = sqlite3.connect(tmp_path / "street.db")
    db.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    db.close()
    before = (tmp_path / "street.db").read_bytes()
    with pytest.raises(
        ProjectError,
        match=rf"written by a newer terrazzo.\n  found: format version {schema.VERSION + 1}\n  expected: \d",
    ):
        open_project(tmp_path / "street.db")
    assert (tmp_path / "street.db").read_bytes() == before


def test_an_older_format_becomes_the_newer_one_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_project(tmp_path).close()
    step = (
        "ALTER TABLE samples ADD COLUMN priority REAL NOT NULL DEFAULT 0;\nCREATE TABLE later (a INTEGER);\n"
    )
    known, version = schema.STEPS, schema.VERSION + 1
    monkeypatch.setattr(schema, "VERSION", version)
    monkeypatch.setattr(schema, "STEPS", (*known, step + "CREATE TABLE samples (a INTEGER);\n"))
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        open_project(tmp_path / "street.db")
    monkeypatch.setattr(schema, "STEPS", (*known, step))
    with open_project(tmp_path / "street.db") as project, project.store.reading() as db:
        assert db.execute("PRAGMA user_version").fetchone() == (version,)
        assert db.execute("SELECT count(*), max(priority) FROM samples").fetchone() == (3, 0.0)


def test_what_is_not_there_is_not_made_where_nobody_asked(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match="There is no file .*street.db"):
        open_project(tmp_path / "street.db", create=False)
    with pytest.raises(MissingPathError, match="There is no folder .*nowhere"):
        open_project(tmp_path / "nowhere" / "street.db")
    with pytest.raises(ProjectError, match="found: a folder"):
        open_project(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_creation_that_was_killed_before_its_first_byte_is_begun_again(tmp_path: Path) -> None:
    (tmp_path / "street.db").touch()
    with open_project(tmp_path / "street.db") as project:
        assert len(project) == 0


def test_many_threads_and_processes_may_create_one_project_at_once(tmp_path: Path) -> None:
    code = "import sys; from terrazzo.project import open_project as o; o(sys.argv[1]).categories.add(sys.argv[2])"
    path = tmp_path / "street.db"
    running = [subprocess.Popen([sys.executable, "-c", code, path, f"category {i}"]) for i in range(2)]
    threads = [threading.Thread(target=lambda i=i: Store(path).close()) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait() for process in running] == [0, 0]
    with open_project(path) as project:
        assert sorted(one.name for one in project.categories) == ["category 0", "category 1"]
        assert sorted(one.id for one in project.categories) == [1, 2]


def test_a_project_that_another_process_makes_between_two_looks_is_a_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, pragma, looks = tmp_path / "street.db", store._pragma, []

    def looked(db: sqlite3.Connection, name: str) -> int:
        value = pragma(db, name)
        looks.append(name)
        if looks == ["application_id"]:
            Store(path).close()
        return value

    monkeypatch.setattr(store, "_pragma", looked)
    Store(path).close()
    assert looks[0] == "application_id"


def test_a_second_server_is_refused_and_a_script_is_not(tmp_path: Path) -> None:
    with open_project(tmp_path / "street.db") as project, project.held():
        code = (
            "import sys; from terrazzo.project import open_project\n"
            "project = open_project(sys.argv[1]); project.categories.add('road')\n"
            "with project.held(): print('held')"
        )
        done = subprocess.run([sys.executable, "-c", code, project.path], capture_output=True, text=True)
        assert (
            "ProjectInUseError: The project" in done.stderr and "is served by another process" in done.stderr
        )
        assert "road" in project.categories
    with open_project(tmp_path / "street.db") as project, project.held():
        pass


def test_a_server_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from terrazzo.project import open_project\n"
        "with open_project(sys.argv[1]).held(): os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "street.db"]).returncode == -9
    with open_project(tmp_path / "street.db") as project, project.held():
        pass


def test_a_project_that_another_process_writes_to_for_long_is_said_to_be_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("terrazzo.project.store.BUSY", 0.05)
    with open_project(tmp_path / "street.db") as one, open_project(tmp_path / "street.db") as other:
        with (
            one.store.transaction(),
            pytest.raises(ProjectInUseError, match="being written to by another process"),
        ):
            other.categories.add("road")
        other.categories.add("road")
        assert "road" in one.categories


def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path) -> None:
    with make_project(tmp_path) as project:
        project.write_mask("photos/a.png", scene())
        with project.store.reading() as db:
            pages = db.execute("PRAGMA page_count").fetchone()[0]
        project.store._db.execute(f"PRAGMA max_page_count = {pages}")
        noise = (scene() + project.read_image("photos/a.png")[..., 0] % 2).clip(0, 3)
        with pytest.raises(StorageError, match="The disk is full: .*street.db could not be written"):
            project.write_mask("photos/b.png", noise.astype("uint16"))
        assert project.sample("photos/b.png").head == 0
        assert (project.read_mask("photos/a.png") == scene()).all()
        project.store._db.execute("PRAGMA max_page_count = 1000000")
        project.write_mask("photos/b.png", noise.astype("uint16"))
        assert (project.read_mask("photos/b.png") == noise).all()
        assert project.store.damages() == []


def test_a_damaged_file_is_told_in_words(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    project.write_mask("photos/a.png", scene())
    project.close()
    data = bytearray((tmp_path / "street.db").read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)  # all pages but the first, which names the tables
    (tmp_path / "street.db").write_bytes(data)
    with (
        pytest.raises(UnreadableFileError, match="The project .*street.db is damaged"),
        open_project(tmp_path / "street.db") as broken,
    ):
        broken.samples.all()


def test_a_backup_is_the_project_while_others_write(tmp_path: Path) -> None:
    with make_project(tmp_path) as project:
        project.write_mask("photos/a.png", scene())
        project.backup(tmp_path / "backup.db")
        project.write_mask("photos/a.png", scene() * 0)
        with pytest.raises(ExistingOutputError):
            project.backup(tmp_path / "backup.db")
    with open_project(tmp_path / "backup.db") as backup:
        assert (backup.read_mask("photos/a.png") == scene()).all()


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_project_is_read_where_nobody_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_closed: bool
) -> None:
    make_project(tmp_path).close()
    if is_closed:  # the folder, to everybody; the tests may be run by root, whom no permission stops
        monkeypatch.setattr("os.access", lambda path, mode: False)
    before = (tmp_path / "street.db").read_bytes()
    with open_project(tmp_path / "street.db", read_only=True) as project:
        assert len(project) == 3
        with pytest.raises(StorageError, match="cannot be written to"):
            project.categories.add("sky")
    assert (tmp_path / "street.db").read_bytes() == before


def test_history_and_releases_cannot_be_changed_by_any_sql(tmp_path: Path) -> None:
    with make_project(tmp_path) as project:
        project.write_mask("photos/a.png", scene())
        project.releases.create("v1")
        for statement in (
            "UPDATE releases SET name = 'v2'",
            "DELETE FROM releases",
            "DELETE FROM revisions",
            "UPDATE revisions SET ms = 1",
            "UPDATE trees SET height = 1",
            "DELETE FROM tiles",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="cannot be"), project.store.transaction() as db:
                db.execute(statement)
