"""What models offer for a sample: a map of categories and how sure the model is, one labelset for each model.

A prediction never touches what a person drew. Where nobody drew yet it also becomes the label, prelabelled, its objects
marked as the model's; the next model replaces it, until somebody draws.
"""

import hashlib
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.errors import DamagedLabelError, MaskValueError, UsageError
from terrazzo.project import categories
from terrazzo.project.labels import Labels
from terrazzo.project.operations import Written
from terrazzo.project.samples import entry
from terrazzo.project.statuses import UNDRAWN
from terrazzo.project.store import Store, now
from terrazzo.project.tiles import as_object_map
from terrazzo.project.trees import SOURCE

MAX_NAME = 200  # characters


@dataclass(frozen=True, eq=False)
class Offer:
    """A prediction of one model for one sample."""

    labelset: str
    """What the model is called here."""
    mask: NDArray[np.uint16]
    """(H, W) category ids, 0 where the model says none."""
    confidence: NDArray[np.uint8]
    """(H, W), 255 = certain."""


class Predictions:
    """The predictions in one project."""

    def __init__(self, store: Store, labels: Labels) -> None:
        self._store, self._labels = store, labels

    def labelsets(self, name: str | None = None) -> list[str]:
        """Return the names of the labelsets, or of those that have a sample."""
        with self._store.reading() as db:
            wanted = None if name is None else entry(db, name).id
            rows = db.execute(
                "SELECT DISTINCT labelset FROM predictions WHERE ?1 IS NULL OR sample = ?1 ORDER BY labelset",
                (wanted,),
            )
            return [row[0] for row in rows]

    def of(self, name: str) -> list[tuple[str, str]]:
        """Return (labelset, when) of the predictions for a sample, by labelset."""
        with self._store.reading() as db:
            rows = db.execute(
                "SELECT labelset, at FROM predictions WHERE sample = ? ORDER BY labelset",
                (entry(db, name).id,),
            )
            return [(labelset, at) for labelset, at in rows]

    def add(
        self,
        name: str,
        mask: NDArray[Any],
        confidence: NDArray[Any] | None = None,
        *,
        model: str,
        labelset: str | None = None,
    ) -> Written | None:
        """Keep what a model says of a sample; returns the revision where it became the label, else None.

        mask: (H, W) category ids, 0 for none. confidence: (H, W) uint8, 255 = certain; None: certain everywhere. model:
        its hash, hex, by which objects are marked. labelset: "model:HASH" where None.
        """
        source = f"model:{model}"
        if not SOURCE.fullmatch(source):
            raise UsageError("A model is known by its hash.", found=f"{model!r:.80}", expected="hex digits")
        called = source if labelset is None else labelset
        if not isinstance(called, str) or not 0 < len(called) <= MAX_NAME or not called.isprintable():
            raise UsageError(f"A labelset is called by 1 to {MAX_NAME} characters.", found=f"{called!r:.80}")
        with self._store.reading() as db:
            size_hw = entry(db, name).size_hw
        offered = as_object_map(mask, size_hw, where=repr(name))
        certain = np.full(size_hw, 255, np.uint8) if confidence is None else confidence
        if certain.shape != size_hw or certain.dtype != np.uint8:
            raise MaskValueError(
                f"The confidence for {name!r} is no map of its image.",
                found=f"shape {certain.shape}, {certain.dtype}",
                expected=f"shape {size_hw} (height, width), uint8",
            )
        maps = offered.astype("<u2").tobytes(), certain.tobytes()
        packed = tuple(zlib.compress(one_map, 1) for one_map in maps)  # others may write meanwhile
        present = set(np.flatnonzero(np.bincount(offered.ravel())).tolist())
        with self._store.transaction() as db:
            one = entry(db, name)
            living = {other.id for other in categories.read(db) if not other.is_deleted}
            strange = present - living - {0}
            if strange:
                raise MaskValueError(
                    f"The prediction for {name!r} has ids that are no category of this project.",
                    found=", ".join(map(str, sorted(strange)[:8])),
                    expected=", ".join(map(str, sorted(living)[:20])),
                )
            values = (called, one.id, *packed, hashlib.sha256(b"".join(maps)).digest(), now())
            db.execute("INSERT OR REPLACE INTO predictions VALUES (?, ?, ?, ?, ?, ?)", values)
            if one.status not in UNDRAWN:
                return None
            return self._labels.write_mask(name, offered, source=source, tool="model", status="prelabelled")

    def get(self, name: str, labelset: str) -> Offer:
        """Return a prediction; UsageError where there is none, DamagedLabelError where it cannot be read."""
        with self._store.reading() as db:
            one = entry(db, name)
            row = db.execute(
                "SELECT categories, confidence, hash FROM predictions WHERE labelset = ? AND sample = ?",
                (labelset, one.id),
            ).fetchone()
            known = self.labelsets(name)
        if row is None:
            raise UsageError(
                f"There is no prediction {labelset!r:.80} for {name!r}.",
                found=", ".join(known[:20]) or "none",
            )
        pixels = one.height * one.width
        try:
            maps = [zlib.decompressobj().decompress(packed, length + 1) for packed, length in
                    zip(row[:2], (2 * pixels, pixels), strict=True)]  # fmt: skip
        except zlib.error as error:
            raise _damaged(name, labelset, str(error)) from error
        if hashlib.sha256(b"".join(maps)).digest() != row[2]:
            raise _damaged(name, labelset, "its content is not what its hash says")
        mask = np.frombuffer(maps[0], "<u2").reshape(one.size_hw).astype(np.uint16)
        return Offer(labelset, mask, np.frombuffer(maps[1], np.uint8).reshape(one.size_hw).copy())


def _damaged(name: str, labelset: str, found: str) -> DamagedLabelError:
    return DamagedLabelError(
        f"The prediction {labelset!r} for {name!r} cannot be read.", found=found, hint="Predict it again."
    )
