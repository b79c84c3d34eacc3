"""Our own small thread pool: independent pieces of one kernel call, spread over threads.

Results never depend on how many threads there are: what a piece is, is decided by shapes alone, and results come back
in the order of the pieces. Safe after a fork (the child makes its own pool) and from several threads at once.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")

MOST_PASSES = 8  # of a network beside each other on a CPU: each holds its activations

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}  # (process id, workers) -> pool
_lock = threading.Lock()


def default_threads() -> int:
    """Return torch's thread count where torch is loaded (1 in its data-loader workers), else the usable cores."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):  # it may be half imported, by another thread
        return max(1, int(torch.get_num_threads()))
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def shared_by(workers: int) -> Iterator[None]:
    """While inside, torch and our kernels use a share of their threads, for `workers` callers beside each other.

    For the whole process: torch keeps one count.
    """
    before = default_threads()
    use_threads(max(1, before // workers))
    try:
        yield
    finally:
        use_threads(before)


def use_threads(count: int) -> None:
    """Let torch, and our kernels after it, use `count` threads from now on, in the whole process."""
    import torch

    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def spread(
    task: Callable[[Piece], Result], pieces: Iterable[Piece], *, threads: int | None = None
) -> list[Result]:
    """Return [task(piece) for piece in pieces], worked on by up to `threads` threads, the caller being one of them.

    The first error of a task is raised, after the others have ended. A task that spreads its own work cannot
    deadlock: the caller takes pieces until none is left and waits only for pieces that are being worked on.
    """
    work = list(pieces)
    workers = min(default_threads() if threads is None else max(1, threads), len(work))
    if workers <= 1:
        return [task(piece) for piece in work]
    results: list[Any] = [None] * len(work)
    errors: list[BaseException] = []
    waiting = iter(enumerate(work))
    taking = threading.Lock()

    def take() -> None:
        while not errors:
            with taking:
                index, piece = next(waiting, (-1, None))
            if index < 0:
                return
            try:
                results[index] = task(piece)  # type: ignore[arg-type]
            except BaseException as error:
                errors.append(error)

    helpers: list[Future[None]] = []
    with contextlib.suppress(
        RuntimeError
    ):  # no thread to be had (a limit, an interpreter that is ending): do it alone
        helpers.extend(_pool(workers - 1).submit(take) for _ in range(workers - 1))
    take()
    for helper in helpers:
        if not helper.cancel():
            helper.result()
    if errors:
        raise errors[0]
    return results


def _pool(workers: int) -> ThreadPoolExecutor:
    key = os.getpid(), workers
    with _lock:
        if key not in _pools:
            _pools[key] = ThreadPoolExecutor(workers, thread_name_prefix="terrazzo-kernel")
        return _pools[key]


def _forget_after_fork() -> None:
    """Another thread may have held the lock while forking; the parent's pools are not found again, by their key."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(after_in_child=_forget_after_fork)
