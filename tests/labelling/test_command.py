"""`terrazzo label` as people start it: what a path means, what is told, how it ends, and its exit codes."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import terrazzo as tz
from labelled import make_project, scene, write_photograph
from terrazzo.cli import main
from terrazzo.errors import ProjectInUseError, UsageError
from terrazzo.labelling.opening import Opened, open_path
from terrazzo.labelling.running import address_for_people
from terrazzo.project import open_project
from terrazzo.web.server import bind


class Started:
    """A server that was started on the command line."""

    def __init__(self, *words: object) -> None:
        command = [sys.executable, "-m", "terrazzo", "label", *map(str, words)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.said = ""
        for line in self.process.stdout:
            self.said += line
            found = re.search(r"^Labelling .*: http://[^:]+:(\d+)/", line)
            if found:
                self.port = int(found[1])
                return
        raise AssertionError(self.said + self.end()[1])

    def get(self, path: str, token: str | None = None) -> Any:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Send a signal; returns (exit code, all it said on both streams)."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        self.said += out
        return self.process.returncode, self.said + err


@contextmanager
def started(*words: object) -> Iterator[Started]:
    server = Started(*words)
    try:
        yield server
    finally:
        server.end(signal.SIGTERM)


def told(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = main(["label", *map(str, words)])
    return code, capsys.readouterr().err


# -- one walk ------------------------------------------------------------------------------------------------------


def test_a_folder_of_images_becomes_a_project_beside_it_and_is_found_again(tmp_path: Path) -> None:
    for seed in range(2):
        write_photograph(tmp_path / "photos" / "day" / f"{seed}.jpg", seed, hw=(40, 60))
    (tmp_path / "photos" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    with started(tmp_path / "photos", "--port", 0) as server:
        (project,) = server.get("/api/v1/")["projects"]
        assert (project["name"], project["samples"]) == ("photos", 2)
        names = [one["name"] for one in server.get("/api/v1/projects/photos/samples")["items"]]
        assert names == ["day/0.jpg", "day/1.jpg"]
        code, said = server.end(signal.SIGTERM)
    assert code == 0, said
    assert "Added 2 images." in said and "Not added: " in said and "broken.png" in said
    assert said.count("Stopped. Everything that was acknowledged is saved.") == 1 and "Traceback" not in said
    assert sorted(one.name for one in tmp_path.iterdir()) == ["photos", "photos.db", "photos.db.lock"]
    with open_project(tmp_path / "photos.db") as project:
        project.write_mask("day/0.jpg", np.zeros((40, 60), np.uint16))
    write_photograph(tmp_path / "photos" / "new.jpg", 3, hw=(40, 60))
    with started(tmp_path / "photos", "--port", 0, "--no-browser") as server:
        assert server.get("/api/v1/projects/photos/samples")["total"] == 3
        assert server.get("/api/v1/projects/photos/samples/1")["revision"] == 1
        assert "Added 1 image." in server.end()[1]


def test_ctrl_c_ends_it_while_pages_listen_and_the_file_alone_is_the_project(tmp_path: Path) -> None:
    make_project(tmp_path).close()
    with started(tmp_path / "street.db", "--port", 0) as server:
        listening = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        listening.sendall(b"GET /api/v1/projects/street/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200 OK" in listening.recv(4096)
        begun = time.monotonic()
        code, said = server.end()
        assert code == 0 and time.monotonic() - begun < 8, said
        listening.close()
    assert not (tmp_path / "street.db-wal").exists()


def test_a_project_is_copied_while_it_is_served_and_served_only_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = make_project(tmp_path)
    project.write_mask("photos/a.png", scene())
    project.close()
    with started(tmp_path / "street.db", "--port", 0) as server:
        assert main(["label", str(tmp_path / "street.db"), "--backup", str(tmp_path / "copy.db")]) == 0
        assert "Copied: " in capsys.readouterr().out
        code, err = told(capsys, tmp_path / "street.db", "--port", 0)
        assert code == 1 and "is served by another process" in err
        code, err = told(capsys, tmp_path / "street.db", "--port", server.port)
        assert code == 2 and f"cannot listen on 127.0.0.1, port {server.port}" in err
        assert "terrazzo label PROJECT --port 0" in err
        assert server.get("/healthz") == {"status": "alive"}
    code, err = told(capsys, tmp_path / "street.db", "--backup", tmp_path / "copy.db")
    assert code == 2 and "already there" in err
    with open_project(tmp_path / "copy.db") as copy:
        assert (copy.read_mask("photos/a.png") == scene()).all()


def test_beyond_this_machine_links_are_shown_once_and_kept_for_their_owner(tmp_path: Path) -> None:
    make_project(tmp_path).close()
    people = tmp_path / "people.json"
    people.write_text('{"ann": "labeller", "ben": "reviewer"}')
    words = (
        tmp_path / "street.db",
        "--port",
        0,
        "--host",
        "0.0.0.0",
        "--people",
        people,
        "--name",
        "desk.example",
    )
    with started(*words) as server:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            server.get("/api/v1/")
        for line in iter(server.process.stdout.readline, ""):  # type: ignore[union-attr]
            server.said += line
            if "ben:" in line:
                break
        links = dict(re.findall(r"  (\w+): http://desk.example:\d+/\?token=(\S+)", server.said))
        assert set(links) == {"ann", "ben"}
        assert server.get("/api/v1/", links["ben"])["role"] == "reviewer"
        code, said = server.end()
        assert code == 0 and "WARNING: nothing is encrypted" in said
    kept = tmp_path / ".terrazzo-tokens.json"
    assert json.loads(kept.read_text()) == links and stat.S_IMODE(kept.stat().st_mode) == 0o600
    with started(*words) as server:
        assert server.get("/api/v1/", links["ann"])["user"] == "ann"
        assert "?token=" not in server.end()[1]


# -- what is wrong -------------------------------------------------------------------------------------------------


def test_what_is_no_project_and_no_folder_of_images_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.db").write_text("no project")
    (tmp_path / "wrong").mkdir()
    (tmp_path / "wrong" / "a.png").write_bytes(b"no image")
    make_project(tmp_path).close()
    (tmp_path / "street.db").rename(tmp_path / "street.sqlite")
    for path, code, words in (
        ("nowhere", 2, "There is no .*nowhere"),
        ("gone.db", 2, "There is no project .*gone.db"),
        ("text.db", 1, "holds no labelling project"),
        ("wrong", 1, "No image in .*wrong can be read"),
        ("street.sqlite", 2, "NAME.db"),
    ):
        found, err = told(capsys, tmp_path / path, "--port", 0)
        assert found == code and re.search(words, err), (path, found, err)
        assert "Traceback" not in err
    assert not list(tmp_path.glob("wrong.db"))
    assert (tmp_path / "text.db").read_text() == "no project"
    for words, pattern in (
        (("--port", 70_000), "no port 70000"),
        (("--people", tmp_path / "none.json", "--port", 0), "There is no file"),
    ):
        (tmp_path / "street.sqlite").rename(tmp_path / "street.db")
        code, err = told(capsys, tmp_path / "street.db", *words)
        assert code == 2 and re.search(pattern, err), err
        (tmp_path / "street.db").rename(tmp_path / "street.sqlite")


@pytest.mark.skipif(os.name == "nt", reason="Windows bounds no file of a process")
def test_a_full_disk_is_told_with_exit_code_one(tmp_path: Path) -> None:
    write_photograph(tmp_path / "photos" / "a.jpg", 0, hw=(40, 60))
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\n"
        "from terrazzo.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    words = ["label", str(tmp_path / "photos"), "--port", "0"]
    ended = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1, ended.stderr
    assert (
        "StorageError" in ended.stderr
        and "could not be written" in ended.stderr
        and "Traceback" not in ended.stderr
    )


def test_a_folder_of_projects_is_a_shelf_of_them(tmp_path: Path) -> None:
    for name in ("one", "two"):
        open_project(tmp_path / f"{name}.db").close()
    (tmp_path / "other.db").write_text("something else")
    opened = open_path(tmp_path)
    assert (opened.folder, opened.name) == (tmp_path, None)
    with started(tmp_path, "--port", 0) as server:
        assert [one["name"] for one in server.get("/api/v1/")["projects"]] == ["one", "two"]
        assert server.get("/api/v1/projects/two")["counts"]["todo"] == 0
        with pytest.raises(ProjectInUseError), open_project(tmp_path / "one.db") as one, one.held():
            pass


def test_an_empty_folder_is_a_shelf_on_which_projects_are_made(tmp_path: Path) -> None:
    assert open_path(tmp_path) == Opened(tmp_path, None)
    with started(tmp_path, "--port", 0) as server:
        assert server.get("/api/v1/")["projects"] == []


def test_the_library_s_word_is_the_command_s(tmp_path: Path) -> None:
    with bind("127.0.0.1", 0, command="") as taken, pytest.raises(UsageError, match="cannot listen"):
        tz.label(tmp_path, port=taken.getsockname()[1])
    assert list(tmp_path.iterdir()) == []


def test_the_address_that_is_shown_is_one_that_people_can_type() -> None:
    with bind("0.0.0.0", 0, command="") as everywhere:
        port = everywhere.getsockname()[1]
        names = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0", "desk"})
        assert address_for_people(everywhere, names) == f"http://desk:{port}/"
    with bind("127.0.0.1", 0, command="") as here:
        assert address_for_people(here, frozenset({"desk"})) == f"http://127.0.0.1:{here.getsockname()[1]}/"
