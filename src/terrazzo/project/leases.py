"""Who may draw on a sample just now: a lease that lasts a minute and is renewed while its page is open.

A lease is a courtesy that keeps two people from drawing on one image unknowingly; what keeps their strokes from each
other is the revision that every operation names. Times are those of the monotonic clock, which all processes of one
machine share and nobody sets: a clock that jumps neither ends a lease nor makes it last. After a restart of the machine
that clock begins anew; a lease that would then last longer than any is given for is none.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from terrazzo.errors import ProjectInUseError, UsageError
from terrazzo.project import audit
from terrazzo.project.samples import entry
from terrazzo.project.store import Store

TTL = 60.0  # seconds; a page renews it every 20
MAX_NAME = 200


@dataclass(frozen=True)
class Lease:
    """A lease that holds."""

    sample: str
    """Of which sample."""
    client: str
    """Which page."""
    author: str | None
    """Who."""
    seconds: float
    """How long it still holds."""


class Leases:
    """The leases of one project."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self.clock = store, clock

    def of(self, name: str) -> Lease | None:
        """Return the lease on a sample; None where it is free."""
        with self._store.reading() as db:
            row = db.execute(
                "SELECT client, author, until FROM leases WHERE sample = ?", (entry(db, name).id,)
            ).fetchone()
        left = -1.0 if row is None else row[2] - self.clock()
        return Lease(name, row[0], row[1], left) if 0 < left <= TTL else None

    def take(self, name: str, client: str, *, author: str | None = None, take_over: bool = False) -> Lease:
        """Take the lease on a sample, or renew one's own; ProjectInUseError where another has it.

        take_over: take it from them; the log says so.
        """
        if not isinstance(client, str) or not 0 < len(client) <= MAX_NAME:
            raise UsageError(f"A client is a text of up to {MAX_NAME} characters.", found=f"{client!r:.80}")
        with self._store.transaction() as db:
            held = self.of(name)
            is_others = held is not None and held.client != client
            if held is not None and is_others and not take_over:
                raise ProjectInUseError(
                    f"Somebody else is drawing on {name!r}.",
                    found=f"{held.author or held.client}, for {held.seconds:.0f} s more at least",
                    hint="Look on, or take it over.",
                )
            sample = entry(db, name).id
            values = (sample, client, author, self.clock() + TTL)
            db.execute("INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)", values)
            if held is not None and is_others:
                audit.note(
                    db, "lease taken over", author=author, sample=sample, client=client, of=held.client
                )
        return Lease(name, client, author, TTL)

    def give_back(self, name: str, client: str) -> None:
        """End one's own lease; another's stays."""
        with self._store.transaction() as db:
            db.execute("DELETE FROM leases WHERE sample = ? AND client = ?", (entry(db, name).id, client))
