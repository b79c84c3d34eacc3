"""What was computed and can be computed again, in a folder, up to a number of bytes; what lay unused longest goes.

For superpixels and embeddings. Nothing here is ever needed: what cannot be written is done without, what cannot be read
was never there. Files are named by the keys, which are hashes of all that their content depends on.
"""

import contextlib
import os
import re
import threading
from pathlib import Path

from terrazzo.errors import TerrazzoError
from terrazzo.storage import replacing

KEY = re.compile(r"[0-9a-f]{32,64}(-\w+)?")


class Kept:
    """Blocks of bytes by key; may be used by several threads."""

    def __init__(self, folder: Path, most: int, suffix: str) -> None:
        self.folder, self._most, self._suffix = folder, most, suffix
        self._lock = threading.Lock()
        self._bytes: int | None = None  # in the folder; counted when something is first kept

    def get(self, key: str) -> bytes | None:
        """Return what is kept under a key, or None."""
        path = self._path(key)
        try:
            data = path.read_bytes()
            os.utime(path)  # used now
        except OSError:
            return None
        return data

    def put(self, key: str, data: bytes) -> bool:
        """Keep something, and let go of others where there is no room; returns whether it is kept."""
        if len(data) > self._most:
            return False
        with self._lock:
            try:
                with replacing(self._path(key), durable=False) as beside:
                    beside.write_bytes(data)
            except (OSError, TerrazzoError):
                return False  # a disk that is full, or only read
            self._bytes = None if self._bytes is None else self._bytes + len(data)
            if self._bytes is None or self._bytes > self._most:
                self._make_room()
        return True

    def drop(self, key: str) -> None:
        """Forget what is kept under a key: it turned out to be damaged."""
        with contextlib.suppress(OSError):
            self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        assert KEY.fullmatch(key), key
        return self.folder / f"{key}{self._suffix}"

    def _make_room(self) -> None:
        """Count anew, and remove until three quarters are left, so that this is rare."""
        files = []
        for one in self.folder.glob(f"*{self._suffix}"):
            with contextlib.suppress(OSError):
                files.append((one.stat().st_mtime_ns, one.stat().st_size, one))
        total = sum(size for _, size, _ in files)
        if total > self._most:
            for _, size, one in sorted(files)[:-1]:  # never the newest
                if total <= self._most * 3 // 4:
                    break
                with contextlib.suppress(OSError):
                    one.unlink(missing_ok=True)
                    total -= size
        self._bytes = total
