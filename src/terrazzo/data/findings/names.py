"""Findings about the list of classes: two names for one, classes that never occur, and rare ones."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from terrazzo.balance import class_weights
from terrazzo.data import symptoms
from terrazzo.data.chart import Chart
from terrazzo.data.counts import spread
from terrazzo.data.findings.finding import Finding, fix_command, holding, images, named, some, words

_RARE = 50.0  # times fewer pixels than the most frequent class; drawn scenes reach 9, Cityscapes and CamVid over 100
FORMULA = "sqrt_inverse"  # of loss.class_weights: mild, and a good start (docs/how-to/rare-classes.md)


def twins(chart: Chart) -> Iterator[Finding]:
    """Classes whose names differ in case, spaces, hyphens or a plural s alone."""
    if chart.about is None:
        return
    alike: dict[str, list[str]] = defaultdict(list)
    for name in chart.about.classes.names:
        alike[_plain(name)].append(name)
    groups = [names for names in alike.values() if len(names) > 1]
    if not groups:
        return
    shown = "; ".join(" and ".join(repr(name) for name in names) for names in groups)
    count = len(chart.about.classes)
    can_be_told = not any(
        set(name) & set("+=;") or name != name.strip() for names in groups for name in names
    )
    rules = ";".join(f"{'+'.join(names)}={names[0]}" for names in groups)
    table = symptoms.file_table(chart)
    raws = tuple(
        raw for raw, class_id in table.items() if class_id is not None
        and any(chart.about.classes.names[class_id] in names[1:] for names in groups)
    )  # fmt: skip
    files, _ = named(
        [where for case in holding(chart, raws) for where in ([case.mask.where] if case.mask else [])]
    )
    yield Finding(
        "warning",
        "twin-names",
        f"{some(len(groups), 'class has', 'classes have')} more than one name: {shown}.",
        files,
        len(groups),
        expected="one name for a class",
        hint="Pixels of one thing would be learned as two, and each counted as a mistake for the other. To make them "
        "one, by the table in dataset.json of a copy:"
        if can_be_told
        else 'Name both alike where the masks were made, or merge them in a recipe: data.merge=["A+B=A"].',
        command=fix_command(chart, f"--merge={rules}") if can_be_told else None,
        cost=sum(len(names) for names in groups) / count,
        raw_ids=raws,
    )


def absent(chart: Chart) -> Iterator[Finding]:
    """Classes that never occur, or only where nothing is learned."""
    occurring: dict[str, set[int]] = {}
    for case in chart.cases:
        if case.mask is not None and not symptoms.labels(case).problem:
            occurring.setdefault(case.split, set()).update(symptoms.occurring(case, chart))
    if chart.space is None or not occurring:
        return
    if symptoms.are_ids_doubted(chart):
        return
    names = chart.space.classes.names
    gone = [name for i, name in enumerate(names) if not any(i in here for here in occurring.values())]
    if gone and len(gone) < len(names):
        what = f"{some(len(gone), 'class never occurs', 'classes never occur')}: {words(gone)}."
        advice = "Nobody can learn or score them: their IoU is n/a. To take them off the list of classes, in a copy:"
        yield Finding("warning", "absent", what, count=len(gone), hint=advice, expected="pixels of every class",
                      command=fix_command(chart, "--drop-absent"),
                      cost=len(gone) / len(names) / 4)  # fmt: skip
    yield from _not_in_train(chart, occurring, names)


def _not_in_train(chart: Chart, occurring: dict[str, set[int]], names: Sequence[str]) -> Iterator[Finding]:
    """Classes that are scored and never learned: those of one split alone, and those of several."""
    if "train" not in occurring:
        return
    places: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i in range(len(names)):
        there = tuple(split for split, here in occurring.items() if i in here)
        if there and "train" not in there:
            places[there].append(i)
    table = symptoms.raw_table(chart) or {}
    for there, lost in places.items():
        raws = [raw for raw, class_id in table.items() if class_id in lost]
        cases = [case for case in holding(chart, raws) if case.split in there]
        only = len(there) == 1
        what = f"{some(len(lost), 'class occurs', 'classes occur')} " + (
            f"in {there[0]} and never in train"
            if only
            else f"in {' and '.join(there)} and is missing in train"
        )
        can_move = "val" in there and len(cases) > 0
        yield Finding(
            "warning",
            f"only-in-{there[0]}" if only else "missing-in-train",
            what + f": {words([names[i] for i in lost])}.",
            *named(images(cases)),
            found=f"{some(len(cases), 'image', 'images')} with it",
            expected="such images in train too",
            hint="What is never shown is not learned. Label such images for train"
            + (", or divide train and val anew, in a copy:" if can_move else "."),
            command=fix_command(chart, "--resplit") if can_move else None,
            cost=len(lost) / len(names),
            raw_ids=tuple(raws),
        )


def imbalance(chart: Chart) -> Iterator[Finding]:
    """Classes of few pixels, with the weights that the loss would give."""
    table = symptoms.raw_table(chart)
    split = "train" if "train" in chart.splits else ""
    cases = [case for case in chart.cases if case.split == split and case.image is not None]
    if table is None or chart.space is None or not any(symptoms.labels(case).ids for case in cases):
        return
    names = chart.space.classes.names
    pixels = np.zeros(len(names), np.int64)
    for index in spread(len(cases)):  # the very masks from which a training takes its weights
        for raw, count in symptoms.labels(cases[index]).ids.items():
            if (class_id := table.get(raw)) is not None:
                pixels[class_id] += count
    if not pixels.any():
        return
    most = int(pixels.argmax())
    rare = [i for i in np.argsort(pixels).tolist() if 0 < pixels[i] < pixels[most] / _RARE]
    if not rare:
        return
    share = pixels / pixels.sum()
    weights = class_weights(pixels, FORMULA)
    shown = ", ".join(f"{names[i]} {share[i]:.2%}" for i in rare[:8]) + (", …" if len(rare) > 8 else "")
    each = ", ".join(
        f"{name} {weight:.2f}" for name, weight in zip(names[:40], weights.tolist(), strict=False)
    )
    raws = tuple(raw for raw, class_id in table.items() if class_id in rare)
    files, _ = named(images(case for case in holding(chart, raws) if case.split == split))
    yield Finding(
        "warning",
        "imbalance",
        f"{some(len(rare), 'class has', 'classes have')} less than a {_RARE:.0f}th of the pixels of "
        f"{names[most]} ({share[most]:.1%}): {shown}.",
        files,
        len(rare),
        expected="nothing: it may be so in the world",
        hint="A network may learn to leave them out, and the mean IoU counts each like any other. Adding "
        f"loss.class_weights={FORMULA} to terrazzo train lets them weigh more: {each}"
        f"{', …' if len(names) > 40 else ''}. More on rare classes: docs/how-to/rare-classes.md.",
        cost=len(rare) / len(names) / 4,
        raw_ids=raws,
    )


def _plain(name: str) -> str:
    """A name without case, spaces, hyphens and a plural s."""
    plain = re.sub(r"[\s_\-./]+", " ", name.strip().casefold())
    is_plural = len(plain) > 3 and plain.endswith("s") and not plain.endswith(("ss", "us", "is"))
    return plain[:-1] if is_plural else plain
