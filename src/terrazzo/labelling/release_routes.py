"""Routes of releases: made, listed, compared, withdrawn."""

from typing import Annotated

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from terrazzo.labelling import forms
from terrazzo.labelling.bodies import Told
from terrazzo.labelling.shelf import Shelf


def routes(shelf: Shelf) -> APIRouter:
    """Return the routes."""
    api = APIRouter(prefix="/projects/{name}/releases")

    @api.get("")
    def releases(name: str) -> JSONResponse:
        return JSONResponse(
            {"items": [forms.release(one) for one in shelf.project(name).releases], "next": None}
        )

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
        return JSONResponse(forms.release(made), status_code=201)

    @api.get("/{release}")
    def release(name: str, release: str) -> JSONResponse:
        project = shelf.project(name)
        one = project.releases[release]
        return JSONResponse(
            {
                **forms.release(one),
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

    return api
