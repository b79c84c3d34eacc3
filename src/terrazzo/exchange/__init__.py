"""Labels that come and go: others' formats brought into a labelling project, and releases given out in them.

    exchange.bring(project, "labelme", "labelme-folder")
    exchange.give(project.releases["v1"], "segments", "out")

A page for each way in says what it found as `arrivals`; one page lets them in, all or none. Ways out are pure functions
of a release: the same release gives the same bytes.
"""

from collections.abc import Callable
from pathlib import Path

from terrazzo.errors import unknown_name
from terrazzo.exchange import coco, cvat, data_sets, exports, label_studio, labelme, segments
from terrazzo.exchange.arrivals import Arrivals, Brought, let_in
from terrazzo.project import Project
from terrazzo.project.releases import Release
from terrazzo.storage import refuse_existing, replace_folder

WAYS_IN: dict[str, Callable[[Path, Path], Arrivals]] = {
    "coco": coco.read,
    "cvat": cvat.read,
    "data-set": data_sets.read,
    "label-studio": label_studio.read,
    "labelme": labelme.read,
    "segments": segments.read,
}
WAYS_OUT: dict[str, Callable[[Release, Path], None]] = {
    "coco-panoptic": exports.coco_panoptic,
    "folder": exports.folder,
    "segments": exports.segments,
    "table": exports.table,
}


def bring(project: Project, name: str, src: Path | str, *, author: str | None = None) -> Brought:
    """Bring the labels at `src`, in the format `name`, into a project, all or none; `src` is only read.

    Images stay where they are, and must lie below the project's root; those that come as bytes are written into a
    folder there. Categories are found by name, or added. A sample that has a label keeps it: what is brought twice is
    brought once. Raises a DataError that lists everything that is wrong, and the errors of the format's page.
    """
    if name not in WAYS_IN:
        raise unknown_name("format", name, WAYS_IN)
    return let_in(project, WAYS_IN[name](Path(src).expanduser(), project.root), author=author)


def give(release: Release, name: str, out: Path | str) -> Path:
    """Write a release in the format `name` to the new folder `out`, whole or not at all; returns `out`.

    Images are copied byte for byte. DataError where one is gone or is not the one that was released.
    """
    if name not in WAYS_OUT:
        raise unknown_name("format", name, WAYS_OUT)
    refuse_existing(out)
    with replace_folder(out) as beside:
        WAYS_OUT[name](release, beside)
    return Path(out)
