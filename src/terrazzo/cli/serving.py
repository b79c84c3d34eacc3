"""serve: a model behind HTTP, and the page to try it."""

import os
from argparse import Namespace
from pathlib import Path

from terrazzo.cli.looking import (
    MODEL,
    backend_argument,
    device_arguments,
    window_arguments,
)
from terrazzo.cli.parsing import Command, Parser, count, whole_number
from terrazzo.errors import MissingPathError, UsageError

MEGA = 1_000_000


def _serve_arguments(parser: Parser) -> None:
    parser.add_argument(
        "models", metavar="MODEL", nargs="+", help=f"{MODEL}; NAME=MODEL gives it another name in URLs"
    )
    parser.add_argument(
        "--host",
        metavar="HOST",
        default="127.0.0.1",
        help="the address to listen on; 127.0.0.1 (this machine alone) by default, others need a token",
    )
    parser.add_argument(
        "--port", metavar="PORT", type=whole_number, default=8000, help="8000 by default; 0: any free one"
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="what clients must send, at least 16 characters; or set TERRAZZO_TOKEN",
    )
    parser.add_argument(
        "--name",
        metavar="HOST",
        action="append",
        default=[],
        help="a host name by which clients call the server, beside its addresses; may be repeated",
    )
    parser.add_argument(
        "--examples", metavar="DIR", help="images that the page offers, instead of drawn scenes"
    )
    parser.add_argument(
        "--queue",
        metavar="N",
        type=count,
        help="images that are worked on or wait; more get 429. 32 by default",
    )
    parser.add_argument(
        "--batch",
        metavar="N",
        type=count,
        help="images that one pass may hold; by default 1 on a CPU, 8 on a GPU",
    )
    parser.add_argument("--max-megapixels", metavar="N", type=count, help="of one image; 64 by default")
    window_arguments(parser, "instead of what the models' recipes say")
    backend_argument(parser)
    device_arguments(parser)


def _serve(arguments: Namespace) -> None:
    from terrazzo.serving import serve
    from terrazzo.serving.limits import Limits

    given = {
        "queue": arguments.queue,
        "batch": arguments.batch,
        "max_pixels": arguments.max_megapixels and arguments.max_megapixels * MEGA,
    }
    serve(
        arguments.models,
        host=arguments.host,
        port=arguments.port,
        token=_token(arguments.token_file),
        names=arguments.name,
        limits=Limits(**{name: value for name, value in given.items() if value is not None}),
        examples=arguments.examples,
        inference=arguments.inference,
        backend=arguments.backend,
        device=arguments.device,
        precision=arguments.precision,
    )


def _token(file: str | None) -> str | None:
    """The token: never a word of the command line, which every user of a machine can read."""
    if file is None:
        return os.environ.get("TERRAZZO_TOKEN") or None
    path = Path(file)
    if not path.is_file():
        raise MissingPathError(f"There is no file {path}.", expected="a file that holds the token")
    token = path.read_text(encoding="utf-8", errors="replace").strip()
    if not token:
        raise UsageError(f"The file {path} is empty.", expected="the token")
    return token


COMMANDS = (
    Command(
        "serve",
        "MODEL [MODEL …]",
        "Answer HTTP requests with masks, and offer a page to try the model.",
        "POST an image to /models/NAME and get segments, a class map, an overlay, polygons or probabilities;\n"
        "/openapi.json describes all of it. Ctrl-C and SIGTERM finish what is in flight. Needs:\n"
        'pip install "terrazzo[deploy]"',
        _serve_arguments,
        _serve,
    ),
)
