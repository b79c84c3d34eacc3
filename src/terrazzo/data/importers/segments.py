"""Segments.ai: a release, which is a JSON file, with its images and bitmaps below its folder or at addresses.

    RELEASE.json    {"name", "dataset": {"task_attributes": {"categories": […]}, "samples": [{"name", "labels": {…}}]}}
    "url"           of an image or a bitmap: a path below the folder of RELEASE.json, or http(s)://…, fetched if asked

The layout is that of the site's documentation, structure-of-the-release-file, and of its SDK. A bitmap numbers regions
(`region_ids`); its annotations say each one's category. Masks hold the categories' own ids, and the table in
dataset.json makes 0 … K-1 of them; 0, no region, is ignored. What has a label that somebody finished is taken: LABELED,
REVIEWED, VERIFIED. A release divides nothing into splits; all is train, of which val is cut on opening.

A release also becomes a table of Hugging Face `datasets` (`segments_table`), where its columns are wanted.
"""

import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from terrazzo import remote
from terrazzo.classes import Classes, Remap, distinct_colors
from terrazzo.data.description import Description
from terrazzo.data.importers import segments_table
from terrazzo.data.importers.fetching import is_address
from terrazzo.data.importers.planning import SHOWN, Pair, Piece, Plan, Wanted, refuse_missing
from terrazzo.data.importers.segments_files import Bitmap, Fetched, Local, Seen, Values, image_suffix
from terrazzo.data.importers.segments_json import STATUSES, Item, Release, read_release
from terrazzo.errors import DatasetFormatError, UsageError, quoted, unknown_name

NAME = "Segments.ai"
ANNOTATIONS = ("bitmap",)
WORDS = ("columns", "download", "labelset", "status")
FINISHED = ("LABELED", "REVIEWED", "VERIFIED")  # somebody says the label is done
ALL = "all"
COLUMNS = tuple(segments_table.FEATURES)


def plan(root: Path, wanted: Wanted, stack: ExitStack) -> Plan:
    """Pair the samples of the release file `root` with their bitmaps, which are read when the plan is carried out.

    wanted.labelset: "ground-truth", or the only one, where None. wanted.status: the label statuses to take, in any
    case, or ("all",); FINISHED where (). wanted.download: fetch what lies at addresses; without it they are refused.
    wanted.partial: what is named and not there is left out. wanted.columns: a table instead of our folder.
    """
    if wanted.columns is not None and wanted.columns not in COLUMNS:
        raise unknown_name("set of columns", wanted.columns, COLUMNS)
    release = read_release(root, wanted.labelset)
    chosen, notes = choose(release, wanted.status)
    values, seen = Values.for_categories(tuple(release.categories)), Seen()
    folder = root.resolve().parent
    _refuse_addresses(chosen, root, download=wanted.download)
    stop = threading.Event()
    missing: list[str] = []
    found: list[tuple[Item, Pair]] = []
    bare = 0
    for item in chosen:
        image = _origin(item.image, item, folder, missing, stop)
        bitmap = _origin(item.bitmap, item, folder, missing, stop)
        has_all = image is not None and (item.bitmap is None or bitmap is not None)
        if item.image is None:
            missing.append(f"the image of {item.name!r:.80}: the release names none")
        bare += item.bitmap is None
        if not has_all or image is None or (bitmap is None and wanted.columns != "segments"):
            continue
        mask = None
        if bitmap is not None:
            mask = Bitmap(item.name, bitmap, image, item.regions, values, seen)
        found.append((item, Pair(item.stem, image, mask)))
    missing = list(dict.fromkeys(missing))  # samples may share a file
    if not wanted.partial:
        refuse_missing(
            missing, root=root, format_name=NAME, layout="every path of the release below its folder"
        )
    elif missing:
        notes.append(f"{len(missing)} files are named and not there; their samples are left out.")
    if bare and wanted.columns == "segments":
        notes.append(f"{bare} of the samples taken have no bitmap: their cells are empty.")
    elif bare:
        notes.append(f"{bare} of the samples taken have no bitmap, and are left out.")
    if not found:
        raise _nothing(release, chosen)
    if wanted.columns != "segments":
        notes.append(
            f"What nobody drew is {values.unlabelled} in the masks, and ignored: not trained, not scored."
        )
    description = describe(release, [item for item, _ in found], values)
    if not values.are_ids:
        notes.append(
            "Category ids beyond 65,534 do not fit a mask: masks hold 1 … K; dataset.json has the ids."
        )
    write = None
    if wanted.columns is not None:
        write = partial(
            segments_table.write,
            found=found,
            release=release,
            values=values,
            columns=wanted.columns,
            stop=stop.set,
        )
    pairs = {"train": [pair for _, pair in found]}
    return Plan(pairs, description, tuple(notes), seen=seen.sentences, stop=stop.set, write=write)


