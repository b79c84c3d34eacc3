"""The line of images: each is decoded, seen, encoded, by threads beside the event loop.

    waiting -> decoded, a few ahead -> seen, alone or several in one pass where they fit -> encoded -> done

What waits is bytes as they came; pixels are held only of the few that are next, so memory follows `Limits.queue` and
not the size of images unpacked. Nobody waits for a batch to fill: one takes what is there, which is much when much is
asked. An image that breaks its pass is alone in its failure: the others of the pass are seen again one by one.

On a CPU passes run beside each other and share the threads: one image alone gets all of them, and when many wait each
pass has one, which does away with threads that wait for each other (SegFormer-B0, 1080p: 131 ms of one thread, or 95
of two, 2026-11). On a GPU a pass holds several images.
"""

import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from terrazzo.kernels.threads import MOST_PASSES, default_threads, use_threads
from terrazzo.serving.answers import Answer
from terrazzo.serving.limits import Limits
from terrazzo.serving.tally import Tally
from terrazzo.serving.uploads import decode
from terrazzo.web.problems import busy

if TYPE_CHECKING:
    from terrazzo.inference import Named, Predictor

HANDS = 2  # threads that decode and encode
GPU_BATCH, GPU_PASSES = 8, 2  # one is prepared while the other runs
SMOOTHING = 0.1  # weight of the newest image in the seconds an image takes


@dataclass(frozen=True)
class Model:
    """A model under the name by which it is asked for."""

    name: str
    """As in its URL."""
    predictor: "Predictor"
    """The model."""

    @property
    def is_on_gpu(self) -> bool:
        """Whether its network runs on an accelerator."""
        return self.predictor.eye.backend.device.type not in ("cpu", "meta")

    def seeing(self, batch: int) -> "Predictor":
        """Return the predictor that sees up to `batch` images in one pass; windows are batches already."""
        eval = self.predictor.eval
        if eval.inference != "whole" or eval.batch_size >= batch:
            return self.predictor
        return self.predictor.with_eval(replace(eval, batch_size=batch))


@dataclass(eq=False)
class Job:
    """One image and what is wanted of it."""

    model: Model
    """Which model sees it."""
    answer: Answer
    """The form of the answer."""
    body: bytes
    """As it was sent; empty once it is decoded, or nobody wants it any more."""
    is_json: bool = False
    """Whether the image lies in JSON, base64."""
    future: "Future[bytes]" = field(default_factory=Future)
    """The body of the answer, or the error; cancelled when the client has left."""
    began: float = field(default_factory=time.monotonic)
    """When it joined the line."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each stage took."""
    image: "Named | None" = None
    """The pixels, while they are needed."""
    found: Any = None
    """The prediction, or logits, until it is encoded."""

    def fits(self, other: "Job") -> bool:
        """Whether both can share a pass."""
        assert self.image is not None
        assert other.image is not None
        eye = self.model.predictor.eye
        return (
            other.model is self.model
            and other.answer.wants == self.answer.wants != "logits"
            and eye.eval.inference == "whole"
            and eye.sees(self.image.image) == eye.sees(other.image.image)
        )

    def settle(self, value: "bytes | BaseException") -> None:
        """Tell the answer or the error, unless nobody listens any more."""
        self.body, self.image, self.found = b"", None, None
        if self.future.set_running_or_notify_cancel():
            if isinstance(value, bytes):
                self.future.set_result(value)
            else:
                self.future.set_exception(value)


