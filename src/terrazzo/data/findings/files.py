"""Findings about the description, the folders, the pairs, and files that cannot be used."""

import re
from collections import defaultdict
from collections.abc import Iterator

from terrazzo.data import symptoms
from terrazzo.data.chart import Chart
from terrazzo.data.findings.finding import (
    Finding,
    fix_command,
    images,
    masks,
    named,
    same_names,
    share_of,
    some,
)
from terrazzo.errors import MaskValueError, TerrazzoError


def layout(chart: Chart) -> Iterator[Finding]:
    """Descriptions that cannot be read, and splits without any mask."""
    for problem in chart.problems:
        what = problem.what + (f" Found: {problem.found.strip()}" if problem.found else "")
        yield Finding("error", "description", what, count=1, expected=problem.expected, hint=problem.hint,
                      command=problem.command, cost=1.0)  # fmt: skip
    for split in chart.bare:
        cases = [case for case in chart.cases if case.split == split]
        where = chart.folders[split].masks_folder if split in chart.folders else chart.source
        yield Finding(
            "error",
            "no-masks",
            (f"The split {split!r} has " if split else "There are ")
            + f"{some(len(cases), 'image', 'images')} and no mask.",
            *named(images(cases)),
            expected="a mask for every image; only a test split may be without",
            hint="Nothing can be learned or scored there; only a test split may be without masks. "
            f"Put them into {where}: PNG of class ids, each of its image's name and size.",
            cost=1.0,
        )


def pairing(chart: Chart) -> Iterator[Finding]:
    """Images without masks, masks without images, names that are there twice, listed and absent, or unlisted."""
    command, hint = fix_command(chart, "--drop-unpaired"), chart.pairing_hint
    may_lack = {*chart.bare, "test"}
    labelled = {case.split for case in chart.cases if case.mask is not None}
    alone = [case for case in chart.cases if case.image is not None and case.mask is None]
    alone = [case for case in alone if case.split in labelled or case.split not in may_lack]
    if alone:
        what = f"{some(len(alone), 'image has', 'images have')} no mask."
        advice = hint or "Label them, or leave them out of a copy:"
        yield Finding("error", "image-alone", what, *named(images(alone)), hint=advice, command=command,
                      expected=f"{alone[0].name}.png among the masks", cost=share_of(alone, chart))  # fmt: skip
    lonely = [case for case in chart.cases if case.image is None]
    if lonely:
        what = f"{some(len(lonely), 'mask has', 'masks have')} no image."
        advice = hint or "Bring the images back, or leave the masks out of a copy:"
        yield Finding("error", "mask-alone", what, *named(masks(lonely)), hint=advice, command=command,
                      expected=f"{lonely[0].name} among the images", cost=share_of(lonely, chart))  # fmt: skip
    twice = same_names(chart)
    if twice:
        what = f"{len(twice)} files share their name with another but for the suffix."
        advice = "Which image belongs to which mask cannot be told. Rename them, or leave all of them out of a copy:"
        yield Finding("error", "same-name", what, *named(twice), hint=advice, command=command,
                      expected="one file of a name", cost=share_of(twice, chart))  # fmt: skip
    if chart.missing:
        what = f"dataset.json lists {some(len(chart.missing), 'image that is', 'images that are')} not there."
        advice = "Bring them back, or take them off the lists in a copy:"
        yield Finding("error", "missing", what, *named(chart.missing), hint=advice, command=command,
                      expected="a file for every name", cost=share_of(chart.missing, chart))  # fmt: skip
    unlisted = [case for case in chart.cases if chart.by_lists and not case.split]
    if unlisted:
        what = (
            f"{some(len(unlisted), 'image is', 'images are')} in none of the splits that dataset.json lists."
        )
        advice = "They are not used. List them, or leave them out of a copy:"
        yield Finding("warning", "unlisted", what, *named(images(unlisted)), hint=advice,
                      command=fix_command(chart, "--drop-unlisted"), cost=share_of(unlisted, chart) / 4)  # fmt: skip


def unreadable(chart: Chart) -> Iterator[Finding]:
    """Images and masks that cannot be used, told together by their trouble; JPEG masks apart."""
    broken: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for case in chart.cases:
        mask = symptoms.labels(case)
        for kind, item, problem in (
            ("unreadable-image", case.image, case.seen.problem),
            ("jpeg-mask" if mask.is_jpeg else "unreadable-mask", case.mask, mask.problem),
        ):
            if item is not None and problem is not None:
                reason = _reason(item.where, problem)
                broken[kind, re.sub(r"\d+", "0", reason)].append((item.where, reason))
    for (kind, _), found in broken.items():
        what = "image" if kind == "unreadable-image" else "mask"
        advice = "Restore them, or leave them out of a copy, with their partners:"
        if kind == "jpeg-mask":
            advice = "Every border holds ids that nobody drew. Export them again as PNG from where they came, or " \
                "leave them out of a copy, with their images:"  # fmt: skip
        yield Finding(
            "error",
            kind,
            f"{some(len(found), what, what + 's')} cannot be used: {found[0][1]}",
            *named([where for where, _ in found]),
            expected="a PNG or TIFF of ids" if kind == "jpeg-mask" else "a whole file",
            hint=advice,
            command=fix_command(chart, "--drop-unreadable"),
            cost=share_of(found, chart),
        )


def forms(chart: Chart) -> Iterator[Finding]:
    """Images of other channels or another dtype than the data set."""
    form = symptoms.main_form(chart)
    odd = [case for case in chart.cases if symptoms.has_other_form(case, form)]
    if odd:
        seen = odd[0].seen
        yield Finding(
            "error",
            "form",
            f"{some(len(odd), 'image is', 'images are')} not of the data set's form, {form[0]} channels of {form[1]}: "
            f"the first has {seen.channels} of {seen.dtype}.",
            *named(images(odd)),
            expected=f"{form[0]} channels of {form[1]}",
            hint="Convert them, or declare their form in dataset.json if they are right, or leave them out of a copy:",
            command=fix_command(chart, "--drop-other-forms"),
            cost=share_of(odd, chart),
        )


def _reason(where: str, problem: TerrazzoError) -> str:
    """Why a file cannot be used, without its name, so that files with the same trouble are told together."""
    told = problem.what if isinstance(problem, MaskValueError) or not problem.found else problem.found
    told = told.replace(f"The mask {where}", "it").replace(f"The image {where}", "it").replace(where, "it")
    return told.strip().splitlines()[0].rstrip(".") + "."
