"""The routes, each a line or two; what they do is told in `service.py`.

GET  /                    the page
GET  /models              the models and their classes
POST /models/NAME?as=…    an image -> what was asked for (`answers.py`)
POST /                    the same of the first model, where Hugging Face's endpoints answer
GET  /examples, /examples/N   images to try
GET  /healthz, /readyz, /metrics, /openapi.json
"""

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from terrazzo import __version__
from terrazzo.errors import TerrazzoError
from terrazzo.serving.answers import ANSWERS
from terrazzo.serving.gate import Door, Gate
from terrazzo.serving.service import Service
from terrazzo.web.problems import RefusalError, no_route, problem, refusal_of

STATIC = Path(__file__).parent / "static"
FRESH = {"Cache-Control": "no-cache"}  # files may be newer after an update: ask, and be told "as it was"
As = Annotated[
    str, Query(alias="as", description="; ".join(f"{name}: {one.says}" for name, one in ANSWERS.items()))
]


def create_app(service: Service, door: Door) -> ASGIApp:
    """Return the ASGI application of a service behind a door."""
    app = FastAPI(
        title="terrazzo",
        version=__version__,
        description="Semantic segmentation.",
        docs_url=None,
        redoc_url=None,
    )
    app.add_exception_handler(HTTPException, _other_problem)
    app.add_exception_handler(RequestValidationError, _bad_query)

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=FRESH)

    @app.get("/models", summary="The models and their classes")
    async def models() -> list[dict[str, Any]]:
        return [service.describe(model) for model in service.models.values()]

    @app.post("/models/{name:path}", summary="An image to a mask", openapi_extra=_BODY, responses=_RESPONSES)
    async def predict(request: Request, name: str, form: As = "segments") -> Response:
        return await service.predict(request, name, form)

    @app.post("/", summary="The same of the first model", openapi_extra=_BODY, responses=_RESPONSES)
    async def predict_first(request: Request, form: As = "segments") -> Response:
        return await service.predict(request, None, form)

    @app.get("/examples", summary="Images to try")
    async def examples() -> list[dict[str, str]]:
        return [{"name": name, "url": f"/examples/{name}"} for name in service.examples.names()]

    @app.get("/examples/{name}", response_class=Response)
    async def example(name: str) -> Response:
        try:
            found = await asyncio.to_thread(service.examples.read, name)
        except TerrazzoError as error:
            return problem(refusal_of(error))
        return Response(found.data, media_type=found.media_type, headers=FRESH)

    @app.get("/healthz", summary="The process answers")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz", summary="Images are taken; 503 while it stops")
    async def readyz() -> JSONResponse:
        told = "ready" if service.is_ready else "stopping"
        return JSONResponse({"status": told}, status_code=200 if service.is_ready else 503)

    @app.get("/metrics", summary="Counts and times for Prometheus", response_class=PlainTextResponse)
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(service.tally.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    app.mount("/static", StaticFiles(directory=STATIC))
    return Gate(app, door, service.tally)


async def _other_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return no_route(request, error, hint="What there is: /openapi.json")


async def _bad_query(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = "; ".join(str(one.get("msg", "")) for one in error.errors())
    return problem(RefusalError(400, "The request cannot be understood.", kind="bad-request", found=found))


_FILE = {"schema": {"type": "string", "format": "binary"}}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": _FILE,
            "application/octet-stream": _FILE,
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "inputs": {"type": "string", "description": "the image file, base64"},
                        "parameters": {"type": "object", "properties": {"subtask": {"enum": ["semantic"]}}},
                    },
                }
            },
        },
    }
}
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "status": {"type": "integer"},
        **{
            part: {"type": "string"}
            for part in ("type", "title", "detail", "found", "expected", "hint", "command")
        },
    },
}
_SEGMENTS = {
    "type": "array",
    "items": {
        "type": "object",
        "required": ["label", "score", "mask"],
        "properties": {
            "label": {"type": "string"},
            "score": {"type": "number", "nullable": True},
            "mask": {"type": "string"},
        },
    },
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "In the form that `as` names",
        "content": {
            "application/json": {"schema": _SEGMENTS},
            **dict.fromkeys(
                sorted({one.media_type for one in ANSWERS.values()} - {"application/json"}), _FILE
            ),
        },
    },
    **{
        status: {"description": says, "content": {"application/problem+json": {"schema": _PROBLEM}}}
        for status, says in {
            400: "The request cannot be understood",
            401: "No token, or another",
            404: "No such model",
            408: "The image did not arrive in time",
            413: "Too many bytes or pixels",
            415: "Not an image",
            422: "A damaged image, or one of other channels",
            429: "The line is full; Retry-After says when to come again",
            503: "Too slow, or stopping",
        }.items()
    },
}
