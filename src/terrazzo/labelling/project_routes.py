"""Routes of the shelf and of a whole project: its categories, its events, its log, jobs."""

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from terrazzo import __version__
from terrazzo.errors import UsageError, unknown_name
from terrazzo.exchange import WAYS_IN, WAYS_OUT
from terrazzo.labelling import forms
from terrazzo.labelling.bodies import Told
from terrazzo.labelling.shelf import Shelf
from terrazzo.labelling.tools import readiness
from terrazzo.project import Project
from terrazzo.project.categories import COLOR, Category


def routes(shelf: Shelf) -> APIRouter:
    """Return the routes."""
    api = APIRouter()

    @api.get("/")
    def home(request: Request) -> JSONResponse:
        person = shelf.who(request)
        return JSONResponse(
            {
                "version": __version__,
                "user": person.name,
                "role": person.role,
                "is_single_user": shelf.is_single_user,
                "projects": [shelf.counts(name) for name in shelf.names()],
            }
        )

    @api.post("/projects")
    def make(request: Request, told: Annotated[Told, shelf.said("name")]) -> JSONResponse:
        person = shelf.need(request, "admin")
        project = shelf.create(told.text("name"), person.name)
        return JSONResponse(shelf.counts(project.name), status_code=201)

    @api.get("/projects/{name}")
    def look(request: Request, name: str) -> JSONResponse:
        project, person = shelf.project(name), shelf.who(request)
        limits = shelf.limits
        return JSONResponse(
            {
                "name": project.name,
                "root": project.root.name,
                "user": person.name,
                "role": person.role,
                "is_single_user": shelf.is_single_user,
                "is_read_only": project.store.is_read_only,
                "counts": project.counts(),
                "categories": forms.categories(project),
                "labelsets": project.predictions.labelsets(),
                "models": shelf.models_of(name),
                "tools": {**readiness(), "sam": shelf.sam()},
                "releases": forms.releases(project),
                "formats": list(WAYS_OUT),
                "imports": list(WAYS_IN),
                "limits": {"image_bytes": limits.max_image_bytes, "pixels": limits.max_pixels},
            }
        )

    @api.get("/projects/{name}/categories")
    def categories(name: str) -> JSONResponse:
        return JSONResponse(forms.categories(shelf.project(name)))

    @api.post("/projects/{name}/categories")
    def add_category(
        request: Request,
        name: str,
        told: Annotated[Told, shelf.said("name", "color", "has_instances", "is_ignore")],
    ) -> JSONResponse:
        person = shelf.need(request, "labeller")
        project = shelf.writable(name)
        color = told.maybe_text("color")
        added = project.categories.add(
            told.text("name"),
            color=None if color is None else _rgb(color),
            has_instances=told.flag("has_instances", False),
            is_ignore=told.flag("is_ignore", False),
            author=person.name,
        )
        shelf.tell(name, "categories")
        return JSONResponse(forms.category(added, {}), status_code=201)

    @api.patch("/projects/{name}/categories/{number}")
    def change_category(
        request: Request,
        name: str,
        number: int,
        told: Annotated[Told, shelf.said("name", "color", "is_ignore")],
    ) -> JSONResponse:
        author = shelf.need(request, "labeller").name
        project = shelf.writable(name)
        one = _category(project, number)
        if told.has("color"):
            project.categories.recolor(one.name, _rgb(told.text("color")), author=author)
        if told.has("is_ignore"):
            project.categories.set_ignore(one.name, told.flag("is_ignore"), author=author)
        if told.has("name"):
            project.categories.rename(one.name, told.text("name"), author=author)
        shelf.tell(name, "categories")
        return JSONResponse(forms.category(_category(project, number), project.holdings.pixels()))

    @api.delete("/projects/{name}/categories/{number}")
    def delete_category(request: Request, name: str, number: int) -> Response:
        author = shelf.need(request, "admin").name
        project = shelf.writable(name)
        project.delete_category(_category(project, number).name, author=author)
        shelf.tell(name, "categories")
        return Response(status_code=204)

    @api.post("/projects/{name}/categories/{number}/merge")
    def merge_category(
        request: Request, name: str, number: int, told: Annotated[Told, shelf.said("into", "dry_run")]
    ) -> JSONResponse:
        author = shelf.need(request, "admin").name
        project = shelf.writable(name)
        one, into = _category(project, number), _category(project, told.whole("into"))
        is_dry = told.flag("dry_run", False)
        plan = (
            project.plan_merge(one.name, into.name)
            if is_dry
            else project.merge_category(one.name, into.name, author=author)
        )
        if not is_dry:
            shelf.tell(name, "categories")
        return JSONResponse({"samples": len(plan.samples), "pixels": plan.pixels, "is_done": not is_dry})

    @api.get("/projects/{name}/audit")
    def audit(request: Request, name: str, cursor: int | None = None, limit: int = 100) -> JSONResponse:
        shelf.need(request, "reviewer")
        most = max(1, min(limit, 1000))
        deeds = shelf.project(name).audit(most=most + 1, before=cursor)
        items = [forms.deed(one) for one in deeds[:most]]
        return JSONResponse({"items": items, "next": deeds[most - 1].number if len(deeds) > most else None})

    @api.get("/projects/{name}/events")
    async def events(name: str) -> StreamingResponse:
        await run_in_threadpool(shelf.project, name)
        return StreamingResponse(
            shelf.events.listen(name),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},  # proxies keep nothing back
        )

    @api.get("/jobs/{number}")
    def job(number: str) -> JSONResponse:
        return JSONResponse(shelf.jobs.get(number).to_json())

    @api.delete("/jobs/{number}")
    def cancel(request: Request, number: str) -> JSONResponse:
        shelf.need(request, "labeller")
        return JSONResponse(shelf.jobs.cancel(number).to_json())

    return api


def _category(project: Project, number: int) -> Category:
    found = [one for one in project.categories if one.id == number]
    if not found:
        raise unknown_name("category", str(number), [str(one.id) for one in project.categories])
    return found[0]


def _rgb(text: str) -> tuple[int, int, int]:
    if not COLOR.fullmatch(text.lower()):
        raise UsageError("A colour is written #rrggbb.", found=f"{text!r:.40}")
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
