"""A prediction in the form that was asked for: `?as=…`."""

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from terrazzo.errors import unknown_name
from terrazzo.images import encode_image, encode_mask
from terrazzo.web.problems import RefusalError

if TYPE_CHECKING:
    from terrazzo.prediction import Prediction
    from terrazzo.windows import Logits

Wanted = Literal["mask", "confidence", "logits"]


@dataclass(frozen=True)
class Answer:
    """One form of answer."""

    media_type: str
    """Of the body."""
    wants: Wanted
    """What the model is asked for."""
    encode: Callable[[Any], bytes]
    """From a Prediction, or logits, to the body."""
    says: str
    """What it is, for those who ask."""


def answer_named(name: str) -> Answer:
    """Return the form called `name`; raises RefusalError with the nearest."""
    if name not in ANSWERS:
        error = unknown_name("answer", name[:80], ANSWERS)
        raise RefusalError(400, error.what, kind="unknown-answer", expected=error.expected, hint=error.hint)
    return ANSWERS[name]


def segments(prediction: "Prediction") -> bytes:
    """Hugging Face's answer: one entry for each class that is there, by class id; no score, as of semantic masks."""
    import numpy as np

    found = [
        {
            "score": None,
            "label": prediction.classes.names[class_id],
            "mask": base64.b64encode(
                encode_mask((prediction.mask == class_id).view(np.uint8) * np.uint8(255))
            ).decode(),
        }
        for class_id in np.unique(prediction.mask).tolist()
        if class_id < len(prediction.classes)
    ]
    return json.dumps(found, ensure_ascii=False).encode()


def class_map(prediction: "Prediction") -> bytes:
    """Class ids as a PNG of 8 bits, whose palette shows the classes' colours, or of 16 bits."""
    return encode_mask(prediction.mask, prediction.classes.palette)


def overlay(prediction: "Prediction") -> bytes:
    """The image under the classes' colours."""
    import numpy as np

    return encode_image(np.asarray(prediction.overlay()))


def color(prediction: "Prediction") -> bytes:
    """The classes' colours."""
    import numpy as np

    return encode_image(np.asarray(prediction.color()))


def confidence(prediction: "Prediction") -> bytes:
    """A grey PNG: 255 is certain."""
    assert prediction.confidence is not None
    return encode_image(prediction.confidence[:, :, None])


def layers(prediction: "Prediction") -> bytes:
    """An RGB PNG for browsers, which show palettes and cut 16 bits: id % 256, id // 256, confidence."""
    import numpy as np

    assert prediction.confidence is not None
    ids = prediction.mask.astype(np.uint16)
    return encode_image(
        np.stack([(ids & 255).astype(np.uint8), (ids >> 8).astype(np.uint8), prediction.confidence], axis=2)
    )


def polygons(prediction: "Prediction") -> bytes:
    """GeoJSON: the areas of one class each, along the edges of pixels."""
    return json.dumps(prediction.polygons(), ensure_ascii=False, separators=(",", ":")).encode()


def shares(prediction: "Prediction") -> bytes:
    """Each class's share of the pixels."""
    height, width = prediction.mask.shape
    told = {
        "height": height,
        "width": width,
        "shares": {name: round(share, 6) for name, share in prediction.shares().items()},
    }
    return json.dumps(told, ensure_ascii=False).encode()


def probs(logits: "Logits") -> bytes:
    """A .npy of the softmax, (K, h, w) float16, at the size of the network's logits."""
    import numpy as np

    powers = np.exp(logits - logits.max(axis=0))
    file = io.BytesIO()
    np.save(file, (powers / powers.sum(axis=0)).astype(np.float16))
    return file.getvalue()


ANSWERS: dict[str, Answer] = {
    "segments": Answer(
        "application/json",
        "mask",
        segments,
        "Hugging Face's: [{label, score, mask}], mask a base64 PNG of 0 and 255; score is null, as of semantic masks",
    ),
    "map": Answer(
        "image/png",
        "mask",
        class_map,
        "class ids, a PNG of 8 bits with the classes' colours as palette, or of 16",
    ),
    "overlay": Answer("image/png", "mask", overlay, "the image under the classes' colours"),
    "color": Answer("image/png", "mask", color, "the classes' colours"),
    "confidence": Answer(
        "image/png", "confidence", confidence, "how sure the model is of every pixel, 255 = certain"
    ),
    "layers": Answer(
        "image/png",
        "confidence",
        layers,
        "for browsers: red + 256 green is the class id, blue the confidence",
    ),
    "polygons": Answer(
        "application/geo+json", "mask", polygons, "GeoJSON of every area, in pixels, along their edges"
    ),
    "shares": Answer("application/json", "mask", shares, "each class's share of the pixels"),
    "probs": Answer(
        "application/x-npy",
        "logits",
        probs,
        "probabilities (K, h, w) float16 at the logits' size, a .npy file",
    ),
}
