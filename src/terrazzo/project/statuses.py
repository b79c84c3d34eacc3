"""How far the label of a sample is: todo -> (prelabelled) -> in_progress -> labelled -> reviewed, or rejected with a
reason, and then in_progress again; or skipped.

Whoever changes a label puts it in progress, so that nothing half done goes on as labelled or reviewed. Each status is
one of Segments.ai's; that house has two more, which become ours on the way in.
"""

import sqlite3
from collections.abc import Mapping
from typing import Literal, get_args

from terrazzo.errors import ProjectError, UsageError, unknown_name
from terrazzo.project import audit

Status = Literal["todo", "prelabelled", "in_progress", "labelled", "reviewed", "rejected", "skipped"]
STATUSES: tuple[Status, ...] = get_args(Status)
FINISHED: tuple[Status, ...] = ("labelled", "reviewed")  # somebody says that the label is done
UNDRAWN: tuple[Status, ...] = ("todo", "prelabelled")  # what stands there, if anything, is a model's
JUDGED: tuple[Status, ...] = ("reviewed", "rejected")  # somebody else says what they think of it
MAX_REASON = 2000  # characters

NEXT: Mapping[Status, tuple[Status, ...]] = {
    "todo": ("prelabelled", "in_progress", "labelled", "skipped"),
    "prelabelled": ("in_progress", "labelled", "skipped"),
    "in_progress": ("labelled", "skipped"),
    "labelled": ("reviewed", "rejected", "in_progress", "skipped"),
    "reviewed": ("rejected", "in_progress"),
    "rejected": ("in_progress", "skipped"),
    "skipped": ("in_progress", "todo"),
}
TO_SEGMENTS: Mapping[Status, str] = {
    "todo": "UNLABELED",
    "prelabelled": "PRELABELED",
    "in_progress": "LABELING_IN_PROGRESS",
    "labelled": "LABELED",
    "reviewed": "REVIEWED",
    "rejected": "REJECTED",
    "skipped": "SKIPPED",
}
FROM_SEGMENTS: Mapping[str, Status] = {
    **{theirs: ours for ours, theirs in TO_SEGMENTS.items()},
    "REVIEWING_IN_PROGRESS": "labelled",
    "VERIFIED": "reviewed",
}


def known(status: str) -> Status:
    """Return `status` if it is one; UnknownNameError with the nearest."""
    if status not in STATUSES:
        raise unknown_name("status", status, STATUSES)
    return status


def change(
    db: sqlite3.Connection,
    sample: int,
    status: str,
    *,
    reason: str | None = None,
    author: str | None = None,
    is_alone: bool = True,
    is_import: bool = False,
) -> None:
    """Give the sample with this number another status; ProjectError for a step that is not allowed.

    reason: why it is rejected or skipped; a rejection needs one. is_alone: whoever asks may judge what they drew
    themselves, for there is nobody else. is_import: any step is allowed, for the steps were taken elsewhere.
    """
    wanted = known(status)
    name, old, had, drew = db.execute(
        "SELECT name, status, reason, author FROM samples WHERE id = ?", (sample,)
    ).fetchone()
    if wanted == old and reason in (None, had):
        return
    if wanted == "rejected" and not (reason or "").strip() and not is_import:
        raise UsageError("A rejection needs a reason.", hint="Say what is to be mended: reason='…'.")
    if reason is not None and len(reason) > MAX_REASON:
        raise UsageError(f"A reason has at most {MAX_REASON:,} characters.", found=f"{len(reason):,}")
    if wanted in JUDGED and wanted != old and not is_alone and author is not None and author == drew:
        raise ProjectError(
            f"Whoever labelled {name!r} does not review it.",
            found=f"labelled and judged by {author}",
            expected="a second pair of eyes",
        )
    if wanted not in (*NEXT[old], old) and not is_import:
        raise ProjectError(
            f"The sample {name!r} cannot go from {old} to {wanted}.",
            found=old,
            expected=f"from there: {', '.join(NEXT[old])}",
        )
    db.execute("UPDATE samples SET status = ?, reason = ? WHERE id = ?", (wanted, reason, sample))
    audit.note(db, "status", author=author, sample=sample, old=old, new=wanted, reason=reason)
