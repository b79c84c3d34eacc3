"""Which sample to label next: the measures of predictions, the queues made of them, and what models contradict.

`note` keeps the measure of a prediction, `rank` makes the five queues of `orders` for one model, `page` reads them: a
queue is rows in the file, so that the first page of ten thousand samples costs what one of a hundred does. A place has
its reason, for people to read. Samples that the model has not seen come last, by name. A queue is as old as its `rank`;
statuses are those of now.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import UsageError, unknown_name
from terrazzo.project import categories, orders
from terrazzo.project.holdings import Holdings
from terrazzo.project.leases import TTL
from terrazzo.project.measures import Area, Measure
from terrazzo.project.ranking import Ranked, queued
from terrazzo.project.samples import entry
from terrazzo.project.statuses import STATUSES, UNDRAWN
from terrazzo.project.store import Store

OPEN = ("todo", "prelabelled", "in_progress", "rejected")  # what somebody may draw on next
VERDICTS = ("label", "model", "neither")
SEED = 0


@dataclass(frozen=True)
class Place:
    """A sample in a queue."""

    id: int
    """The sample's number."""
    name: str
    """The sample's name."""
    score: float | None
    """The higher, the sooner; None where the model has not seen it."""
    why: str
    """The reason, for people."""
    cursor: str
    """What `page` takes to go on after it."""


@dataclass(frozen=True)
class Disagreement:
    """A place where a model contradicts the label."""

    sample: str
    """The sample's name."""
    sample_id: int
    """The sample's number."""
    area: Area
    """Where, what, how sure."""
    verdict: str | None
    """label, model or neither: who is right, as somebody said; None where nobody has looked."""


