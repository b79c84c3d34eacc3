"""Findings about what masks hold: names for their ids, colours in their place, ids that mean something else."""

import shlex
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from terrazzo.classes import IGNORE_8BIT, IGNORE_16BIT
from terrazzo.data import symptoms
from terrazzo.data.chart import Case, Chart, Color
from terrazzo.data.findings.finding import (
    Finding,
    counted,
    fix_command,
    holding,
    listed,
    masks,
    named,
    share_of,
    some,
)

_COUNTED_FROM_1 = (
    "Counting from 0, the last class has id {}; if 0 is 'not labelled' in all masks, --shift says so. "
)


def unnamed(chart: Chart) -> Iterator[Finding]:
    """Which ids there are, where nothing says what they mean."""
    ids = sorted(symptoms.all_ids(chart))
    if chart.about is not None or chart.problems or not ids:
        return
    ignore = IGNORE_16BIT if any(i > IGNORE_8BIT for i in ids) else IGNORE_8BIT
    top = max((i for i in ids if i != ignore), default=0)
    place = Path(chart.source)
    names = (place if place.is_dir() else place.parent) / "classes.txt"
    lines = "".join(f"class{i}\\n" for i in range(top + 1)) if top < 30 else "class0\\nclass1\\n…\\n"
    yield Finding(
        "error",
        "no-names",
        f"Nothing says what the ids mean; the masks hold {listed(ids)}.",
        count=len(ids),
        expected="dataset.json or classes.txt",
        hint=f"Name them in {names}, one per line: the first line names id 0, the last id {top}. {ignore} is ignored "
        "and needs no name. For example:",
        command=f"printf '{lines}' > {shlex.quote(str(names))}",
        cost=1.0,
    )


def colors(chart: Chart) -> Iterator[Finding]:
    """Masks of three channels: grey ids, the colours of a palette, the colours of classes, or others."""
    colored = [case for case in chart.cases if symptoms.labels(case).colors]
    grey = [case for case in colored if symptoms.labels(case).is_grey]
    if grey:
        what = f"{some(len(grey), 'mask holds', 'masks hold')} ids saved as grey RGB: three equal channels."
        yield Finding("error", "grey", what, *named(masks(grey)), expected="one channel of ids",
                      hint="Ids have one channel. To keep one, in a copy:",
                      command=fix_command(chart, "--grey"), cost=share_of(grey, chart))  # fmt: skip
    looked_up = symptoms.with_palette_in_colors(chart)
    if looked_up:
        what = f"{some(len(looked_up), 'mask holds', 'masks hold')} the colours of a palette in place of its ids."
        advice = "A program opened the palette PNG as RGB and saved what it saw. To look the ids up again, in a copy:"
        shown = counted(list(symptoms.labels(looked_up[0]).colors.items()), 4)
        yield Finding("error", "palette", what, *named(masks(looked_up)), found=shown, expected="ids",
                      hint=advice, command=fix_command(chart, "--palette"),
                      cost=share_of(looked_up, chart))  # fmt: skip
    told = {id(case) for case in (*grey, *looked_up)}
    drawn = [case for case in colored if id(case) not in told]
    if drawn:
        yield _drawn(chart, drawn)


def _drawn(chart: Chart, drawn: list[Case]) -> Finding:
    """Masks of classes' colours, all of them known or not."""
    found: dict[Color, int] = defaultdict(int)
    for case in drawn:
        for color, pixels in symptoms.labels(case).colors.items():
            found[color] += pixels
    known = symptoms.color_table(chart)
    strange = sorted((color for color in found if color not in known), key=lambda color: -found[color])
    shown = counted([(list(color), found[color]) for color in strange], 6)
    what, flags = f"{some(len(drawn), 'mask holds', 'masks hold')} colours, not ids.", ["--colors"]
    if not strange:
        hint = "Each colour is a class's. To turn them into ids, in a copy:"
    elif any(symptoms.has_blended_colors(case, known) for case in drawn) and len(strange) < sum(
        found.values()
    ):
        flags.append("--unblend")
        hint = f"{len(strange):,} colours are no class's and were mixed along borders, such as {shown}. To turn "\
            "colours into ids and give these pixels the class beside them, in a copy:"  # fmt: skip
    elif len(strange) < len(found):
        flags.append("--ignore-unknown-colors")
        hint = f"No class has {shown}. To turn colours into ids and these into ignore, in a copy:"
    else:
        hint = (
            f"No class has one of their {len(found)} colours: {shown}. Give every class its colour in dataset.json, "
            'as in {"name": "road", "color": [128, 64, 128]}. Then, in a copy:'
        )
    return Finding("error", "colors", what, *named(masks(drawn)), expected="one channel of ids", hint=hint,
                   command=fix_command(chart, *flags), cost=share_of(drawn, chart))  # fmt: skip


