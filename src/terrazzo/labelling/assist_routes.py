"""Routes of what helps to draw. Everything is asked of one sample, by its number; nothing is written to the project.

GET  superpixels?box=x0,y0,x1,y1   200 the packed cells (`superpixels.pack`), or 202 {job} while they are made
POST assist/grabcut                {box, positive, negative} -> {x, y, width, height, data, engine, ms}
POST assist/sam                    the same, box or points; 202 {job} while the image is read
POST assist/embedding              {} -> 200 {} once SAM has read the image, else 202 {job}: for the image that is next
POST assist/scissors               {view, anchor, target} -> {points}
"""

import time
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from terrazzo.errors import UsageError
from terrazzo.labelling.assist import Assist
from terrazzo.labelling.bodies import Told
from terrazzo.labelling.jobs import Job
from terrazzo.labelling.prompts import Proposal, as_box, as_point, as_prompt
from terrazzo.labelling.shelf import Shelf
from terrazzo.labelling.superpixels import Box, checked_box
from terrazzo.project import Project
from terrazzo.project.samples import Entry

PROMPT = ("box", "positive", "negative")
MOST_BYTES = 1 << 16  # of a question


def routes(shelf: Shelf) -> APIRouter:
    """Return the routes."""
    api = APIRouter(prefix="/projects/{name}/samples/{number}")
    assist = Assist(shelf.jobs)
    shelf.sam = assist.readiness

    def of(name: str, number: int) -> tuple[Project, Entry]:
        project = shelf.project(name)
        return project, project.samples.numbered(number)

    @api.get("/superpixels")
    def superpixels(request: Request, name: str, number: int, box: str | None = None) -> Response:
        project, one = of(name, number)
        part = None if box is None else _box_of(box, one)
        key, found = assist.superpixels(project, one, part)
        if isinstance(found, Job):
            return _waits(found)
        headers = {"ETag": f'"{key[:32]}"', "Cache-Control": "private, no-cache"}
        if request.headers.get("if-none-match") == headers["ETag"]:
            return Response(status_code=304, headers=headers)
        return Response(found, media_type="application/octet-stream", headers=headers)

    @api.post("/assist/grabcut")
    def grabcut(
        request: Request, name: str, number: int, told: Annotated[Told, shelf.said(*PROMPT, most=MOST_BYTES)]
    ) -> Response:
        shelf.need(request, "labeller")
        project, one = of(name, number)
        prompt = as_prompt(
            {key: told.get(key) for key in PROMPT if told.has(key)}, one.size_hw, needs_box=True
        )
        return _answered(lambda: assist.grabcut(project, one, prompt))

    @api.post("/assist/sam")
    def sam(
        request: Request, name: str, number: int, told: Annotated[Told, shelf.said(*PROMPT, most=MOST_BYTES)]
    ) -> Response:
        shelf.need(request, "labeller")
        project, one = of(name, number)
        prompt = as_prompt({key: told.get(key) for key in PROMPT if told.has(key)}, one.size_hw)
        return _answered(lambda: assist.sam(project, one, prompt))

    @api.post("/assist/embedding")
    def embedding(
        request: Request, name: str, number: int, told: Annotated[Told, shelf.said(most=MOST_BYTES)]
    ) -> Response:
        shelf.need(request, "labeller")
        found = assist.embedding(*of(name, number))
        return _waits(found) if isinstance(found, Job) else JSONResponse({})

    @api.post("/assist/scissors")
    def scissors(
        request: Request,
        name: str,
        number: int,
        told: Annotated[Told, shelf.said("view", "anchor", "target", most=MOST_BYTES)],
    ) -> Response:
        shelf.need(request, "labeller")
        project, one = of(name, number)
        view = as_box(told.get("view"), one.size_hw)
        anchor, target = (as_point(told.get(end), one.size_hw) for end in ("anchor", "target"))
        return JSONResponse({"points": assist.scissors(project, one, view, anchor, target)})

    return api


def _waits(job: Job) -> Response:
    return JSONResponse({"job": job.id}, status_code=202)


def _answered(ask: Callable[[], Proposal | Job]) -> Response:
    begun = time.perf_counter()
    found = ask()
    if isinstance(found, Job):
        return _waits(found)
    told: dict[str, Any] = found.to_json()
    return JSONResponse({**told, "ms": round(1000 * (time.perf_counter() - begun))})


def _box_of(text: str, one: Entry) -> Box:
    try:
        x0, y0, x1, y1 = (int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError("A box is four whole numbers.", found=text[:80], expected="x0,y0,x1,y1") from error
    return checked_box((x0, y0, x1, y1), one.size_hw)
