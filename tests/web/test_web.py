"""Names by which a server may be asked, bodies that are bounded and given back, sockets, and the end of a server."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from terrazzo.errors import DamagedLabelError, UnknownNameError, UsageError
from terrazzo.web.bodies import Intake
from terrazzo.web.doors import is_loopback, is_secure, names_of, refuse_strangers, with_headers
from terrazzo.web.problems import RefusalError, kind_of, parts, refusal_of
from terrazzo.web.server import Server, address_of, bind, settings


def too_large(found: str) -> RefusalError:
    return RefusalError(413, "Too large.", kind="too-large", found=found)


def request(parts_of: list[Any], **headers: str) -> Request:
    """A request whose body comes in these parts; None never comes, an error is raised."""
    left = list(parts_of)

    async def receive() -> dict[str, Any]:
        part = left.pop(0)
        if part is None:
            await asyncio.sleep(60)
        if part == "gone":
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": part, "more_body": bool(left)}

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": named}, receive)


def filled(intake: Intake, sent: Request, most: int = 10) -> tuple[bytes, int]:
    """(body, bytes held meanwhile)."""

    async def walk() -> tuple[bytes, int]:
        with intake.room() as room:
            return await room.fill(sent, most, what="image", too_large=too_large), intake.held

    return asyncio.run(walk())


# -- bodies --------------------------------------------------------------------------------------------------------


def test_a_body_is_its_parts_and_is_given_back() -> None:
    intake = Intake(100, 5)
    assert filled(intake, request([b"abc", b"", b"def"])) == (b"abcdef", 6)
    assert intake.held == 0
    assert filled(intake, request([b"x" * 10], content_length="10")) == (b"x" * 10, 10)


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (lambda: request([b"x" * 6, b"x" * 6]), 413, "found: more than 10 bytes"),
        (lambda: request([b"x"], content_length="11"), 413, "found: 11 bytes"),
        (lambda: request([b"x"], content_length="-1"), 413, "found: -1"),
        (
            lambda: request([b"ab", None]),
            408,
            "The image did not arrive in time.\n  found: 2 bytes in 0.05 s",
        ),
    ],
)
def test_a_body_that_is_too_large_or_too_slow_is_refused_and_holds_nothing(
    sent: Callable[[], Request], status: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("terrazzo.web.bodies.DISCARD_SECONDS", 0.05)
    intake = Intake(100, 0.05)
    with pytest.raises(RefusalError) as caught:
        filled(intake, sent())
    assert caught.value.status == status and words in str(caught.value)
    assert intake.held == 0


def test_what_all_hold_together_is_bounded() -> None:
    async def walk() -> None:
        intake = Intake(10, 5)
        with intake.room() as one, intake.room() as other:
            await one.fill(request([b"x" * 8]), 10, what="image", too_large=too_large)
            with pytest.raises(RefusalError) as caught:
                await other.fill(request([b"x" * 3]), 10, what="image", too_large=too_large)
            assert caught.value.status == 429 and caught.value.headers["Retry-After"] == "1"
            one.release()
            await other.fill(request([b"x" * 3]), 10, what="image", too_large=too_large)
        assert intake.held == 0

    asyncio.run(walk())


def test_a_client_that_leaves_is_told_to_nobody() -> None:
    intake = Intake(100, 5)
    with pytest.raises(ClientDisconnect):
        filled(intake, request([b"ab", "gone"]))
    assert intake.held == 0


# -- doors ---------------------------------------------------------------------------------------------------------


def test_a_server_knows_the_names_it_listens_on() -> None:
    assert names_of("127.0.0.1", ["Desk"]) == {"localhost", "127.0.0.1", "::1", "desk"}
    assert names_of("0.0.0.0") >= {"0.0.0.0", socket.gethostname().lower()}
    assert [is_loopback(host) for host in ("localhost", "127.8.9.1", "::1", "0.0.0.0", "example.org", "")] == [
        True, True, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"host": "desk:8001"}, None),
        ({"host": "192.0.2.7"}, None),
        ({"host": "desk.example"}, "unknown-host"),
        ({}, "unknown-host"),
        ({"host": "desk:8001", "origin": "http://desk:8001"}, None),
        ({"host": "desk:8001", "origin": "https://DESK:8001"}, None),
        ({"host": "desk:8001", "origin": "http://desk:8002"}, "other-origin"),
        ({"host": "desk:8001", "origin": "null"}, "other-origin"),
        ({"host": "desk:8001", "origin": "http://desk:8001.evil"}, "other-origin"),
    ],
)
def test_strangers_are_refused_by_host_and_origin(headers: dict[str, str], kind: str | None) -> None:
    refusal = refuse_strangers(names_of("127.0.0.1", ["desk"]), headers, how="")
    assert (None if refusal is None else refusal.kind) == kind
    assert refuse_strangers({"*"}, {"host": "any.where"}, how="") is None


def test_every_answer_keeps_pages_of_others_out() -> None:
    headers = dict(with_headers({"type": "http.response.start", "headers": [(b"a", b"b")]})["headers"])
    assert headers[b"a"] == b"b" and headers[b"x-content-type-options"] == b"nosniff"
    policy = headers[b"content-security-policy"].decode()
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert is_secure({"scheme": "https"}, {}) and is_secure({}, {"x-forwarded-proto": "https"})
    assert not is_secure({"scheme": "http"}, {})


# -- refusals, sockets ---------------------------------------------------------------------------------------------


def test_a_refusal_tells_its_parts_and_what_a_program_wants_beside() -> None:
    refusal = RefusalError(412, "Stale.", kind="stale", found="3", hint="Look.", members={"current": 3})
    assert parts(refusal) == {
        "type": "urn:terrazzo:stale",
        "title": "Stale.",
        "status": 412,
        "detail": "Stale.\n  found: 3\n  Look.",
        "found": "3",
        "hint": "Look.",
        "current": 3,
    }
    assert kind_of(DamagedLabelError("x")) == "damaged-label"
    assert [refusal_of(error).status for error in (UnknownNameError("x"), UsageError("x"), DamagedLabelError("x"))] == [
        404, 400, 500,
    ]  # fmt: skip


def test_a_port_that_is_taken_is_told_with_what_to_type() -> None:
    with bind("127.0.0.1", 0, command="terrazzo label PROJECT --port 0") as taken:
        port = taken.getsockname()[1]
        assert address_of(taken) == f"http://127.0.0.1:{port}/"
        with pytest.raises(UsageError) as caught:
            bind("127.0.0.1", port, command="terrazzo label PROJECT --port 0")
    assert caught.value.command == "terrazzo label PROJECT --port 0"
    with pytest.raises(UsageError, match="no port 70000"):
        bind("127.0.0.1", 70_000, command="")


def test_the_end_of_a_server_begins_once() -> None:
    async def nothing(scope: Any, receive: Any, send: Any) -> None: ...

    begun: list[int] = []
    server = Server(settings(nothing, head_seconds=1, stop_seconds=1), lambda: begun.append(1), None)
    server.handle_exit(15, None)
    assert server.should_exit and not server.force_exit
    server.handle_exit(15, None)
    assert server.force_exit and begun == [1], "the second signal ends at once"
