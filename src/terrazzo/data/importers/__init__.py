"""Published data sets in their own layouts, each imported once into a folder of ours by a page of its own.

A page has `find(root)`, which pairs images with masks or lists every missing path, and `convert(root, out, *, link,
workers)`, which writes the folder and returns it. To add one: the page, a line in IMPORTERS, its test, a line of docs.
"""

from pathlib import Path
from typing import Protocol

from terrazzo.data.importers import camvid
from terrazzo.errors import unknown_name


class Importer(Protocol):
    """What a page of this folder offers."""

    def convert(self, root: Path | str, out: Path | str, *, link: bool = False, workers: int = 1) -> Path:
        """Write the data set at `root` as a folder of ours at `out`, whole or not at all, and return it."""
        ...


IMPORTERS: dict[str, Importer] = {
    "camvid": camvid,
}


def run(name: str, src: Path | str, out: Path | str, *, link: bool = False, workers: int = 1) -> Path:
    """Import `src`, a download in the format `name`, into the new folder `out`; an unknown name gets its nearest.

    The data set at `src` is only read. link: hard links instead of copies where the disk allows.
    """
    if name not in IMPORTERS:
        raise unknown_name("format", name, IMPORTERS, command="terrazzo import --help")
    return IMPORTERS[name].convert(src, out, link=link, workers=workers)
