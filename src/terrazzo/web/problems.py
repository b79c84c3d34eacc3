"""What is refused, and how it is told: our four parts as RFC 9457 problem details.

{"type": "urn:terrazzo:unreadable-file", "title": what, "status": 422, "detail": all parts as one text,
 "found": …, "expected": …, "hint": …, "command": …}
"""

import http
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from terrazzo.errors import DataError, TerrazzoError, UnknownNameError, UsageError


class RefusalError(TerrazzoError):
    """A request that is answered with a status of 4xx or 5xx and a reason."""

    def __init__(
        self,
        status: int,
        what: str,
        *,
        kind: str,
        found: str | None = None,
        expected: str | None = None,
        hint: str | None = None,
        command: str | None = None,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        """kind: the end of the problem's `type`, such as "queue-full". members: what a program wants to know beside."""
        super().__init__(what, found=found, expected=expected, hint=hint, command=command)
        self.status, self.kind = status, kind
        self.headers, self.members = dict(headers or {}), dict(members or {})


def busy(what: str, *, kind: str, seconds: float, status: int = 429) -> RefusalError:
    """The refusal of a request that may come again after `seconds`."""
    wait = max(1, math.ceil(seconds))
    return RefusalError(
        status,
        what,
        kind=kind,
        hint=f"Nothing was done. Ask again in {wait} second{'s' if wait != 1 else ''}.",
        headers={"Retry-After": str(wait)},
    )


def refusal_of(error: TerrazzoError) -> RefusalError:
    """Return what a client is told of an error of ours: words for the command line are left out."""
    if isinstance(error, RefusalError):
        return error
    status = 404 if isinstance(error, UnknownNameError) else 400 if isinstance(error, UsageError) else 500
    if isinstance(error, DataError):
        what = error.what.replace("The image 'upload'", "The upload").replace("'upload'", "The upload")
        return RefusalError(
            422, what, kind=kind_of(error), found=error.found, expected=error.expected
        )  # its hint speaks of files and folders
    return RefusalError(
        status, error.what, kind=kind_of(error), found=error.found, expected=error.expected, hint=error.hint
    )


def parts(refusal: RefusalError) -> dict[str, Any]:
    """Return a refusal as problem details, plain JSON."""
    found = {name: getattr(refusal, name) for name in ("found", "expected", "hint", "command")}
    return {
        "type": f"urn:terrazzo:{refusal.kind}",
        "title": refusal.what,
        "status": refusal.status,
        "detail": str(refusal),
        **{name: part for name, part in found.items() if part is not None},
        **refusal.members,
    }


def problem(refusal: RefusalError) -> Response:
    """Return the answer that tells a refusal."""
    told = parts(refusal)
    body = json.dumps(told, ensure_ascii=False).encode()
    return Response(
        body, status_code=refusal.status, media_type="application/problem+json", headers=refusal.headers
    )


def no_route(request: Request, error: HTTPException, *, hint: str | None = None) -> Response:
    """Return the answer where there is no such route, or another method: problem details too."""
    phrase = http.HTTPStatus(error.status_code).phrase
    return problem(
        RefusalError(
            error.status_code,
            f"{phrase}: {request.method} {request.url.path[:80]}.",
            kind=phrase.lower().replace(" ", "-"),
            hint=hint,
            headers=error.headers,
        )
    )


def kind_of(error: TerrazzoError) -> str:
    """Return the end of a problem's `type`: "stale-revision" for StaleRevisionError."""
    words = re.findall(r"[A-Z][a-z0-9]*", type(error).__name__.removesuffix("Error"))
    return "-".join(words).lower() or "error"
