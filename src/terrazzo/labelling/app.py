"""The application: routes of the API by their subjects, the page's files, and how errors are told.

/api/v1      see the *_routes: project, sample, label, release, assist, model and loop
/            the page; /static its modules
/healthz     the process answers
"""

import importlib.util
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from terrazzo import __version__
from terrazzo.errors import TerrazzoError
from terrazzo.labelling import label_routes, project_routes, release_routes, sample_routes
from terrazzo.labelling.access import Gate
from terrazzo.labelling.refusals import told, without_place
from terrazzo.labelling.shelf import Shelf
from terrazzo.web.problems import RefusalError, no_route, problem

STATIC = Path(__file__).parent / "static"
FRESH = {"Cache-Control": "no-cache"}  # files may be newer after an update: ask, and be told "as it was"
PREFIX = "/api/v1"
GONE = 499  # nobody reads this status: the client has left


def create_app(shelf: Shelf) -> ASGIApp:
    """Return the ASGI application that serves a shelf of projects."""
    app = FastAPI(title="terrazzo label", version=__version__, docs_url=None, redoc_url=None)

    async def tell(request: Request, error: Exception) -> Response:
        assert isinstance(error, TerrazzoError)
        return problem(without_place(told(error), shelf.folder))

    app.add_exception_handler(TerrazzoError, tell)
    app.add_exception_handler(HTTPException, _other_problem)
    app.add_exception_handler(RequestValidationError, _bad_query)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(MemoryError, _too_much)
    app.add_exception_handler(Exception, _bug)
    for router in _routers(shelf):
        app.include_router(router, prefix=PREFIX)

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=FRESH)

    app.mount("/static", _Fresh(directory=STATIC, check_dir=False))
    return Gate(app, shelf.access)


def _routers(shelf: Shelf) -> list[APIRouter]:
    """Those of assistance, of models and of the loop come first: what they tell better, they tell."""
    found = []
    if importlib.util.find_spec("terrazzo.labelling.assist_routes"):
        from terrazzo.labelling import assist_routes

        found.append(assist_routes.routes(shelf))
    if importlib.util.find_spec("terrazzo.labelling.loop_routes"):
        from terrazzo.labelling import loop_routes, model_routes

        found += [model_routes.routes(shelf), loop_routes.routes(shelf)]
    ours = (project_routes, sample_routes, label_routes, release_routes)
    return [*found, *(one.routes(shelf) for one in ours), release_routes.imports(shelf)]


class _Fresh(StaticFiles):
    def file_response(self, *arguments: object, **words: object) -> Response:
        response = super().file_response(*arguments, **words)  # type: ignore[arg-type]
        response.headers.update(FRESH)
        return response


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=GONE)


async def _too_much(request: Request, error: Exception) -> Response:
    return problem(RefusalError(413, "That does not fit in the server's memory.", kind="out-of-memory"))


async def _bug(request: Request, error: Exception) -> Response:
    """The answer; the gate prints the traceback."""
    hint = "What was acknowledged before is saved. The server's log says more."
    return problem(RefusalError(500, "The server failed.", kind="bug", hint=hint))


async def _other_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return no_route(request, error)


async def _bad_query(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = "; ".join(f"{one['loc'][-1]}: {one['msg']}" for one in error.errors())
    return problem(
        RefusalError(400, "The request cannot be understood.", kind="bad-request", found=found[:500])
    )
