"""Say where long work stands: one live line on a terminal or in a notebook, plain lines elsewhere.

Nothing here may end the work: when the terminal is gone (SSH dropped, pipe closed), the words are dropped and the work
goes on to save and exit in order.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, Self, TextIO, TypeVar

T = TypeVar("T")
REDRAW = 0.2  # seconds between two drawings of the live line
PLAIN_EVERY = 10.0  # seconds between two plain lines of `track`, so that a log file stays readable


class Progress:
    """A live status line under the lines that were said. total: 0 where nobody knows.

    >>> with Progress(total=100, what="train") as progress:
    ...     progress.update(10, "loss 0.41")
    ...     progress.say("validation: 0.52 mIoU")
    """

    def __init__(self, *, total: int, what: str, stream: TextIO | None = None, quiet: bool = False) -> None:
        self.total, self.what = total, what
        self.stream = stream if stream is not None else sys.stderr
        self.quiet = quiet
        self.is_live = not quiet and _is_terminal(self.stream)
        self._cell = None if quiet or self.is_live else _notebook_cell()
        self._shown = ""
        self._drawn = 0.0

    def update(self, done: int, text: str) -> None:
        """Redraw the live line, a few times a second at most; nothing where there is no terminal or notebook."""
        now = time.monotonic()
        if now - self._drawn < REDRAW and (done < self.total or not self.total):
            return
        self._drawn = now
        far = f"{_bar(done, self.total)} {done}/{self.total}" if self.total else f"{done}"
        bar = f"{self.what} {far}  {text}"
        if self.is_live:
            self._write(f"\r\x1b[2K{_fit(bar)}")
            self._shown = bar
        elif self._cell is not None:
            self._cell.update({"text/plain": bar}, raw=True)

    def say(self, line: str) -> None:
        """Print `line` for good, above the live line."""
        if self.quiet:
            return
        if self.is_live and self._shown:
            self._write(f"\r\x1b[2K{line}\n{_fit(self._shown)}")
        else:
            self._write(line + "\n")

    def close(self) -> None:
        """Leave the live line behind."""
        if self.is_live and self._shown:
            self._write("\r\x1b[2K")
        self._shown = ""

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):  # the terminal is gone; the work is not
            self.quiet, self.is_live = True, False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()


def track(items: Iterable[T], *, total: int, what: str, quiet: bool = False) -> Iterator[T]:
    """Yield from `items` and show how far it is, with the time left; how many there were, where `total` is 0."""
    started = spoke = time.monotonic()
    with Progress(total=total, what=what, quiet=quiet) as progress:
        for done, item in enumerate(items, start=1):
            yield item
            now = time.monotonic()
            rate = f"{done / max(now - started, 1e-9):.1f}/s"
            left = f", {duration((now - started) / done * (total - done))} left" if total else ""
            progress.update(done, rate + left)
            if not progress.is_live and now - spoke > PLAIN_EVERY:
                progress.say(f"{what} {done}{f'/{total}' if total else ''}, {rate}{left}")
                spoke = now


def duration(seconds: float) -> str:
    """Return "8 s", "3:07" or "2:03:07"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def _bar(done: int, total: int, width: int = 20) -> str:
    filled = width * done // max(total, 1)
    return "█" * filled + "·" * (width - filled)


def _fit(text: str) -> str:
    return text[: max(20, shutil.get_terminal_size().columns - 1)]


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _notebook_cell() -> Any:
    """Return an updatable display in a Jupyter kernel, else None."""
    if "ipykernel" not in sys.modules:
        return None
    from IPython.display import display  # type: ignore[import-not-found]

    return display({"text/plain": ""}, raw=True, display_id=True)
