"""A data set: named splits of samples in one label space, read lazily from wherever they lie.

`records.py` says what a place must offer (`folder.py`, `table.py`); `Split` turns raw records into checked samples;
`Dataset` holds the splits and what is known about them. Nothing here writes, and nothing repairs in silence.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, cast, overload

import numpy as np
from numpy.typing import NDArray

from terrazzo.classes import Classes, Mask, Remap
from terrazzo.data import fingerprint, label_space, splits
from terrazzo.data.records import Records, Sharded, read_reduced
from terrazzo.errors import DatasetFormatError, ImageFormatError, MaskSizeError, unknown_name
from terrazzo.reduced import Reduced
from terrazzo.sample import Sample

DType = Literal["uint8", "uint16", "float32"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # RGB in [0, 1]; what nearly every published network was trained with
IMAGENET_STD = (0.229, 0.224, 0.225)
SHARDS = 10  # of which a fifth can be set aside whole


class Split(Sequence[Sample]):
    """Samples in the order of their names, read when asked for; pickles small, so workers may be spawned."""

    def __init__(
        self,
        name: str,
        records: Records,
        *,
        classes: Classes,
        remap: Remap,
        channels: int,
        dtype: DType,
        indices: Sequence[int] | None = None,
    ) -> None:
        self.name, self.records = name, records
        self.classes, self.remap, self.channels, self.dtype = classes, remap, channels, dtype
        self._indices = tuple(range(len(records.names)) if indices is None else indices)

    @property
    def indices(self) -> tuple[int, ...]:
        """Where in the records the samples lie, in order."""
        return self._indices

    @property
    def names(self) -> list[str]:
        """The names of the samples, in order."""
        return [self.records.names[i] for i in self._indices]

    @property
    def has_masks(self) -> bool:
        """False for a test split whose masks are not published."""
        return self.records.has_masks

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> "Split": ...
    def __getitem__(self, index: int | slice) -> "Sample | Split":
        """Read, remap and check one sample; a slice is a smaller split. Every error names the file."""
        if isinstance(index, slice):
            return self.subset(range(len(self))[index])
        image = self.read_image(index)
        mask = self.read_mask(index) if self.has_masks else None
        if mask is not None:
            self._check_size(mask, image.shape, index)
        return Sample(image, mask, self.records.names[self._indices[index]])

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def read_image(self, index: int) -> NDArray[Any]:
        """Return the image (H, W, C) alone, in the data set's channels and dtype."""
        image = self.records.image(self._indices[index], self.channels)
        self._check_dtype(image, index)
        return image

    def read_reduced(self, index: int, divisor: int) -> Reduced:
        """The same as `read_image`, but a JPEG at 1 / divisor of its sides, with as few of its pixels decoded."""
        reduced = read_reduced(self.records, self._indices[index], self.channels, divisor)
        self._check_dtype(reduced.image, index)
        return reduced

    def mask_first(self, index: int) -> tuple[Mask, Callable[[int], Reduced]]:
        """Return a sample's mask, and what reads its image once a divisor is chosen; both checked as a sample's are."""
        mask = self.read_mask(index)

        def read(divisor: int) -> Reduced:
            reduced = self.read_reduced(index, divisor)
            self._check_size(mask, reduced.size_hw, index)
            return reduced

        return mask, read

    def _check_dtype(self, image: NDArray[Any], index: int) -> None:
        if image.dtype.name != self.dtype:
            raise ImageFormatError(
                f"The image {self.where(index)} is {image.dtype}; the data set is {self.dtype}.",
                found=f"{image.dtype}, values {image.min()} to {image.max()}",
                expected=f"{self.dtype}, as the rest",
                hint='Convert it, or say in dataset.json which "dtype" the images have. To see every such file:',
                command="terrazzo check DATA",
            )

    def _check_size(self, mask: Mask, size_hw: tuple[int, ...], index: int) -> None:
        if mask.shape != size_hw[:2]:
            raise MaskSizeError(
                f"{self.where(index, mask=True)} has another size than its image.",
                found=f"mask {mask.shape[0]}x{mask.shape[1]} (height x width)",
                expected=f"{size_hw[0]}x{size_hw[1]}, as {self.where(index)}",
                hint="A mask must be drawn on its image at full size, EXIF rotation applied. To see every such file:",
                command="terrazzo check DATA",
            )

    def read_mask(self, index: int) -> Mask:
        """Return the mask (H, W) of class ids alone, remapped and checked."""
        if not self.has_masks:
            raise DatasetFormatError(
                f"The split {self.name!r} has no masks.",
                found=f"{len(self)} images without masks",
                expected="a split with masks, such as val",
            )
        raw, where = self.records.mask(self._indices[index]), self.where(index, mask=True)
        is_complete = self.remap.is_identity and len(self.remap.to_class) > len(self.classes)
        if is_complete and raw.dtype == self.classes.mask_dtype:  # nothing to change: look once, copy nothing
            self.classes.check_mask(raw, where=where)
            return raw
        return self.remap(raw, where=where)

    def size_hw(self, index: int) -> tuple[int, int]:
        """Return (height, width) of the image, from its header."""
        return self.records.size_hw(self._indices[index])

    def where(self, index: int, *, mask: bool = False) -> str:
        """Return the path of the image, or of its mask (for a table: the row and column)."""
        return self.records.where(self._indices[index], mask=mask)

    def hashes(self, *, location: str) -> list[str]:
        """Return one content hash (hex) per sample, image and mask together, cached under `location`."""
        return self.records.hashes(self._indices, location=location)

    @property
    def shard_of(self) -> NDArray[np.int64] | None:
        """For each sample, the number of what it is fetched with; None where each is read alone."""
        shards = self.records.shard_of if isinstance(self.records, Sharded) else None
        return None if shards is None else shards[np.array(self._indices, dtype=np.int64)]

    def expect(self, indices: Sequence[int]) -> None:
        """Say which samples are read next, in this order, so that what they are fetched with is there in time."""
        if isinstance(self.records, Sharded):
            self.records.expect(self._shards(indices))

    def bytes_of(self, indices: Sequence[int]) -> int:
        """Return the memory that these samples take while they are expected; 0 where each is read alone."""
        return self.records.bytes_of(self._shards(indices)) if isinstance(self.records, Sharded) else 0

    def _shards(self, indices: Sequence[int]) -> list[int]:
        shards = self.records.shard_of if isinstance(self.records, Sharded) else None
        return [] if shards is None else list(dict.fromkeys(int(shards[self._indices[i]]) for i in indices))

    def subset(self, chosen: Iterable[int] | Iterable[str]) -> "Split":
        """Return the split of these positions or names, in the order given; an unknown name gets its nearest."""
        position = {self.records.names[i]: i for i in self._indices}
        indices: list[int] = []
        for one in chosen:
            if isinstance(one, str):
                if one not in position:
                    raise unknown_name(f"image in split {self.name!r} called", one, position)
                indices.append(position[one])
            else:
                indices.append(self._indices[one])
        return Split(
            self.name,
            self.records,
            classes=self.classes,
            remap=self.remap,
            channels=self.channels,
            dtype=self.dtype,
            indices=indices,
        )

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {len(self)} samples{'' if self.has_masks else ', no masks'})"


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in one label space; `data["train"][0]` is a Sample."""

    name: str
    """What it is called."""
    classes: Classes
    """The K classes that are trained and scored."""
    remap: Remap
    """Raw id -> class id or ignore; applied by the splits."""
    raw_names: Mapping[int, str]
    """Raw id -> the name it was published with."""
    channels: int
    """C of every image."""
    dtype: DType
    """Of every image."""
    mean: tuple[float, ...]
    """Per channel, in the unit range: uint8 / 255, uint16 / 65535, float32 as it is."""
    std: tuple[float, ...]
    """Per channel, in the unit range."""
    splits: Mapping[str, Split]
    """By name: train, val, test."""
    location: str
    """Where it was opened: a folder's absolute path, or a Hub id with its revision."""
    license: str | None = None
    """As its publisher states it."""
    source: str | None = None
    """Where it comes from: a citation or an address."""
    notes: tuple[str, ...] = ()
    """What was decided on opening, one sentence each; the commands print them."""
    split_manifest: Mapping[str, Any] | None = None
    """Where train and val were made here: who went where. A run stores it and opens the data with it again."""
    groups: str | None = None
    """The pattern whose matches in the names keep images on one side of any split that is made here."""
    known_fingerprint: str | None = None
    """The hash under which this very content was released; None: it is computed."""

    def __getitem__(self, split: str) -> Split:
        """Return a split; "validation" is "val". An unknown name gets its nearest."""
        known = self.splits.get(split) or self.splits.get(splits.SPLIT_NAMES.get(split, split))
        if known is None:
            raise unknown_name(f"split in {self.name!r} called", split, self.splits)
        return known

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over sorted names and content hashes of images and masks; how it is split does not matter.

        Of a release of a labelling project: the hash of the release.
        """
        if self.known_fingerprint is not None:
            return self.known_fingerprint
        made = set((self.split_manifest or {}).get("splits", ()))
        of = (self.split_manifest or {}).get("of", "")
        entries: list[tuple[str, str]] = []
        for name, split in self.splits.items():
            folder = of if name in made else name
            prefix = "" if folder == splits.POOLED else f"{folder}/"  # pooled names begin with their split's
            hashes = split.hashes(location=self.location)
            entries += [
                (f"{prefix}{member}", digest) for member, digest in zip(split.names, hashes, strict=True)
            ]
        return fingerprint.combine(entries)

    def merged(self, merges: Sequence[str]) -> "Dataset":
        """Return the same data with classes joined by rules such as "car+truck=vehicle"."""
        if not merges:
            return self
        space = label_space.merge(
            label_space.LabelSpace(self.classes, self.remap, self.raw_names, self.notes), merges
        )
        rebuilt = {
            name: Split(
                name,
                split.records,
                classes=space.classes,
                remap=space.remap,
                channels=self.channels,
                dtype=self.dtype,
                indices=split._indices,
            )
            for name, split in self.splits.items()
        }
        return replace(self, classes=space.classes, remap=space.remap, splits=rebuilt, notes=space.notes)

    def describe(self) -> str:
        """Return a few lines for people: what it is, how much, which classes."""
        counts = ", ".join(
            f"{name} {len(split):,}{'' if split.has_masks else ' (no masks)'}"
            for name, split in self.splits.items()
        )
        lines = [
            f"{self.name}: {counts}",
            f"  images    {self.channels} channel{'s' if self.channels != 1 else ''} of {self.dtype}",
            f"  classes   {len(self.classes)}: {', '.join(self.classes.names)}; {self.classes.ignore} is ignored",
            f"  licence   {self.license or 'not stated'}",
            f"  source    {self.source or 'not stated'}",
        ]
        return "\n".join([*lines, *(f"  note      {note}" for note in self.notes)])

    def __repr__(self) -> str:
        counts = ", ".join(f"{name}: {len(split)}" for name, split in self.splits.items())
        return f"Dataset({self.name!r}, {len(self.classes)} classes, {counts})"


def assemble(
    records: Mapping[str, Records],
    space: label_space.LabelSpace,
    *,
    name: str,
    location: str,
    channels: int | None = None,
    dtype: DType | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    license: str | None = None,
    source: str | None = None,
    groups: str | None = None,
    split_manifest: Any = None,
    notes: Sequence[str] = (),
    known_fingerprint: str | None = None,
) -> Dataset:
    """Return the Dataset of some records: looks up what is not declared, and makes train and val where there is no val.

    records: by split name ("" where there are no splits). groups: the pattern that keeps names together.
    split_manifest: a made split to use again, as a path or a value.
    """
    records = {key: one for key, one in records.items() if one.names}
    if not records:
        raise DatasetFormatError(
            f"{location} holds no images.",
            expected="images in train/images and masks in train/masks",
        )
    said = [*space.notes, *notes]
    if channels is None or dtype is None:
        channels, dtype = _look(next(iter(records.values())), channels, dtype)
    whole = {
        key: Split(key, one, classes=space.classes, remap=space.remap, channels=channels, dtype=dtype)
        for key, one in records.items()
    }
    made, used_manifest, about = _divide(whole, groups, split_manifest)
    said += about
    if mean is None or std is None:
        mean, std, how = _statistics(next(iter(made.values())), channels, dtype)
        said += how
    return Dataset(
        name=name,
        classes=space.classes,
        remap=space.remap,
        raw_names=space.raw_names,
        channels=channels,
        dtype=dtype,
        mean=tuple(float(value) for value in mean),
        std=tuple(float(value) for value in std),
        splits=made,
        location=location,
        license=license,
        source=source,
        notes=tuple(said),
        split_manifest=used_manifest,
        groups=groups,
        known_fingerprint=known_fingerprint,
    )


def _look(records: Records, channels: int | None, dtype: DType | None) -> tuple[int, DType]:
    """Channels and dtype of the first image; where it is grey, of a few more, for grey among RGB is shown as RGB."""
    first = records.image(0, channels)
    if channels is None and first.shape[2] == 1:
        few = np.linspace(0, len(records.names) - 1, 8).astype(int)
        counts = {records.image(int(i), None).shape[2] for i in sorted(set(few.tolist()))}
        channels = 3 if counts == {1, 3} else 1
    return channels or first.shape[2], dtype or cast(DType, first.dtype.name)


def _divide(
    whole: dict[str, Split], groups: str | None, split_manifest: Any
) -> tuple[dict[str, Split], dict[str, Any] | None, list[str]]:
    """Make train and val out of the one labelled split where there is no val, or as a stored manifest says."""
    of = next((key for key in ("", "train") if key in whole and whole[key].has_masks), None)
    if "val" in whole or of is None:
        return whole, None, []
    split = whole[of]
    fraction, seed = 0.2, 0
    if split_manifest is not None:
        stored = splits.read_manifest(split_manifest)
        chosen, about = follow(split, stored)
    elif len(split) < 2:
        rest = {key: one for key, one in whole.items() if key != of}
        return (
            {"train": _named(split, "train"), **rest},
            None,
            ["One image cannot be split: there is no val."],
        )
    else:
        kept_together = (
            splits.groups_by_pattern(split.names, groups) if groups else whole_shards(split, SHARDS)
        )
        chosen = splits.make_split(split.names, fraction, seed, kept_together)
        stored = splits.manifest(chosen, of=of, fraction=fraction, seed=seed, groups=groups)
        about = [
            f"{splits.MADE}: made one by name, seed {seed}: {len(chosen['train'])} train, {len(chosen['val'])} val"
            + _kept(groups, kept_together)
        ]
    made = {key: _named(split.subset(chosen[key]), key) for key in ("train", "val")}
    return {**made, **{key: one for key, one in whole.items() if key != of}}, stored, about


def follow(split: Split, stored: Mapping[str, Any]) -> tuple[dict[str, list[str]], list[str]]:
    """Return a stored split's sides and what to say; names that are gone are an error, new ones stay out, counted."""
    chosen = {key: list(stored["splits"][key]) for key in ("train", "val")}
    listed = {*chosen["train"], *chosen["val"]}
    gone = sorted(listed - set(split.names))
    if gone:
        raise DatasetFormatError(
            f"{len(gone)} images of the stored split are not in the data set any more.",
            found=f"missing: {', '.join(gone[:10])}",
            expected="every name of the split manifest",
            hint="Restore them, or train anew, which makes a new split.",
        )
    new = len(set(split.names) - listed)
    return chosen, ([f"{new} images are newer than the stored split and are left out."] if new else [])


