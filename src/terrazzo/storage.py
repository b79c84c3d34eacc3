"""Files that are either the old ones or the new ones: write beside, force to the disk, then rename.

Everything terrazzo writes goes through here: people's labels and hours of training must survive a full disk, a pulled
plug and a kill. A failed write raises StorageError (disk full, read-only, no permission) or the writer's own error,
and what was there before is intact. Nothing here knows images or tensors.
"""

import contextlib
import ctypes
import dataclasses
import errno
import json
import math
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from terrazzo.errors import (
    ExistingOutputError,
    MissingPathError,
    StorageError,
    TerrazzoError,
    UnreadableFileError,
    quoted,
)


@contextlib.contextmanager
def replacing(path: Path | str, *, durable: bool = True) -> Iterator[Path]:
    """Yield a new path beside `path` to write to; afterwards it takes `path`'s place at once, or nothing changes.

    Readers see the old file or the new one, never half of one. Missing parent folders are made. Where the block
    raises, the new file is removed. durable: the file is on the disk before the name changes, and the name before this
    returns, which costs 5-10 ms; what can be made again (predictions, pictures, caches) does without.
    """
    path = Path(os.path.realpath(path))  # a link keeps pointing where it points
    beside = _beside(path, "partial")
    try:
        with _storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield beside
            if durable:
                _sync(beside)
            os.replace(beside, path)
            if durable:
                _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


@contextlib.contextmanager
def replace_folder(path: Path | str) -> Iterator[Path]:
    """Yield a new, empty folder beside `path`; afterwards it takes `path`'s place whole, or nothing changes.

    A folder that is already at `path` is swapped out in one system call (on Linux; elsewhere in two renames, and the
    old one is put back if the second fails) and then removed. The caller decides whether that is allowed.
    """
    path = Path(os.path.realpath(path))
    beside = _beside(path, "partial")
    try:
        with _storage_errors(path):
            beside.mkdir(parents=True)
            yield beside
            _sync_tree(beside)
            old = _swap_in(beside, path)
            _sync(path.parent)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_json(path: Path | str, value: Any, *, durable: bool = True) -> None:
    """Write `value` as indented UTF-8 JSON, atomically.

    Tuples, paths, dataclasses, numpy scalars and arrays are written as their plain forms; NaN and infinities as null,
    for JSON has no word for them.
    """
    text = json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path, durable=durable) as beside:
        beside.write_text(text + "\n", encoding="utf-8", newline="\n")


