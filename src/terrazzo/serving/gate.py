"""Who may come in, and what every answer carries.

Host: a page of another site can make a browser ask 127.0.0.1 under a name of its own (DNS rebinding), so names that are
not ours are refused; addresses cannot be rebound. Origin: a page of another site may not spend this machine's time.
Token: needed wherever others can reach the server. Browsers get a cookie made from it, worth nothing elsewhere.
"""

import hashlib
import hmac
import ipaddress
import socket
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from terrazzo.errors import UsageError
from terrazzo.serving.problems import RefusalError, problem
from terrazzo.serving.tally import Tally

COOKIE = "terrazzo"
SHORTEST_TOKEN = 16
OPEN = ("/healthz", "/readyz")  # for those who watch whether the server lives; they tell nothing else
LOOPBACK = ("localhost", "127.0.0.1", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}


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
        known = {*LOOPBACK, *names}
        if not is_loopback(host):
            known |= {host, socket.gethostname()}
        return cls(frozenset(name.lower() for name in known), token)

    def refuse(self, method: str, path: str, headers: dict[str, str]) -> RefusalError | None:
        """Return why a request may not come in, or None."""
        host = headers.get("host", "")
        if not self._knows(host):
            return RefusalError(
                421,
                "The server is not known by this name.",
                kind="unknown-host",
                found=f"Host: {host[:80]}",
                hint="Whoever starts it names it: terrazzo serve MODEL --name HOST",
            )
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return RefusalError(
                403,
                "Pages of other sites may not ask this server.",
                kind="other-origin",
                found=f"Origin: {origin[:80]}",
            )
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

    def _knows(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return "*" in self.names or name.lower() in self.names or _is_address(name)


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
                message["headers"] = [
                    *message.get("headers", []),
                    *((name.lower().encode(), value.encode()) for name, value in HEADERS.items()),
                ]
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
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
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
        secure = scope.get("scheme") == "https" or headers.get("x-forwarded-proto") == "https"
        response.set_cookie(
            COOKIE, self.door.cookie, httponly=True, samesite="strict", secure=secure, path="/"
        )
        return response


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
