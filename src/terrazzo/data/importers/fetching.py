"""Files that a release names by address, fetched over http and https once the user has asked for it.

Nothing is sent but the request: no login, no token, no cookie. A file has a deadline and a largest size; what fails for
a reason that may pass is tried again, each time said aloud as a RuntimeWarning; every other answer is told in words.
Signed addresses are secrets for as long as they hold, so messages show them without what signs them.
"""

import http.client
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
import warnings
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from urllib.request import Request

from terrazzo import remote
from terrazzo.errors import TerrazzoError, UnreachableError, UnreadableFileError

TIMEOUT = 20  # seconds without a byte
DEADLINE = 600  # seconds for a file, new attempts included
MAX_BYTES = 1 << 28  # of a file: 256 MiB; images of 12 megapixels have 5, their bitmaps 0.2
MAX_ANSWER = 4096  # bytes of an error's text that are looked at
CHUNK = 1 << 16
BESIDE = "Or fetch the files with your own login, and put their paths, relative to the release, in its place."


def fetch(url: str, *, stop: threading.Event | None = None) -> bytes:
    """Return the file at an address.

    Raises UnreadableFileError where it is not there, may not be read or is too large, and UnreachableError where it
    comes too slowly, or the place does not answer after the last attempt either. stop: set from another thread, it
    ends the waiting, with an UnreachableError too.
    """
    if not is_address(url):
        raise UnreadableFileError(f"{url.partition('?')[0]} is no address.", expected="http(s)://host/path")
    stop = stop or threading.Event()
    until = time.monotonic() + DEADLINE
    for attempt, wait in enumerate((*remote.WAITS, None), start=1):
        try:
            return _get(url, until, stop)
        except TerrazzoError:
            raise
        except urllib.error.HTTPError as error:
            with error:
                answer = error.read(MAX_ANSWER).decode("utf-8", "replace")
            if remote.is_final(error):
                raise _told(url, error, answer) from error
            failure: Exception = error
        except (OSError, http.client.HTTPException, EOFError) as error:
            if isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError):
                raise UnreachableError(f"{shown(url)} is not who it says it is.", found=str(error)) from error
            failure = error
        except ValueError as error:  # of a host or port in the answer
            raise UnreadableFileError(f"{shown(url)} leads to no address.", found=str(error)[:200]) from error
        said = f"{type(failure).__name__}: {failure}"[:200]
        if wait is None or stop.is_set() or time.monotonic() + wait > until:
            raise UnreachableError(
                f"{shown(url)} cannot be fetched.",
                found=f"{said}, after {attempt} attempt{'s' if attempt > 1 else ''}",
                hint="Is the network there, and does the place answer? Nothing was written; run the command again.",
            ) from failure
        warnings.warn(f"{shown(url)}: {said}; trying again in {wait} s.", RuntimeWarning, stacklevel=2)
        stop.wait(wait)
    raise AssertionError("the last attempt returns or raises")


def is_address(url: str) -> bool:
    """True for http and https with a host, and a port that can be."""
    try:
        parts = urlsplit(url)
        return remote.is_web(url) and bool(parts.hostname) and parts.port != 0 and url.isprintable()
    except ValueError:
        return False


def shown(url: str) -> str:
    """Return an address as messages show it: without login and without the question that may sign it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("?")[0]
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" + ("?…" if parts.query else "")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https only."""

    def http_error_302(self, req: Request, fp: Any, code: int, msg: str, headers: Any) -> Any:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except Exception:
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Request | None:
        if not remote.is_web(newurl):
            raise UnreadableFileError(
                f"{shown(req.full_url)} leads to another place, which is not read.",
                found=shown(newurl),
                expected="http or https",
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _get(url: str, until: float, stop: threading.Event) -> bytes:
    plain = quote(
        url, safe="%/:=&?~#+!$,;'@()*[]"
    )  # spaces and letters beyond ASCII; what is quoted stays so
    request = Request(plain, headers={"User-Agent": "terrazzo"})
    opener = urllib.request.build_opener(_Redirects)
    with opener.open(request, timeout=TIMEOUT) as answer:
        promised = answer.headers.get("Content-Length", "")
        size = int(promised) if promised.isdigit() else None
        if size is not None and size > MAX_BYTES:
            raise _too_large(url, f"{size:,} bytes")
        parts: list[bytes] = []
        received = 0
        while part := answer.read1(CHUNK):
            received += len(part)
            parts.append(part)
            if received > MAX_BYTES:
                raise _too_large(url, f"more than {MAX_BYTES:,} bytes")
            if stop.is_set():
                raise UnreachableError(f"{shown(url)} was not fetched to its end: the work was stopped.")
            if time.monotonic() > until:
                raise UnreachableError(
                    f"{shown(url)} comes too slowly.",
                    found=f"{received:,} bytes in {DEADLINE} s",
                    hint="Nothing was written. Try again later, or fetch the files in another way.",
                )
        if size is not None and received != size:
            raise EOFError(f"{received:,} bytes came of {size:,}")
        return b"".join(parts)


def _too_large(url: str, found: str) -> UnreadableFileError:
    return UnreadableFileError(
        f"{shown(url)} is larger than an image or a bitmap is.",
        found=found,
        expected=f"at most {MAX_BYTES:,} bytes",
        hint="Fetch it by hand if it is real, and put its path, relative to the release, in its place.",
    )


def _told(url: str, error: urllib.error.HTTPError, answer: str) -> TerrazzoError:
    """An answer that another attempt would meet again, in words."""
    said = f"HTTP {error.code} {error.reason}"[:80]
    if error.code in (404, 410):
        return UnreadableFileError(f"There is no file {shown(url)}.", found=said)
    ended = expiry(url)
    is_over = ended is not None and ended < datetime.now(UTC)
    if is_over or re.search(r"expired", answer, re.IGNORECASE):
        return UnreadableFileError(
            f"The signed address {shown(url)} has expired.",
            found=said + (f"; it held until {ended:%Y-%m-%d %H:%M} UTC" if ended else ""),
            hint="Get the release file again: its addresses are signed anew. " + BESIDE,
        )
    if error.code in (401, 403, 407):
        return UnreadableFileError(
            f"{shown(url)} may not be read.",
            found=said,
            expected="an address that needs no login: public, or signed",
            hint="No login is ever sent. Make a release whose addresses are signed. " + BESIDE,
        )
    return UnreadableFileError(f"{shown(url)} cannot be read.", found=said)


def expiry(url: str) -> datetime | None:
    """Return until when a signed address holds, as it says itself; None where it does not.

    The forms of Amazon S3 (both), Google Cloud Storage (both) and Azure Blob Storage.
    """
    asked = {key.lower(): values[0] for key, values in parse_qs(urlsplit(url).query).items()}
    try:
        for who in ("x-amz", "x-goog"):
            if f"{who}-date" in asked and f"{who}-expires" in asked:
                signed = datetime.strptime(asked[f"{who}-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                return signed + timedelta(seconds=int(asked[f"{who}-expires"]))
        if "expires" in asked:
            return datetime.fromtimestamp(int(asked["expires"]), UTC)
        if "se" in asked:
            ended = datetime.fromisoformat(asked["se"])
            return ended if ended.tzinfo else ended.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return None
