"""Work that takes longer than an answer may: superpixels, predictions, trainings; few at a time, cancelled when asked.

A job is a function of two: `progress(part, says)`, to be called now and then, and `is_cancelled()`, to be asked as
often. Quick ones and slow ones stand in lines of their own, so that a training keeps nobody from their superpixels.
Jobs live as long as the server: what they make stands in the project.
"""

import itertools
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Literal

from terrazzo.errors import TerrazzoError, unknown_name
from terrazzo.labelling.events import Events
from terrazzo.web.problems import busy

State = Literal["waiting", "running", "done", "failed", "cancelled"]
Work = Callable[[Callable[..., None], Callable[[], bool]], Any]
LINES = {  # kind -> the line it stands in, which has one worker; all others stand in "quick"
    "predict": "slow",
    "train": "slow",
    "score": "slow",
    "embedding": "reading",  # an image, by SAM: seconds, while superpixels should not wait
}
WORKERS = 2  # of quick jobs
WAITING = 500  # jobs in a line
KEPT = 500  # jobs that are over and still told of
TOLD_EVERY = 0.25  # seconds between two events of one job


@dataclass(eq=False)
class Job:
    """One piece of work."""

    id: str
    kind: str
    key: Hashable
    project: str | None
    work: Work = field(repr=False)
    state: State = "waiting"
    progress: float = 0.0
    says: str = ""
    result: Any = None
    problem: dict[str, Any] | None = None
    is_cancelled: bool = False
    told_at: float = 0.0
    is_over: threading.Event = field(default_factory=threading.Event, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return what clients are told of it."""
        names = ("id", "kind", "state", "progress", "says", "result", "problem")
        return {name: getattr(self, name) for name in names}


class Cancelled(Exception):
    """Raised inside a job by `progress` once somebody cancelled it."""


class Jobs:
    """All jobs of a server."""

    def __init__(self, events: Events, told: Callable[[TerrazzoError], dict[str, Any]]) -> None:
        """told: an error of ours as clients are told of it, plain JSON."""
        self._events, self._told = events, told
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._jobs: dict[str, Job] = {}
        self._lines: dict[str, deque[Job]] = {name: deque() for name in ("quick", *LINES.values())}
        self._threads: list[threading.Thread] = []
        self._is_closed = False

    def start(self, kind: str, key: Hashable, work: Work, *, project: str | None = None) -> Job:
        """Do some work in the background; returns its job, or the one of that kind and key that is not over yet.

        work(progress, is_cancelled) returns plain JSON. project: whose pages are told of it.
        """
        line = LINES.get(kind, "quick")
        with self._changed:
            for job in self._jobs.values():
                if (job.kind, job.key) == (kind, key) and not job.is_over.is_set():
                    return job
            if self._is_closed or len(self._lines[line]) >= WAITING:
                raise busy("The server has as much to do as it may.", kind="jobs-full", seconds=5, status=503)
            job = Job(str(next(self._numbers)), kind, key, project, work)
            self._jobs[job.id] = job
            self._lines[line].append(job)
            self._forget()
            if sum(thread.name == line for thread in self._threads) < (WORKERS if line == "quick" else 1):
                thread = threading.Thread(
                    target=self._work, args=(self._lines[line],), name=line, daemon=True
                )
                self._threads.append(thread)
                thread.start()
            self._changed.notify_all()
        self._tell(job)
        return job

    def get(self, number: str) -> Job:
        """Return a job; UnknownNameError where there is none of this number, or it was over long ago."""
        with self._changed:
            if number not in self._jobs:
                raise unknown_name("job", number[:80], list(self._jobs)[-20:])
            return self._jobs[number]

    def all(self, project: str | None = None) -> list[Job]:
        """Return the jobs there are, or those of a project."""
        with self._changed:
            return [job for job in self._jobs.values() if project in (None, job.project)]

    def cancel(self, number: str) -> Job:
        """Ask a job to end; one that waits ends at once, one that runs when it next looks."""
        job = self.get(number)
        with self._changed:
            job.is_cancelled = True
            for line in self._lines.values():
                if job in line:
                    line.remove(job)
                    job.state = "cancelled"
                    job.is_over.set()
        self._tell(job)
        return job

    def close(self) -> None:
        """Cancel everything, and wait a moment for what runs."""
        with self._changed:
            self._is_closed = True
            jobs = [job for job in self._jobs.values() if not job.is_over.is_set()]
            self._changed.notify_all()
        for job in jobs:
            self.cancel(job.id)
        for thread in self._threads:
            thread.join(5)

    def _work(self, line: "deque[Job]") -> None:
        while True:
            with self._changed:
                while not line:
                    if self._is_closed:
                        return
                    self._changed.wait()
                job = line.popleft()
                job.state = "running"
            self._tell(job)
            self._do(job)
            self._tell(job)

    def _do(self, job: Job) -> None:
        def progress(part: float, says: str = "") -> None:
            if job.is_cancelled:
                raise Cancelled
            job.progress, job.says = min(1.0, max(0.0, float(part))), says
            if time.monotonic() - job.told_at >= TOLD_EVERY:
                self._tell(job)

        try:
            job.result = job.work(progress, lambda: job.is_cancelled)
            job.state = "cancelled" if job.is_cancelled else "done"
            job.progress = job.progress if job.is_cancelled else 1.0
        except Cancelled:
            job.state = "cancelled"
        except TerrazzoError as error:
            job.problem, job.state = self._told(error), "failed"
        except Exception:
            traceback.print_exc()
            job.problem = {"title": "The server failed.", "detail": "Its log says more.", "status": 500}
            job.state = "failed"
        finally:
            job.is_over.set()

    def _forget(self) -> None:
        over = [job for job in self._jobs.values() if job.is_over.is_set()]
        for job in over[: max(0, len(over) - KEPT)]:
            del self._jobs[job.id]

    def _tell(self, job: Job) -> None:
        job.told_at = time.monotonic()
        if job.project is not None:
            self._events.send(job.project, {"kind": "job", "job": job.to_json()})
