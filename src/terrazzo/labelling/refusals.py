"""What clients are told of our errors: the status that a page acts upon, and the numbers it needs for that."""

from collections.abc import Mapping

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
