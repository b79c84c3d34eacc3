"""What an address answers is fetched whole or told in words; nothing is waited for without end."""

import socket
import ssl
import threading
import time
import urllib.error
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from terrazzo import remote
from terrazzo.data.importers import fetching
from terrazzo.data.importers.fetching import expiry, fetch, shown
from terrazzo.errors import UnreachableError, UnreadableFileError

SECRET = "X-Amz-Signature=0123456789abcdef"
OLD = f"X-Amz-Date=20240101T000000Z&X-Amz-Expires=3600&{SECRET}"


class Answers(BaseHTTPRequestHandler):
    """/status/403, /flaky (503 twice, then well), /short, /slow, /large, /endless, /to/URL; else its own path."""

    asked: dict[str, int]
    headers_seen: list[dict[str, str]]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.asked[path] = self.asked.get(path, 0) + 1
        self.headers_seen.append({key.lower(): value for key, value in self.headers.items()})
        if path.startswith("/status/"):
            self.answer(int(path.rpartition("/")[2]), b"no")
        elif path == "/ended":
            self.answer(
                403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
            )
        elif path == "/flaky" and self.asked[path] < 3:
            self.answer(503, b"busy")
        elif path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", path.removeprefix("/to/"))
            self.end_headers()
        elif path == "/short":
            self.answer(200, b"half", size=8)
        elif path == "/large":
            self.answer(200, b"", size=1 << 40)
        elif path in ("/slow", "/endless"):
            self.answer(200, b"", size=None)
            for _ in range(100):
                self.wfile.write(b"x" * (1 if path == "/slow" else 1000))
                time.sleep(0.02)
        else:
            self.answer(200, path.encode())

    def answer(self, status: int, body: bytes, *, size: int | None = -1) -> None:
        self.send_response(status)
        if size is not None:
            self.send_header("Content-Length", str(len(body) if size == -1 else size))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Answers.asked, Answers.headers_seen = {}, []
    monkeypatch.setattr(remote, "WAITS", (0, 0))
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as running:
        running.handle_error = lambda *words: None  # type: ignore[method-assign]  # clients that leave
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_a_file_is_fetched_with_nothing_but_the_request(server: str) -> None:
    assert fetch(f"{server}/a/b.png?{SECRET}") == b"/a/b.png"
    assert fetch(f"{server}/d%20e/ü f.png") == b"/d%20e/%C3%BC%20f.png"  # what is quoted stays so
    assert fetch(f"{server}/to//there") == b"/there"
    seen = {name for headers in Answers.headers_seen for name in headers}
    assert seen == {"host", "user-agent", "connection", "accept-encoding"}


def test_what_may_pass_is_tried_again_and_said(server: str) -> None:
    with pytest.warns(RuntimeWarning, match="HTTP Error 503.*trying again") as warned:
        assert fetch(f"{server}/flaky") == b"/flaky"
    assert len(warned) == 2


@pytest.mark.parametrize("path", ["status/500", "status/429", "short"])
def test_a_place_that_never_gives_the_file_is_told(server: str, path: str) -> None:
    with pytest.raises(UnreachableError, match="after 3 attempts"), pytest.warns(RuntimeWarning):
        fetch(f"{server}/{path}")
    assert Answers.asked[f"/{path}"] == 3


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("status/401", UnreadableFileError, "may not be read(.|\n)*HTTP 401(.|\n)*No login is ever sent"),
        ("status/403", UnreadableFileError, "may not be read(.|\n)*HTTP 403(.|\n)*needs no login"),
        ("status/404", UnreadableFileError, "There is no file(.|\n)*HTTP 404"),
        ("status/410", UnreadableFileError, "There is no file(.|\n)*HTTP 410"),
        ("status/418", UnreadableFileError, "cannot be read(.|\n)*HTTP 418"),
        ("status/403?" + OLD, UnreadableFileError, "has expired(.|\n)*held until 2024-01-01 01:00 UTC"),
        ("ended", UnreadableFileError, "has expired(.|\n)*Get the release file again"),
        ("to/ftp://127.0.0.1/x", UnreadableFileError, "leads to another place(.|\n)*ftp://127.0.0.1/x"),
        ("to/ftp://[x", UnreadableFileError, "leads to"),
        ("to/http://[x", UnreadableFileError, "leads to no address"),
        ("large", UnreadableFileError, "larger than an image(.|\n)*1,099,511,627,776 bytes"),
    ],
)
def test_answers_that_are_final_are_told_at_once(server: str, path: str, kind: type, words: str) -> None:
    with pytest.raises(kind, match=words) as told:
        fetch(f"{server}/{path}")
    assert sum(Answers.asked.values()) == 1
    assert SECRET not in str(told.value)


