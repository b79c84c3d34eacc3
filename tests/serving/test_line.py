"""Many at once: passes are shared, the line is bounded, who leaves is forgotten, and the end is orderly."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest

from served import COLORS, FLAG, FLAG_MASK, NAN_GREY, Answer, BrightestChannel, Served, flag, png, served
from terrazzo.inference import Predictor
from terrazzo.recipe import EvalConfig
from terrazzo.serving.limits import Limits
from terrazzo.serving.tally import resident_bytes


def until(claim: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.005)


def post_in_threads(
    server: Served, bodies: list[bytes], answers: dict[int, Answer]
) -> list[threading.Thread]:
    """Post each in a thread of its own, in this order; answers are put under their numbers."""

    def post(number: int, body: bytes) -> None:
        answers[number] = server.post(body)

    threads = [threading.Thread(target=post, args=item) for item in enumerate(bodies)]
    for number, thread in enumerate(threads):
        thread.start()
        until(lambda n=number: server.service.line.num_open > n)  # in this order
    return threads


def test_images_that_wait_together_share_a_pass_where_they_fit() -> None:
    tall = png(flag(9, 6))
    with served(Limits(batch=3, passes=1)) as server:
        server.backend.may_look.clear()
        answers: dict[int, Answer] = {}
        threads = post_in_threads(server, [FLAG, FLAG, FLAG, tall, FLAG, FLAG], answers)
        until(lambda: len(server.service.line._decoded) == 5)
        server.backend.may_look.set()
        for thread in threads:
            thread.join()
        # the first alone, for it came first; three of one size; the tall one; what is left of the first size
        assert server.backend.batches == [1, 3, 1, 1]
        assert [answer.status for answer in answers.values()] == [200] * 6
        assert answers[3].array.shape == (9, 6)
        assert all(answers[n].array.tolist() == FLAG_MASK.tolist() for n in (0, 1, 2, 4, 5))
        text = server.ask("GET", "/metrics").body.decode()
        assert 'terrazzo_batch_images_bucket{model="rgb",le="2.0"} 3' in text
        assert 'terrazzo_batch_images_count{model="rgb"} 4' in text
        assert 'terrazzo_requests_total{model="rgb",route="/models/{name:path}",status="200"} 6' in text


def test_an_image_that_breaks_its_pass_breaks_it_alone() -> None:
    broken = flag()
    broken[0, 0] = NAN_GREY
    with served(Limits(batch=4, passes=1)) as server:
        server.backend.may_look.clear()
        answers: dict[int, Answer] = {}
        threads = post_in_threads(server, [FLAG, FLAG, png(broken), FLAG], answers)
        until(lambda: len(server.service.line._decoded) == 3)
        server.backend.may_look.set()
        for thread in threads:
            thread.join()
        assert server.backend.batches == [1, 3, 1, 1, 1]
        assert [answers[n].status for n in range(4)] == [200, 200, 500, 200]
        assert answers[2].json["title"] == "The network's answer is not a number (NaN)."
        assert answers[3].array.tolist() == FLAG_MASK.tolist()


def test_a_full_line_says_when_to_come_again() -> None:
    with served(Limits(queue=2)) as server:
        server.backend.may_look.clear()
        answers: dict[int, Answer] = {}
        threads = post_in_threads(server, [FLAG, FLAG], answers)
        refused = server.post(FLAG)
        assert refused.status == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 60
        assert refused.json["title"] == "2 images wait already."
        assert refused.json["type"] == "urn:terrazzo:queue-full"
        server.backend.may_look.set()
        for thread in threads:
            thread.join()
        assert [answer.status for answer in answers.values()] == [200, 200]
        assert server.post(FLAG).status == 200


def test_who_leaves_gives_up_the_place_and_is_not_looked_at() -> None:
    with served(Limits(queue=3, passes=1)) as server:
        server.backend.may_look.clear()
        answers: dict[int, Answer] = {}
        (thread,) = post_in_threads(server, [FLAG], answers)
        assert server.backend.is_looking.wait(10)
        head = f"POST /models/rgb HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(FLAG)}\r\n\r\n".encode()
        clients = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(2)]
        for client in clients:
            client.sendall(head + FLAG)
        until(lambda: server.service.line.num_open == 3)
        assert server.post(FLAG).status == 429
        for client in clients:
            client.close()
        until(lambda: server.service.line.num_open == 1)
        assert server.service.intake.held == len(FLAG)
        server.backend.may_look.set()
        thread.join()
        assert server.post(FLAG).status == 200
        assert server.backend.batches == [1, 1]
        assert server.service.tally.total("terrazzo_gone_total") == 2


def test_what_takes_too_long_is_told_so_and_let_go() -> None:
    with served(Limits(answer_seconds=0.3)) as server:
        server.backend.may_look.clear()
        slow = server.post(FLAG)
        assert (slow.status, slow.json["type"]) == (503, "urn:terrazzo:too-slow")
        assert "Retry-After" in slow.headers
        until(lambda: server.service.line.num_open == 0)
        server.backend.may_look.set()
        assert server.post(FLAG).status == 200


def test_uploads_together_are_bounded() -> None:
    with served(Limits(held_bytes=3 * len(FLAG))) as server:
        server.backend.may_look.clear()
        answers: dict[int, Answer] = {}
        threads = post_in_threads(server, [FLAG, FLAG, FLAG], answers)
        refused = server.post(FLAG)
        assert (refused.status, refused.json["type"]) == (429, "urn:terrazzo:uploads-full")
        server.backend.may_look.set()
        for thread in threads:
            thread.join()
        until(lambda: server.service.intake.held == 0)


def test_windows_are_seen_one_image_at_a_time() -> None:
    backend = BrightestChannel()
    look = EvalConfig(inference="windows", window_hw=(4, 4), stride_hw=(4, 2), batch_size=2)
    with served(models={"windows": Predictor(backend, COLORS, eval=look)}) as server:
        backend.batches.clear()
        assert server.post(FLAG, model="windows").array.tolist() == FLAG_MASK.tolist()
        assert backend.batches == [2]


def soak(server: Served, clients: int, seconds: float) -> tuple[Counter[int], list[float]]:
    """Ask without pause from `clients` threads; returns statuses and the seconds of those answered 200."""
    end = time.monotonic() + seconds
    statuses: Counter[int] = Counter()
    spent: list[float] = []

    def client(_: int) -> None:
        while time.monotonic() < end:
            begun = time.monotonic()
            answer = server.post(FLAG)
            statuses[answer.status] += 1
            if answer.status == 200:
                assert answer.array.tolist() == FLAG_MASK.tolist()
                spent.append(time.monotonic() - begun)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    return statuses, spent


class Slow(BrightestChannel):
    """Five milliseconds a pass."""

    def __call__(self, image_BCHW):  # type: ignore[no-untyped-def]
        time.sleep(0.005)
        return super().__call__(image_BCHW)


@pytest.mark.parametrize("seconds", [1, pytest.param(600, marks=pytest.mark.long)])
def test_beyond_its_capacity_there_is_nothing_but_429_and_memory_stays(seconds: float) -> None:
    with served(Limits(queue=4), backend=Slow()) as server:
        soak(server, 12, 0.5)
        before = resident_bytes()
        statuses, spent = soak(server, 12, seconds)
        after = resident_bytes()
        assert set(statuses) == {200, 429}
        assert statuses[200] > 20 * seconds
        assert max(spent) < 5
        assert before is not None
        assert after is not None
        assert after - before < 40 << 20
        assert server.service.intake.held == server.service.line.num_open == 0
    print(f"{seconds} s: {dict(statuses)}, memory {before >> 20} -> {after >> 20} MiB")


@pytest.mark.parametrize("count", [300, pytest.param(10_000, marks=pytest.mark.long)])
def test_everyone_of_many_at_once_gets_an_answer(count: int) -> None:
    head = f"POST /models/rgb HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(FLAG)}\r\n\r\n"
    with served(Limits(queue=8)) as server, ExitStack() as stack:
        server.backend.may_look.clear()
        clients = []
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", server.port), timeout=60)
            clients.append(stack.enter_context(client))
            client.sendall(head.encode() + FLAG)
        until(lambda: server.service.tally.total("terrazzo_requests_total", model="rgb") == count - 8, 60)
        server.backend.may_look.set()
        statuses = Counter(client.recv(12)[9:] for client in clients)
        assert statuses == {b"200": 8, b"429": count - 8}
        assert server.post(FLAG).status == 200


def test_readiness_ends_before_the_server_does_and_what_is_in_flight_is_finished() -> None:
    with served() as server:
        assert server.ask("GET", "/readyz").json == {"status": "ready"}
        server.service.is_stopping = True
        answer = server.ask("GET", "/readyz")
        assert (answer.status, answer.json) == (503, {"status": "stopping"})


SLOW_SERVER = """
import sys, time
from served import COLORS, BrightestChannel
from terrazzo.inference import Predictor
from terrazzo.serving import serve

