"""A release of Segments.ai, brought in: regions stay regions, every status is ours."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from terrazzo import decoding, remote
from terrazzo.data.importers.segments_files import Look
from terrazzo.data.importers.segments_json import Item, read_release
from terrazzo.errors import DataError, DatasetFormatError, UsageError, quoted
from terrazzo.exchange.arrivals import Arrival, Arrivals, Drawn, Kind, find_image
from terrazzo.project.statuses import FROM_SEGMENTS
from terrazzo.region_ids import read_region_ids


def read(src: Path, root: Path) -> Arrivals:
    """Return what the release file `src` brings. Files at addresses are not fetched: UsageError."""
    release = read_release(src)
    folder = src.parent
    web = [url for one in release.items for url in (one.image, one.bitmap) if url and remote.is_web(url)]
    if web:
        raise UsageError(
            f"{src} names {len(web):,} files at addresses; nothing is fetched here.",
            hint="Fetch them first, into a folder, and bring that in:",
            command=f"terrazzo import segments {quoted(src)} --out DIR --download",
        )
    missing: list[str] = []
    samples = []
    for one in release.items:
        image = _place(one.image, folder, missing)
        bitmap = None if one.bitmap is None else _place(one.bitmap, folder, missing)
        if image is None:
            continue
        draw = None if bitmap is None else partial(_draw, one, bitmap, image, release.categories)
        samples.append(Arrival(image, draw, FROM_SEGMENTS.get(one.status, "in_progress"), where=one.name))
    if missing:
        more = [f"… {len(missing)} in all"] if len(missing) > 10 else []
        raise DatasetFormatError(
            f"{src} names files that are not below its folder.", found="\n" + "\n".join(missing[:10] + more)
        )
    kinds = tuple(
        Kind(name, release.colors.get(raw), raw in release.things) for raw, name in release.categories.items()
    )
    return Arrivals(kinds, tuple(samples))


def _place(url: str | None, folder: Path, missing: list[str]) -> Path | None:
    found = None if url is None else find_image([url], [folder])
    if found is None:
        missing.append(f"{url!r:.120}")
    return found


def _draw(one: Item, bitmap: Path, image: Path, categories: Any) -> Drawn:
    ids = read_region_ids(bitmap)
    look = Look.at(image.read_bytes(), where=str(image))
    if (
        ids.shape == look.shown_hw[::-1] != look.shown_hw and look.orientation >= 5
    ):  # drawn on the image as stored
        ids = decoding.turn(ids, look.orientation)
    strange = sorted(set(np.unique(ids).tolist()) - {0, *one.regions})
    if strange:
        raise DataError(
            f"the bitmap has regions that no annotation gives a category: {', '.join(map(str, strange[:8]))}"
        )
    return Drawn(ids, {region: categories[raw] for region, raw in one.regions.items()})
