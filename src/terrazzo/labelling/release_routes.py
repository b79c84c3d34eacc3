"""Routes of releases: made, listed, compared, taken away, withdrawn; and of labels that are brought in."""

import re
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.background import BackgroundTask

from terrazzo.exchange import bring
from terrazzo.labelling import forms
from terrazzo.labelling.bodies import Told
from terrazzo.labelling.drops import below_root
from terrazzo.labelling.parcels import Parcel
from terrazzo.labelling.shelf import Shelf


def routes(shelf: Shelf) -> APIRouter:
    """Return the routes."""
    api = APIRouter(prefix="/projects/{name}/releases")

    @api.get("")
    def releases(name: str) -> JSONResponse:
        return JSONResponse({"items": forms.releases(shelf.project(name)), "next": None})

    @api.post("")
    def create(
        request: Request, name: str, told: Annotated[Told, shelf.said("name", "description")]
    ) -> JSONResponse:
        author = shelf.need(request, "reviewer").name
        project = shelf.writable(name)
        made = project.releases.create(
            told.text("name"), description=told.text("description", ""), author=author
        )
        shelf.tell(name, "release", name=made.name)
        return JSONResponse(forms.release(project, made), status_code=201)

    @api.get("/{release}")
    def release(name: str, release: str) -> JSONResponse:
        project = shelf.project(name)
        one = project.releases[release]
        return JSONResponse(
            {
                **forms.release(project, one),
                "categories": [each.to_json() for each in one.categories],
                "pixels": project.releases.pixels(one),
                "members": [
                    {"name": each.name, "status": each.status, "split": each.split} for each in one.samples
                ],
            }
        )

    @api.get("/{release}/diff")
    def diff(request: Request, name: str, release: str) -> JSONResponse:
        found = shelf.project(name).releases.diff(release, request.query_params.get("from"))
        names = ("old", "new", "added", "removed", "changed", "categories")
        pixels = {category: list(both) for category, both in found.pixels.items()}
        return JSONResponse(
            {**{one: getattr(found, one) for one in names}, "pixels": pixels, "text": found.text()}
        )

    @api.get("/{release}/export")
    def export(
        request: Request, name: str, release: str, form: Annotated[str, Query(alias="format")]
    ) -> Response:
        project = shelf.project(name)
        one = project.releases[release]
        parcel = Parcel(one, form, shelf.scratch)
        called = f"{project.name}-{one.name}-{form}.zip"
        safe = re.sub(r"[^A-Za-z0-9._-]", "_", called)
        headers = {"Content-Disposition": f'attachment; filename="{safe}"', "Cache-Control": "no-store"}
        return StreamingResponse(
            iter(parcel),
            media_type="application/zip",
            headers=headers,
            background=BackgroundTask(parcel.close),
        )

    @api.post("/{release}/withdraw")
    def withdraw(
        request: Request, name: str, release: str, told: Annotated[Told, shelf.said("reason")]
    ) -> JSONResponse:
        author = shelf.need(request, "admin").name
        project = shelf.writable(name)
        project.releases.withdraw(release, reason=told.text("reason", ""), author=author)
        shelf.tell(name, "release", name=release)
        return JSONResponse(forms.release(project, project.releases[release]))

    return api


def imports(shelf: Shelf) -> APIRouter:
    """Return the route by which labels of others come in."""
    api = APIRouter()

    @api.post("/projects/{name}/imports")
    def bring_in(
        request: Request, name: str, told: Annotated[Told, shelf.said("format", "path", "dry_run")]
    ) -> JSONResponse:
        author = shelf.need(request, "admin").name
        project = shelf.writable(name)
        src = below_root(project, told.text("path"))
        form, is_dry = told.text("format"), told.flag("dry_run", False)

        def work(progress: Callable[..., None], is_cancelled: Callable[[], bool]) -> dict[str, Any]:
            progress(0, f"Reading {form} …")
            brought = bring(project, form, src, author=author, dry_run=is_dry)
            if not is_dry:
                shelf.tell(name, "samples", added=len(brought.samples))
                shelf.tell(name, "categories")
            names = ("samples", "labels", "kept", "categories", "notes")
            return {**{one: list(getattr(brought, one)) for one in names}, "text": brought.text()}

        job = shelf.jobs.start("import", (name, form, str(src), is_dry), work, project=name)
        return JSONResponse({"job": job.id}, status_code=202)

    return api