class Line:
    """The line and its threads; any thread may `put`."""

    def __init__(self, limits: Limits, tally: Tally, *, is_on_gpu: bool = False) -> None:
        self.limits, self.tally = limits, tally
        self.threads = default_threads()
        self.batch = limits.batch or (GPU_BATCH if is_on_gpu else 1)
        num_eyes = limits.passes or (GPU_PASSES if is_on_gpu else min(self.threads, MOST_PASSES))
        self._num_ahead = num_eyes * self.batch + HANDS
        self._num_looking = 0
        self.num_open = 0  # jobs neither answered nor given up
        self._waiting: deque[Job] = deque()
        self._decoded: deque[Job] = deque()
        self._seen: deque[Job] = deque()
        self._num_decoding = 0
        self._seconds_per_image = 0.1  # until measured
        self._is_closed = False
        self._change = threading.Condition()
        self._threads = [
            threading.Thread(target=self._hand, name=f"terrazzo-hand-{number}", daemon=True)
            for number in range(HANDS)
        ] + [
            threading.Thread(target=self._eye, name=f"terrazzo-eye-{number}", daemon=True)
            for number in range(num_eyes)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether every thread still works."""
        return not self._is_closed and all(thread.is_alive() for thread in self._threads)

    def refuse_if_full(self) -> None:
        """Raise the refusal that `put` would raise, before an image is read."""
        with self._change:
            if self.num_open >= self.limits.queue:
                raise self._full()

    def put(self, job: Job) -> None:
        """Let a job join; raises RefusalError, 429, when the line is full, and 503 when it is closed."""
        with self._change:
            if self._is_closed:
                raise busy("The server is stopping.", kind="stopping", seconds=5, status=503)
            if self.num_open >= self.limits.queue:
                raise self._full()
            self.num_open += 1
            self._waiting.append(job)
            self._change.notify_all()
        job.future.add_done_callback(lambda _: self._leave(job))

    def close(self, seconds: float) -> None:
        """Take no more jobs, and wait for those there are; what is not done after `seconds` is given up."""
        end = time.monotonic() + seconds
        with self._change:
            self._is_closed = True
            self._change.wait_for(lambda: self.num_open == 0, timeout=max(0.0, seconds))
            left = [*self._waiting, *self._decoded, *self._seen]
            self._change.notify_all()
        for job in left:
            job.future.cancel()
        for thread in self._threads:
            thread.join(max(0.1, end - time.monotonic()))

    def _full(self) -> BaseException:
        seconds = self.num_open * self._seconds_per_image / 2  # half of the line has gone by then
        return busy(f"{self.num_open} images wait already.", kind="queue-full", seconds=min(seconds, 60))

    def _leave(self, job: Job) -> None:
        """A job was answered or given up: the next may come."""
        with self._change:
            self.num_open -= 1
            if job.future.cancelled():
                job.body = b""
                if job in self._waiting:
                    self._waiting.remove(job)
            self._change.notify_all()

    # -- hands -----------------------------------------------------------------------------------------------------

    def _hand(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._is_over or bool(self._seen) or self._may_decode)
                if self._seen:
                    job, stage = self._seen.popleft(), self._encode  # what is done leaves first
                elif self._may_decode:
                    job, stage = self._waiting.popleft(), self._decode
                    self._num_decoding += 1
                else:
                    return
            stage(job)

    @property
    def _is_over(self) -> bool:
        return self._is_closed and self.num_open == 0

    @property
    def _may_decode(self) -> bool:
        return bool(self._waiting) and self._num_decoding + len(self._decoded) < self._num_ahead

    def _decode(self, job: Job) -> None:
        try:
            if not job.future.cancelled():
                self._time(job, "waiting", job.began)
                begun = time.monotonic()
                job.image = decode(job.body, job.model.predictor, self.limits, is_json=job.is_json)
                job.body = b""
                self._time(job, "decode", begun)
        except BaseException as error:
            job.settle(error)
        with self._change:
            self._num_decoding -= 1
            if job.image is not None:
                self._decoded.append(job)
            self._change.notify_all()

    def _encode(self, job: Job) -> None:
        try:
            if not job.future.cancelled():
                begun = time.monotonic()
                body = job.answer.encode(job.found)
                self._time(job, "encode", begun)
                job.settle(body)
        except BaseException as error:
            job.settle(error)

    # -- the eye ---------------------------------------------------------------------------------------------------

    def _eye(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._is_over or bool(self._decoded))
                if not self._decoded:
                    return
                batch = [job for job in self._next_batch() if not job.future.cancelled()]
                self._num_looking += 1
                share = max(1, self.threads // self._num_looking)
                self._change.notify_all()
            begun = time.monotonic()
            if batch:
                use_threads(share)
                self._look(batch)
            with self._change:
                self._num_looking -= 1
                self._seconds_per_image += SMOOTHING * (
                    (time.monotonic() - begun) / (len(batch) or 1) / (self._num_looking + 1)
                    - self._seconds_per_image
                )
                self._seen.extend(job for job in batch if job.found is not None)
                self._change.notify_all()

    def _look(self, batch: list[Job]) -> None:
        begun = time.monotonic()
        try:
            self._see(batch)
        except BaseException as error:
            if len(batch) == 1:
                batch[0].settle(error)
            else:
                self._see_one_by_one(batch)
        self.tally.observe("terrazzo_batch_images", len(batch), model=batch[0].model.name)
        for job in batch:
            self._time(job, "predict", begun)

    def _next_batch(self) -> list[Job]:
        """The first in line, and those behind it that fit."""
        first = self._decoded.popleft()
        batch: list[Job] = [first]
        others: list[Job] = []
        for job in self._decoded:
            fits = len(batch) < self.batch and first.fits(job)
            (batch if fits else others).append(job)
        self._decoded = deque(others)
        return batch

    def _see(self, batch: list[Job]) -> None:
        model, wants = batch[0].model, batch[0].answer.wants
        images = [job.image.image for job in batch if job.image is not None]
        if wants == "logits":
            found: list[Any] = [model.predictor.logits(images[0])]
        elif len(batch) == 1:
            found = [model.predictor(images[0], confidence=wants == "confidence")]
        else:
            found = model.seeing(len(batch))(images, confidence=wants == "confidence")
        for job, image, one in zip(batch, images, found, strict=True):
            job.found, job.image = one, None
            self.tally.add("terrazzo_pixels_total", image.shape[0] * image.shape[1], model=model.name)

    def _see_one_by_one(self, batch: list[Job]) -> None:
        for job in batch:
            try:
                self._see([job])
            except BaseException as error:
                job.settle(error)

    def _time(self, job: Job, stage: str, begun: float) -> None:
        job.seconds[stage] = time.monotonic() - begun
        self.tally.observe("terrazzo_stage_seconds", job.seconds[stage], model=job.model.name, stage=stage)
