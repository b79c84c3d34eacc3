"""A release as one file to take away: its export in a folder that goes away, packed into a zip as it is sent.

The same release gives the same bytes: files by name, no time but the first one a zip can tell, permissions of nobody in
particular. Images and masks are packed already and are stored as they are. What is wrong with a release (an image that
is gone) is said before the first byte is sent, for afterwards nothing could be said any more.
"""

import contextlib
import io
import shutil
import tempfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

from terrazzo.exchange import give
from terrazzo.project.releases import Release
from terrazzo.web.problems import busy

PACKED = {".png", ".jpg", ".jpeg", ".webp", ".parquet"}
FIRST = (1980, 1, 1, 0, 0, 0)
AT_ONCE = 2  # exports that take place and disk
PART = 1 << 20
PREFIX = ".export-"
STALE = 24 * 3600  # seconds

_ROOM = threading.BoundedSemaphore(AT_ONCE)


def forget_parcels(beside: Path) -> None:
    """Remove what a server that was killed left behind a day ago and earlier."""
    for one in beside.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - one.stat().st_mtime > STALE:
                shutil.rmtree(one, ignore_errors=True)


class Parcel:
    """An export that is ready to be sent; iterated once, and then gone."""

    def __init__(self, release: Release, form: str, beside: Path) -> None:
        """Write the export of `release` in the format `form` to a folder in `beside`; raises what `give` raises."""
        if not _ROOM.acquire(blocking=False):
            raise busy("Other exports are being made.", kind="exports-full", seconds=10, status=503)
        self._stack = contextlib.ExitStack()
        self._stack.callback(_ROOM.release)
        try:
            scratch = self._stack.enter_context(tempfile.TemporaryDirectory(prefix=PREFIX, dir=beside))
            self.folder = give(release, form, Path(scratch) / release.name)
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Iterator[bytes]:
        sink = _Sink()
        try:
            with zipfile.ZipFile(cast(IO[bytes], sink), "w") as parcel:
                files = [one for one in self.folder.rglob("*") if one.is_file()]
                for path in sorted(files, key=lambda one: one.relative_to(self.folder).as_posix()):
                    entry = zipfile.ZipInfo(
                        f"{self.folder.name}/{path.relative_to(self.folder).as_posix()}", FIRST
                    )
                    entry.external_attr = 0o644 << 16
                    entry.create_system = 3
                    is_packed = path.suffix.lower() in PACKED
                    entry.compress_type = zipfile.ZIP_STORED if is_packed else zipfile.ZIP_DEFLATED
                    with open(path, "rb") as source, parcel.open(entry, "w", force_zip64=True) as target:
                        while part := source.read(PART):
                            target.write(part)
                            yield from sink.taken()
                    yield from sink.taken()
            yield from sink.taken()
        finally:
            self.close()

    def close(self) -> None:
        """Take the folder away."""
        self._stack.close()


class _Sink(io.RawIOBase):
    """A file that cannot be sought in, whose content is taken out as it comes."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def taken(self) -> Iterator[bytes]:
        parts, self._parts = self._parts, []
        if parts:
            yield b"".join(parts)
