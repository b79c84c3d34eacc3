"""Files that lie elsewhere, read by URL: s3://bucket/a.png, gs://…, hf://…, https://…, zip://a.png::file.zip.

fsspec knows the protocols, most of them by a package of their own (s3fs, gcsfs, adlfs) that logs in as it always does;
http and https are read here, by the standard library. What fails for a reason that may pass is tried again a few times,
each time said aloud as a RuntimeWarning. Nothing is written anywhere, and nothing is kept.
"""

import re
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard, TypeVar

from terrazzo.errors import (
    MissingExtraError,
    MissingPathError,
    TerrazzoError,
    UnreachableError,
    UnreadableFileError,
    UsageError,
    unknown_name,
)

T = TypeVar("T")

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # two letters at least: C:// is a Windows drive
WAITS = (1, 2, 4, 8, 16)  # seconds before each new attempt; half a minute in all
TIMEOUT = 30  # seconds without an answer over http
FINAL = (  # errors that another attempt would meet again
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    ImportError,
    LookupError,
    TypeError,
    ValueError,
    AssertionError,
    AttributeError,
    RuntimeError,  # no word of any network; fsspec's for what a protocol does not offer is one of these
    MemoryError,
)
FINAL_NAMES = ("NoCredentialsError", "OfflineModeIsEnabled", "GatedRepoError", "RepositoryNotFoundError")
MAY_PASS = (408, 425, 429)  # of the answers 4xx: too slow, too early, too many
IDENTITY = ("ETag", "etag", "blob_id", "md5Hash", "content_md5", "checksum", "version_id", "generation")


@dataclass(frozen=True)
class Facts:
    """What a place says of a file without giving it."""

    size: int
    """In bytes."""
    identity: str
    """What changes with its content: an ETag, a git blob, a checksum; "" where the place has no such thing."""


@dataclass(frozen=True)
class Found:
    """A file in a listing."""

    url: str
    """Where it lies."""
    below: str
    """Its path below the folder that was listed, or below the fixed part of a glob; "/" between folders."""
    facts: Facts
    """What the listing says of it."""


def is_url(name: object) -> TypeGuard[str]:
    """True for what begins with a protocol, such as "s3://bucket/folder"; False for paths."""
    return isinstance(name, str) and URL.match(name) is not None


