"""Images to try a model without having one: the owner's own, or scenes drawn for it."""

import io
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from terrazzo.errors import MissingPathError, UsageError, unknown_name

SHOWN = 8
TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}  # browsers show them
SCENE_HW = (480, 640)
SCENES = (1_000_035, 1_000_027, 1_000_041, 1_000_029)  # held out: no training on scenes has seen them


@dataclass(frozen=True)
class Example:
    """An image file."""

    media_type: str
    """Of the file."""
    data: bytes
    """The file."""


class Examples:
    """Images under numbered names: files of a folder by name, eight at most, or four street scenes."""

    def __init__(self, folder: "str | os.PathLike[str] | None" = None) -> None:
        self._paths: list[Path] = []
        self._is_drawn = folder is None
        if folder is not None:
            path = Path(folder)
            if not path.is_dir():
                raise MissingPathError(f"There is no folder {path}.", expected="a folder of example images")
            self._paths = sorted(
                one for one in path.iterdir() if one.suffix.lower() in TYPES and one.is_file()
            )[:SHOWN]
            if not self._paths:
                raise UsageError(f"The folder {path} holds no example images.", expected=", ".join(TYPES))

    def names(self) -> list[str]:
        """Return the names, which are numbers: no path of this machine is told."""
        return [str(number) for number in range(1, 1 + (len(SCENES) if self._is_drawn else len(self._paths)))]

    def read(self, name: str) -> Example:
        """Return the image called `name`; raises UnknownNameError."""
        if name not in self.names():
            raise unknown_name("example", name[:80], self.names())
        number = int(name) - 1
        if self._is_drawn:
            return self._drawn[number]
        path = self._paths[number]
        return Example(TYPES[path.suffix.lower()], path.read_bytes())

    @cached_property
    def _drawn(self) -> list[Example]:
        from PIL import Image

        from terrazzo.data.scenes import scene

        drawn = []
        for index in SCENES:
            file = io.BytesIO()
            Image.fromarray(scene(index, size_hw=SCENE_HW).image).save(file, "JPEG", quality=88)
            drawn.append(Example("image/jpeg", file.getvalue()))
        return drawn
