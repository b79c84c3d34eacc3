"""A plan carried out: our folder, written whole or not at all.

Files are copied byte for byte, never decoded and written again; the raw data set is only read. What a publisher does
not ship as a file, such as a mask that is still polygons, comes from the piece that knows how. Every pair is looked at
on the way (`checking`); where one is damaged there is no folder, and the error lists all of them.
"""

import errno
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from terrazzo.classes import Remap
from terrazzo.data.description import Description, write_description
from terrazzo.data.importers.checking import open_pair, reason, refusal, table_of
from terrazzo.data.importers.planning import Pair, Piece, Plan
from terrazzo.errors import DataError, UsageError
from terrazzo.progress import track
from terrazzo.storage import refuse_existing, replace_folder

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 4  # pairs that wait, for each thread


def carry_out(
    plan: Plan,
    out: Path,
    *,
    link: bool = False,
    drop_damaged: bool = False,
    exif: bool = False,
    workers: int = -1,
) -> dict[str, DataError]:
    """Write images, masks and dataset.json to a new folder `out`, whole or not at all; returns what was left out.

    link: hard links instead of copies; where the disk cannot (another disk), files are copied; pieces are written in
    any case. drop_damaged: damaged pairs are left out, and named in dataset.json under "extra"; otherwise a DataError
    lists them. exif: masks drawn on an image as it is stored are turned as EXIF turns it. workers: pairs at a time, in
    threads; -1 is one per core. Each holds one pair in memory. What would not open as a data set is refused as well.
    """
    from terrazzo.data.open import open_dataset

    refuse_existing(out)
    pairs = [(split, pair) for split, members in plan.pairs.items() for pair in members]
    damaged: dict[str, DataError] = {}
    with replace_folder(out) as beside:
        if plan.write is not None:
            if exif:
                raise UsageError("--exif turns masks of a folder; a table is made of what a release says.")
            damaged = plan.write(beside, workers)
            _refuse(damaged, len(pairs), drop_damaged=drop_damaged)
            return damaged
        bring = partial(_bring, folder=beside, remap=table_of(plan.description), link=link, exif=exif)
        brought = in_threads(bring, pairs, workers=workers, stop=plan.stop)
        for (split, pair), error in track(brought, total=len(pairs), what="import"):
            if error is not None:
                damaged[f"{split}/{pair.name}"] = error
        _refuse(damaged, len(pairs), drop_damaged=drop_damaged)
        write_description(beside, _described(plan, damaged))
        open_dataset(
            beside
        )  # what does not open is not there: one drive alone cannot be divided, for instance
    return damaged


def in_threads(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    workers: int,
    stop: Callable[[], None] | None = None,
) -> Iterator[tuple[T, R]]:
    """Yield each item with what `function` makes of it, in order, `workers` at a time; -1 is one per core.

    Only a few are under way: what follows is not begun before somebody asks, and never where one raised; `stop` is
    called then, for those under way are waited for.
    """
    count = workers if workers > 0 else os.cpu_count() or 1
    waiting: deque[tuple[T, Future[R]]] = deque()
    with ThreadPoolExecutor(count) as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(function, item)))
                if len(waiting) > count * AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        except BaseException:
            if stop is not None:
                stop()
            pool.shutdown(cancel_futures=True)
            raise


def _refuse(damaged: dict[str, DataError], total: int, *, drop_damaged: bool) -> None:
    if damaged and (not drop_damaged or len(damaged) == total):
        raise refusal(damaged, total)


def _bring(
    member: tuple[str, Pair], *, folder: Path, remap: Remap, link: bool, exif: bool
) -> DataError | None:
    """Write one pair; returns what is wrong with it, and then wrote nothing."""
    split, pair = member
    try:
        contents = open_pair(pair, remap, exif=exif)
    except DataError as error:
        return error
    image = folder / split / "images" / f"{pair.name}{pair.image.suffix.lower()}"
    _write(pair.image, contents.image, image, link=link)
    if pair.mask is not None and contents.mask is not None:
        suffix = ".png" if contents.is_turned else pair.mask.suffix.lower()
        mask = folder / split / "masks" / f"{pair.name}{suffix}"
        _write(pair.mask, contents.mask, mask, link=link and not contents.is_turned)
    return None


def _write(source: Path | Piece, content: bytes, target: Path, *, link: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if link and isinstance(source, Path) and _linked(source, target):
        return
    with open(target, "wb") as file:
        file.write(content)
    if isinstance(source, Path):
        shutil.copystat(source, target)


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP):
            raise
        return False
    return True


def _described(plan: Plan, damaged: dict[str, DataError]) -> Description:
    """dataset.json, with the splits that have images, and with what was left out of them."""
    splits = {
        split: split
        for split, members in plan.pairs.items()
        if any(f"{split}/{pair.name}" not in damaged for pair in members)
    }
    extra = dict(plan.description.extra)
    if damaged:
        extra["left_out"] = {name: reason(error) for name, error in sorted(damaged.items())}
    return replace(plan.description, splits=splits, extra=extra)