def read(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """Return the bytes of a file, or those from `start` up to `end`.

    Raises MissingPathError, MissingExtraError for a protocol whose package is not installed, UnreadableFileError where
    access is denied, and UnreachableError when the place still does not answer after the last attempt.
    """
    files, path = _open(url)

    def fetch() -> bytes:
        data: bytes = files.cat_file(path, start=start, end=end, **_unbuffered(url))
        if start is not None and end is not None and len(data) != end - start:
            raise EOFError(f"{len(data)} bytes came of {end - start}")
        return data

    return _patiently(url, fetch)


def facts(url: str) -> Facts:
    """Return size and identity of a file; raises as `read` does."""
    files, path = _open(url)
    info: dict[str, Any] = _patiently(url, lambda: files.info(path))
    if info.get("type") == "directory" or info.get("size") is None:
        raise UnreadableFileError(
            f"{url} is no file.", found=str(info.get("type")), expected="a file of known size"
        )
    return _facts(info)


def is_folder(url: str) -> bool:
    """True where there is a folder; False for files and for nothing."""
    files, path = _open(url)
    return bool(_patiently(url, lambda: files.isdir(path)))


def exists(url: str) -> bool:
    """True where there is something."""
    files, path = _open(url)
    return bool(_patiently(url, lambda: files.exists(path)))


def files_below(url: str) -> list[Found]:
    """Return all files in a folder and below it, sorted."""
    files, path = _open(url)
    listed: dict[str, Any] = _patiently(url, lambda: files.find(path, detail=True))
    return [_found(files, one, url, path, about) for one, about in sorted(listed.items())]


def matches(pattern: str) -> list[Found]:
    """Return the files that a glob such as "s3://bucket/day/**/*.jpg" names, sorted."""
    files, path = _open(pattern)
    listed: dict[str, Any] = _patiently(pattern, lambda: files.glob(path, detail=True))
    fixed = re.split(r"[*?\[]", path, maxsplit=1)[0].rpartition("/")[0]
    return [
        _found(files, one, pattern, fixed, about)
        for one, about in sorted(listed.items())
        if about.get("type") == "file"
    ]


def join(folder: str, below: str) -> str:
    """Return the URL of what lies at a path below a folder."""
    inner, chained, outer = folder.partition("::")
    return (
        f"{inner.rstrip('/')}/{below}{chained}{outer}"
        if path_of(folder).strip("/")
        else f"{inner}{below}{chained}{outer}"
    )


def parent(url: str) -> str:
    """Return the URL of the folder that a file lies in."""
    inner, chained, outer = url.partition("::")
    protocol, _, path = inner.partition("://")
    return f"{protocol}://{path.rpartition('/')[0]}{chained}{outer}"


def path_of(url: str) -> str:
    """Return the path that a URL names at its place: without protocol, question or the archive it lies in."""
    inner = url.partition("::")[0]
    rest = inner[inner.index("://") + 3 :]
    return rest.partition("?")[0].partition("#")[0] if is_web(url) else rest


def protocol_of(url: str) -> str:
    """Return what stands before "://", in small letters."""
    match = URL.match(url)
    assert match, url
    return match[1].lower()


def is_web(url: str) -> bool:
    """True for http and https, which have no folders."""
    return url.lower().startswith(("http://", "https://"))


def _facts(info: Mapping[str, Any]) -> Facts:
    lfs = info.get("lfs")
    identity = lfs.get("sha256") if isinstance(lfs, dict) else None
    identity = identity or next((info[name] for name in IDENTITY if info.get(name)), "")
    return Facts(int(info.get("size") or 0), str(identity))


def _found(files: Any, path: str, like: str, folder: str, about: Mapping[str, Any]) -> Found:
    return Found(_as_url(files, path, like), path.removeprefix(folder.rstrip("/")).lstrip("/"), _facts(about))


# -- protocols -----------------------------------------------------------------------------------------------------


def _open(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path there."""
    if is_web(url):
        return _Web(), url
    import fsspec

    protocol = protocol_of(url)
    try:
        files, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise _missing_package(protocol, error) from error
    except ValueError as error:
        if "Protocol not known" not in str(error):
            raise UsageError(f"{url} cannot be read as an address.", found=str(error)) from error
        known = sorted(set(fsspec.available_protocols()) - {"http", "https"})
        raise unknown_name("protocol", protocol, ["https", *known]) from error
    except OSError as error:  # an archive is opened here
        raise _told(url, error) from error
    return files, str(path)


def _missing_package(protocol: str, error: ImportError) -> MissingExtraError:
    from fsspec.registry import known_implementations

    package = str(known_implementations.get(protocol, {}).get("class", "")).partition(".")[0]
    return MissingExtraError(
        f"{protocol}:// cannot be read: its package is not installed.",
        found=str(error),
        command=f"pip install {package}" if package not in ("", "fsspec") else None,
    )


def _as_url(files: Any, path: str, like: str) -> str:
    """The URL of a path that was found at the place of another URL."""
    inner, chained, outer = like.partition("::")
    if chained:
        return f"{inner[: inner.index('://')]}://{path.lstrip('/')}::{outer}"
    return str(files.unstrip_protocol(path))


def _unbuffered(url: str) -> dict[str, str]:
    """The Hub's files would be read with a few megabytes more than was asked for."""
    return {"cache_type": "none"} if url.startswith("hf://") else {}


class _Web:
    """What is needed of http and https, in the words of fsspec; without its package for them (aiohttp)."""

    def cat_file(self, url: str, start: int | None, end: int | None) -> bytes:
        wanted = {} if start is None else {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        with self._ask(url, wanted) as answer:
            if wanted and answer.status != 206:
                raise ValueError("the server gives whole files only, not parts of them")
            data: bytes = answer.read()
            return data

    def info(self, url: str) -> dict[str, Any]:
        with self._ask(url, {"Range": "bytes=0-0"}) as answer:
            span = answer.headers.get("Content-Range", "")
            size = span.rpartition("/")[2] if answer.status == 206 else answer.headers.get("Content-Length")
            identity = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        return {"type": "file", "size": int(size) if size and size.isdigit() else None, "ETag": identity}

    def isdir(self, url: str) -> bool:
        return False

    def exists(self, url: str) -> bool:
        try:
            self.info(url)
        except FileNotFoundError:
            return False
        return True

    def find(self, url: str, detail: bool) -> dict[str, Any]:
        raise _no_folders(url)

    def glob(self, url: str, detail: bool) -> dict[str, Any]:
        raise _no_folders(url)

    def _ask(self, url: str, headers: dict[str, str]) -> Any:
        request = urllib.request.Request(url, headers={"User-Agent": "terrazzo", **headers})
        try:
            return urllib.request.urlopen(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (404, 410):
                raise FileNotFoundError(f"HTTP {error.code}: {error.reason}") from error
            raise


def _no_folders(url: str) -> UsageError:
    return UsageError(
        f"A web server does not say what lies in {url}.",
        expected="the address of one file",
        hint="Name every file, or read the folder through its own protocol, such as s3:// or hf://.",
    )


# -- what fails ----------------------------------------------------------------------------------------------------


def _patiently(url: str, work: Callable[[], T]) -> T:
    """Return work(), tried again after each of WAITS where it fails for a reason that may pass."""
    for wait in (*WAITS, None):
        try:
            return work()
        except TerrazzoError:
            raise
        except Exception as error:
            if is_final(error):
                raise _told(url, error) from error
            if wait is None:
                raise UnreachableError(
                    f"{url} cannot be reached.",
                    found=f"{_say(error)}, {len(WAITS) + 1} attempts in {sum(WAITS)} s",
                    hint="Is the network there, and does the place answer?",
                ) from error
            again = f"{url}: {_say(error)}; trying again in {wait} s."
            warnings.warn(again, RuntimeWarning, stacklevel=3)
            time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def is_final(error: BaseException) -> bool:
    """True where another attempt would meet the same error."""
    status = _status(error)
    if status is not None:
        return 400 <= status < 500 and status not in MAY_PASS
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return isinstance(error, FINAL) or not kinds.isdisjoint(FINAL_NAMES)


def _status(error: BaseException) -> int | None:
    """The HTTP status in an error of whichever client."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("code", "status", "status_code"):
            value = getattr(holder, name, None)
            if isinstance(value, int) and 100 <= value < 600:
                return value
    return None


def _told(url: str, error: BaseException) -> TerrazzoError:
    """An error that is final, in our words."""
    if isinstance(error, FileNotFoundError) or _status(error) in (404, 410):
        return MissingPathError(f"There is no file {url}.", found=_say(error))
    if (
        isinstance(error, PermissionError)
        or _status(error) in (401, 403)
        or "Credentials" in type(error).__name__
    ):
        return UnreadableFileError(
            f"{url} may not be read.",
            found=_say(error),
            hint="Log in as the protocol's own client does: `aws configure`, `gcloud auth`, `hf auth login`.",
        )
    return UnreadableFileError(
        f"{url} cannot be read through {protocol_of(url)}://.",
        found=_say(error),
        expected="a protocol that lists folders and gives parts of files",
        hint="Copy it to this machine first, and name the copy.",
    )


def _say(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
