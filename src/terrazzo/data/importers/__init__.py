"""Data sets in their own layouts, each imported once into a folder of ours by a page of its own.

A page has a function `plan`, which pairs images with masks, or lists every missing path, and says what the masks mean;
ANNOTATIONS, the kinds of masks one may choose from; and WORDS, the other fields of `Wanted` that it reads. It writes
nothing: `copying` carries a plan out, for all of them alike; `surveying` counts what is in it instead. `checking` is
how both look at a pair, `downloads` reads folders and zips.
To add one: the page, a line in IMPORTERS and one in cli/datasets.FORMATS, its test, a line of docs.
"""

import sys
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Protocol

from terrazzo.classes import check_names
from terrazzo.data.importers import ade20k, bdd100k, camvid, cityscapes, coco, folders, segments, voc
from terrazzo.data.importers.checking import listed
from terrazzo.data.importers.copying import carry_out
from terrazzo.data.importers.planning import Plan, Wanted
from terrazzo.errors import UsageError, shown, unknown_name
from terrazzo.storage import refuse_existing


class Importer(Protocol):
    """What a page of this folder offers."""

    @property
    def ANNOTATIONS(self) -> tuple[str, ...]:
        """Kinds of masks to choose from, the usual one first; one name where there is no choice."""

    @property
    def WORDS(self) -> tuple[str, ...]:
        """Names of the fields of `Wanted` that this page reads beside `annotations` and `partial`."""

    def plan(self, root: Path, wanted: Wanted, stack: ExitStack, /) -> Plan:
        """Return what `root` holds, or raise a TerrazzoError that lists everything that is wrong; nothing is written.

        root: what the user named, a folder or a file, whether it is there or not. wanted: its other words, checked
        against ANNOTATIONS and WORDS. What must stay open until the plan was carried out, such as a zip, is entered
        into `stack`. Files are paired, not decoded: that happens where the plan is carried out, for every page alike.
        """
        ...


IMPORTERS: dict[str, Importer] = {
    "ade20k": ade20k,
    "bdd100k": bdd100k,
    "camvid": camvid,
    "cityscapes": cityscapes,
    "coco": coco,
    "folders": folders,
    "segments": segments,
    "voc": voc,
}


def plan(name: str, src: Path | str, wanted: Wanted, stack: ExitStack) -> Plan:
    """Return what the page of the format `name` finds at `src`; nothing is written. Zips stay open with `stack`.

    An unknown name gets its nearest; a word of `wanted` that the page does not know is a UsageError.
    """
    if name not in IMPORTERS:
        raise unknown_name("format", name, IMPORTERS, command="terrazzo import --help")
    page = IMPORTERS[name]
    if wanted.annotations is not None and wanted.annotations not in page.ANNOTATIONS:
        if len(page.ANNOTATIONS) == 1:
            raise UsageError(f"{name} has one kind of masks.", found=f"--annotations {wanted.annotations}")
        raise unknown_name("kind of annotations", wanted.annotations, page.ANNOTATIONS)
    known = ("annotations", "partial", *page.WORDS)
    strange = [
        one.name
        for one in fields(Wanted)
        if one.name not in known and getattr(wanted, one.name) != one.default
    ]
    if strange:
        raise UsageError(
            f"The format {name} does not know these words.",
            found=", ".join("--" + word.replace("_", "-") for word in strange),
            expected=", ".join("--" + word.replace("_", "-") for word in known),
        )
    planned = page.plan(Path(src), wanted, stack)
    check_names(planned.description.classes.names)
    return planned


def run(
    name: str,
    src: Path | str,
    out: Path | str,
    wanted: Wanted | None = None,
    *,
    link: bool = False,
    drop_damaged: bool = False,
    exif: bool = False,
    workers: int = -1,
) -> Path:
    """Import `src`, data in the format `name`, into the new folder `out`, whole or not at all; returns `out`.

    The data set at `src` is only read; every image and mask is decoded on the way, and damaged ones are a DataError
    that lists them all. wanted: what to take, and how to read it; the usual when None. link: hard links instead of
    copies where the disk allows. drop_damaged: damaged pairs are left out, said, and named in dataset.json. exif: masks
    that were drawn on an image as it is stored are turned as EXIF turns it. workers:
    pairs at a time; -1 is one per core. What somebody should hear is said on standard error.
    """
    refuse_existing(out)
    with ExitStack() as stack:
        planned = plan(name, src, wanted or Wanted(), stack)
        if link and planned.write is not None:
            raise UsageError("A table holds its images as bytes: there is nothing to link.", found="--link")
        for note in planned.notes:
            print(shown(note), file=sys.stderr)
        damaged = carry_out(
            planned, Path(out), link=link, drop_damaged=drop_damaged, exif=exif, workers=workers
        )
        for note in planned.seen():
            print(shown(note), file=sys.stderr)
    if damaged:
        lines = "\n  ".join(listed(damaged))
        where = ", and named in dataset.json" if planned.write is None else ""
        print(f"Left out, as asked{where}:\n  {lines}", file=sys.stderr)
    return Path(out)