def choose(release: Release, status: Sequence[str]) -> tuple[list[Item], list[str]]:
    """Return the samples whose label has one of these statuses, and sentences that say what was left out.

    status: names in any case; () for FINISHED, ("all",) for every sample. UnknownNameError for names that neither the
    site nor this release knows.
    """
    counts = Counter(item.status for item in release.items)
    known = tuple(dict.fromkeys((*STATUSES, *sorted(counts))))
    asked = tuple(one.strip().upper() for one in status)
    for one in asked:
        if one != ALL.upper() and one not in known:
            raise unknown_name("label status", one, (*known, ALL))
    wanted = known if ALL.upper() in asked else asked or FINISHED
    chosen = [item for item in release.items if item.status in wanted]
    taken = [(one, counts[one]) for one in known if one in wanted and counts[one]]
    left = [(one, counts[one]) for one in known if one not in wanted and counts[one]]
    notes = [
        f"Taken by label status: {_counted(taken)}." if taken else "Nothing has the label status asked for."
    ]
    if left:
        notes.append(f"Left out: {_counted(left)}. --status A,B,… takes others, --status all every one.")
    if release.other_labelsets:
        others = ", ".join(f"{name!r:.80}" for name in release.other_labelsets[:SHOWN])
        notes.append(f"Labelset {release.labelset!r:.80}; the release also has {others} (--labelset).")
    return chosen, notes


def describe(release: Release, items: Iterable[Item], values: Values) -> Description:
    """Return what dataset.json says of a release: categories in the order of their ids, nothing beside them scored."""
    spare = distinct_colors(len(release.categories))
    colors = tuple(release.colors.get(raw, spare[i]) for i, raw in enumerate(release.categories))
    table: dict[int, int | None] = {values.of[raw]: i for i, raw in enumerate(release.categories)}
    about = {
        "release": release.name,
        "dataset": release.dataset,
        "labelset": release.labelset,
        "has_instances": list(release.things),
        "uuids": {item.stem: item.uuid for item in items if item.uuid},
    }
    if not values.are_ids:
        about["category_ids"] = {str(value): raw for raw, value in values.of.items()}
    return Description(
        classes=Classes(tuple(release.categories.values()), colors),
        remap=Remap({values.unlabelled: None, **table}, len(release.categories)),
        raw_names={values.unlabelled: "unlabeled"},
        name=release.dataset.rpartition("/")[2],
        license="not stated in the release",
        source=f"Segments.ai, {release.dataset}, release {release.name}"
        + (f" of {release.created[:10]}" if release.created else ""),
        extra={"segments": about},
    )


def _origin(
    url: str | None, item: Item, folder: Path, missing: list[str], stop: threading.Event
) -> Path | Piece | None:
    """Where a file of a sample lies; None where none is named, or, noted in `missing`, where it is not there."""
    if url is None:
        return None
    if remote.is_web(url):
        return Fetched(url, item.name, stop)
    path = folder / url
    try:
        is_there = path.is_file()
    except OSError:  # a name that no file can have
        is_there = False
    if not is_there:
        missing.append(url[:200])
        return None
    return path if image_suffix(url) else Local(path)


def _refuse_addresses(items: Iterable[Item], root: Path, *, download: bool) -> None:
    """Raise for what is no place to read from, all at once, and for addresses that nobody asked to be fetched."""
    folder = root.resolve().parent
    urls = [url for item in items for url in (item.image, item.bitmap) if url is not None]
    bad = [f"{url!r:.120} {why}" for url in urls if (why := _distrust(url, folder))]
    if bad:
        more = [f"… {len(bad)} in all"] if len(bad) > SHOWN else []
        raise DatasetFormatError(
            f"{root} names files where nothing is read from.",
            found="\n" + "\n".join(bad[:SHOWN] + more),
            expected=f"paths below {folder}, such as images/a.jpg, or http and https addresses",
            hint="Put the files below the release's folder, and their paths, relative to it, into the release.",
        )
    web = [url for url in urls if remote.is_web(url)]
    if web and not download:
        raise UsageError(
            f"{root} names {len(web):,} files at addresses; nothing is fetched unless you say so.",
            found=f"files on {', '.join(sorted({url.split('/')[2].rpartition('@')[2] for url in web})[:SHOWN])}",
            hint="To fetch them:",
            command=f"terrazzo import segments {quoted(root)} --out DIR --download --workers 8",
        )


def _distrust(url: str, folder: Path) -> str | None:
    if not url.isprintable():
        return "is no place"
    if remote.is_web(url):
        return None if is_address(url) else "is no address"
    if remote.is_url(url) or url.lower().startswith("file:"):
        return "is an address that is not read here"
    if url.startswith(("/", "\\")) or url[1:2] == ":" or "\\" in url:
        return "is no relative path"
    if ".." in url.split("/"):
        return "leaves the folder"
    try:
        is_inside = (folder / url).resolve().is_relative_to(folder)
    except (OSError, RuntimeError, ValueError):
        return "is no place"
    return None if is_inside else "is a link that leaves the folder"


def _nothing(release: Release, chosen: Sequence[Item]) -> DatasetFormatError:
    counts = Counter(item.status for item in release.items)
    return DatasetFormatError(
        f"The release {release.name} has no sample that can be taken.",
        found=f"labels in {release.labelset!r}: {_counted(sorted(counts.items()))}"
        + (f"; {len(chosen)} of the statuses asked for, without image and bitmap" if chosen else ""),
        expected=f"samples with a bitmap and the status {', '.join(FINISHED)}, or another that is asked for",
        hint="To take labels of every status that have a bitmap:",
        command="terrazzo import segments RELEASE.json --out DIR --status all",
    )


def _counted(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{status} {count:,}" for status, count in counts)