def test_a_file_has_a_deadline_and_a_largest_size(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_BYTES", 5000)
    with pytest.raises(UnreadableFileError, match="more than 5,000 bytes"):
        fetch(f"{server}/endless")
    monkeypatch.setattr(fetching, "DEADLINE", 0.1)
    with pytest.raises(UnreachableError, match=r"comes too slowly\.\n  found: \d+ bytes in 0.1 s"):
        fetch(f"{server}/slow")


def test_waiting_ends_when_the_work_is_stopped(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()
    monkeypatch.setattr(remote, "WAITS", (500,))
    threading.Timer(0.1, stop.set).start()
    with (
        pytest.raises(UnreachableError, match="HTTP Error 503"),
        pytest.warns(RuntimeWarning, match="in 500 s"),
    ):
        fetch(f"{server}/status/503", stop=stop)
    with pytest.raises(UnreachableError, match="the work was stopped"):
        fetch(f"{server}/slow", stop=stop)


def test_a_silent_server_and_no_server_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WAITS", (0,))
    monkeypatch.setattr(fetching, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with pytest.raises(UnreachableError, match="timed out"), pytest.warns(RuntimeWarning, match="again"):
            fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/a.png")
        port = silent.getsockname()[1]
    with pytest.raises(UnreachableError, match="refused"), pytest.warns(RuntimeWarning, match="again"):
        fetch(f"http://127.0.0.1:{port}/a.png")


def test_a_certificate_that_does_not_hold_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*words: Any, **more: Any) -> None:
        raise urllib.error.URLError(ssl.SSLCertVerificationError("certificate has expired"))

    monkeypatch.setattr("urllib.request.OpenerDirector.open", refuse)
    with pytest.raises(UnreachableError, match="not who it says it is(.|\n)*certificate has expired"):
        fetch("https://bucket.example/a.png")


@pytest.mark.parametrize("url", ["http://[::1/a.png", "http:///a.png", "http://127.0.0.1:port/a.png"])
def test_what_is_no_address_is_told(url: str) -> None:
    with pytest.raises(UnreadableFileError, match="is no address"):
        fetch(url)


@pytest.mark.parametrize(
    ("asked", "until"),
    [
        (OLD, datetime(2024, 1, 1, 1, tzinfo=UTC)),
        ("X-Goog-Date=20240101T000000Z&X-Goog-Expires=60", datetime(2024, 1, 1, 0, 1, tzinfo=UTC)),
        ("AWSAccessKeyId=A&Expires=1704067200&Signature=x", datetime(2024, 1, 1, tzinfo=UTC)),
        ("sv=2022&se=2024-01-01T00%3A00%3A00Z&sig=x", datetime(2024, 1, 1, tzinfo=UTC)),
        ("Expires=soon", None),
        ("Expires=99999999999999999999", None),
        ("", None),
    ],
)
def test_signed_addresses_say_until_when_they_hold(asked: str, until: datetime | None) -> None:
    assert expiry(f"https://bucket.example/a.png?{asked}") == until


def test_addresses_are_shown_without_what_opens_them() -> None:
    assert shown(f"https://me:key@bucket.example/a.png?{SECRET}#x") == "https://bucket.example/a.png?…"
    assert shown("https://bucket.example/a.png") == "https://bucket.example/a.png"