class Slow(BrightestChannel):
    def __call__(self, image):
        if image.shape[2:] == (4, 6):
            print("looking", flush=True)
            time.sleep(1.0)
        return super().__call__(image)

serve({"rgb": Predictor(Slow(), COLORS)}, port=0)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_a_signal_finishes_what_is_in_flight_and_ends_with_0(number: int) -> None:
    folder = os.path.dirname(os.path.dirname(__file__))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([folder, *filter(None, [os.environ.get("PYTHONPATH")])])
    }
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_SERVER],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        port = int(re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())[1])  # type: ignore[index]
        with ThreadPoolExecutor(1) as pool:
            running = Served(port, None, None)  # type: ignore[arg-type]
            answer = pool.submit(running.post, FLAG)
            assert process.stdout.readline() == "looking\n"
            process.send_signal(number)
            assert answer.result(60).array.tolist() == FLAG_MASK.tolist()
        assert process.wait(60) == 0
        assert process.stdout.read() == "Stopped after 1 request.\n"
        assert process.stderr.read() == ""
    with pytest.raises(ConnectionError):
        socket.create_connection(("127.0.0.1", port))


def test_large_masks_and_many_classes_come_back_in_16_bits() -> None:
    from terrazzo.classes import Classes

    class Many(BrightestChannel):
        def __call__(self, image_BCHW):  # type: ignore[no-untyped-def]
            logits = np.zeros((len(image_BCHW), 300, 1, 1), np.float32)
            logits[:, 290] = 1
            return logits

    names = Classes(tuple(f"class {number}" for number in range(300)))
    with served(models={"many": Predictor(Many(), names)}) as server:
        assert (server.post(FLAG, "map", model="many").array == 290).all()
        layers = server.post(FLAG, "layers", model="many").array
        assert layers[0, 0, :2].tolist() == [290 - 256, 1]
