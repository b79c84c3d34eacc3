"""Findings about where labels lie: sizes and turns, shifts, mixed borders, frames and specks."""

from collections import defaultdict
from collections.abc import Iterator

from terrazzo.data import symptoms
from terrazzo.data.chart import Case, Chart
from terrazzo.data.findings.finding import Finding, fix_command, images, masks, named, share_of, some
from terrazzo.data.readings import SPECK

_SPECKLED = 0.03  # of a class's pixels; CamVid's classes reach 0.001, drawn scenes of 96 x 128 pixels 0.02
_TURNS = {
    2: "mirrored left to right",
    3: "turned by 180 degrees",
    4: "mirrored top to bottom",
    5: "transposed: rows and columns have changed places",
    6: "turned by 90 degrees to the left",
    7: "transposed along the other diagonal",
    8: "turned by 90 degrees to the right",
}


def sizes(chart: Chart) -> Iterator[Finding]:
    """Masks of another size than their image, those that EXIF did not turn, and those that lie turned or mirrored."""
    by_state: dict[str, list[Case]] = defaultdict(list)
    for case in chart.cases:
        by_state[symptoms.exif_state(case)].append(case)
    if turned := by_state["turned"]:
        yield Finding(
            "error",
            "exif",
            f"{some(len(turned), 'mask lies', 'masks lie')} as the image is stored, not as it is shown: "
            "EXIF turns the image and not the mask.",
            *named(masks(turned)),
            found=_sizes(turned[0]),
            expected="the size of the image as it is shown",
            hint="Every label would be in a wrong place. To turn the masks like their images, in a copy:",
            command=fix_command(chart, "--exif"),
            cost=share_of(turned, chart),
        )
    if unsure := by_state["unsure"]:
        yield Finding(
            "warning",
            "exif-unsure",
            f"{some(len(unsure), 'image is', 'images are')} turned or mirrored by EXIF and the mask is not; "
            "the sizes do not tell which is right.",
            *named(images(unsure)),
            hint="Look at them. If the masks were drawn on the image as stored, turn them too, in a copy:",
            command=fix_command(chart, "--exif-all"),
            cost=share_of(unsure, chart) / 2,
        )
    lying = [case for case in chart.cases if symptoms.turn_of(case) != 1]
    if lying:
        how = _TURNS[symptoms.turn_of(lying[0])]
        yield Finding(
            "error",
            "turned",
            f"{some(len(lying), 'mask lies', 'masks lie')} turned or mirrored on the image: the first is {how}.",
            *named(masks(lying)),
            found=_sizes(lying[0]),
            expected="the mask as its image lies",
            hint="Every label is in a wrong place. To turn each mask the way that fits its image, in a copy:",
            command=fix_command(chart, "--turn"),
            cost=share_of(lying, chart),
        )
    other = [case for case in chart.cases if symptoms.has_other_size(case)]
    if other:
        mask, image = symptoms.labels(other[0]).size_hw, other[0].seen.size_hw
        yield Finding(
            "error",
            "size",
            f"{some(len(other), 'mask has', 'masks have')} another size than the image: the first is "
            f"{mask[0]}x{mask[1]} on {image[0]}x{image[1]} (height x width).",
            *named(masks(other)),
            expected="the size of the image",
            hint="Labels and pixels do not meet. Export these masks at full size, or leave the pairs out of a copy:",
            command=fix_command(chart, "--drop-mismatched"),
            cost=share_of(other, chart),
        )


def shifts(chart: Chart) -> Iterator[Finding]:
    """Masks that lie beside what they label."""
    moved = [(case, shift) for case in chart.cases if (shift := symptoms.shift_of(case, chart)) is not None]
    if not moved:
        return
    down, right = moved[0][1]
    cases = [case for case, _ in moved]
    yield Finding(
        "error",
        "displaced",
        f"{some(len(cases), 'mask lies', 'masks lie')} beside what it labels: the first fits its image best when moved "
        f"by {_way(down, right)}.",
        *named(masks(cases)),
        found="borders of labels beside the edges of the image",
        expected="borders on the edges",
        hint="Look at them. To move each mask to where it fits, the strip that comes free ignored, in a copy:",
        command=fix_command(chart, "--align"),
        cost=share_of(cases, chart) / 2,
    )


