"""A plan carried out: our folder, written whole or not at all.

Files are copied byte for byte, never decoded and written again; the raw data set is only read. What a publisher does
not ship as a file, such as a mask that is still polygons, comes from the piece that knows how.
"""

import errno
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from terrazzo.data.description import write_description
from terrazzo.data.importers.downloads import read
from terrazzo.data.importers.planning import Piece, Plan
from terrazzo.progress import track
from terrazzo.storage import refuse_existing, replace_folder


def carry_out(plan: Plan, out: Path, *, link: bool = False, workers: int = 1) -> Path:
    """Write images, masks and dataset.json to a new folder `out` and return it; whole or not at all.

    link: hard links instead of copies; where the disk cannot (another disk), files are copied; pieces are written in
    any case. workers: files at once, in threads: what takes long (disks, unpacking, packing a PNG) lets others run.
    """
    refuse_existing(out)
    with replace_folder(out) as beside:
        jobs: list[tuple[Path | Piece, Path]] = []
        for split, members in plan.pairs.items():
            for pair in members:
                jobs.append((pair.image, _target(beside / split / "images", pair.name, pair.image)))
                if pair.mask is not None:
                    jobs.append((pair.mask, _target(beside / split / "masks", pair.name, pair.mask)))
        for folder in {target.parent for _, target in jobs}:
            folder.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(max(1, workers)) as pool:
            written = [pool.submit(_write, source, target, link=link) for source, target in jobs]
            try:
                for future in track(written, total=len(jobs), what="copy"):
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)  # what has not begun is not begun any more
                raise
        splits = {split: split for split in plan.pairs}
        write_description(beside, replace(plan.description, splits=splits))
    return out


def _target(folder: Path, name: str, source: Path | Piece) -> Path:
    return folder / f"{name}{source.suffix.lower()}"


def _write(source: Path | Piece, target: Path, *, link: bool) -> None:
    if link and isinstance(source, Path) and _linked(source, target):
        return
    content = read(source)
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