def values(chart: Chart) -> Iterator[Finding]:
    """Binary masks, ids shifted by one, packed ids, ids in no table: the one that explains what is there."""
    ids = symptoms.all_ids(chart)
    total = sum(ids.values())
    if symptoms.is_binary(chart):
        yield _binary(chart, ids[IGNORE_8BIT] / total)
        return
    apart = symptoms.ids_apart(chart)
    if apart is not None:
        yield _apart(chart, *apart)
        return
    if chart.about is None:
        return
    if symptoms.is_shifted(chart):
        yield _shifted(chart, ids.get(0, 0) / total)
        return
    yield from _strange(chart)
    lost = symptoms.lost_class(chart)
    if lost is not None and chart.space is not None:
        name = chart.space.classes.names[(symptoms.raw_table(chart) or {})[lost] or 0]
        yield Finding(
            "warning",
            "255-as-class",
            f"255 means ignore, covers {ids[IGNORE_8BIT] / total:.1%} of the pixels, and one class never occurs: "
            f"{name}.",
            *named(masks(holding(chart, [IGNORE_8BIT]))),
            found="255",
            expected=f"{lost} wherever {name} is",
            hint=f"If a tool wrote {name} as 255, it is neither learned nor scored. If it never "
            f"occurs, --drop-absent takes it off the list. To write {lost} for 255, in a copy:",
            command=fix_command(chart, "--remap", f"{IGNORE_8BIT}:{lost}"),
            cost=ids[IGNORE_8BIT] / total,
            raw_ids=(IGNORE_8BIT,),
        )


def depth(chart: Chart) -> Iterator[Finding]:
    """16-bit masks: packed ids, 65535 that is no ignore value there, or 8 bits that would do."""
    packed = [(case, by) for case in chart.cases if (by := symptoms.packing_of(case, chart)) is not None]
    for factor in sorted({by for _, by in packed}):
        cases = [case for case, by in packed if by == factor]
        example = next(
            raw for raw in sorted(symptoms.labels(cases[0]).ids, reverse=True) if raw != IGNORE_16BIT
        )
        yield Finding(
            "error",
            "packed",
            f"{some(len(cases), 'mask has', 'masks have')} packed ids of 16 bits: the class times {factor}"
            + (", plus a number." if factor == 1000 else "."),
            *named(masks(cases)),
            found=listed(sorted(symptoms.labels(cases[0]).ids)),
            expected=listed(sorted(symptoms.file_table(chart))),
            hint=f"{example} holds class {symptoms.unpacked(example, factor)}. To write the classes alone, in a copy:",
            command=fix_command(chart, "--unpack"),
            cost=share_of(cases, chart),
        )
    if chart.about is not None and len(chart.about.classes) > IGNORE_8BIT:
        return
    deep = [case for case in chart.cases if symptoms.is_needlessly_deep(case)]
    wide = [case for case in deep if IGNORE_16BIT in symptoms.labels(case).ids]
    wide = wide if symptoms.is_wide_ignore(chart, IGNORE_16BIT) else []  # a table may give 65535 a meaning
    told = {id(case) for case in wide}
    command = fix_command(chart, "--eight-bit")
    if wide:
        what = (
            f"{some(len(wide), 'mask has', 'masks have')} 16 bits and holds 65535, which is not in the table."
        )
        advice = "255 is the ignore value of a data set of so few classes. To write 8 bits, 65535 as 255, in a copy:"
        yield Finding("error", "sixteen-bit", what, *named(masks(wide)), expected="255", hint=advice,
                      command=command, cost=share_of(wide, chart), raw_ids=(IGNORE_16BIT,))  # fmt: skip
    if len(deep) > len(wide):
        rest = [case for case in deep if id(case) not in told]
        what = f"{some(len(rest), 'mask has', 'masks have')} 16 bits where 8 would do."
        advice = "It works, and costs time and disk. To write 8 bits, in a copy:"
        yield Finding("warning", "sixteen-bit", what, *named(masks(rest)), expected="8 bits", hint=advice,
                      command=command)  # fmt: skip


