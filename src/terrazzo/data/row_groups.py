"""Parquet files read row group by row group, wherever they lie: the footer first, then only the bytes of the columns
that are needed; and the few row groups that are held in memory meanwhile.

A footer says how many rows each row group has and where its columns begin, so a table of a terabyte is opened by a few
requests a file. Nothing is written to disk.
"""

import hashlib
import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from terrazzo import remote
from terrazzo.data.crew import Crew, Task
from terrazzo.errors import DataChangedError, MissingPathError, TerrazzoError, UnreadableFileError

TAIL = 1 << 18  # bytes asked for at first: the footers of most files
GAP = 1 << 20  # bytes between two columns that are fetched along rather than asked for separately
FOOTERS = 8  # read at a time: waiting for answers is all that takes time
FETCHERS = 4  # row groups fetched at a time
RECENT = 3  # row groups held that nobody announced: this one, the one before, the one after
MAGIC = b"PAR1"


@dataclass(frozen=True)
class ParquetFile:
    """One parquet file, of which the footer is here."""

    url: str
    """Where it lies: a URL, or a path."""
    size: int
    """In bytes."""
    identity: str
    """What its place says changes with its content, such as an ETag; "" where it says nothing."""
    digest: str
    """sha256 (hex) over its footer, size and identity: what is known of its content without reading all of it."""
    footer: Any
    """pyarrow.parquet.FileMetaData"""

    @cached_property
    def rows(self) -> list[int]:
        """The rows of each row group."""
        return [self.footer.row_group(number).num_rows for number in range(self.footer.num_row_groups)]

    @cached_property
    def schema(self) -> Any:
        """Its columns, a pyarrow.Schema."""
        return self.footer.schema.to_arrow_schema()

    def bytes_of(self, number: int, columns: Sequence[str]) -> int:
        """Return the bytes that these columns of a row group take in memory."""
        return sum(chunk.total_uncompressed_size for chunk in self._chunks(number, columns))

    def num_empty(self, number: int, column: str) -> int | None:
        """Return how many cells of a row group hold nothing; None where the footer does not say."""
        counts = [
            chunk.statistics.null_count
            if chunk.statistics is not None and chunk.statistics.has_null_count
            else None
            for chunk in self._chunks(number, [column])
        ]
        known = [count for count in counts if count is not None]
        return min(known) if known and len(known) == len(counts) else None

    def fetch(self, number: int, columns: Sequence[str]) -> Any:
        """Return these columns of a row group as a pyarrow.Table; only their bytes are asked for.

        Raises what `remote.read` does; DataChangedError where the file is not the one whose footer was read.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        spans = _joined((_start(chunk), _start(chunk) + chunk.total_compressed_size)
                        for chunk in self._chunks(number, columns))  # fmt: skip
        try:
            parts = [(start, read(self.url, start, end)) for start, end in spans]
            source = _Parts(self.url, self.size, parts)
            return pq.ParquetFile(source, metadata=self.footer).read_row_group(
                number, columns=list(columns), use_threads=False
            )
        except (pa.ArrowException, OSError, EOFError, UnreadableFileError) as error:
            self._check_unchanged()
            if isinstance(error, TerrazzoError):
                raise
            raise UnreadableFileError(
                f"{self.url}, row group {number}, cannot be read.",
                found=str(error).partition("\n")[0],
                hint="Restore the file from where it came.",
            ) from error

    def _check_unchanged(self) -> None:
        now = facts(self.url)
        if (now.size, now.identity) != (self.size, self.identity):
            raise DataChangedError(
                f"{self.url} was changed while it was read.",
                found=f"{now.size:,} bytes {now.identity}".rstrip(),
                expected=f"{self.size:,} bytes {self.identity}".rstrip(),
                hint="Put the old file back, or start anew.",
            )

    def _chunks(self, number: int, columns: Sequence[str]) -> list[Any]:
        group = self.footer.row_group(number)
        every = (group.column(position) for position in range(group.num_columns))
        return [chunk for chunk in every if chunk.path_in_schema.partition(".")[0] in columns]


def read_footers(urls: Sequence[str]) -> list[ParquetFile]:
    """Return the files at these URLs or paths, their footers read, several at a time."""
    with ThreadPoolExecutor(FOOTERS) as pool:
        return list(pool.map(_read_footer, urls))


class Held:
    """Row groups in memory: those that were announced, and the last few of those that were not.

    Safe to use from several threads. What was announced is fetched ahead by a few threads; a row group that comes after
    the one asked for before is fetched ahead too, so that a walk from the first row to the last does not wait at each.
    """

    def __init__(self, fetch: Callable[[int], Any], what: Callable[[int], str], count: int) -> None:
        """fetch: row group -> its table. what: its name, should it stall. count: how many there are."""
        self._fetch, self._what, self._count = fetch, what, count
        self._expected: dict[int, Task[Any]] = {}
        self._recent: OrderedDict[int, Task[Any]] = OrderedDict()
        self._last = -2
        self._lock = threading.Lock()
        self._crew: Crew | None = None

    def expect(self, wanted: Iterable[int]) -> None:
        """Hold these row groups, fetched in this order, and no other that was announced before."""
        with self._lock:
            before, self._expected = self._expected, {}
            for number in wanted:
                if number not in self._expected:
                    known = before.pop(number, None) or self._recent.pop(number, None)
                    self._expected[number] = known or self._submit(number)
            for task in before.values():
                task.cancel()

    def peek(self, number: int) -> Any:
        """Return a row group if it is here, else None; nothing is fetched for it."""
        with self._lock:
            task = self._expected.get(number) or self._recent.get(number)
        return task.result() if task is not None and task.is_done else None

    def __getitem__(self, number: int) -> Any:
        """Return a row group, waiting for it; raises what fetching it raises."""
        while True:
            with self._lock:
                task, is_mine = self._find(number)
            if is_mine:
                task.run()
            try:
                return task.result()
            except CancelledError:  # dropped between two announcements, while someone waits for it after all
                self._forget(number, task)
            except BaseException:
                self._forget(number, task)  # another attempt may do better
                raise

    def __len__(self) -> int:
        return len(self._expected) + len(self._recent)

    def _find(self, number: int) -> tuple[Task[Any], bool]:
        """The task of a row group, and whether the caller is to do it."""
        if number in self._expected:
            return self._expected[number], False
        task = self._recent.get(number)
        is_new = task is None
        if task is None:
            task = self._recent[number] = Task(self._what(number), partial(self._fetch, number))
        self._recent.move_to_end(number)
        after = number + 1
        if (
            self._last == number - 1
            and after < self._count
            and not (after in self._expected or after in self._recent)
        ):
            self._recent[after] = self._submit(after)
        self._last = number
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)[1].cancel()
        return task, is_new

    def _submit(self, number: int) -> Task[Any]:
        if self._crew is None:
            self._crew = Crew(FETCHERS)
        return self._crew.submit(self._what(number), partial(self._fetch, number))

    def _forget(self, number: int, task: Task[Any]) -> None:
        with self._lock:
            for place in (self._expected, self._recent):
                if place.get(number) is task:
                    del place[number]


def read(url: str, start: int, end: int) -> bytes:
    """Return the bytes of a file from `start` up to `end`, whether it has a URL or a path."""
    if remote.is_url(url):
        return remote.read(url, start, end)
    with open(url, "rb") as file:
        file.seek(start)
        return file.read(end - start)


def facts(url: str) -> remote.Facts:
    """Return size and identity of a file, whether it has a URL or a path."""
    if remote.is_url(url):
        return remote.facts(url)
    if not os.path.isfile(url):
        raise MissingPathError(f"There is no file {url}.")
    return remote.Facts(os.path.getsize(url), "")


class _Parts(io.RawIOBase):
    """A file of which some parts are here; what else is asked for is fetched."""

    def __init__(self, url: str, size: int, parts: Sequence[tuple[int, bytes]]) -> None:
        super().__init__()
        self._url, self._size, self._parts, self._at = url, size, parts, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._at + size, self._size)
        begin, self._at = self._at, max(end, self._at)
        for start, data in self._parts:
            if start <= begin and end <= start + len(data):
                return data[begin - start : end - start]
        return read(self._url, begin, end) if end > begin else b""


def _read_footer(url: str) -> ParquetFile:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        about = facts(url)
        tail = read(url, max(0, about.size - TAIL), about.size)
        length = int.from_bytes(tail[-8:-4], "little") + 8
        if tail[-4:] == MAGIC and len(tail) < length <= about.size:
            tail = read(url, about.size - length, about.size)
        footer = pq.read_metadata(pa.BufferReader(tail))
    except (pa.ArrowException, OSError) as error:
        raise UnreadableFileError(
            f"{url} cannot be read as parquet.",
            found=str(error).partition("\n")[0],
            hint="Restore the file from where it came.",
        ) from error
    known = hashlib.sha256(tail[-length:])
    known.update(f"{about.size} {about.identity}".encode())
    return ParquetFile(url, about.size, about.identity, known.hexdigest(), footer)


def _start(chunk: Any) -> int:
    first = chunk.dictionary_page_offset
    return int(min(first, chunk.data_page_offset) if first else chunk.data_page_offset)


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans of bytes, neighbours joined into one request."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start - joined[-1][1] <= GAP:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined
