"""What clients are told of our errors: the status that a page acts upon, and the numbers it needs for that."""

import os
from collections.abc import Mapping
from pathlib import Path

from terrazzo.errors import (
    DamagedLabelError,
    DataError,
    ProjectInUseError,
    StaleRevisionError,
    StorageError,
    TerrazzoError,
)
from terrazzo.web.problems import RefusalError, kind_of, refusal_of

AGAIN = {"Retry-After": "1"}


def told(error: TerrazzoError) -> RefusalError:
    """Return the refusal that tells an error: 412 stale, 423 damaged, 507 no room, 503 busy, else as everywhere."""
    if isinstance(error, RefusalError):
        return error
    if isinstance(error, StaleRevisionError):
        return _as(error, 412, members={"current": error.current, "branch": error.branch})
    if isinstance(error, DamagedLabelError):
        return _as(error, 423)
    if isinstance(error, StorageError):
        return _as(error, 507)
    if isinstance(error, ProjectInUseError):
        return _as(error, 503, headers=AGAIN)
    if isinstance(error, DataError):
        return _as(error, 422)
    refusal = refusal_of(error)
    return _as(error, 409) if refusal.status == 500 else refusal  # a step that the project does not allow


def without_place(refusal: RefusalError, folder: Path) -> RefusalError:
    """Return a refusal that does not say where on the server's disk the projects lie."""
    place = f"{folder}{os.sep}"
    said = {name: getattr(refusal, name) for name in ("what", "found", "expected", "hint", "command")}
    if not any(place in (one or "") for one in said.values()):
        return refusal
    what, *others = (None if one is None else one.replace(place, "") for one in said.values())
    return RefusalError(
        refusal.status,
        str(what),
        kind=refusal.kind,
        **dict(zip(("found", "expected", "hint", "command"), others, strict=True)),
        headers=refusal.headers,
        members=refusal.members,
    )


def _as(
    error: TerrazzoError,
    status: int,
    *,
    headers: Mapping[str, str] | None = None,
    members: Mapping[str, object] | None = None,
) -> RefusalError:
    return RefusalError(
        status,
        error.what,
        kind=kind_of(error),
        found=error.found,
        expected=error.expected,
        hint=error.hint,
        command=error.command,
        headers=headers,
        members=members,
    )
