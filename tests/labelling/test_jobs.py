"""Work in the background: few at a time, told of, cancelled; and pages that listen."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from terrazzo.errors import ProjectError, TerrazzoError, UnknownNameError
from terrazzo.labelling import jobs as room
from terrazzo.labelling.events import WAITING, Events
from terrazzo.labelling.jobs import Jobs
from terrazzo.web.problems import RefusalError


class Heard(Events):
    """Events that are kept, for a test to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[tuple[str, dict[str, object]]] = []

    def send(self, project: str, event: dict[str, object]) -> None:
        self.sent.append((project, event))
        super().send(project, event)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def jobs(heard: Heard) -> Iterator[Jobs]:
    made = Jobs(heard, told)
    yield made
    made.close()


def told(error: TerrazzoError) -> dict[str, Any]:
    return {"title": error.what, "detail": str(error)}


def wait(says: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not says():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.002)


def test_a_job_is_done_and_tells_what_it_made(jobs: Jobs, heard: Heard) -> None:
    def work(progress: Callable[..., None], is_cancelled: Callable[[], bool]) -> dict[str, int]:
        progress(0.5, "half")
        assert not is_cancelled()
        return {"cells": 7}

    job = jobs.start("superpixels", ("street", 1), work, project="street")
    assert job.is_over.wait(20)
    told = jobs.get(job.id).to_json()
    assert (told["state"], told["progress"], told["says"], told["result"]) == (
        "done",
        1.0,
        "half",
        {"cells": 7},
    )
    wait(lambda: heard.sent[-1][1]["job"]["state"] == "done")  # type: ignore[index]
    assert {project for project, _ in heard.sent} == {"street"}
    states = [event["job"]["state"] for _, event in heard.sent]  # type: ignore[index]
    assert states[0] in ("waiting", "running") and states[-1] == "done"
    with pytest.raises(UnknownNameError):
        jobs.get("no such job")


def test_the_same_work_is_not_done_twice_at_a_time(jobs: Jobs) -> None:
    may_end, runs = threading.Event(), []

    def work(progress: object, is_cancelled: object) -> None:
        runs.append(1)
        may_end.wait(20)

    first = [jobs.start("superpixels", ("street", 1), work) for _ in range(5)]
    other = jobs.start("superpixels", ("street", 2), work)
    assert {job.id for job in first} == {first[0].id} != {other.id}
    may_end.set()
    assert first[0].is_over.wait(20) and other.is_over.wait(20)
    assert len(runs) == 2
    assert jobs.start("superpixels", ("street", 1), work).id != first[0].id, "what is over may be done again"


def test_what_fails_says_why_in_words_and_others_go_on(jobs: Jobs, capfd: pytest.CaptureFixture[str]) -> None:
    def mistaken(progress: object, is_cancelled: object) -> None:
        raise ProjectError("The project has no images.", hint="Add some.")

    def broken(progress: object, is_cancelled: object) -> None:
        raise ZeroDivisionError("secret path /root")

    one, two = jobs.start("import", 1, mistaken), jobs.start("import", 2, broken)
    three = jobs.start("import", 3, lambda progress, is_cancelled: "fine")
    for job in (one, two, three):
        assert job.is_over.wait(20)
    wait(lambda: three.state == "done")
    assert one.state == "failed" and one.problem is not None and "Add some." in one.problem["detail"]
    assert two.state == "failed" and two.problem is not None and "secret" not in str(two.problem)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_job_that_waits_is_cancelled_at_once_and_one_that_runs_when_it_looks(jobs: Jobs) -> None:
    running, may_end = threading.Event(), threading.Event()

    def work(progress: Callable[..., None], is_cancelled: Callable[[], bool]) -> None:
        running.set()
        while not may_end.wait(0.001):
            progress(0.1)

    training = jobs.start("train", 1, work)
    waiting = jobs.start("predict", 2, work)
    assert running.wait(20)
    assert jobs.cancel(waiting.id).state == "cancelled", "slow jobs stand in one line"
    assert training.state == "running"
    jobs.cancel(training.id)
    assert training.is_over.wait(20) and training.state == "cancelled"
    quick = jobs.start("superpixels", 3, lambda progress, is_cancelled: 1)
    assert quick.is_over.wait(20)
    assert jobs.cancel(quick.id).state == "done", "what is done is done"


def test_slow_work_keeps_nobody_from_quick_work(jobs: Jobs) -> None:
    may_end = threading.Event()
    slow = [
        jobs.start("train", number, lambda progress, is_cancelled: may_end.wait(20)) for number in range(3)
    ]
    quick = jobs.start("superpixels", 1, lambda progress, is_cancelled: 1)
    assert quick.is_over.wait(20)
    assert [job.state for job in slow].count("running") <= 1
    may_end.set()
    assert all(job.is_over.wait(20) for job in slow)


def test_there_are_never_more_workers_than_there_may_be(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once, most, lock = 0, 0, threading.Lock()

    def work(progress: object, is_cancelled: object) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.005)
        with lock:
            at_once -= 1

    started = [jobs.start("superpixels", number, work) for number in range(30)]
    assert all(job.is_over.wait(20) for job in started)
    assert most <= room.WORKERS
    monkeypatch.setattr(room, "WAITING", 0)
    with pytest.raises(RefusalError, match="as much to do as it may"):
        jobs.start("superpixels", "one more", work)


def test_jobs_that_are_over_are_forgotten_in_the_end(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "KEPT", 3)
    for number in range(10):
        assert jobs.start("superpixels", number, lambda progress, is_cancelled: 1).is_over.wait(20)
    assert len(jobs.all()) <= 4 and jobs.all()[-1].key == 9


def test_the_end_cancels_what_runs_and_waits_for_it(heard: Heard) -> None:
    jobs = Jobs(heard, told)
    running = threading.Event()

    def work(progress: Callable[..., None], is_cancelled: Callable[[], bool]) -> None:
        running.set()
        while not is_cancelled():
            time.sleep(0.001)

    job = jobs.start("train", 1, work)
    assert running.wait(20)
    jobs.close()
    assert job.state == "cancelled"
    with pytest.raises(RefusalError):
        jobs.start("train", 2, work)


# -- listeners -----------------------------------------------------------------------------------------------------


def test_listeners_hear_their_project_alone_and_a_deaf_one_is_let_go() -> None:
    async def walk() -> None:
        events = Events(most=2)
        one, other = events.listen("street"), events.listen("field")
        with pytest.raises(RefusalError, match="Too many pages"):
            events.listen("street")
        assert await anext(one) == await anext(other) == b"retry: 1000\n\n"
        events.send("street", {"kind": "status", "says": "über"})
        assert await anext(one) == 'data: {"kind": "status", "says": "über"}\n\n'.encode()
        for _ in range(WAITING + 10):  # the other does not read
            events.send("field", {"kind": "revision"})
        heard = [part async for part in other]
        assert len(heard) == WAITING, "then its connection ends, and it looks at everything anew"
        events.close()
        assert [part async for part in one] == []
        with pytest.raises(RefusalError):
            events.listen("street")

    asyncio.run(walk())
