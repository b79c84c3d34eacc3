"""Published data sets in their own layouts, each imported once into a folder of ours by a page of its own.

A page has a function `find`, which pairs images with masks or lists every missing path; `convert`, which writes the
folder and returns it; and ANNOTATIONS, the kinds of masks one may choose from. `downloads` reads folders and zips,
`copying` writes. To add one: the page, a line in IMPORTERS and one in cli/datasets.FORMATS, its test, a line of docs.
"""

from pathlib import Path
from typing import Protocol

from terrazzo.data.importers import ade20k, bdd100k, camvid, cityscapes, coco, voc
from terrazzo.errors import UsageError, unknown_name


class Importer(Protocol):
    """What a page of this folder offers."""

    @property
    def ANNOTATIONS(self) -> tuple[str, ...]:
        """Kinds of masks to choose from, the usual one first; one name where there is no choice."""

    def convert(
        self,
        root: Path | str,
        out: Path | str,
        *,
        annotations: str,
        partial: bool = False,
        link: bool = False,
        workers: int = 1,
    ) -> Path:
        """Write the data set at `root` as a folder of ours at `out`, whole or not at all, and return it.

        annotations: one of ANNOTATIONS. partial: what is there is taken where it is not the whole data set; a page
        that does not count has nothing to let pass.
        """
        ...


IMPORTERS: dict[str, Importer] = {
    "ade20k": ade20k,
    "bdd100k": bdd100k,
    "camvid": camvid,
    "cityscapes": cityscapes,
    "coco": coco,
    "voc": voc,
}


def run(
    name: str,
    src: Path | str,
    out: Path | str,
    *,
    annotations: str | None = None,
    partial: bool = False,
    link: bool = False,
    workers: int = 1,
) -> Path:
    """Import `src`, a download in the format `name`, into the new folder `out`; an unknown name gets its nearest.

    The data set at `src` is only read. annotations: which masks, where a data set has several kinds; the usual ones
    when None. partial: take what is there although the published data set has more. link: hard links instead of
    copies where the disk allows. workers: files at a time.
    """
    if name not in IMPORTERS:
        raise unknown_name("format", name, IMPORTERS, command="terrazzo import --help")
    page = IMPORTERS[name]
    if annotations is not None and annotations not in page.ANNOTATIONS:
        if len(page.ANNOTATIONS) == 1:
            raise UsageError(f"{name} has one kind of masks.", found=f"--annotations {annotations}")
        raise unknown_name("kind of annotations", annotations, page.ANNOTATIONS)
    return page.convert(
        src,
        out,
        annotations=annotations or page.ANNOTATIONS[0],
        partial=partial,
        link=link,
        workers=workers,
    )
