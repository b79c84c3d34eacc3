"""Who may come in, and what every answer carries.

Host and Origin: see `web/doors.py`. Token: needed wherever others can reach the server. Browsers get a cookie made from
it, worth nothing elsewhere.
"""

import hashlib
import hmac
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from terrazzo.errors import UsageError
from terrazzo.serving.tally import Tally
from terrazzo.web.doors import (
    OPEN,
    headers_of,
    is_loopback,
    is_secure,
    names_of,
    refuse_strangers,
    with_headers,
)
from terrazzo.web.problems import RefusalError, problem

COOKIE = "terrazzo"
SHORTEST_TOKEN = 16
HOW = "Whoever starts it names it: terrazzo serve MODEL --name HOST"


@dataclass(frozen=True)
class Door:
    """By which names and with which token one comes in."""

    names: frozenset[str]
    """Host names, lower case; "*" means any. Addresses are always let in."""
    token: str | None = field(default=None, repr=False)
    """What clients send as `Authorization: Bearer`; None where only this machine can reach the server."""

    @classmethod
    def of(cls, host: str, *, token: str | None = None, names: Sequence[str] = ()) -> "Door":
        """Return the door of a server that listens on `host`; raises UsageError where it would stand open."""
        if token is not None and (
            len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable()
        ):
            raise UsageError(
                "The token can be guessed, or typed by nobody.",
                found=f"{len(token)} characters",
                expected=f"{SHORTEST_TOKEN} or more of ASCII",
                hint="A good one:",
                command="python -c 'import secrets; print(secrets.token_hex(16))'",
            )
        if token is None and not is_loopback(host):
            raise UsageError(
                f"On {host} others can reach the server, and it has no token.",
                expected="a token of 16 characters or more, from the file of --token-file or in TERRAZZO_TOKEN",
                hint="Or let it listen on 127.0.0.1, for this machine alone. To make one:",
                command="python -c 'import secrets; print(secrets.token_hex(16))' > token\n"
                f"terrazzo serve MODEL --host {host} --token-file token",
            )
        return cls(names_of(host, names), token)

    def refuse(self, method: str, path: str, headers: dict[str, str]) -> RefusalError | None:
        """Return why a request may not come in, or None."""
        refusal = refuse_strangers(self.names, headers, how=HOW)
        if refusal is not None:
            return refusal
        if path in OPEN or self.token is None or self._has_token(headers):
            return None
        return RefusalError(
            401,
            "The server wants a token.",
            kind="token",
            found="another one" if "authorization" in headers else "none",
            expected="the header Authorization: Bearer TOKEN, or in a browser the address ending in /?token=TOKEN",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def opens(self, token: str) -> bool:
        """Whether this is the token."""
        return self.token is not None and hmac.compare_digest(token.encode(), self.token.encode())

    @property
    def cookie(self) -> str:
        """What a browser keeps in the token's place; the same on every server of that token."""
        return hmac.new((self.token or "").encode(), b"terrazzo page", hashlib.sha256).hexdigest()

    def _has_token(self, headers: dict[str, str]) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.opens(given.strip()):
            return True
        try:
            kept = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return kept is not None and hmac.compare_digest(kept.value.encode(), self.cookie.encode())


class Gate:
    """Lets in who may, adds `HEADERS`, counts and times; no error gets past it without an answer."""

    def __init__(self, app: ASGIApp, door: Door, tally: Tally) -> None:
        self.app, self.door, self.tally = app, door, tally

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = time.monotonic(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = with_headers(message)
            await send(message)

        state = scope.setdefault("state", {})
        try:
            await self._inside(scope, receive, answer)
        except Exception:
            traceback.print_exc()
            if status == 0:
                await problem(RefusalError(500, "The server failed.", kind="bug"))(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", "")
            route = "/static" if scope["path"].startswith("/static") else route or "none"
            model = state.get("model", "")
            self.tally.add("terrazzo_requests_total", route=route, model=model, status=str(status))
            self.tally.observe("terrazzo_request_seconds", time.monotonic() - begun, route=route)

    async def _inside(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = headers_of(scope)
        entry = self._entry(scope, headers)
        if entry is not None:
            await entry(scope, receive, send)
            return
        refusal = self.door.refuse(scope["method"], scope["path"], headers)
        await (self.app if refusal is None else problem(refusal))(scope, receive, send)

    def _entry(self, scope: Scope, headers: dict[str, str]) -> Response | None:
        """The answer to a browser that brings its token in the address: a cookie, and the address without it."""
        if self.door.token is None or scope["method"] != "GET" or scope["path"] != "/":
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token")
        if (
            not given
            or self.door.refuse("GET", OPEN[0], headers) is not None
            or not self.door.opens(given[0])
        ):
            return None
        response = RedirectResponse("/", status_code=303)
        secure = is_secure(scope, headers)
        response.set_cookie(
            COOKIE, self.door.cookie, httponly=True, samesite="strict", secure=secure, path="/"
        )
        return response
