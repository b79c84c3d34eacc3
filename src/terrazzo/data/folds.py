"""K-fold: everything labelled in one pool, cut into k parts by name; fold i of k validates on the i-th part.

The parts depend on the names and the groups alone, not on train.seed: k trainings with `fold=(1, k)` … `(k, k)` are k
views of one cut, whatever else differs between them. A run stores its fold as a split manifest, so that resuming and
evaluating find the same images again; `open_dataset` takes that manifest as it takes any other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terrazzo.data import splits
from terrazzo.data.dataset import Dataset, Split, follow, whole_shards
from terrazzo.data.records import Sharded, read_reduced
from terrazzo.errors import DatasetFormatError, UsageError
from terrazzo.reduced import Reduced

SEED = 0  # of the cut


def check_fold(fold: tuple[int, int]) -> tuple[int, int]:
    """Return (number, of) if it names one of several parts; UsageError otherwise."""
    number, count = fold
    if count < 2 or not 1 <= number <= count:
        fix = f"{min(max(number, 1), count)}/{count}" if count >= 2 else "1/5"
        raise UsageError(
            f"There is no fold {number} of {count}.",
            found=f"{number}/{count}",
            expected="2 folds or more" if count < 2 else f"a fold from 1 to {count}",
            command=f"terrazzo train … --fold {fix}",
        )
    return number, count


def folded(dataset: Dataset, fold: tuple[int, int]) -> Dataset:
    """Return the data with fold (number, of): val is that part of the pool, train the rest; test stays as it is.

    The pool is train and val, or the one of them that has masks. Images are called by their split ("train/0001") where
    two splits were pooled. Raises UsageError for a fold that is none, or more folds than there are images or groups.
    """
    number, count = check_fold(fold)
    pool = _pool(dataset)
    names = pool.names
    units: dict[str, str] | None = None
    if dataset.groups:  # the pattern was written for the names that images have in their own splits
        own = _own_names(pool)
        group_of = splits.groups_by_pattern(own, dataset.groups)
        units = {name: group_of[mine] for name, mine in zip(names, own, strict=True)}
    is_grouped = units is not None
    units = units or whole_shards(pool, count)
    available = len(set(units.values())) if units else len(names)
    if count > available:
        what = "groups of images" if is_grouped else "labelled images"
        raise UsageError(
            f"{count} folds need {count} {what}.",
            found=f"{available} in {dataset.name}",
            expected=f"at most {available} folds" if available > 1 else f"two {what} at least",
            command=f"terrazzo train … --fold 1/{available}" if available > 1 else None,
        )
    parts = splits.make_folds(names, count, SEED, units)
    val = parts[number - 1]
    held = set(val)
    sides = {"train": sorted(name for name in names if name not in held), "val": val}
    stored = splits.manifest(sides, of=pool.name, fraction=1 / count, seed=SEED, groups=dataset.groups)
    stored |= {"fold": [number, count], "data": dataset.name}
    grouped = f", groups by {dataset.groups!r} kept together" if is_grouped else ""
    grouped = grouped or (", row groups kept whole" if units else "")
    note = f"Fold {number} of {count}: {len(sides['train'])} train, {len(val)} val{grouped}."
    return _divided(dataset, pool, stored, [note])


def is_fold(manifest: Mapping[str, Any] | None) -> bool:
    """True for the manifest of a fold."""
    return manifest is not None and "fold" in manifest


def folded_again(dataset: Dataset, manifest: Mapping[str, Any]) -> Dataset:
    """Return the data with the fold that a run stored.

    Data of another name without those images is other data: it keeps its own splits, which is noted. Otherwise images
    that are gone are a DatasetFormatError, and images that are new stay out and are counted.
    """
    number, count = manifest["fold"]
    pool = _pool(dataset)
    stored_names = {name for side in ("train", "val") for name in manifest["splits"][side]}
    is_other = dataset.name != manifest.get("data") and not stored_names <= set(pool.names)
    if is_other:
        note = (
            f"Trained on fold {number} of {count} of {manifest.get('data')!r}; other images, split as ever."
        )
        return replace(dataset, notes=(*dataset.notes, note))
    sides, about = follow(pool, manifest)
    note = f"Fold {number} of {count}, as the run stored it: {len(sides['train'])} train, {len(sides['val'])} val."
    return _divided(dataset, pool, manifest, [note, *about])


@dataclass(frozen=True)
class PooledRecords:
    """The raw records of several splits, one after the other."""

    parts: tuple[Split, ...]
    """Where they lie."""
    names: tuple[str, ...]
    """One per image, distinct."""

    @property
    def has_masks(self) -> bool:
        """Only what has masks is pooled."""
        return True

    def image(self, index: int, channels: int | None) -> NDArray[Any]:
        """Return the image (H, W, C)."""
        part, inner = self._at(index)
        return part.records.image(inner, channels)

    def reduced(self, index: int, channels: int | None, divisor: int) -> Reduced:
        """Return the image, a JPEG at 1 / divisor of its sides."""
        part, inner = self._at(index)
        return read_reduced(part.records, inner, channels, divisor)

    def mask(self, index: int) -> NDArray[Any]:
        """Return the raw ids (H, W)."""
        part, inner = self._at(index)
        return part.records.mask(inner)

    def size_hw(self, index: int) -> tuple[int, int]:
        """Return (height, width) of the image, from its header."""
        part, inner = self._at(index)
        return part.records.size_hw(inner)

    def where(self, index: int, *, mask: bool = False) -> str:
        """Return the path of the image, or of its mask."""
        part, inner = self._at(index)
        return part.records.where(inner, mask=mask)

    def hashes(self, indices: Sequence[int], *, location: str) -> list[str]:
        """Return the content hashes of these records."""
        every = [digest for part in self.parts for digest in part.hashes(location=location)]
        return [every[index] for index in indices]

    @property
    def shard_of(self) -> NDArray[np.int64] | None:
        """The shards of one place after those of another; None where records of a part are read one by one."""
        places = self._places
        if len(places) < len({id(part.records) for part in self.parts}):
            return None
        first = {id(records): before for records, before, _ in places}
        shards = [part.shard_of for part in self.parts]
        pairs = zip(self.parts, shards, strict=True)
        return np.concatenate([one + first[id(part.records)] for part, one in pairs if one is not None])

    def expect(self, shards: Sequence[int]) -> None:
        """Pass on to each place which of its shards come next."""
        for records, before, count in self._places:
            records.expect([shard - before for shard in shards if before <= shard < before + count])

    def bytes_of(self, shards: Sequence[int]) -> int:
        """Return the memory that shards take."""
        return sum(
            records.bytes_of([shard - before for shard in shards if before <= shard < before + count])
            for records, before, count in self._places
        )

    @cached_property
    def _places(self) -> list[tuple[Sharded, int, int]]:
        """The records that have shards, each once: how many shards lie before them, and how many they have."""
        places: list[tuple[Sharded, int, int]] = []
        for records in {id(part.records): part.records for part in self.parts}.values():
            shards = records.shard_of if isinstance(records, Sharded) else None
            if isinstance(records, Sharded) and shards is not None:
                before = places[-1][1] + places[-1][2] if places else 0
                places.append((records, before, int(shards.max(initial=-1)) + 1))
        return places

    def _at(self, index: int) -> tuple[Split, int]:
        """The split that holds a record, and its index in that split's own records."""
        for part in self.parts:
            if index < len(part):
                return part, part.indices[index]
            index -= len(part)
        raise IndexError(index)


