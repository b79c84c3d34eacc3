"""Routes of models: those that are attached, what they said of a sample, and who made its label.

A model is a file or folder on this machine: nothing is fetched because a page asks for it. Torch is imported where one
is attached.
"""

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from terrazzo.errors import MissingPathError, UsageError
from terrazzo.labelling.bodies import Told
from terrazzo.labelling.shelf import Shelf
from terrazzo.project import Project
from terrazzo.project.models import Attached, Mapped

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BYTES = "application/octet-stream"


def routes(shelf: Shelf) -> APIRouter:
    """Return the routes; the shelf is told what says which models a project has."""
    api = APIRouter(prefix="/projects/{name}")
    shelf.models_of = lambda name: [
        model(shelf.project(name), one) for one in shelf.project(name).models.all()
    ]
    _models(api, shelf)
    _predictions(api, shelf)
    return api


def model(project: Project, one: Attached) -> dict[str, Any]:
    """A model as the page is told of it; where on this machine it lies is nobody's matter."""
    return {
        "hash": one.hash,
        "name": one.name,
        "labelset": one.labelset,
        "classes": [
            {"name": name, "color": "#{:02x}{:02x}{:02x}".format(*color), "category_id": number or None}
            for (name, color), number in zip(
                one.classes, one.table(project.categories.all(deleted=True)).tolist(), strict=True
            )
        ],
        "predicted": project.models.predicted(one.labelset),
        "miou": (one.report or {}).get("miou"),
        "at": one.at,
    }


def _models(api: APIRouter, shelf: Shelf) -> None:
    @api.get("/models")
    def models(name: str) -> JSONResponse:
        return JSONResponse({"items": shelf.models_of(name)})

    @api.post("/models")
    def attach(
        request: Request, name: str, told: Annotated[Told, shelf.said("path", "add", "mapping", "dry_run")]
    ) -> JSONResponse:
        """Attach a model of this machine; dry_run: only say which class would be which category."""
        author = shelf.need(request, "admin").name
        project = shelf.writable(name)
        path = _path(shelf, told.text("path"))
        from terrazzo import prelabelling

        if told.flag("dry_run", False):
            plan = prelabelling.plan(path, project)
            classes = [
                {"name": one.name, "category_id": one.category_id, "similar": one.similar}
                for one in plan.matches
            ]
            return JSONResponse(
                {"hash": plan.hash, "name": plan.name, "classes": classes, "missing": plan.missing}
            )
        one = prelabelling.attach(
            project,
            path,
            add=told.texts("add") if told.has("add") else None,
            mapping=_mapping(told.get("mapping")),
            author=author,
        )
        shelf.tell(name, "categories")
        shelf.tell(name, "model", model=one.hash)
        return JSONResponse(model(project, one), status_code=201)

    @api.delete("/models/{hash}")
    def detach(request: Request, name: str, hash: str) -> Response:
        author = shelf.need(request, "admin").name
        shelf.writable(name).models.detach(hash, author=author)
        shelf.tell(name, "model", model=None)
        return Response(status_code=204)


def _predictions(api: APIRouter, shelf: Shelf) -> None:
    @api.get("/samples/{number}/predictions")
    def predictions(name: str, number: int) -> JSONResponse:
        project = shelf.project(name)
        there = {one.labelset for one in project.models.all()}
        found = project.predictions.of(project.samples.numbered(number).name)
        items = [
            {"labelset": one, "at": at, "model": one.removeprefix("model:"), "is_attached": one in there}
            for one, at in found
        ]
        return JSONResponse({"items": items})

    @api.get("/samples/{number}/predictions/{labelset:path}")
    def prediction(name: str, number: int, labelset: str) -> Response:
        """Two blocks, each its length (uint32) and zlib: category ids (uint16) as they are called now; confidence."""
        project = shelf.project(name)
        offer = project.predictions.get(project.samples.numbered(number).name, labelset)
        heirs = _heirs(project)
        mask = offer.mask if heirs is None else heirs[offer.mask]
        maps = [zlib.compress(one, 1) for one in (mask.astype("<u2").tobytes(), offer.confidence.tobytes())]
        body = b"".join(struct.pack("<I", len(one)) + one for one in maps)
        return Response(body, media_type=BYTES, headers={"Cache-Control": "no-store"})

    @api.get("/samples/{number}/origin")
    def origin(name: str, number: int) -> JSONResponse:
        project = shelf.project(name)
        one = project.origins.of(project.samples.numbered(number).name)
        return JSONResponse(
            {"is_touched": one.is_touched, "changed": one.changed, "sources": dict(one.sources)}
        )


def _path(shelf: Shelf, text: str) -> Path:
    """A model on this machine, as a page names it: from the projects' folder on."""
    if "\0" in text or not text.strip():
        raise UsageError("A model has a path.", found=f"{text!r:.80}", expected="such as runs/street-v1")
    path = shelf.folder / Path(text.strip()).expanduser()
    if not path.exists():
        raise MissingPathError(
            f"There is no {text.strip()!r:.200} here.",
            expected="a run or a model, from the projects' folder on",
        )
    return path


def _mapping(value: Any) -> Mapped | None:
    if value is None:
        return None
    is_mapping = isinstance(value, dict) and all(one is None or type(one) is int for one in value.values())
    if not is_mapping:
        raise UsageError("A mapping is said as classes and categories.", expected='{"road": 1, "tram": null}')
    found: dict[str, int | None] = value
    return found


def _heirs(project: Project) -> "NDArray[np.uint16] | None":
    """What category ids are called now, as a table; None where all are what they were."""
    import numpy as np

    from terrazzo.project.categories import heirs

    there = project.categories.all(deleted=True)
    if not any(one.is_deleted for one in there):
        return None
    table = np.zeros(1 << 16, np.uint16)
    for number, head in heirs(there).items():
        table[number] = head.id
    return table
