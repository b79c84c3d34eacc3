"""A model behind HTTP, and a page to try it: `terrazzo serve MODEL …`.

    limits.py     what one client may ask of the machine
    gate.py       who may come in: Host, Origin, token; what every answer carries
    uploads.py    the body of a request to the bytes of one image
    line.py       the line of jobs: decoded, seen together, encoded, outside the event loop
    answers.py    a prediction in the form that was asked for
    tally.py      counts and times, as Prometheus reads them
    service.py    one request, from its first byte to its answer
    examples.py   images to try without having one
    app.py        the routes
    running.py    from the first request to the last
    static/       the page

Refusals, names, sockets and signals stand in web/. Nothing is kept between requests, so any number of servers may stand
behind any balancer. Nothing is fetched: an image is sent, never named by a URL. This package needs
`pip install "terrazzo[deploy]"`, but for this page.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from terrazzo.errors import MissingExtraError, UsageError
from terrazzo.serving.limits import Limits

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from terrazzo.inference import Predictor
    from terrazzo.serving.line import Model

Source = str | os.PathLike[str]  # of a model


def serve(
    models: "Source | Sequence[Source] | Mapping[str, Source | Predictor]",
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    names: Sequence[str] = (),
    limits: Limits | None = None,
    examples: "str | os.PathLike[str] | None" = None,
    inference: Literal["whole", "windows"] | None = None,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "f32",
) -> None:
    """Answer requests until SIGTERM or Ctrl-C; then finish what is in flight, for `limits.stop_seconds` at most.

    models: whatever `load` takes, one or several, "NAME=MODEL" to name one; or {name: model or Predictor}. host: beyond
    this machine's own addresses only with a token of 16 characters or more, sent as `Authorization: Bearer`. port: 0
    takes any free one. names: host names by which clients call the server, beside its addresses. examples: a folder of
    images that the page offers instead of drawn scenes. inference: instead of what the models' recipes say.
    Raises UsageError, MissingExtraError, and what `load` raises.
    """
    _check_installed()
    from terrazzo.serving.gate import Door
    from terrazzo.serving.running import run
    from terrazzo.serving.service import Service
    from terrazzo.web.server import bind

    door = Door.of(host, token=token, names=names)
    with bind(
        host, port, command="terrazzo serve MODEL --port 0"
    ) as listener:  # before models are loaded: a port that is taken is told at once
        opened = _opened(models, inference, backend=backend, device=device, precision=precision)
        run(Service(opened, limits or Limits(), examples=examples), door, listener)


def application(
    models: "Source | Sequence[Source] | Mapping[str, Source | Predictor]",
    *,
    token: str,
    names: Sequence[str] = (),
    limits: Limits | None = None,
    examples: "str | os.PathLike[str] | None" = None,
    inference: Literal["whole", "windows"] | None = None,
    backend: str = "auto",
    device: str = "auto",
    precision: str = "f32",
) -> "ASGIApp":
    """Return the same as an ASGI application, for a server that is not ours: Ray Serve, gunicorn, a cloud's.

    Arguments as in `serve`; the token is needed, for who can reach the application is not known here. How slow the head
    of a request may be, and how many connections wait, is the other server's to say.
    """
    _check_installed()
    from terrazzo.serving.app import create_app
    from terrazzo.serving.gate import Door
    from terrazzo.serving.service import Service

    door = Door.of("0.0.0.0", token=token, names=names)
    opened = _opened(models, inference, backend=backend, device=device, precision=precision)
    service = Service(opened, limits or Limits(), examples=examples)
    service.warm_up()
    return create_app(service, door)


def _check_installed() -> None:
    try:
        import fastapi
        import uvicorn
    except ImportError as error:
        raise MissingExtraError(
            "Serving needs packages that are not installed.",
            found=f"no {error.name}",
            command='pip install "terrazzo[deploy]"',
        ) from error
    del fastapi, uvicorn


def _opened(
    models: "Source | Sequence[Source] | Mapping[str, Source | Predictor]",
    inference: Literal["whole", "windows"] | None,
    *,
    backend: str,
    device: str,
    precision: str,
) -> "list[Model]":
    from terrazzo.inference import load
    from terrazzo.serving.line import Model

    opened = []
    for name, source in _named(models).items():
        predictor = (
            load(source, backend=backend, device=device, precision=precision)
            if isinstance(source, str | os.PathLike)
            else source
        )
        if inference is not None:
            predictor = predictor.with_eval(replace(predictor.eval, inference=inference))
        opened.append(Model(name, predictor))
    return opened


def _named(
    models: "Source | Sequence[Source] | Mapping[str, Source | Predictor]",
) -> "dict[str, Source | Predictor]":
    """Return {name in URLs: model}; a folder is called as its last part, a second one of that name gets a number."""
    if isinstance(models, Mapping):
        named = dict(models)
    else:
        named = {}
        for source in [models] if isinstance(models, str | os.PathLike) else models:
            given, equals, rest = os.fspath(source).partition("=")
            if equals and given and "/" not in given and not os.path.exists(source):
                if given in named:
                    raise UsageError("Two models cannot have one name.", found=f"{given!r} twice")
                named[given] = rest
            else:
                named[_free(_last_part(os.fspath(source)), named)] = source
    if not named:
        raise UsageError("A server needs a model.", command="terrazzo serve MODEL")
    return named


def _last_part(source: str) -> str:
    parts = [part for part in source.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return parts[-1].removesuffix(".pth") if parts else "model"


def _free(name: str, taken: Mapping[str, object]) -> str:
    number = 2
    free = name
    while free in taken:
        free = f"{name}-{number}"
        number += 1
    return free
