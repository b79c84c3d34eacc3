"""Findings about what is trained on and what is scored: the same image on both sides, or a moment later."""

import itertools
from collections.abc import Iterator, Sequence

from terrazzo.data import symptoms
from terrazzo.data.chart import Case, Chart
from terrazzo.data.findings.finding import Finding, fix_command, images, named, share_of, some
from terrazzo.data.likeness import near_duplicates
from terrazzo.data.sequences import sequences


def duplicates(chart: Chart) -> Iterator[Finding]:
    """Images that are equal, or look alike, where one is trained on and one scored; and those with two masks."""
    leaks, repeats = symptoms.same_images(chart)
    doubted = symptoms.contradictions(chart)
    command = fix_command(chart, "--drop-duplicates")
    if leaks:
        is_divided = len({case.split for group in leaks for case in group}) == 1
        where = (
            "more than once, and train and val are made of them" if is_divided else "in more than one split"
        )
        what = f"{some(len(leaks), 'image is', 'images are')} {where}, pixel for pixel."
        advice = "Scores would be of images that were trained on. To keep one of each, where it is scored, in a copy:"
        files, _ = named([item for group in leaks for item in images(group)])
        yield Finding("error", "leak", what, files, len(leaks), hint=advice, command=command,
                      expected="every image on one side", cost=share_of(leaks, chart))  # fmt: skip
    if doubted:
        times = some(len(doubted), "image occurs", "images occur")
        what = f"{times} more than once, pixel for pixel, with different masks."
        advice = "One of them is wrong, and nothing here tells which. Take the wrong ones away, or leave all of them " \
            "out of a copy:"  # fmt: skip
        files, _ = named([item for group in doubted for item in images(group)])
        yield Finding("error", "two-masks", what, files, len(doubted), hint=advice, expected="one mask for an image",
                      command=fix_command(chart, "--drop-contradictions"),
                      cost=share_of(doubted, chart))  # fmt: skip
    told = {id(group[0]) for group in doubted}
    repeats = [group for group in repeats if id(group[0]) not in told]
    if repeats:
        what = f"{some(len(repeats), 'image occurs', 'images occur')} more than once in one split."
        advice = "It counts as often as it occurs. To keep the first of each, in a copy:"
        files, _ = named([item for group in repeats for item in images(group)])
        yield Finding("warning", "repeated", what, files, len(repeats), hint=advice, command=command,
                      expected="every image once", cost=share_of(repeats, chart) / 10)  # fmt: skip
    near = near_duplicates(chart)
    if near:
        what = f"{some(len(near), 'image of train looks', 'images of train look')} nearly like one of another split."
        advice = "Frames of one sequence, or copies saved again? Scores may flatter. To drop those of train, in a copy:"
        files, _ = named([item for pair in near for item in images(pair)])
        yield Finding("warning", "near-leak", what, files, len(near), hint=advice,
                      expected="other views of other places",
                      command=fix_command(chart, "--drop-near-duplicates"),
                      cost=share_of(near, chart) / 2)  # fmt: skip


def sequences_apart(chart: Chart) -> Iterator[Finding]:
    """Sequences of which frames are trained on and frames are scored, or would be."""
    found = sequences(chart)
    if found is None:
        return
    apart = found.apart(chart)
    is_divided = not apart and len(chart.splits) == 1 and symptoms.is_divided_later(chart, chart.splits[0])
    if is_divided and (chart.about is None or not chart.about.groups):
        apart = dict(found.groups)
    if not apart or (is_divided and chart.about is not None and chart.about.groups):
        return
    sides = [
        ", ".join(
            f"{sum(case.split == split for case in cases):,} in {split or 'the pool'}"
            for split in chart.splits
            if any(case.split == split for case in cases)
        )
        for cases in apart.values()
    ]
    shown = "; ".join(
        f"{group.rstrip('_-./ ') or group} ({side})"
        for group, side in list(zip(apart, sides, strict=True))[:8]
    ) + ("; …" if len(apart) > 8 else "")
    where = "in more than one split" if not is_divided else "and no group, and train and val are made of them"
    fewer = len(found.groups) < 2
    files, _ = named([item for cases in apart.values() for item in images(_nearest_apart(cases))])
    yield Finding(
        "warning",
        "sequence-apart",
        f"{some(len(apart), 'sequence has', 'sequences have')} frames {where}: {shown}.",
        files,
        len(apart),
        found='the "groups" of dataset.json'
        if chart.about is not None and chart.about.groups
        else "names that differ in their last number alone, and neighbours that look alike",
        expected="all frames of a sequence on one side",
        hint="Frames of one sequence show the same things: scores may flatter. To divide train and val anew by "
        "sequences, in a copy:",
        command=None if fewer else fix_command(chart, "--resplit", f"--groups={found.pattern}"),
        cost=sum(len(cases) for cases in apart.values()) / max(1, len(chart.cases)) / 4,
    )


def _nearest_apart(cases: Sequence[Case]) -> tuple[Case, Case]:
    """Two frames of a sequence that follow each other and lie in different splits; its ends where there are none."""
    pairs = itertools.pairwise(cases)
    return next(((one, other) for one, other in pairs if one.split != other.split), (cases[0], cases[-1]))
