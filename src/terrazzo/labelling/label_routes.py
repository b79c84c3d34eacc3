"""Routes of labels: what stands, its tiles, operations, history, and what models say."""

import struct
import zlib
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse, Response

from terrazzo.errors import DamagedLabelError
from terrazzo.labelling import arrival, forms
from terrazzo.labelling.bodies import Told
from terrazzo.labelling.refusals import told as refusal
from terrazzo.labelling.shelf import Shelf
from terrazzo.project.tiles import TILE, grid_hw
from terrazzo.web.problems import parts

BYTES = "application/octet-stream"


def routes(shelf: Shelf) -> APIRouter:
    """Return the routes."""
    api = APIRouter(prefix="/projects/{name}/samples/{number}")

    @api.get("/label")
    def label(request: Request, name: str, number: int, revision: int | None = None) -> Response:
        project = shelf.project(name)
        one = project.samples.numbered(number)
        rows, columns = grid_hw(one.size_hw)
        value: dict[str, Any] = {
            "revision": one.head if revision is None else revision,
            "tree_hash": None,
            "width": one.width,
            "height": one.height,
            "tile": TILE,
            "rows": rows,
            "columns": columns,
            "tiles": [],
            "annotations": [],
            "is_read_only": project.store.is_read_only,
            "problem": None,
        }
        try:
            value["revision"], tree = project.labels.look(one.name, revision)
            value["tree_hash"] = tree.hash.hex()
            value["tiles"] = [tile.hex() for tile in tree.tiles]
            value["annotations"] = [each.to_json() for each in tree.annotations]
            project.labels.check(tree, where=f"{one.name!r} (revision {value['revision']})")
        except DamagedLabelError as error:
            value["is_read_only"], value["problem"] = True, parts(refusal(error))
        etag = f'"{value["revision"]}-{value["tree_hash"]}-{int(bool(value["is_read_only"]))}"'
        if request.headers.get("if-none-match") == etag and value["problem"] is None:
            return Response(status_code=304, headers={"ETag": etag})
        return JSONResponse(value, headers={"ETag": etag, "Cache-Control": "no-cache"})

    @api.get("/tiles")
    def tiles(name: str, number: int, revision: int | None = None) -> Response:
        project = shelf.project(name)
        one = project.samples.numbered(number)
        at, tree = project.labels.look(one.name, revision)
        packed = project.labels.packed(tree, where=f"{one.name!r} (revision {at})")
        body = b"".join(struct.pack("<I", len(tile)) + tile for tile in packed)
        return Response(body, media_type=BYTES, headers={"Cache-Control": "no-store", "X-Revision": str(at)})

    @api.get("/tiles/{tile}")
    def tile(name: str, number: int, tile: Annotated[str, Path(pattern="^[0-9a-f]{64}$")]) -> Response:
        project = shelf.project(name)
        packed = project.labels.packed_tile(project.samples.numbered(number).name, bytes.fromhex(tile))
        return Response(
            packed, media_type=BYTES, headers={"Cache-Control": "private, max-age=31536000, immutable"}
        )

    @api.post("/ops")
    def write(
        request: Request,
        name: str,
        number: int,
        told: Annotated[Told, shelf.said(*arrival.NAMES, most=shelf.limits.max_ops_bytes)],
    ) -> JSONResponse:
        author = shelf.need(request, "labeller").name
        project = shelf.writable(name)
        one = project.samples.numbered(number)
        done = project.write(one.name, arrival.operation(told, one.size_hw, author))
        if not done.is_replay:
            shelf.tell(name, "revision", sample=number, revision=done.revision, client=told.text("client_id"),
                       author=author)  # fmt: skip
        return JSONResponse(forms.written(done))

    @api.get("/history")
    def history(name: str, number: int, cursor: int | None = None, limit: int = 100) -> JSONResponse:
        project = shelf.project(name)
        one = project.samples.numbered(number)
        found = project.history.of(one.name, before=cursor, most=max(1, min(limit, 1000)) + 1)
        shown = found[:-1] if len(found) > max(1, min(limit, 1000)) else found
        more = shown[-1].number if len(shown) < len(found) else None
        return JSONResponse({"items": [forms.revision(each) for each in shown], "next": more})

    @api.post("/restore")
    def restore(
        request: Request,
        name: str,
        number: int,
        told: Annotated[Told, shelf.said("revision", "base_revision")],
    ) -> JSONResponse:
        author = shelf.need(request, "labeller").name
        project = shelf.writable(name)
        one = project.samples.numbered(number)
        done = project.restore(
            one.name, told.whole("revision"), base_revision=told.whole("base_revision"), author=author
        )
        shelf.tell(name, "revision", sample=number, revision=done.revision, client=None, author=author)
        return JSONResponse(forms.written(done))

    @api.get("/predictions")
    def predictions(name: str, number: int) -> JSONResponse:
        project = shelf.project(name)
        found = project.predictions.of(project.samples.numbered(number).name)
        items = [{"labelset": one, "at": at, "model": one.removeprefix("model:")} for one, at in found]
        return JSONResponse({"items": items})

    @api.get("/predictions/{labelset:path}")
    def prediction(name: str, number: int, labelset: str) -> Response:
        project = shelf.project(name)
        offer = project.predictions.get(project.samples.numbered(number).name, labelset)
        maps = [
            zlib.compress(one, 1) for one in (offer.mask.astype("<u2").tobytes(), offer.confidence.tobytes())
        ]
        body = b"".join(struct.pack("<I", len(one)) + one for one in maps)
        return Response(body, media_type=BYTES, headers={"Cache-Control": "no-store"})

    return api
