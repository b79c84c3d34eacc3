"""Images that come in through the page: dropped files, and folders that lie below a project's root already.

A dropped file is checked before it is written: what it is, its first bytes say, and how many pixels it claims, its
header; then it is decoded once, whole. Its name is made harmless, it is written beside and renamed, and never takes
another file's place.
"""

import hashlib
import os
import re
import unicodedata
from pathlib import Path
from typing import Any

from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from terrazzo.errors import UsageError
from terrazzo.exchange.exports import RESERVED
from terrazzo.images import check_whole
from terrazzo.labelling import forms
from terrazzo.labelling.shelf import Shelf
from terrazzo.project import Project
from terrazzo.storage import replacing
from terrazzo.web.bombs import refuse_bombs
from terrazzo.web.problems import RefusalError

FOLDER = "images"
FORMATS = "a PNG, JPEG, WebP, BMP or TIFF file"
SUFFIXES = {  # by its first bytes: nothing else is let in
    b"\x89PNG\r\n\x1a\n": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}
SAME = {".png": (".png",), ".jpg": (".jpg", ".jpeg", ".jpe", ".jfif"), ".tif": (".tif", ".tiff")}
HARMLESS = re.compile(r"[^\w .()+,=@~-]")
TRIES = 10_000


async def answer(shelf: Shelf, name: str, called: str, body: bytes, author: str) -> JSONResponse:
    """Take one dropped file in; the answer tells its sample."""

    def work() -> dict[str, Any]:
        project = shelf.writable(name)
        sample, is_new = add_image(project, called, body, max_pixels=shelf.limits.max_pixels, author=author)
        if is_new:
            shelf.tell(name, "samples", added=1)
        return {"sample": forms.sample(project.listing.line(project.sample(sample).id)), "is_new": is_new}

    value = await run_in_threadpool(work)
    return JSONResponse(value, status_code=201 if value["is_new"] else 200)


def add_image(
    project: Project, called: str, data: bytes, *, max_pixels: int, author: str
) -> tuple[str, bool]:
    """Write a dropped image below the root and add it; returns (sample's name, whether it is new).

    An image that the project has already, byte for byte, is the sample it has.
    """
    suffix = _suffix(data)
    refuse_bombs(data, max_pixels, where="'the image'")
    check_whole(data, where="'the image'")
    with project.store.reading() as db:
        row = db.execute(
            "SELECT name FROM samples WHERE sha256 = ?", (hashlib.sha256(data).hexdigest(),)
        ).fetchone()
    if row is not None:
        return str(row[0]), False
    folder = project.root / FOLDER
    real = Path(os.path.realpath(folder))
    if not real.is_relative_to(os.path.realpath(project.root)):
        raise UsageError(f"The folder {FOLDER} leads out of the project's root.", found=str(real))
    path = _written(real, harmless(called, suffix), data)
    try:
        return project.add_images([path], author=author)[0], True
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def add_folder(project: Project, path: str, *, author: str) -> list[str]:
    """Add the images in a folder below the project's root; raises as `below_root`."""
    return project.add_folder(below_root(project, path), author=author)


def below_root(project: Project, path: str) -> Path:
    """Return where a path that a client names leads; UsageError unless that is below the project's root, links too."""
    if "\0" in path or "\\" in path or Path(path).is_absolute() or re.match(r"[A-Za-z]:", path):
        raise UsageError("A place is named by its path below the project's root.", found=f"{path!r:.80}")
    real = Path(os.path.realpath(project.root / path))
    if not real.is_relative_to(os.path.realpath(project.root)):
        raise UsageError("That place lies outside the project's root.", found=f"{path!r:.80}")
    return real


def harmless(called: str, suffix: str) -> str:
    """Return a file name made of what a client calls its file: no folders, nothing a system or a terminal obeys."""
    last = unicodedata.normalize("NFC", called).replace("\\", "/").rpartition("/")[2]
    stem, given = os.path.splitext(last)
    stem = stem if given.lower() in SAME.get(suffix, (suffix,)) or len(given) > 6 else last
    stem = HARMLESS.sub("_", "".join(c for c in stem if c.isprintable())).strip(" .")[:100].strip(" .")
    if not stem or RESERVED.fullmatch(stem) or stem.startswith("-"):
        stem = f"image-{stem.strip('-')}".rstrip("-")
    return stem + (given.lower() if given.lower() in SAME.get(suffix, (suffix,)) else suffix)


def _written(folder: Path, name: str, data: bytes) -> Path:
    """Write a new file under `name`, or the next name that is free; no file that is there is touched."""
    stem, suffix = os.path.splitext(name)
    with replacing(folder / f".{stem}{suffix}") as beside:
        beside.write_bytes(data)
        with open(beside, "rb") as file:
            os.fsync(file.fileno())
        for number in range(1, TRIES):
            path = folder / (name if number == 1 else f"{stem}-{number}{suffix}")
            try:
                os.link(beside, path)  # fails where a file is there
            except FileExistsError:
                continue
            break
        else:
            raise UsageError(f"There are {TRIES:,} images called {name!r} already.")
    (folder / f".{stem}{suffix}").unlink(missing_ok=True)
    return path


def _suffix(data: bytes) -> str:
    for head, suffix in SUFFIXES.items():
        if data.startswith(head):
            return suffix
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    raise RefusalError(
        415,
        "The file is not an image we take.",
        kind="unsupported-media-type",
        found=f"{len(data):,} bytes that begin {data[:12].hex(' ')}" if data else "nothing",
        expected=FORMATS,
    )