def read_json(path: Path | str) -> Any:
    """Return the value in a JSON file; MissingPathError, or UnreadableFileError with the line where it breaks."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingPathError(f"There is no file {path}.", expected="a JSON file") from None
    except json.JSONDecodeError as error:
        raise UnreadableFileError(
            f"{path} is not valid JSON.",
            found=f"{error.msg} at line {error.lineno}, column {error.colno}",
            hint="Mend that line, or restore the file from where it came.",
        ) from error
    except (
        OSError,
        ValueError,
        RecursionError,
    ) as error:  # no text, a number of thousands of digits, lists in lists
        raise UnreadableFileError(f"{path} cannot be read as JSON.", found=str(error)) from error


def append_line(path: Path | str, text: str) -> None:
    """Append one line to a text file, such as metrics.jsonl; a line is there whole or not at all.

    A half line that a crash left behind is closed first, so the new line stands alone. The file is forced to the disk.
    """
    path = Path(path)
    data = text.rstrip("\n").encode() + b"\n"
    with _storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                data = data if file.read(1) == b"\n" else b"\n" + data
            try:
                written = file.write(data)
                if written != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(size)
                raise


def refuse_existing(path: Path | str) -> None:
    """Raise ExistingOutputError if anything but an empty folder is at `path`."""
    path = Path(path)
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    raise ExistingOutputError(
        f"The output {path} is already there.",
        found=f"a folder with {sum(1 for _ in path.iterdir())} entries" if path.is_dir() else "a file",
        expected="a new path",
        hint="Nothing was overwritten. Choose another --out, or remove it first if you no longer need it:",
        command=f"rm -r {quoted(path)}" if os.name != "nt" else f"rmdir /s {quoted(path)}",
    )


def cache_folder() -> Path:
    """Return the folder for what can be computed again: $TERRAZZO_CACHE, or the platform's own place. It may not exist.

    Nothing in it is ever needed: a cache that cannot be written is done without.
    """
    chosen = os.environ.get("TERRAZZO_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "terrazzo"
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "terrazzo" / "cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "terrazzo"


_SYNC_AT_ONCE = 16
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC), errno.EFBIG}
_CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM}


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    """Turn a full or closed disk under `path` into a StorageError; let every other error through."""
    try:
        yield
    except TerrazzoError:
        raise
    except Exception as error:
        code = _storage_errno(error, path)
        if code is None:
            raise
        hint = "What was there before is intact."
        if code in _FULL:
            free = _free_bytes(path)
            raise StorageError(
                f"The disk is full: {path} could not be written.",
                found=None if free is None else f"{free / 2**20:,.0f} MiB free",
                hint=hint
                + " Free some space, or choose another place with --out, then run the same command again.",
                command=f"df -h {quoted(path.parent)}" if os.name != "nt" else None,
            ) from error
        raise StorageError(
            f"{path} could not be written: {'the disk is read-only' if code == errno.EROFS else 'no permission'}.",
            found=str(error),
            hint=hint + " Choose a place you may write to with --out, or change the permission of this one:",
            command=f"ls -ld {quoted(path.parent)}" if os.name != "nt" else None,
        ) from error


def _storage_errno(error: BaseException, path: Path) -> int | None:
    """Return the errno when `error` is about writing under `path`'s folder, else None."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return error.errno
    if isinstance(error, OSError) and error.errno in _CLOSED:
        name = error.filename
        about_us = (
            name is None or str(path.parent) in os.path.abspath(os.fsdecode(name)) or _is_above(name, path)
        )
        return error.errno if about_us else None
    text = str(error)  # safetensors and tifffile hand the system's words on as their own error types
    told = re.search(r"\(os error (\d+)\)", text)
    code = int(told[1]) if told else None
    if code in _FULL or code in _CLOSED:
        return code
    return errno.ENOSPC if os.strerror(errno.ENOSPC) in text else None


def _is_above(name: Any, path: Path) -> bool:
    return isinstance(name, str | bytes) and Path(os.path.abspath(os.fsdecode(name))) in path.parents


def _free_bytes(path: Path) -> int | None:
    for folder in path.parents:
        with contextlib.suppress(OSError):
            return shutil.disk_usage(folder).free
    return None


def _beside(path: Path, word: str) -> Path:
    """A hidden name in the same folder that keeps the suffix, so writers that go by suffix still work."""
    return path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}.{word}{path.suffix}")


def _sync(path: Path) -> None:
    """Force a file, or a folder's list of names, to the disk; a file system that cannot is let be."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _sync_tree(folder: Path) -> None:
    """Force a folder to the disk: files, then the lists of names.

    Files side by side, for a disk takes many at once: 800 of CamVid's, ext4, 2026-11: 3.0 s in turn, 0.13 s by 16.
    """
    with ThreadPoolExecutor(_SYNC_AT_ONCE) as pool:
        for root, _, names in os.walk(folder):
            for _ in pool.map(_sync, [Path(root, name) for name in names]):
                pass
    for root, _, _ in os.walk(folder, topdown=False):
        _sync(Path(root))


def _swap_in(new: Path, path: Path) -> Path | None:
    """Give `new` the name `path`; returns where the folder that was there is now, or None."""
    if not path.exists():
        os.rename(new, path)
        return None
    if _exchange(new, path):
        return new
    old = _beside(path, "replaced")
    os.rename(path, old)
    try:
        os.rename(new, path)
    except OSError:
        os.rename(old, path)
        raise
    return old


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one system call (Linux renameat2); False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE: linux/fcntl.h, linux/fs.h
    return (
        renameat2 is not None and renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0
    )


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        return [_plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