class Queue:
    """The queues of one project."""

    def __init__(self, store: Store, holdings: Holdings) -> None:
        self._store, self._holdings = store, holdings

    # -- what is taken down ------------------------------------------------------------------------------------------

    def note(
        self,
        name: str,
        labelset: str,
        measure: Measure,
        *,
        revision: int,
        against: str | None,
        features: NDArray[Any] | None = None,
    ) -> None:
        """Keep the measure of a prediction. Verdicts on disagreements that are still there stay.

        revision: of the label at that time. against: what it was compared with: "label", another labelset, or nothing.
        features: (D,) of the image; None: those that are known stay.
        """
        packed = None if features is None else np.asarray(features, "<f2").tobytes()
        with self._store.transaction() as db:
            one = entry(db, name).id
            if packed is None:
                row = db.execute(
                    "SELECT features FROM measures WHERE labelset = ? AND sample = ?", (labelset, one)
                ).fetchone()
                packed = row[0] if row else None
            numbers = json.dumps(measure.to_json(), separators=(",", ":"))
            db.execute(
                "INSERT OR REPLACE INTO measures VALUES (?, ?, ?, ?, ?, ?)",
                (labelset, one, revision, against, numbers, packed),
            )
            said = {
                row[:4]: row[4]
                for row in db.execute(
                    "SELECT x, y, label, predicted, verdict FROM disagreements WHERE labelset = ? AND sample = ?",
                    (labelset, one),
                )
            }
            db.execute("DELETE FROM disagreements WHERE labelset = ? AND sample = ?", (labelset, one))
            rows = [
                (labelset, one, a.x, a.y, a.left, a.width, a.height, a.pixels, a.label, a.predicted, a.confidence,
                 said.get((a.x, a.y, a.label, a.predicted)))
                for a in (measure.areas if against == "label" else ())
            ]  # fmt: skip
            db.executemany(f"INSERT INTO disagreements VALUES ({', '.join('?' * 12)})", rows)

    def measures(self, labelset: str) -> dict[str, Measure]:
        """Return {sample: measure} of a labelset; disagreements are read by `disagreements`."""
        with self._store.reading() as db:
            rows = db.execute(
                "SELECT name, numbers FROM measures JOIN samples ON samples.id = sample WHERE labelset = ?",
                (labelset,),
            ).fetchall()
        return {name: Measure.from_json(json.loads(numbers)) for name, numbers in rows}

    def stale(self, labelset: str) -> list[str]:
        """Return the samples whose label has changed since their prediction was measured, or that were not."""
        with self._store.reading() as db:
            rows = db.execute(
                "SELECT name FROM predictions JOIN samples ON samples.id = predictions.sample "
                "LEFT JOIN measures ON measures.labelset = predictions.labelset AND measures.sample = samples.id "
                "WHERE predictions.labelset = ? AND revision IS NOT head ORDER BY name",
                (labelset,),
            ).fetchall()
        return [row[0] for row in rows]

    def labelled(self) -> dict[int, int]:
        """Return {category: pixels} of what people labelled so far, every living category among them."""
        self._holdings.refresh()
        marks = ", ".join("?" * len(UNDRAWN))
        with self._store.reading() as db:
            total = {one.id: 0 for one in categories.read(db) if not one.is_deleted}
            rows = db.execute(
                "SELECT category, sum(pixels) FROM holdings JOIN samples ON samples.id = sample "
                f"WHERE status NOT IN ({marks}) GROUP BY category",
                UNDRAWN,
            ).fetchall()
        return total | {category: pixels for category, pixels in rows if category in total}

    # -- the queues --------------------------------------------------------------------------------------------------

    def rank(self, labelset: str, *, seed: int = SEED) -> dict[str, int]:
        """Make the queues of a labelset anew; returns {order: samples in it}."""
        labelled = self.labelled()
        with self._store.reading() as db:
            names = {one.id: one.name for one in categories.read(db)}
            ignored = {one.id for one in categories.read(db) if one.is_ignore}
            rows = db.execute(
                "SELECT samples.id, name, status, numbers, against, features FROM measures "
                "JOIN samples ON samples.id = sample WHERE labelset = ? ORDER BY name",
                (labelset,),
            ).fetchall()
            everybody = db.execute("SELECT id, name FROM samples ORDER BY name").fetchall()
        ranked = Ranked(rows, {k: v for k, v in labelled.items() if k not in ignored}, names)
        queues: dict[str, list[tuple[int, float, str, bool]]] = {
            "uncertainty": queued(ranked, ranked.uncertainty(), seed),
            "rare": queued(ranked, ranked.rare(), seed),
            "disagreement": queued(ranked, ranked.disagreement(), seed),
            "diversity": queued(ranked, ranked.diversity(), seed),
        }
        shuffled = sorted((orders.drawn(name, seed), one) for one, name in everybody)
        queues["random"] = [
            (one, 1 - number, f"in random order (seed {seed})", True) for number, one in shuffled
        ]
        with self._store.transaction() as db:
            db.execute("DELETE FROM queue WHERE labelset = ?", (labelset,))
            for ordering, places in queues.items():
                db.executemany(
                    "INSERT INTO queue VALUES (?, ?, ?, ?, ?, ?, ?)",
                    [
                        (labelset, ordering, one, place, score, why, int(is_random))
                        for place, (one, score, why, is_random) in enumerate(places)
                    ],
                )
        return {ordering: len(places) for ordering, places in queues.items()}

    def page(
        self,
        order: str,
        *,
        labelset: str | None = None,
        after: str | None = None,
        limit: int = 100,
        statuses: Sequence[str] = STATUSES,
        search: str = "",
        is_free: bool = False,
    ) -> list[Place]:
        """Return up to `limit` samples in an order, on from the cursor of the last one.

        labelset: whose queue; that of the model attached last where None. statuses: those that are listed. search: part
        of a name. is_free: leave out what somebody holds a lease on.
        """
        if order not in orders.ORDERS:
            raise unknown_name("order", order, orders.ORDERS)
        where = [f"status IN ({', '.join('?' * len(statuses))})"]
        words: list[Any] = [self.labelset() if labelset is None else labelset, order, *statuses]
        if search:
            where.append("instr(lower(samples.name), lower(?))")
            words.append(search)
        if is_free:
            where.append(
                "NOT EXISTS (SELECT 1 FROM leases WHERE leases.sample = samples.id AND until BETWEEN ? AND ?)"
            )
            words += [time.monotonic(), time.monotonic() + TTL]
        if after is not None:
            clause, value = _after(after)
            where.append(clause)
            words.append(value)
        with self._store.reading() as db:
            rows = db.execute(
                "SELECT samples.id, samples.name, place, score, why FROM samples LEFT JOIN queue "
                "ON queue.sample = samples.id AND labelset = ? AND ordering = ? "
                f"WHERE {' AND '.join(where)} ORDER BY place IS NULL, place, samples.name LIMIT ?",
                (*words, limit),
            ).fetchall()
        return [
            Place(one, name, score, why or "not predicted yet", f"n{name}" if place is None else f"p{place}")
            for one, name, place, score, why in rows
        ]

    def next(
        self,
        order: str,
        *,
        after: str | None = None,
        labelset: str | None = None,
        statuses: Sequence[str] = OPEN,
    ) -> Place | None:
        """Return the next sample to draw on, after the sample `after` and round to the beginning; None: all is done."""
        cursor = None if after is None else self._cursor(order, after, labelset)
        for start in [cursor, None] if cursor is not None else [None]:
            places = self.page(
                order, labelset=labelset, after=start, limit=2, statuses=statuses, is_free=True
            )
            found = [place for place in places if place.name != after]
            if found:
                return found[0]
        return None

    def labelset(self) -> str:
        """Return the labelset of the model attached last; "" where there is none."""
        with self._store.reading() as db:
            row = db.execute(
                "SELECT 'model:' || hash FROM models WHERE NOT is_detached ORDER BY at DESC, rowid DESC LIMIT 1"
            ).fetchone()
        return "" if row is None else str(row[0])

    def _cursor(self, order: str, name: str, labelset: str | None) -> str:
        with self._store.reading() as db:
            row = db.execute(
                "SELECT place FROM queue WHERE labelset = ? AND ordering = ? AND sample = ?",
                (self.labelset() if labelset is None else labelset, order, entry(db, name).id),
            ).fetchone()
        return f"n{name}" if row is None else f"p{row[0]}"

    # -- what models contradict --------------------------------------------------------------------------------------

    def disagreements(
        self,
        labelset: str,
        *,
        sample: str | None = None,
        pair: tuple[int, int] | None = None,
        is_open: bool = True,
        limit: int = 100,
        offset: int = 0,
    ) -> list[Disagreement]:
        """Return the confident disagreements of a model with labels, heaviest (pixels x confidence) first.

        sample: of that one alone. pair: (label says, model says) alone. is_open: those without a verdict alone.
        """
        where = ["labelset = ?"]
        words: list[Any] = [labelset]
        if sample is not None:
            where.append("name = ?")
            words.append(sample)
        if pair is not None:
            where.append("label = ? AND predicted = ?")
            words += pair
        if is_open:
            where.append("verdict IS NULL")
        with self._store.reading() as db:
            rows = db.execute(
                'SELECT name, sample, x, y, "left", d.width, d.height, pixels, label, predicted, confidence, '
                "verdict FROM disagreements AS d JOIN samples ON samples.id = sample "
                f"WHERE {' AND '.join(where)} ORDER BY pixels * confidence DESC, name, y, x LIMIT ? OFFSET ?",
                (*words, limit, offset),
            ).fetchall()
        return [Disagreement(name, one, Area(*area), verdict) for name, one, *area, verdict in rows]

    def decide(self, labelset: str, sample: str, x: int, y: int, verdict: str | None) -> None:
        """Say who is right at a disagreement: "label", "model" or "neither"; None: nobody has looked.

        This is a note; no pixel changes. UsageError where the list has no such place.
        """
        if verdict is not None and verdict not in VERDICTS:
            raise unknown_name("verdict", verdict, VERDICTS)
        with self._store.transaction() as db:
            changed = db.execute(
                "UPDATE disagreements SET verdict = ? WHERE labelset = ? AND sample = ? AND x = ? AND y = ?",
                (verdict, labelset, entry(db, sample).id, x, y),
            ).rowcount
        if not changed:
            raise UsageError(f"There is no disagreement at ({x}, {y}) of {sample!r:.80}.")

    def contradicting(self, labelset: str, label: int, predicted: int) -> list[tuple[str, int]]:
        """Return (sample, pixels) in which the label says one category and the model another; most pixels first."""
        found = [
            (name, one.pairs.get((label, predicted), 0)) for name, one in self.measures(labelset).items()
        ]
        return sorted((row for row in found if row[1]), key=lambda row: (-row[1], row[0]))


def _after(cursor: str) -> tuple[str, Any]:
    """The clause of what comes after a cursor, and its word."""
    if cursor.startswith("n"):
        return "place IS NULL AND samples.name > ?", cursor[1:]
    if cursor.startswith("p") and cursor[1:].isdigit() and len(cursor) < 16:
        return "(place IS NULL OR place > ?)", int(cursor[1:])
    raise UsageError(f"The cursor {cursor!r:.40} is none of ours.")