def _pool(dataset: Dataset) -> Split:
    """Everything labelled in train and val, as one split whose name says of what."""
    parts = [dataset.splits[name] for name in ("train", "val") if name in dataset.splits]
    parts = [part for part in parts if part.has_masks]
    if not parts:
        raise DatasetFormatError(
            f"{dataset.name} has nothing to fold.",
            found=", ".join(dataset.splits),
            expected="a train or val split with masks",
        )
    was_one = dataset.split_manifest is not None or len(parts) == 1
    pairs = [(part, name) for part in parts for name in part.names]
    names = tuple(name if was_one else f"{part.name}/{name}" for part, name in pairs)
    of = str((dataset.split_manifest or {}).get("of", parts[0].name)) if was_one else splits.POOLED
    return Split(
        of,
        PooledRecords(tuple(parts), names),
        classes=dataset.classes,
        remap=dataset.remap,
        channels=dataset.channels,
        dtype=dataset.dtype,
    )


def _own_names(split: Split) -> list[str]:
    """The names of images in the splits they were pooled from."""
    if not isinstance(split.records, PooledRecords):
        return split.names
    every = [name for part in split.records.parts for name in _own_names(part)]
    return [every[index] for index in split.indices]


def _divided(dataset: Dataset, pool: Split, manifest: Mapping[str, Any], about: Sequence[str]) -> Dataset:
    """The data set with train and val as the manifest says; what was said of a split made before no longer holds."""
    made = {}
    for side in ("train", "val"):
        made[side] = pool.subset(manifest["splits"][side])
        made[side].name = side
    rest = {name: split for name, split in dataset.splits.items() if name not in made}
    notes = [note for note in dataset.notes if not note.startswith(splits.MADE)]
    return replace(dataset, splits={**made, **rest}, split_manifest=dict(manifest), notes=(*notes, *about))