def whole_shards(split: Split, least: int) -> dict[str, str] | None:
    """Return {name: shard} of a split of `least` shards or more, so that none is fetched for both sides of a cut."""
    shards = split.shard_of
    if shards is None or len(np.unique(shards)) < least:
        return None
    return {name: str(shard) for name, shard in zip(split.names, shards.tolist(), strict=True)}


def _kept(groups: str | None, kept_together: Mapping[str, str] | None) -> str:
    if groups:
        return f", groups by {groups!r} kept together."
    return ", row groups kept whole." if kept_together else "."


def _named(split: Split, name: str) -> Split:
    same = split.subset(range(len(split)))
    same.name = name
    return same


def _statistics(
    split: Split, channels: int, dtype: DType
) -> tuple[tuple[float, ...], tuple[float, ...], list[str]]:
    """ImageNet's mean and std for RGB uint8; else those of up to 16 images spread over the split, and a note."""
    if channels == 3 and dtype == "uint8":
        return IMAGENET_MEAN, IMAGENET_STD, []
    scale = 1.0 if dtype == "float32" else float(np.iinfo(dtype).max)
    chosen = sorted(set(np.linspace(0, len(split) - 1, 16).astype(int).tolist()))
    count, total, squares = 0, np.zeros(channels), np.zeros(channels)
    for index in chosen:
        values = split.read_image(index).reshape(-1, channels).astype(np.float64) / scale
        count, total, squares = count + len(values), total + values.sum(0), squares + (values**2).sum(0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    std = np.where(std > 1e-6, std, 1.0)  # a constant channel stays constant instead of exploding
    shown = (", ".join(f"{value:.4g}" for value in values.tolist()) for values in (mean, std))
    note = "Mean [{}] and std [{}] measured on {} images; write them into dataset.json to fix them."
    return tuple(mean.tolist()), tuple(std.tolist()), [note.format(*shown, len(chosen))]
