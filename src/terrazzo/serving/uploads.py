"""From the body of a request to the pixels of one image, and everything that may be wrong on the way.

The body is read in the event loop, within limits of bytes, time and what all uploads together hold. What it is, is
found out in a thread of `line.py`, from its first bytes, never from what the client calls it.
"""

import asyncio
import base64
import binascii
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request

from terrazzo.errors import ImageFormatError, nearest
from terrazzo.images import size_of
from terrazzo.serving.limits import Limits
from terrazzo.web.problems import RefusalError, busy

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
JPEG_SCANS = 100  # a progressive JPEG has about ten; each costs a pass over all pixels, however few its bytes
TIFF_BYTES_PER_PIXEL = (
    8  # of all bands together, at the limit of pixels: a strip of zeros unpacks a thousandfold
)
DISCARD_SECONDS = 2.0
PARAMETERS = (
    "subtask",
)  # of Hugging Face's image segmentation, those that mean something for semantic masks


class Intake:
    """How many bytes of uploads are held, over all requests; only the event loop touches it."""

    def __init__(self, limits: Limits) -> None:
        self.limits, self.held = limits, 0

    @contextmanager
    def room(self) -> Iterator["Room"]:
        """A place to put a body in; what it holds is given back at the end."""
        room = Room(self)
        try:
            yield room
        finally:
            self.held -= room.size


class Room:
    """The body of one request, as far as it has arrived."""

    def __init__(self, intake: Intake) -> None:
        self.intake, self.size = intake, 0
        self._parts: list[bytes] = []

    async def fill(self, request: Request) -> bytes:
        """Return the whole body; raises RefusalError, or ClientDisconnect when the client leaves."""
        limits = self.intake.limits
        most = limits.max_bytes * (4 / 3 if _is_json(request) else 1) + (4096 if _is_json(request) else 0)
        declared = request.headers.get("content-length", "0")
        if not declared.isdigit() or int(declared) > most:
            await _discard(request)
            raise _too_large(f"{int(declared):,} bytes" if declared.isdigit() else declared, limits)
        is_complete = False
        try:
            async with asyncio.timeout(limits.body_seconds):
                while not is_complete:
                    message = await request.receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect
                    is_complete = not message.get("more_body", False)
                    self._take(message.get("body", b""), most)
        except RefusalError:
            if not is_complete:
                await _discard(request)
            raise
        except TimeoutError:
            raise RefusalError(
                408,
                "The image did not arrive in time.",
                kind="slow-upload",
                found=f"{self.size:,} bytes in {limits.body_seconds:g} s",
                headers={"Connection": "close"},
            ) from None
        body = b"".join(self._parts)
        self._parts.clear()
        return body

    def _take(self, part: bytes, most: float) -> None:
        limits = self.intake.limits
        if self.size + len(part) > most:
            raise _too_large(f"more than {int(most):,} bytes", limits)
        if self.intake.held + len(part) > limits.held_bytes:
            raise busy("The server holds as many uploads as it may.", kind="uploads-full", seconds=1)
        self._parts.append(part)
        self.size += len(part)
        self.intake.held += len(part)


async def _discard(request: Request) -> None:
    """Let a client send on for a while: one that is cut off in the middle does not read why."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            while (await request.receive()).get("more_body"):
                pass


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
    try:
        height, width = size_of(data, where=repr(NAME))
    except ImageFormatError as error:
        if "pixels" not in error.what:
            raise
        height = width = 0
        claimed = error.what.partition(" claims ")[2] or "more than any image has"
    else:
        claimed = f"{height:,} x {width:,} pixels (height x width)"
    if not 0 < height * width <= limits.max_pixels:
        raise RefusalError(
            413,
            "The image has too many pixels.",
            kind="too-many-pixels",
            found=claimed.rstrip("."),
            expected=f"at most {limits.max_pixels:,}",
            hint="Send it smaller, or in tiles.",
        )
    if (
        data.startswith(b"\xff\xd8") and data.count(b"\xff\xda") > JPEG_SCANS
    ):  # in pixels' data FF is followed by 00
        raise RefusalError(
            422,
            "The JPEG has more scans than any camera or program writes.",
            kind="unreadable-file",
            found=f"{data.count(bytes((0xFF, 0xDA))):,}",
            expected=f"at most {JPEG_SCANS}",
        )
    if data[:2] in (b"II", b"MM"):
        _check_tiff(data, limits)


def _check_tiff(data: bytes, limits: Limits) -> None:
    """The header was read before, by `size_of`: one picture of a size that fits; now its bands."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tif:
        unpacked = tif.series[0].nbytes
    if unpacked > TIFF_BYTES_PER_PIXEL * limits.max_pixels:
        raise RefusalError(
            413,
            "The TIFF unpacks to too much.",
            kind="too-many-pixels",
            found=f"{unpacked:,} bytes",
            expected=f"at most {TIFF_BYTES_PER_PIXEL * limits.max_pixels:,}",
        )


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
