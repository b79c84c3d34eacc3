"""Images as browsers show them: upright, 8 bits a channel, whole or as small as is looked at; thumbnails.

Level 0 is the whole image, level k has half the width and height of level k-1, rounded up. A JPEG is decoded at the
size that is asked for, so a first look at 12 megapixels takes a fifth of the time of the whole. What was made is kept
in a folder beside the project, up to a number of bytes, under the hash of the image: nothing there is needed, and a
changed image is another one. Images are only read, and never shown when they are not those that were labelled; what
their files say beside the pixels is not sent.
"""

import io
from typing import TYPE_CHECKING, Any

from terrazzo.decoding import opened
from terrazzo.errors import UnreadableFileError
from terrazzo.images import decode_image
from terrazzo.labelling.kept import Kept
from terrazzo.labelling.limits import Limits
from terrazzo.metadata import without_metadata
from terrazzo.project import Project
from terrazzo.project.samples import Entry
from terrazzo.web.problems import RefusalError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

SMALLEST = 512  # pixels of the longer side: the last level is not larger
THUMB = 256  # pixels of the longer side
QUALITY, THUMB_QUALITY = 92, 80  # thumbnails are looked at from afar
PLAIN = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}  # what browsers show as it is
PLAIN_HEADS = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF")
TURNS: dict[int, tuple[str, ...]] = {  # Pillow's words for what makes an image upright, by EXIF's orientation
    1: (),
    2: ("FLIP_LEFT_RIGHT",),
    3: ("ROTATE_180",),
    4: ("FLIP_TOP_BOTTOM",),
    5: ("TRANSPOSE",),
    6: ("ROTATE_270",),
    7: ("TRANSVERSE",),
    8: ("ROTATE_90",),
}


def level_hw(one: Entry, level: int) -> tuple[int, int]:
    """Return (height, width) of a level of an image."""
    return -(-one.height >> level), -(-one.width >> level)


def levels(one: Entry) -> list[dict[str, int]]:
    """Return the levels of an image, plain JSON."""
    found = []
    for level in range(16):
        height, width = level_hw(one, level)
        found.append({"level": level, "width": width, "height": height})
        if max(height, width) <= SMALLEST:
            break
    return found


class Pictures:
    """The pictures of one project's images."""

    def __init__(self, project: Project, limits: Limits) -> None:
        self._project = project
        self._kept = Kept(project.path.with_suffix(".pictures"), limits.cache_bytes, ".jpg")

    def level(self, one: Entry, level: int) -> tuple[bytes, str]:
        """Return (bytes, media type) of a level of a sample's image; raises DataError where it is gone or changed."""
        there = levels(one)
        if not 0 <= level < len(there):
            raise RefusalError(
                404,
                f"The image has no level {level}.",
                kind="unknown-level",
                expected=f"0 to {len(there) - 1}",
            )
        return self._picture(one, f"level{level}", level_hw(one, level), QUALITY, is_whole=level == 0)

    def thumb(self, one: Entry) -> tuple[bytes, str]:
        """Return (bytes, media type) of a picture of 256 pixels at most; raises as `level`."""
        scale = min(1.0, THUMB / max(one.height, one.width))
        hw = max(1, round(one.height * scale)), max(1, round(one.width * scale))
        return self._picture(one, "thumb", hw, THUMB_QUALITY)

    def _picture(
        self, one: Entry, what: str, hw: tuple[int, int], quality: int, *, is_whole: bool = False
    ) -> tuple[bytes, str]:
        if self._project.samples.state(one) != "there":
            self._project.samples.content(one)  # raises, with what is wrong
        key = f"{one.sha256[:40]}-{what}_{one.orientation}"
        kept = self._kept.get(key)
        if kept is not None:
            return kept, "image/jpeg"
        data = self._project.samples.content(one)
        plain = _as_it_is(data, one) if is_whole else None
        if plain is not None:
            return without_metadata(data, where=repr(one.name)), plain
        file = io.BytesIO()
        sampling = 2 if quality == THUMB_QUALITY else 0
        _small(data, one, hw).save(file, "JPEG", quality=quality, subsampling=sampling)
        self._kept.put(key, file.getvalue())
        return file.getvalue(), "image/jpeg"


def _as_it_is(data: bytes, one: Entry) -> str | None:
    """The media type of a file that browsers show as we do: upright, 8 bits, three channels or one."""
    if not data.startswith(PLAIN_HEADS) or one.orientation != 1:
        return None
    image = opened(data, where=repr(one.name))
    is_deep = image.format == "PNG" and data[24] == 16
    return (
        PLAIN[str(image.format)]
        if image.format in PLAIN and image.mode in ("RGB", "L") and not is_deep
        else None
    )


def _small(data: bytes, one: Entry, hw: tuple[int, int]) -> "Image.Image":
    """An image, upright, at this size, RGB or grey."""
    from PIL import Image

    is_turned = one.orientation >= 5
    width, height = (hw[0], hw[1]) if is_turned else (hw[1], hw[0])  # as it is stored
    try:
        if data.startswith(b"\xff\xd8"):
            image = opened(data, where=repr(one.name))
            image.draft("RGB", (width, height))
            shown: Image.Image = image.convert("L" if image.mode == "L" else "RGB")
            if shown.size != (width, height):
                shown = shown.resize((width, height), Image.Resampling.BOX, reducing_gap=2.0)
            for turn in TURNS[one.orientation]:
                shown = shown.transpose(Image.Transpose[turn])
            return shown
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableFileError(
            f"The image of {one.name!r} cannot be read.", found=str(error)[:200]
        ) from error
    shown = Image.fromarray(visible(decode_image(data, where=repr(one.name))))  # upright already
    return shown if shown.size == (hw[1], hw[0]) else shown.resize((hw[1], hw[0]), Image.Resampling.BOX)


def visible(image: "NDArray[Any]") -> "NDArray[np.uint8]":
    """Return an image (H, W, C) of any dtype as people can look at it: (H, W) or (H, W, 3) uint8.

    Of more than three channels the first three are shown, of two the first. What is no uint8 is stretched from its
    lowest value to its highest.
    """
    import numpy as np

    shown = image[..., :3] if image.shape[2] >= 3 else image[..., 0]
    if shown.dtype == np.uint8:
        return np.ascontiguousarray(shown)
    low, high = float(shown.min()), float(shown.max())
    scaled = (shown.astype(np.float32) - low) * (255.0 / (high - low) if high > low else 0.0)
    return scaled.round().astype(np.uint8)