def blends(chart: Chart) -> Iterator[Finding]:
    """Masks whose ids were mixed along borders."""
    mixed = [case for case in chart.cases if symptoms.is_blended(case)]
    if not mixed:
        return
    mask = symptoms.labels(mixed[0])
    yield Finding(
        "error",
        "blended",
        f"{some(len(mixed), 'mask has', 'masks have')} mixed ids along borders: between two classes lie ids that "
        "nobody drew.",
        *named(masks(mixed)),
        found=f"{mask.between:,} such pixels on {mask.borders:,} steps of border in the first",
        expected="one class beside the next",
        hint="They were smoothed, scaled or saved as JPEG on their way. Export them again, scaled to the nearest "
        "pixel; or give these pixels the class beside them, in a copy:",
        command=fix_command(chart, "--unblend"),
        cost=share_of(mixed, chart) / 4,
    )


def frames(chart: Chart) -> Iterator[Finding]:
    """Masks whose rim is ignored, equally wide on all sides."""
    framed = [case for case in chart.cases if symptoms.frame_of(case, chart)]
    wide = [case for case in framed if symptoms.frame_of(case, chart) > 1]
    framed = framed if 4 * len(framed) > len(chart.cases) else wide
    if not framed:
        return
    widths = sorted({symptoms.frame_of(case, chart) for case in framed})
    shown = ", ".join(map(str, widths[:6])) + (", …" if len(widths) > 6 else "")
    frame = symptoms.labels(framed[0]).frame
    yield Finding(
        "warning",
        "frame",
        f"{some(len(framed), 'mask has', 'masks have')} an unlabelled frame, equally wide on all sides: "
        f"{shown} pixel{'s' if widths != [1] else ''}.",
        *named(masks(framed)),
        found=f"raw id {frame.raw} all around" if frame is not None else None,
        expected="labels up to the rim",
        hint="A tool left it, and what a model says there is never scored. If it is not meant, carry the labels next "
        "to it out to the rim, in a copy:",
        command=fix_command(chart, "--fill-frame"),
        cost=share_of(framed, chart) / 20,
        raw_ids=(frame.raw,) if frame is not None else (),
    )


def specks(chart: Chart) -> Iterator[Finding]:
    """Classes of which much lies in areas of a few pixels."""
    table = symptoms.raw_table(chart)
    if table is None or chart.space is None:
        return
    whole, small = symptoms.all_ids(chart), symptoms.all_specks(chart)
    speckled = [
        raw
        for raw, pixels in small.items()
        if table.get(raw) is not None and pixels > max(20, _SPECKLED * whole[raw])
    ]
    if not speckled:
        return
    speckled.sort(key=lambda raw: -small[raw] / whole[raw])
    names = chart.space.classes.names
    shares = [f"{names[table[raw] or 0]} {small[raw] / whole[raw]:.1%}" for raw in speckled]
    cases = [c for c in chart.cases if any(raw in symptoms.labels(c).specks for raw in speckled)]
    cases.sort(key=lambda c: -sum(symptoms.labels(c).specks.get(raw, 0) for raw in speckled))
    yield Finding(
        "warning",
        "specks",
        f"{some(len(speckled), 'class has', 'classes have')} many specks, areas of at most {SPECK} pixels: "
        f"{', '.join(shares[:8])}{', …' if len(shares) > 8 else ''} of the class's pixels.",
        *named(masks(cases)),
        expected=f"less than {_SPECKLED:.0%}",
        hint="Slips of a tool, or noise? To give specks the class around them, in a copy:",
        command=fix_command(chart, "--drop-specks"),
        cost=sum(small[raw] for raw in speckled) / max(1, sum(whole.values())),
        raw_ids=tuple(speckled),
    )


def _sizes(case: Case) -> str:
    mask, image = symptoms.labels(case).size_hw, case.seen.size_hw
    return f"a mask of {mask[0]}x{mask[1]} on an image of {image[0]}x{image[1]} (height x width)"


def _way(down: int, right: int) -> str:
    parts = [f"{abs(down)} pixels {'down' if down > 0 else 'up'}"] if down else []
    parts += [f"{abs(right)} pixels to the {'right' if right > 0 else 'left'}"] if right else []
    return " and ".join(parts) or "less than a pixel"
