"""Who made a label: people, or a model that was believed; and a split that does not validate models on themselves.

A sample is a person's where somebody drew on it, with any tool but those that take over what a model said, and where
what stands is not again a model's own. Saying "labelled" to a prediction makes it finished, and no person's: such
samples may be trained on, and are never chosen to validate.
"""

import hashlib
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from terrazzo.errors import ProjectError
from terrazzo.project import audit
from terrazzo.project.labels import Labels
from terrazzo.project.samples import Entry, entry
from terrazzo.project.statuses import FINISHED
from terrazzo.project.store import Store
from terrazzo.project.tiles import Tiles

MODELS_TOOLS = ("model", "prelabel")  # what they write was a model's: at once, or when somebody accepted it
VAL_SHARE = 0.2
SEED = 0


@dataclass(frozen=True)
class Origin:
    """Where the label of one sample comes from."""

    is_touched: bool
    """True where it is a person's."""
    changed: float | None
    """Share of the pixels that are no longer what a model last wrote; None where no model wrote any."""
    sources: Mapping[str, int]
    """{source of the objects: pixels}. An object keeps its source, whoever draws on it later."""


@dataclass(frozen=True)
class Division:
    """Which finished samples are trained on, and which validate."""

    train: int
    """How many."""
    val: int
    """How many."""
    chosen: tuple[str, ...]
    """Those that were chosen to validate just now."""
    untouched: int
    """Finished samples on which no person drew: they are trained on."""

    def text(self) -> str:
        """Return a sentence."""
        left = f"; {self.untouched:,} are a model's alone, and are trained on" if self.untouched else ""
        return (
            f"{self.train:,} images to train, {self.val:,} to validate, all of those drawn on by people{left}"
        )


class Origins:
    """The origins of one project's labels."""

    def __init__(self, store: Store, tiles: Tiles, labels: Labels) -> None:
        self._store, self._tiles, self._labels = store, tiles, labels

    def of(self, name: str) -> Origin:
        """Return where the label of a sample comes from; pixels are compared."""
        with self._store.reading() as db:
            one = entry(db, name)
            row = db.execute(
                "SELECT max(number) FROM revisions WHERE sample = ? AND tool = 'model' AND kind = 'write'",
                (one.id,),
            ).fetchone()
            tree = self._labels.tree(db, one, one.head)
            counts = self._tiles.counts(db, tree.tiles)
            touched = bool(_touched(db, one))
        sources: dict[str, int] = {}
        for annotation in tree.annotations:
            sources[annotation.source] = sources.get(annotation.source, 0) + counts.get(annotation.id, 0)
        changed = None
        if row[0] is not None:
            before, after = self._labels.read(name, row[0]).mask(), self._labels.read(name).mask()
            changed = float((before != after).mean())
        return Origin(touched, changed, sources)

    def touched(self) -> set[str]:
        """Return the samples whose label is a person's."""
        with self._store.reading() as db:
            return {name for (name,) in _touched(db)}

    def divide(
        self, *, val_share: float = VAL_SHARE, seed: int = SEED, author: str | None = None
    ) -> Division:
        """Say which finished samples train and which validate, of those of which nobody said so yet; returns all.

        About `val_share` of the finished ones validate, chosen by a hash of seed and name among those that are a
        person's; the others train. What was said stays: an image that was trained on never validates. ProjectError
        where none could validate, or nothing is left to train on.
        """
        with self._store.transaction() as db:
            marks = ", ".join("?" * len(FINISHED))
            rows = db.execute(
                f"SELECT id, name, split FROM samples WHERE status IN ({marks}) ORDER BY name", FINISHED
            ).fetchall()
            touched = self.touched()
            val = sum(split == "val" for _, _, split in rows)
            free = sorted(
                (name for _, name, split in rows if split is None and name in touched),
                key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest(),
            )
            wanted = max(1, round(val_share * len(rows))) - val
            chosen = free[: max(0, wanted)]
            rest = [name for _, name, split in rows if split is None and name not in chosen]
            train = sum(split == "train" for _, _, split in rows) + len(rest)
            untouched = sum(name not in touched for _, name, _ in rows)
            if not val + len(chosen):
                raise ProjectError(
                    "No finished label may validate a training.",
                    found=f"{len(rows):,} finished labels, {untouched:,} of them a model's alone",
                    expected="some on which a person drew",
                    hint="A model scored on what models made is scored against itself. Correct a few labels, or say "
                    'which images validate: project.set_split(names, "val").',
                )
            if not train:
                raise ProjectError(
                    "Nothing is left to train on.",
                    found=f"{val + len(chosen):,} finished labels, which validate",
                    hint="Finish the labels of more images.",
                )
            for split, names in (("val", chosen), ("train", rest)):
                db.executemany(
                    "UPDATE samples SET split = ? WHERE name = ?", [(split, name) for name in names]
                )
            if chosen or rest:
                audit.note(db, "divided", author=author, val=len(chosen), train=len(rest), seed=seed)
        return Division(train, val + len(chosen), tuple(sorted(chosen)), untouched)


def _touched(db: sqlite3.Connection, one: Entry | None = None) -> list[tuple[str]]:
    """The names of the samples whose label is a person's: all, or `one` if it is."""
    return db.execute(
        "SELECT name FROM samples WHERE (?1 IS NULL OR id = ?1) AND EXISTS (SELECT 1 FROM revisions "
        "WHERE sample = samples.id AND kind = 'write' AND tool NOT IN (?2, ?3)) "
        "AND NOT EXISTS (SELECT 1 FROM revisions AS made JOIN revisions AS now ON now.sample = made.sample "
        "AND now.number = samples.head WHERE made.sample = samples.id AND made.tool = 'model' "
        "AND made.tree = now.tree)",
        (None if one is None else one.id, *MODELS_TOOLS),
    ).fetchall()
