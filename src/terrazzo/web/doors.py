"""By which names a server may be asked, and what every answer of it carries.

Host: a page of another site can make a browser ask 127.0.0.1 under a name of its own (DNS rebinding), so names that are
not ours are refused; addresses cannot be rebound. Origin: a page of another site may neither spend this machine's time
nor change anything.
"""

import ipaddress
import socket
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import urlsplit

from starlette.types import Message, Scope

from terrazzo.web.problems import RefusalError

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


def names_of(host: str, names: Sequence[str] = ()) -> frozenset[str]:
    """Return the host names, lower case, by which a server that listens on `host` may be asked, beside addresses."""
    known = {*LOOPBACK, *names}
    if not is_loopback(host):
        known |= {host, socket.gethostname()}
    return frozenset(name.lower() for name in known)


def refuse_strangers(names: Collection[str], headers: Mapping[str, str], *, how: str) -> RefusalError | None:
    """Return why a request may not come in by its Host or Origin, or None. names: "*" means any; how: the hint."""
    host = headers.get("host", "")
    if not _knows(names, host):
        return RefusalError(
            421,
            "The server is not known by this name.",
            kind="unknown-host",
            found=f"Host: {host[:80]}",
            hint=how,
        )
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return RefusalError(
            403,
            "Pages of other sites may not ask this server.",
            kind="other-origin",
            found=f"Origin: {origin[:80]}",
        )
    return None


def headers_of(scope: Scope) -> dict[str, str]:
    """Return the headers of a request, by lower-case name."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def with_headers(message: Message, headers: Mapping[str, str] = HEADERS) -> Message:
    """Return the start of an answer with `headers` added."""
    added = ((name.lower().encode(), value.encode()) for name, value in headers.items())
    return {**message, "headers": [*message.get("headers", []), *added]}


def is_secure(scope: Scope, headers: Mapping[str, str]) -> bool:
    """Whether the client speaks https, to us or to a proxy of ours."""
    return scope.get("scheme") == "https" or headers.get("x-forwarded-proto") == "https"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _knows(names: Collection[str], host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return "*" in names or name.lower() in names or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
