"""From the body of a request to the pixels of one image, and everything that may be wrong on the way.

How it is read: `web/bodies.py`. What it is, is found out in a thread of `line.py`, from its first bytes, never from
what the client calls it.
"""

import base64
import binascii
import json
from typing import TYPE_CHECKING

from starlette.requests import Request

from terrazzo.errors import nearest
from terrazzo.serving.limits import Limits
from terrazzo.web.bodies import Room
from terrazzo.web.bombs import refuse_bombs
from terrazzo.web.problems import RefusalError

if TYPE_CHECKING:
    from terrazzo.inference import Named, Predictor

NAME = "upload"
FORMATS = "a PNG, JPEG, TIFF, WebP, BMP, GIF or PPM file"
MAGIC = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"MM\0+",
    b"BM",
    b"GIF8",
    b"P2",
    b"P3",
    b"P5",
    b"P6",
)
OTHERS = (  # what people send instead
    (b"<svg", "an SVG drawing", "Draw it as PNG first: an SVG has no pixels."),
    (b"%PDF", "a PDF", "Export its page as PNG."),
    (b"ftypheic", "a HEIC photograph", "Phones and converters save it as JPEG."),
    (b"ftypavif", "an AVIF image", "Save it as JPEG, PNG or WebP."),
    (b"ftyp", "a video", "Send its frames one by one."),
    (b"<html", "a web page", "Send the image itself, not the page around it."),
    (b"<!doctype html", "a web page", "Send the image itself, not the page around it."),
)  # fmt: skip
PARAMETERS = (
    "subtask",
)  # of Hugging Face's image segmentation, those that mean something for semantic masks


async def arrived(room: Room, request: Request, limits: Limits) -> bytes:
    """Return the body of a request; raises RefusalError, or ClientDisconnect when the client leaves."""
    is_json = _is_json(request)
    most = int(limits.max_bytes * (4 / 3 if is_json else 1) + (4096 if is_json else 0))
    return await room.fill(request, most, what="image", too_large=lambda found: _too_large(found, limits))


def refuse_forms(request: Request) -> None:
    """Raise RefusalError where the body is wrapped in a form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("multipart/"):
        raise RefusalError(
            415,
            "The image came inside a form.",
            kind="unsupported-media-type",
            found=kind,
            expected='the file itself as the body, or JSON {"inputs": base64}',
            hint="With curl:",
            command="curl --data-binary @street.jpg URL",
        )


def _is_json(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def decode(body: bytes, predictor: "Predictor", limits: Limits, *, is_json: bool) -> "Named":
    """Return the image in a body, as the predictor takes it; raises RefusalError or a DataError."""
    data = _inputs(body) if is_json else body
    check(data, limits)
    return predictor.read(data, default=NAME)


def check(data: bytes, limits: Limits) -> None:
    """Raise RefusalError unless these are the bytes of an image that is no danger to decode, as its header tells."""
    if not data:
        raise RefusalError(400, "The request has no body.", kind="no-image", expected=FORMATS)
    if len(data) > limits.max_bytes:
        raise _too_large(f"{len(data):,} bytes", limits)
    if not data.startswith(MAGIC) and not (data[:4] == b"RIFF" and data[8:12] == b"WEBP"):
        raise _not_an_image(data)
    refuse_bombs(data, limits.max_pixels, where=repr(NAME))


def _inputs(body: bytes) -> bytes:
    """The image in the JSON that Hugging Face's clients send with parameters."""
    shape = '{"inputs": "<the image file, base64>", "parameters": {"subtask": "semantic"}}'
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusalError(
            400, "The JSON cannot be read.", kind="bad-json", found=str(error), expected=shape
        ) from error
    inputs = told.get("inputs") if isinstance(told, dict) else None
    if not isinstance(inputs, str):
        raise RefusalError(400, 'The JSON has no text "inputs".', kind="bad-json", expected=shape)
    parameters = told.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise RefusalError(400, 'The "parameters" are no object.', kind="bad-json", expected=shape)
    for name, value in parameters.items():
        if name not in PARAMETERS:
            near = nearest(name, PARAMETERS)
            raise RefusalError(
                400,
                f"There is no parameter {name[:80]!r} here.",
                kind="unknown-parameter",
                expected="subtask; thresholds belong to instances and panoptic segments",
                hint=f"Did you mean {near[0]!r}?" if near else None,
            )
        if value not in ("semantic", None):
            raise RefusalError(
                400,
                "Only semantic masks are predicted here.",
                kind="unknown-parameter",
                found=f"subtask {str(value)[:80]!r}",
            )
    if inputs.startswith(("http://", "https://")):
        raise RefusalError(
            400,
            "Images are sent, not fetched.",
            kind="no-fetching",
            found="a URL",
            expected="the image file itself, base64",
            hint="A server that fetches what strangers name can be made to ask for what they may not see.",
        )
    try:
        return base64.b64decode(
            inputs.partition(",")[2] if inputs.startswith("data:") else inputs, validate=True
        )
    except (ValueError, binascii.Error) as error:
        raise RefusalError(
            400, 'The text in "inputs" is not base64.', kind="bad-json", found=str(error), expected=shape
        ) from error


def _not_an_image(data: bytes) -> RefusalError:
    head = data[:1024].lower()
    for mark, found, hint in OTHERS:
        if mark.lower() in head:
            return RefusalError(
                415,
                "The upload is not an image we read.",
                kind="unsupported-media-type",
                found=found,
                expected=FORMATS,
                hint=hint,
            )
    return RefusalError(
        415,
        "The upload is not an image we read.",
        kind="unsupported-media-type",
        found=f"{len(data):,} bytes that begin {data[:12].hex(' ')}",
        expected=FORMATS,
    )


def _too_large(found: str, limits: Limits) -> RefusalError:
    return RefusalError(
        413,
        "The upload is too large.",
        kind="too-large",
        found=found,
        expected=f"at most {limits.max_bytes:,} bytes",
        hint="JPEG at quality 90 keeps all that a network sees.",
        headers={"Connection": "close"},
    )
