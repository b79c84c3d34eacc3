"""Routes of samples: the list, what is known of one, its image, its status, its lease, what is said of it."""

import asyncio
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from terrazzo.errors import ProjectInUseError
from terrazzo.labelling import drops, forms
from terrazzo.labelling.bodies import Told
from terrazzo.labelling.shelf import Shelf
from terrazzo.project import orders
from terrazzo.project.samples import Entry
from terrazzo.web.problems import RefusalError

REVIEWS = ("reviewed", "rejected")
CACHED = {"Cache-Control": "private, no-cache"}  # kept by browsers, asked for anew


def routes(shelf: Shelf) -> APIRouter:
    """Return the routes."""
    api = APIRouter(prefix="/projects/{name}")

    @api.get("/samples")
    def page(
        name: str,
        status: str | None = None,
        category: int | None = None,
        search: str | None = None,
        order: str = "name",
        cursor: str | None = None,
        limit: int = 100,
        client: str | None = None,
    ) -> JSONResponse:
        project = shelf.project(name)
        if category is not None:
            project.holdings.refresh()
        found = project.listing.page(
            statuses=[status] if status else (),
            category=category,
            search=search,
            order=order,
            after=cursor,
            limit=limit,
        )
        items = [forms.sample(line, client=client) for line in found.lines]
        return JSONResponse({"items": items, "next": found.next, "total": found.total})

    @api.get("/queue/next")
    def following(
        request: Request, name: str, order: str = "uncertainty", after: int | None = None
    ) -> JSONResponse:
        found = shelf.project(name).listing.next(shelf.who(request).name, order=order, after=after)
        if found is None:
            return JSONResponse({"sample": None, "why": None, "order": order})
        rejected = found.entry.reason if found.entry.status == "rejected" else None
        why = rejected or found.why or ("not predicted yet" if order in orders.ORDERS else None)
        return JSONResponse({"sample": forms.sample(found), "why": why, "order": order})

    @api.post("/images")
    async def drop(request: Request, name: str) -> JSONResponse:
        author = shelf.need(request, "labeller").name
        body = await shelf.body(request, shelf.limits.max_image_bytes)
        called = request.query_params.get("name", "image")
        return await drops.answer(shelf, name, called, body, author)

    @api.post("/folders")
    def folder(request: Request, name: str, told: Annotated[Told, shelf.said("path")]) -> JSONResponse:
        author = shelf.need(request, "admin").name
        added = drops.add_folder(shelf.writable(name), told.text("path"), author=author)
        shelf.tell(name, "samples", added=len(added))
        return JSONResponse({"added": added})

    @api.post("/samples/split")
    def split(
        request: Request, name: str, told: Annotated[Told, shelf.said("names", "ids", "split")]
    ) -> JSONResponse:
        author = shelf.need(request, "labeller").name
        project = shelf.writable(name)
        names = told.texts("names") if told.has("names") else []
        names += (
            [project.samples.numbered(number).name for number in told.wholes("ids")]
            if told.has("ids")
            else []
        )
        project.set_split(names, told.maybe_text("split"), author=author)
        shelf.tell(name, "samples")
        return JSONResponse({"samples": len(names), "split": told.maybe_text("split")})

    @api.get("/samples/{number}")
    def sample(name: str, number: int, client: str | None = None) -> JSONResponse:
        project = shelf.project(name)
        return JSONResponse(forms.whole_sample(project, project.listing.line(number), client=client))

    @api.patch("/samples/{number}")
    def status(
        request: Request, name: str, number: int, told: Annotated[Told, shelf.said("status", "reason")]
    ) -> JSONResponse:
        wanted = told.text("status")
        person = shelf.need(request, "reviewer" if wanted in REVIEWS else "labeller")
        project = shelf.writable(name)
        one = project.samples.numbered(number)
        warnings = project.check(one.name) if wanted == "labelled" else []
        project.set_status(
            one.name,
            wanted,
            reason=told.maybe_text("reason"),
            author=person.name,
            is_alone=shelf.is_single_user,
        )
        shelf.tell(name, "status", sample=number, status=wanted)
        return JSONResponse({**forms.sample(project.listing.line(number)), "warnings": warnings})

    @api.get("/samples/{number}/image")
    async def image(request: Request, name: str, number: int, level: int = 0) -> Response:
        return await picture(
            request, name, number, f"level{level}", lambda one: shelf.pictures(name).level(one, level)
        )

    @api.get("/samples/{number}/thumb")
    async def thumb(request: Request, name: str, number: int) -> Response:
        return await picture(request, name, number, "thumb", lambda one: shelf.pictures(name).thumb(one))

    async def picture(
        request: Request, name: str, number: int, what: str, make: Callable[[Entry], tuple[bytes, str]]
    ) -> Response:
        def work() -> Response:
            one = shelf.project(name).samples.numbered(number)
            headers = {"ETag": f'"{one.sha256[:32]}-{what}"', **CACHED}
            if request.headers.get("if-none-match") == headers["ETag"]:
                return Response(status_code=304, headers=headers)
            data, media_type = make(one)
            return Response(data, media_type=media_type, headers=headers)

        return await asyncio.get_running_loop().run_in_executor(shelf.drawing, work)

    @api.api_route("/samples/{number}/lease", methods=["POST", "PUT"])
    def lease(
        request: Request, name: str, number: int, told: Annotated[Told, shelf.said("client_id", "take_over")]
    ) -> JSONResponse:
        person = shelf.need(request, "labeller")
        project = shelf.writable(name)
        one = project.samples.numbered(number)
        client, take_over = told.text("client_id"), told.flag("take_over", False)
        before = project.leases.of(one.name)
        try:
            held = project.leases.take(one.name, client, author=person.name, take_over=take_over)
        except ProjectInUseError as error:
            other = project.leases.of(one.name)
            if other is None:
                raise
            raise RefusalError(
                409, error.what, kind="leased", found=error.found, hint=error.hint,
                members={"client": other.client, "author": other.author, "seconds": round(other.seconds)},
            ) from error  # fmt: skip
        if before is None or before.client != client:
            shelf.tell(name, "lease", sample=number, client=client, author=person.name)
        return JSONResponse({"seconds": held.seconds, "client": held.client, "author": held.author})

    @api.delete("/samples/{number}/lease")
    def give_back(request: Request, name: str, number: int, client_id: str) -> Response:
        shelf.need(request, "labeller")
        project = shelf.writable(name)
        project.leases.give_back(project.samples.numbered(number).name, client_id)
        shelf.tell(name, "lease", sample=number, client=None, author=None)
        return Response(status_code=204)

    @api.get("/samples/{number}/issues")
    def issues(name: str, number: int) -> JSONResponse:
        project = shelf.project(name)
        found = project.issues.of(project.samples.numbered(number).name, resolved=True)
        return JSONResponse({"items": [forms.issue(one) for one in found], "next": None})

    @api.post("/samples/{number}/issues")
    def open_issue(
        request: Request, name: str, number: int, told: Annotated[Told, shelf.said("x", "y", "text")]
    ) -> JSONResponse:
        author = shelf.need(request, "labeller").name
        project = shelf.writable(name)
        one = project.samples.numbered(number)
        made = project.issues.add(
            one.name, told.whole("x"), told.whole("y"), told.text("text"), author=author
        )
        shelf.tell(name, "issue", sample=number, issue=made.id)
        return JSONResponse(forms.issue(made), status_code=201)

    @api.post("/issues/{issue}/comments")
    def comment(
        request: Request, name: str, issue: int, told: Annotated[Told, shelf.said("text")]
    ) -> JSONResponse:
        author = shelf.need(request, "labeller").name
        project = shelf.writable(name)
        made = project.issues.reply(issue, told.text("text"), author=author)
        shelf.tell(name, "issue", sample=project.sample(made.sample).id, issue=issue)
        return JSONResponse(forms.issue(made), status_code=201)

    @api.patch("/issues/{issue}")
    def resolve(
        request: Request, name: str, issue: int, told: Annotated[Told, shelf.said("resolved")]
    ) -> JSONResponse:
        author = shelf.need(request, "labeller").name
        project = shelf.writable(name)
        made = project.issues.resolve(issue, author=author, is_open=not told.flag("resolved"))
        shelf.tell(name, "issue", sample=project.sample(made.sample).id, issue=issue)
        return JSONResponse(forms.issue(made))

    return api
