"""A server in a thread of the test's own process, on a real socket, and a network whose masks are worked by hand."""

import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

import asking
from terrazzo.classes import Classes
from terrazzo.inference import Predictor
from terrazzo.serving.gate import Door
from terrazzo.serving.limits import Limits
from terrazzo.serving.line import Model
from terrazzo.serving.running import run
from terrazzo.serving.service import Service
from terrazzo.web.server import bind

COLORS = Classes(("red", "green", "blue"), ((255, 0, 0), (0, 255, 0), (0, 0, 255)))
NAN_GREY = 77  # an image that holds this value in its first pixel breaks its pass


class BrightestChannel:
    """A backend whose logits are the image, so that a pixel's class is its brightest channel."""

    def __init__(self) -> None:
        self.network, self.channels, self.align_corners, self.says = nn.Identity(), 3, False, "by hand"
        self.device = torch.device("cpu")
        self.may_look = threading.Event()
        self.may_look.set()
        self.is_looking = threading.Event()
        self.batches: list[int] = []

    def __call__(self, image_BCHW: NDArray[np.float32], /) -> NDArray[np.float32]:
        self.batches.append(len(image_BCHW))
        self.is_looking.set()
        assert self.may_look.wait(60)
        logits = image_BCHW * np.float32(10)
        logits[np.rint(image_BCHW[:, 0, 0, 0] * 255) == NAN_GREY] = np.nan
        return logits


class Answer(asking.Answer):
    """What came back, an image perhaps."""

    @property
    def array(self) -> NDArray[Any]:
        return np.asarray(Image.open(io.BytesIO(self.body)))


@dataclass
class Served:
    """A running server."""

    port: int
    service: Service
    backend: BrightestChannel

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        told = asking.ask(self.port, method, path, body, headers or {})
        return Answer(told.status, told.headers, told.body)

    def post(self, body: bytes, form: str = "map", model: str = "rgb", **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", f"/models/{model}?as={form}", body, named)


@contextmanager
def served(
    limits: Limits | None = None,
    *,
    door: Door | None = None,
    models: Mapping[str, Predictor] | None = None,
    backend: BrightestChannel | None = None,
) -> Iterator[Served]:
    """Serve "rgb", and `models`, until the block ends."""
    backend = backend or BrightestChannel()
    named = {"rgb": Predictor(backend, COLORS, name="rgb"), **(models or {})}
    service = Service([Model(name, one) for name, one in named.items()], limits or Limits())
    stop = threading.Event()
    with bind("127.0.0.1", 0, command="") as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(
            target=run, args=(service, door or Door.of("127.0.0.1"), listener), kwargs={"stop": stop}
        )
        thread.start()
        server = Served(port, service, backend)
        try:
            assert server.ask("GET", "/healthz").status == 200  # every model has seen its first image
            backend.batches.clear()
            backend.is_looking.clear()
            yield server
        finally:
            backend.may_look.set()
            stop.set()
            thread.join(60)
    assert not thread.is_alive()


def png(image: NDArray[np.uint8]) -> bytes:
    """The bytes of a PNG of `image`."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def jpeg(image: NDArray[np.uint8]) -> bytes:
    """The bytes of a JPEG of `image`."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=90)
    return file.getvalue()


def flag(height: int = 4, width: int = 6) -> NDArray[np.uint8]:
    """Red, green and blue from left to right: class ids 0, 1, 2."""
    image = np.zeros((height, width, 3), np.uint8)
    image[np.arange(height)[:, None], np.arange(width), np.arange(width) * 3 // width] = 200
    return image


FLAG = png(flag())
FLAG_MASK = np.repeat([[0, 0, 1, 1, 2, 2]], 4, axis=0)
