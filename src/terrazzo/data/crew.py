"""A few threads that read ahead: tasks are taken in order, results and errors come out where they are asked for.

Why threads and not processes. Reading a file, Pillow's decoding and our kernels let go of the interpreter lock, so
threads do work side by side; a thread shares the cache of decoded samples and writes its crop straight into the batch,
where a process has to copy both. Threads start at once, in notebooks and in scripts without a `__main__` guard, and
take any data set, picklable or not. They cannot be killed one by one, nor be forked into a deadlock.
"""

import contextlib
import queue
import sys
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

Result = TypeVar("Result")

# seconds
STALL = 60.0  # without a result, after which the worker and its stack are named; then after each doubling
GLANCE = 1.0  # between two looks at the clock; on Windows Ctrl-C is seen only then
FAREWELL = 2.0  # given to running tasks when the crew is closed; a thread that hangs is left behind


class Task(Generic[Result]):
    """A piece of work that was handed to a crew."""

    def __init__(self, what: str, function: Callable[[], Result]) -> None:
        self.what = what
        self.worker: threading.Thread | None = None
        self._function = function
        self._future: Future[Result] = Future()

    def run(self) -> None:
        """Do it, unless it was cancelled or is done; the error of the work, whatever it is, is kept as its result."""
        if self._future.done() or not self._future.set_running_or_notify_cancel():
            return
        self.worker = threading.current_thread()
        try:
            self._future.set_result(self._function())
        except BaseException as error:
            self._future.set_exception(error)
            if isinstance(error, KeyboardInterrupt):  # only ever in the caller: threads get none
                raise

    def result(self) -> Result:
        """Wait for the result, or raise the error of the work with the worker's stack in its traceback.

        A wait of more than a minute is told as a RuntimeWarning that shows where the worker is.
        """
        began = time.monotonic()
        patience = STALL
        while True:
            try:
                return self._future.result(timeout=min(GLANCE, patience))
            except TimeoutError:
                if self._future.done():  # the work itself timed out
                    raise
            waited = time.monotonic() - began
            if waited >= patience:
                warnings.warn(
                    f"{waited:.0f} s without {self.what}. {self._where()}", RuntimeWarning, stacklevel=2
                )
                patience *= 2

    @property
    def is_done(self) -> bool:
        """True where the result is there."""
        done = self._future.done() and not self._future.cancelled()
        return done and self._future.exception() is None

    def cancel(self) -> None:
        """Let it not be done if it has not begun."""
        self._future.cancel()

    def _where(self) -> str:
        worker = self.worker
        frame = sys._current_frames().get(worker.ident or -1) if worker is not None else None
        if worker is None or frame is None:
            return "No thread has begun with it."
        return f"{worker.name} is at:\n{''.join(traceback.format_stack(frame))}"


class Crew:
    """`threads` daemon threads; with 0, `submit` does the work at once in the caller."""

    def __init__(self, threads: int) -> None:
        self._queue: queue.SimpleQueue[Task[Any] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=_work, args=(self._queue,), name=f"terrazzo-data-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()
        # runs too when the crew is forgotten and at the interpreter's end: the threads do not keep the crew alive
        self._close = weakref.finalize(self, _dismiss, self._queue, self._threads)

    def submit(self, what: str, function: Callable[[], Result]) -> Task[Result]:
        """Return the task of doing `function`; `what` names its result should it stall, as in "sample 0001"."""
        assert self._close.alive, "a closed crew takes no tasks"
        task = Task(what, function)
        if self._threads:
            self._queue.put(task)
        else:
            task.run()
        return task

    def close(self) -> None:
        """Drop queued tasks and end the threads after their present one; may be called again."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()


def _work(tasks: "queue.SimpleQueue[Task[Any] | None]") -> None:
    while (task := tasks.get()) is not None:
        task.run()
        del task  # while waiting for the next one, hold no pixels of this one


def _dismiss(tasks: "queue.SimpleQueue[Task[Any] | None]", threads: Sequence[threading.Thread]) -> None:
    with contextlib.suppress(queue.Empty):
        while True:
            task = tasks.get_nowait()
            if task is not None:
                task.cancel()
    for _ in threads:
        tasks.put(None)
    until = time.monotonic() + FAREWELL
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(max(0.0, until - time.monotonic()))
