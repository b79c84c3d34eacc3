"""What is worth a second look before a label is called done: said in sentences, and never in the way.

Pixels that nobody drew; areas too small to be meant; an image that is not the one that was drawn on; two categories in
one image that no finished label has together, though both were often drawn.
"""

import sqlite3
from itertools import combinations
from typing import Literal

import numpy as np

from terrazzo.kernels.specks import specks
from terrazzo.project import categories
from terrazzo.project.holdings import Holdings
from terrazzo.project.labels import Labels
from terrazzo.project.samples import Entry
from terrazzo.project.statuses import FINISHED
from terrazzo.project.store import Store

SPECK = 15  # pixels of an area, at most, that a slip of a tool leaves
NEARLY = 0.0005  # of the image: less than this unlabelled is a matter of edges
OFTEN = 10  # finished labels that have a category before it is strange that none has it beside another
SHOWN = 3  # pairs that are named


def look(
    store: Store,
    labels: Labels,
    holdings: Holdings,
    one: Entry,
    *,
    state: Literal["there", "missing", "changed"],
) -> list[str]:
    """Return what is worth a look in the label that stands, a sentence each; [] for nothing. state: of its image."""
    said = [] if state == "there" else [f"its image is {state}"]
    label = labels.read(one.name)
    mask = label.mask()
    left = float((mask == 0).mean())
    if left == 1:
        return [*said, "nothing is labelled"]
    if left > NEARLY:
        said.append(
            f"{100 * left:.1f} % is unlabelled" if left < 0.01 else f"{100 * left:.0f} % is unlabelled"
        )
    small = specks(mask, SPECK) & (mask != 0)
    if small.any():
        said.append(f"{int(small.sum()):,} pixels lie in areas of at most {SPECK}")
    holdings.refresh()
    with store.reading() as db:
        said += _never_together(db, one)
    return said


def warm_up() -> None:
    """Have compiled what `look` runs, so that nobody waits for it: a second or two, once in a process."""
    specks(np.zeros((2, 2), np.uint16), SPECK)


def _never_together(db: sqlite3.Connection, one: Entry) -> list[str]:
    """Pairs of categories of this label that no finished label has together, though each was drawn often."""
    mine = [
        row[0]
        for row in db.execute("SELECT category FROM holdings WHERE sample = ? AND category > 0", (one.id,))
    ]
    marks = ", ".join("?" * len(FINISHED))
    finished = f"SELECT id FROM samples WHERE status IN ({marks}) AND id != ?"
    words = (*FINISHED, one.id)
    counts = dict(
        db.execute(
            f"SELECT category, count(*) FROM holdings WHERE sample IN ({finished}) GROUP BY category", words
        )
    )
    names = {each.id: each.name for each in categories.read(db)}
    found = []
    for a, b in combinations(sorted(n for n in mine if counts.get(n, 0) >= OFTEN), 2):
        row = db.execute(
            "SELECT 1 FROM holdings AS x JOIN holdings AS y ON x.sample = y.sample "
            f"WHERE x.category = ? AND y.category = ? AND x.sample IN ({finished}) LIMIT 1",
            (a, b, *words),
        ).fetchone()
        if row is None:
            found.append(f"no other finished label has both {names[a]!r} and {names[b]!r}")
    more = [f"… {len(found)} such pairs in all"] if len(found) > SHOWN else []
    return found[:SHOWN] + more