def nothing_in_them(chart: Chart) -> Iterator[Finding]:
    """Masks that are ignored everywhere, and masks of one class."""
    empty = [case for case in chart.cases if symptoms.is_empty(case, chart)]
    if empty:
        what = f"{some(len(empty), 'mask is', 'masks are')} ignored everywhere."
        advice = "Nothing is learned or scored there. To leave these pairs out of a copy:"
        yield Finding("warning", "empty", what, *named(masks(empty)), expected="labelled pixels", hint=advice,
                      command=fix_command(chart, "--drop-empty"), cost=share_of(empty, chart) / 2)  # fmt: skip
    constant = [case for case in chart.cases if symptoms.is_constant(case, chart)]
    if constant:
        what = f"{some(len(constant), 'mask shows', 'masks show')} one class everywhere."
        advice = "That may be so, or the labels were lost. To leave these pairs out of a copy:"
        yield Finding("warning", "constant", what, *named(masks(constant)), expected="several classes",
                      found=listed(sorted(symptoms.labels(constant[0]).ids)), hint=advice,
                      command=fix_command(chart, "--drop-constant"),
                      cost=share_of(constant, chart) / 2)  # fmt: skip


def _binary(chart: Chart, share: float) -> Finding:
    one_class = chart.about is not None and len(chart.about.classes) == 1
    return Finding(
        "error",
        "binary",
        f"The masks are binary, 0 and 255, and 255 means ignore: {share:.1%} of the pixels would be neither trained "
        "nor scored.",
        *named(masks(holding(chart, [IGNORE_8BIT]))),
        expected="0 and 1",
        hint="To write 255 as id 1"
        + (', with "background" as the name of id 0,' if one_class else "")
        + " in a copy:",
        command=fix_command(chart, "--binary"),
        cost=1.0,
        raw_ids=(IGNORE_8BIT,),
    )


def _apart(chart: Chart, split: str, step: int) -> Finding:
    """The ids of one split are those of train, moved by one."""
    here = [case for case in chart.cases if case.split == split]
    there = [case for case in chart.cases if case.split == "train"]
    ids, others = ({raw for case in cases for raw in symptoms.labels(case).ids} for cases in (here, there))
    moves = [(raw, raw + step) for raw in sorted(ids) if raw < IGNORE_8BIT and raw + step >= 0]
    moves += [(raw, IGNORE_8BIT) for raw in sorted(ids) if raw + step < 0]
    return Finding(
        "error",
        "ids-differ",
        f"The ids of {split} mean something else than those of train: moved by {step:+d}, the shares of the classes "
        "agree.",
        *named(masks(here)),
        found=f"{listed(sorted(ids))} in {split}, {listed(sorted(others))} in train",
        expected="one meaning of an id everywhere",
        hint=f"Every class of {split} would be scored as its neighbour. To write the ids of {split} as train has them, "
        "in a copy:",
        command=fix_command(chart, "--remap", ",".join(f"{split}/{old}:{new}" for old, new in moves)),
        cost=share_of(here, chart),
        raw_ids=tuple(sorted(ids)),
    )


def _shifted(chart: Chart, share: float) -> Finding:
    count = len(chart.about.classes) if chart.about is not None else 0
    zero = f"id 0 ({share:.1%} of the pixels)" if share else "id 0, which never occurs,"
    return Finding(
        "error",
        "shift",
        f"The ids are shifted by one: they reach {count}, and the {count} classes are 0-{count - 1}.",
        *named(masks(holding(chart, [count]))),
        found=listed(sorted(symptoms.all_ids(chart))),
        expected=f"ids 0-{count - 1}, and 255 where nothing is labelled",
        hint=f"If {zero} means 'not labelled', a table in dataset.json makes it ignore and moves the others down; "
        "the masks stay as they are. If a class is missing in the list of names, add it instead. In a copy:",
        command=fix_command(chart, "--shift"),
        cost=1.0,
        raw_ids=(count,),
    )


def _strange(chart: Chart) -> Iterator[Finding]:
    """Ids in no table that nothing else explains."""
    table = symptoms.file_table(chart)
    pixels: dict[int, int] = defaultdict(int)
    for case in chart.cases:
        if symptoms.is_blended(case) or symptoms.packing_of(case, chart) is not None:
            continue
        for raw, count in symptoms.labels(case).ids.items():
            if raw not in table and not symptoms.is_wide_ignore(chart, raw):
                pixels[raw] += count
    strange = sorted(pixels)
    if not strange:
        return
    count = len(chart.about.classes) if chart.about is not None else 0
    cases = holding(chart, strange)
    yield Finding(
        "error",
        "range",
        f"{some(len(strange), 'id is', 'ids are')} not in the data set's table: "
        f"{counted({raw: pixels[raw] for raw in strange})}; it has {listed(sorted(table))}.",
        *named(masks(cases)),
        expected=listed(sorted(table)),
        hint=(_COUNTED_FROM_1.format(count - 1) if strange == [count] else "")
        + "If they are classes, name them. If they mean 'not labelled', let the table ignore them, in a copy:",
        command=fix_command(chart, "--ignore-ids", ",".join(map(str, strange))),
        cost=share_of(cases, chart),
        raw_ids=tuple(strange[:32]),
    )
