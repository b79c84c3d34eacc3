"""Who may do what: people, their roles and tokens; and the gate through which every request passes.

On this machine's own address nobody needs a token: whoever runs the server is its admin, alone. Elsewhere everybody has
a token of their own, 128 bits or more. A browser brings it once in the address and gets a cookie made from it, which
pages of other sites can neither read nor send; a program sends it as `Authorization: Bearer`. What changes something
must also carry `X-Terrazzo: 1` and a type of body that no form can send, so no other page can ask it of a browser.
"""

import hashlib
import hmac
import time
import traceback
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Literal, get_args
from urllib.parse import parse_qs

from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from terrazzo.web.doors import OPEN, headers_of, is_secure, refuse_strangers, with_headers
from terrazzo.web.problems import RefusalError, problem

Role = Literal["viewer", "labeller", "reviewer", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)  # each may do what those before it may
HOW = "Whoever starts it names it: terrazzo label PROJECT --name HOST"
READING = ("GET", "HEAD", "OPTIONS")
BODIES = (
    "application/json",
    "application/octet-stream",
    "image/",
)  # types that no form of another site can send
WATCHED = 4096  # addresses whose wrong tokens are counted
MINUTE = 60.0
COOKIE_SECONDS = 30 * 24 * 3600  # then the link is needed again
FORWARDED = ("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "via")  # of proxies


@dataclass(frozen=True)
class Person:
    """Who asks."""

    name: str
    """As history and log call them."""
    role: Role
    """What they may do."""

    def may(self, role: Role) -> bool:
        """Whether they may do what this role does."""
        return ROLES.index(self.role) >= ROLES.index(role)


@dataclass
class Access:
    """By which names the server is asked, by whom, and with which tokens."""

    names: Collection[str]
    """Host names; addresses are always let in."""
    local: Person | None
    """Whoever asks without a token; None where everybody needs one."""
    people: Mapping[str, Person] = field(default_factory=dict, repr=False)
    """Token -> person."""
    cookie: str = "terrazzo-label"
    """The cookie's name: one for each server on a machine, for browsers share cookies between ports."""
    wrong_tokens: int = 10
    """Of one address in a minute."""
    _wrong: "OrderedDict[str, list[float]]" = field(default_factory=OrderedDict, repr=False)

    @property
    def is_single_user(self) -> bool:
        """Whether one person does everything, reviews of their own work included."""
        return len({one.name for one in self.people.values() if one.may("labeller")}) <= 1

    def roles(self) -> dict[str, str]:
        """Return {name: role} of everybody."""
        people = [*self.people.values(), *([] if self.local is None else [self.local])]
        return {one.name: one.role for one in people}

    def who(self, headers: Mapping[str, str], address: str) -> Person:
        """Return who asks; RefusalError where nobody knows them."""
        if self.local is not None:
            if any(name in headers for name in FORWARDED):
                raise RefusalError(
                    403,
                    "The request came through a proxy, and nobody here needs a token.",
                    kind="proxy",
                    hint="Whoever reaches the proxy would be this server's admin. Give people tokens:",
                    command="terrazzo label PROJECT --people people.json",
                )
            return self.local
        kept = self._kept(headers)
        if kept is not None:
            return kept
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.holder(given.strip(), address)
        raise RefusalError(
            401,
            "The server wants a token.",
            kind="token",
            found="none",
            expected="in a browser the address ending in /?token=TOKEN, or the header Authorization: Bearer TOKEN",
            hint="Whoever started the server has one for you.",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def holder(self, token: str, address: str) -> Person:
        """Return whose token this is; RefusalError for a wrong one, and after many for every one of that address."""
        now = time.monotonic()
        before = [at for at in self._wrong.get(address, []) if now - at < MINUTE]
        if len(before) >= self.wrong_tokens:
            raise RefusalError(
                429,
                "Too many wrong tokens came from this address.",
                kind="wrong-tokens",
                headers={"Retry-After": str(int(MINUTE))},
            )
        found = [
            one for known, one in self.people.items() if hmac.compare_digest(known.encode(), token.encode())
        ]
        if found:
            return found[0]
        self._wrong[address] = [*before, now]
        self._wrong.move_to_end(address)
        while len(self._wrong) > WATCHED:
            self._wrong.popitem(last=False)
        raise RefusalError(
            401, "That is nobody's token.", kind="token", headers={"WWW-Authenticate": "Bearer"}
        )

    def _kept(self, headers: Mapping[str, str]) -> Person | None:
        try:
            kept = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return None
        if kept is None:
            return None
        value = kept.value.encode()
        found = [
            one for token, one in self.people.items() if hmac.compare_digest(_worth(token).encode(), value)
        ]
        return found[0] if found else None


def _worth(token: str) -> str:
    """What a browser keeps in a token's place."""
    return hmac.new(token.encode(), b"terrazzo label", hashlib.sha256).hexdigest()


class Gate:
    """Lets in who may, adds the headers of every answer; no error gets past it without an answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access
        self.num_requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        self.num_requests += 1
        has_begun = False

        async def answer(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                message = with_headers(message)
            await send(message)

        state = scope.setdefault("state", {})
        try:
            entered = self._enter(scope)
            await (self.app if entered is None else entered)(scope, receive, answer)
        except RefusalError as refusal:
            await problem(refusal)(scope, receive, answer)
        except Exception:
            traceback.print_exc()
            if not has_begun:
                await problem(RefusalError(500, "The server failed.", kind="bug"))(scope, receive, answer)
        finally:
            for room in state.get("rooms", ()):
                room.release()

    def _enter(self, scope: Scope) -> Response | None:
        """Note who asks; RefusalError where they may not, and an answer where they come with a token in the address."""
        headers = headers_of(scope)
        refusal = refuse_strangers(self.access.names, headers, how=HOW)
        if refusal is not None:
            raise refusal
        if scope["path"] in OPEN:
            return None
        address = (scope.get("client") or ("?",))[0]
        is_page = scope["method"] == "GET" and scope["path"] == "/"
        if is_page and self.access.local is None:
            given = parse_qs(scope["query_string"].decode("latin-1")).get("token")
            if given:
                self.access.holder(given[0], address)
                return self._welcome(given[0], is_secure(scope, headers))
        if scope["method"] in READING and (scope["path"] == "/" or scope["path"].startswith("/static/")):
            return None  # the page tells nothing of a project; it asks for the token
        scope["state"]["person"] = self.access.who(headers, address)
        if scope["method"] not in READING:
            _refuse_forgery(headers)
        elif scope["path"].startswith("/api/") and headers.get("sec-fetch-site", "none") not in (
            "none",
            "same-origin",
        ):
            raise RefusalError(403, "Pages of other sites may not ask this server.", kind="other-origin")
        return None

    def _welcome(self, token: str, secure: bool) -> Response:
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(
            self.access.cookie,
            _worth(token),
            max_age=COOKIE_SECONDS,
            httponly=True,
            samesite="strict",
            secure=secure,
            path="/",
        )
        return response


def _refuse_forgery(headers: Mapping[str, str]) -> None:
    if headers.get("x-terrazzo") != "1" or headers.get("sec-fetch-site", "none") not in (
        "none",
        "same-origin",
    ):
        raise RefusalError(
            403,
            "A request that changes something did not come from our page.",
            kind="forgery",
            expected="the header X-Terrazzo: 1",
            hint="It keeps pages of other sites from asking in your name.",
        )
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if (has_body or kind) and not kind.startswith(BODIES):
        raise RefusalError(
            415,
            "A request that changes something came as another kind of body.",
            kind="unsupported-media-type",
            found=kind[:80] or "none",
            expected=", ".join(BODIES) + "*",
        )
