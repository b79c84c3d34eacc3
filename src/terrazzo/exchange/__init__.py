"""Labels that come and go: others' formats brought into a labelling project, and releases given out in them.

    exchange.bring(project, "labelme", "labelme-folder")
    exchange.give(project.releases["v1"], "segments", "out")

A page for each way in says what it found as `arrivals`; one page lets them in, all or none. Ways out are pure functions
of a release: the same release gives the same bytes.
"""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

from terrazzo.errors import unknown_name
from terrazzo.exchange import coco, cvat, data_sets, exports, label_studio, labelme, segments
from terrazzo.exchange.arrivals import Arrivals, Brought, let_in
from terrazzo.metadata import without_metadata
from terrazzo.project import Project
from terrazzo.project.manifest import Member
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


def bring(
    project: Project, name: str, src: Path | str, *, author: str | None = None, dry_run: bool = False
) -> Brought:
    """Bring the labels at `src`, in the format `name`, into a project, all or none; `src` is only read.

    Images stay where they are, and must lie below the project's root; those that come as bytes are written into a
    folder there. Categories are found by name, or added. A sample that has a label keeps it: what is brought twice is
    brought once. dry_run: everything is done and taken back, but for images that came as bytes; what
    came of it is told. Raises a DataError that lists
    everything that is wrong, and the errors of the format's page.
    """
    if name not in WAYS_IN:
        raise unknown_name("format", name, WAYS_IN)
    arrivals = WAYS_IN[name](Path(src).expanduser(), project.root)
    if not dry_run:
        return let_in(project, arrivals, author=author)
    try:
        with project.store.transaction():
            raise _TakenBack(let_in(project, arrivals, author=author))
    except _TakenBack as taken:
        return taken.brought


class _TakenBack(Exception):
    def __init__(self, brought: Brought) -> None:
        self.brought = brought


def give(release: Release, name: str, out: Path | str, *, keep_metadata: bool = False) -> Path:
    """Write a release in the format `name` to the new folder `out`, whole or not at all; returns `out`.

    Of images, every pixel stays, and what a file says beside them (places, devices, people) is taken out;
    keep_metadata: files are copied byte for byte. DataError where an image is gone or is not the one that was released,
    ProjectError for a release that was withdrawn.
    """
    if name not in WAYS_OUT:
        raise unknown_name("format", name, WAYS_OUT)
    release.refuse_withdrawn()
    refuse_existing(out)
    with replace_folder(out) as beside:
        WAYS_OUT[name](release if keep_metadata else _clean(release), beside)
    return Path(out)


class _Clean(Release):
    """A release whose images say nothing beside their pixels."""

    def image(self, member: Member) -> bytes:
        return without_metadata(super().image(member), where=repr(member.name))


def _clean(release: Release) -> Release:
    return _Clean(**{one.name: getattr(release, one.name) for one in fields(release)})
