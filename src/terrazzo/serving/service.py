"""One request, from its first byte to its answer; and the models, the line and the tally that all requests share."""

import asyncio
import os
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from terrazzo.errors import ImageFormatError, TerrazzoError, unknown_name
from terrazzo.serving.answers import Answer, answer_named
from terrazzo.serving.examples import Examples
from terrazzo.serving.limits import Limits
from terrazzo.serving.line import Job, Line, Model
from terrazzo.serving.tally import Tally
from terrazzo.serving.uploads import arrived, refuse_forms
from terrazzo.web.bodies import Intake
from terrazzo.web.problems import RefusalError, busy, problem, refusal_of

WARM_HW = (480, 640)  # of the image that a model sees before anyone else's: the examples' size
GONE = 499  # nobody reads this status: the client has left


class Service:
    """What every request shares. Nothing of one request is left for the next but counts."""

    def __init__(
        self, models: Sequence[Model], limits: Limits, *, examples: "str | os.PathLike[str] | None" = None
    ) -> None:
        self.models = {model.name: model for model in models}
        self.limits = limits
        self.tally = Tally()
        self.line = Line(limits, self.tally, is_on_gpu=any(model.is_on_gpu for model in models))
        self.intake = Intake(limits.held_bytes, limits.body_seconds)
        self.examples = Examples(examples)
        self.is_stopping = False
        self.tally.watch("terrazzo_line_images", lambda: self.line.num_open)
        self.tally.watch("terrazzo_line_limit", lambda: limits.queue)
        self.tally.watch("terrazzo_held_bytes", lambda: self.intake.held)
        self.tally.watch("terrazzo_ready", lambda: self.is_ready)

    @property
    def is_ready(self) -> bool:
        """Whether images are taken."""
        return not self.is_stopping and self.line.is_alive

    def begin_to_stop(self) -> None:
        """Take no more images."""
        self.is_stopping = True

    def warm_up(self) -> None:
        """Let every model see an image, so that what is compiled on first use is compiled before the first client."""
        import numpy as np

        for model in self.models.values():
            channels = model.predictor.channels or 3
            with suppress(ImageFormatError):  # a graph of one size; its first client waits a moment longer
                model.predictor(np.zeros((*WARM_HW, channels), np.uint8), confidence=True)

    def model_named(self, name: str) -> Model:
        """Return a model; raises UnknownNameError with the nearest."""
        if name not in self.models:
            raise unknown_name("model", name[:80], self.models)
        return self.models[name]

    def describe(self, model: Model) -> dict[str, Any]:
        """Return what clients may know of a model: its name, classes, channels, and where it is asked."""
        predictor = model.predictor
        return {
            "name": model.name,
            "url": f"/models/{quote(model.name)}",
            "classes": [
                {"name": name, "color": "#{:02x}{:02x}{:02x}".format(*color)}
                for name, color in zip(predictor.classes.names, predictor.classes.colors, strict=True)
            ],
            "channels": predictor.channels,
            "inference": predictor.eval.inference,
            "backend": predictor.eye.backend.says,
        }

    async def predict(self, request: Request, name: str | None, form: str) -> Response:
        """Answer with what the model called `name` (the first, where None) says of the image in the request."""
        try:
            model = next(iter(self.models.values())) if name is None else self.model_named(name)
            request.state.model = model.name
            return await self._answer(request, model, answer_named(form))
        except ClientDisconnect:
            self.tally.add("terrazzo_gone_total")
            return Response(status_code=GONE)
        except TerrazzoError as error:
            return problem(refusal_of(error))
        except MemoryError:
            return problem(
                RefusalError(413, "The image does not fit in the server's memory.", kind="out-of-memory")
            )
        except Exception:
            traceback.print_exc()
            return problem(
                RefusalError(
                    500,
                    "The server failed at this image.",
                    kind="bug",
                    hint="Its log says more. Others go on.",
                )
            )

    async def _answer(self, request: Request, model: Model, answer: Answer) -> Response:
        refuse_forms(request)
        self.line.refuse_if_full()
        with self.intake.room() as room:
            body = await arrived(room, request, self.limits)
            is_json = request.headers.get("content-type", "").lower().startswith("application/json")
            job = Job(model, answer, body, is_json)
            del body
            self.line.put(job)
            found = await self._wait(request, job)
        spent = ", ".join(f"{stage};dur={1000 * seconds:.1f}" for stage, seconds in job.seconds.items())
        headers = {"Server-Timing": spent, "Cache-Control": "no-store"}
        return Response(found, media_type=answer.media_type, headers=headers)

    async def _wait(self, request: Request, job: Job) -> bytes:
        """Return the answer; the job is given up when the client leaves, or time is up."""
        done: asyncio.Future[Any] = asyncio.wrap_future(job.future)
        left: asyncio.Future[Any] = asyncio.ensure_future(
            request.receive()
        )  # the body is complete: only "disconnect" can follow
        try:
            await asyncio.wait(
                {done, left}, timeout=self.limits.answer_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if done.done():
                found: bytes = done.result()
                return found
            if left.done():
                raise ClientDisconnect
            raise busy(
                f"The image was not answered within {self.limits.answer_seconds:g} s.",
                kind="too-slow",
                seconds=self.limits.answer_seconds / 4,
                status=503,
            )
        finally:
            left.cancel()
            done.cancel()  # and the job with it, unless it is done
