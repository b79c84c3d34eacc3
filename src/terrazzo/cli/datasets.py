"""import, check, fix, browse: data in, what is wrong with it, and what training will see of it."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING

from terrazzo.cli.parsing import (
    Command,
    Parser,
    count,
    recipe_and_overrides,
    whole_number,
    whole_numbers,
    words,
)
from terrazzo.errors import UsageError, quoted

if TYPE_CHECKING:
    from terrazzo.data.importers.planning import Wanted

# the keys of data.importers.IMPORTERS, here so that --help imports nothing; a test compares
FORMATS = ("ade20k", "bdd100k", "camvid", "cityscapes", "coco", "folders", "segments", "voc")


def _import_arguments(parser: Parser) -> None:
    parser.add_argument("format", metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("src", metavar="SRC", help="the data set as it was published; it is only read")
    parser.add_argument("--out", metavar="DIR", help="the data set's new folder, made whole or not at all")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="import nothing: count images, masks and classes, and draw overlays into DIR-sheet.png, or "
        "FORMAT-sheet.png here",
    )
    parser.add_argument(
        "--annotations",
        metavar="KIND",
        help="which masks, where there are several kinds, the usual one first: ade20k 150, full; "
        "bdd100k sem_seg, drivable, ins_seg; cityscapes fine, coarse; coco instances, panoptic, stuff; voc voc, sbd",
    )
    parser.add_argument(
        "--partial", action="store_true", help="take what is there, although the published data set has more"
    )
    parser.add_argument(
        "--images", metavar="PATTERN", help="folders: which files are images, such as 'images/**/*.jpg'"
    )
    parser.add_argument(
        "--masks", metavar="PATTERN", help="folders: which files are masks, such as 'masks/**/*_mask.png'"
    )
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help='folders: class names, a name a line, or "id name", or "R G B name" for masks of colours; or JSON',
    )
    parser.add_argument(
        "--binary",
        metavar="NAME",
        nargs="?",
        const="foreground",
        help="folders: masks are 0 and 255, or 0 and 1: background and NAME",
    )
    parser.add_argument(
        "--merge",
        metavar="RULE",
        action="append",
        default=[],
        help='folders: car+26=vehicle, of names and raw ids, "ignore" for what is not scored; or a file of such '
        "lines; may be given again",
    )
    parser.add_argument(
        "--ignore",
        metavar="A,B,…",
        type=words,
        default=(),
        help="folders: names and raw ids that are neither trained nor scored",
    )
    parser.add_argument(
        "--drop-damaged",
        action="store_true",
        help="leave out pairs that cannot be read, differ in size or hold ids not in the table; they are listed",
    )
    parser.add_argument(
        "--exif",
        action="store_true",
        help="turn masks that were drawn on an image as it is stored, where EXIF turns the image and the sizes show it",
    )
    parser.add_argument(
        "--workers", metavar="N", type=count, default=-1, help="pairs at a time; one per core by default"
    )
    parser.add_argument(
        "--link", action="store_true", help="hard links instead of copies where the disk allows"
    )
    parser.add_argument(
        "--status",
        metavar="A,B,…",
        type=words,
        default=(),
        help="segments: which label statuses, or all; LABELED,REVIEWED,VERIFIED by default",
    )
    parser.add_argument(
        "--labelset", metavar="NAME", help="segments: which labelset; ground-truth by default"
    )
    parser.add_argument(
        "--download", action="store_true", help="segments: fetch the files that the release names by address"
    )
    parser.add_argument(
        "--columns",
        metavar="SET",
        help="segments: a saved Hugging Face data set instead of a folder; `segments` has its columns as "
        "release2dataset gave them, `semantic` has pixel_values and label",
    )


def _import(arguments: Namespace) -> int:
    if arguments.out is None and not arguments.dry_run:
        raise UsageError(
            "An import needs a place to go to.", expected="--out DIR, or --dry-run to look first"
        )

    from terrazzo.data.importers.planning import Wanted

    said = {one.name: getattr(arguments, one.name) for one in fields(Wanted)}
    wanted = Wanted(**{**said, "merge": tuple(arguments.merge)})
    if arguments.dry_run:
        return _preview(arguments, wanted)

    from terrazzo.data import importers, open_dataset

    folder = importers.run(
        arguments.format,
        arguments.src,
        arguments.out,
        wanted,
        link=arguments.link,
        drop_damaged=arguments.drop_damaged,
        exif=arguments.exif,
        workers=arguments.workers,
    )
    if arguments.columns == "segments":  # region ids, which no training reads
        print(f"Imported: {folder}. It opens with:\n  datasets.load_from_disk({str(folder)!r})")
        return 0
    print(open_dataset(folder).describe())
    print(f"\nImported: {folder}. Next:\n  terrazzo check {quoted(folder)}")
    return 0


def _preview(arguments: Namespace, wanted: "Wanted") -> int:
    from terrazzo.previewing import preview
    from terrazzo.storage import refuse_existing

    if arguments.out is not None:
        refuse_existing(arguments.out)
    sheet = f"{(arguments.out or arguments.format).rstrip('/')}-sheet.png"
    shown = preview(
        arguments.format, arguments.src, wanted, sheet=sheet, exif=arguments.exif, workers=arguments.workers
    )
    print(shown.text())
    print(
        "\nNothing was imported. To import it, the same without --dry-run"
        + " and with --out DIR." * (arguments.out is None)
    )
    return 0 if shown.ok else 1


def _check_arguments(parser: Parser) -> None:
    parser.add_argument(
        "data", metavar="DATA", help="a folder, a saved data set, or a Hub id; it is only read"
    )
    parser.add_argument(
        "--workers", metavar="N", type=count, default=-1, help="threads; one per core by default"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument(
        "--html",
        metavar="FILE",
        help="write a page too, with pictures of what was found; it needs no other file",
    )


def _check(arguments: Namespace) -> int:
    from terrazzo.data import doctor
    from terrazzo.data.examination import examine

    if arguments.html is not None:
        from terrazzo import doctor_page

        doctor_page.refuse_other_files(arguments.html)
    with _examination("check") as progress:
        chart = examine(arguments.data, workers=arguments.workers, progress=progress)
    diagnosis = doctor.diagnose(chart)
    print(diagnosis.to_json() if arguments.json else diagnosis.text())
    if arguments.html is not None:
        written = doctor_page.write_page(arguments.html, diagnosis, chart)
        if not arguments.json:
            print(f"The page with pictures: {written}")
    return 0 if diagnosis.ok else 1


def _browse_arguments(parser: Parser) -> None:
    parser.add_argument(
        "data", metavar="DATA", help="a folder, a saved data set, or a Hub id; it is only read"
    )
    parser.add_argument(
        "words",
        nargs="+",
        metavar="RECIPE key=value",
        help="as `terrazzo train` takes them: a recipe, then fields to override, such as data.crop_hw=512x1024",
    )
    parser.add_argument(
        "--out", metavar="DIR", default="browse", help="where the sheets go; browse by default"
    )
    parser.add_argument("-n", metavar="N", type=count, default=16, help="how many samples; 16 by default")
    parser.add_argument("--seed", metavar="S", type=whole_number, help="instead of the recipe's train.seed")


def _browse(arguments: Namespace) -> None:
    recipe, overrides = recipe_and_overrides(arguments.words)
    if recipe is None:
        raise UsageError("Browsing needs a recipe.", hint="The catalogue:", command="terrazzo recipes")

    from terrazzo.browsing import browse

    sheets = browse(
        arguments.data, recipe, overrides=overrides, out=arguments.out, count=arguments.n, seed=arguments.seed
    )
    for sheet in sheets:
        print(sheet)


def _fix_arguments(parser: Parser) -> None:
    from terrazzo.data.remedies import Remedies, read_merges, read_moves
    from terrazzo.fields import field_docs

    docs = field_docs(Remedies)
    readers: dict[str, tuple[str, Callable[[str], object]]] = {
        "remap": ("0:255,…", read_moves),
        "ignore_ids": ("0,1,…", whole_numbers),
        "merge": ("A+B=A;…", read_merges),
        "groups": ("REGEX", str),
    }
    parser.add_argument("data", metavar="DATA", help="what `terrazzo check` examined; it is only read")
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="the mended copy, made whole or not at all"
    )
    parser.add_argument(
        "--workers", metavar="N", type=count, default=-1, help="threads; one per core by default"
    )
    for remedy in fields(Remedies):
        flag = "--" + remedy.name.replace("_", "-")
        if remedy.default is False:
            parser.add_argument(flag, action="store_true", help=docs[remedy.name])
        else:
            metavar, read = readers[remedy.name]
            parser.add_argument(
                flag, metavar=metavar, type=read, default=remedy.default, help=docs[remedy.name]
            )


def _fix(arguments: Namespace) -> None:
    from terrazzo.data.remedies import Remedies
    from terrazzo.data.repair import fix

    remedies = Remedies(**{remedy.name: getattr(arguments, remedy.name) for remedy in fields(Remedies)})
    with _examination("fix") as progress:
        repair = fix(arguments.data, arguments.out, remedies, workers=arguments.workers, progress=progress)
    print(repair.text())


@contextmanager
def _examination(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far an examination is; yields what it calls with (done, total)."""
    from terrazzo.progress import Progress

    with Progress(total=1, what=what) as progress:

        def show(done: int, total: int) -> None:
            progress.total = total
            progress.update(done, "images and masks")

        yield show


COMMANDS: tuple[Command, ...] = (
    Command(
        "import",
        "FORMAT SRC --out DIR [--dry-run] [--annotations KIND] [--partial] [--drop-damaged] [--link]",
        "Bring a published data set into one label space, once.",
        "Raw ids are remapped by the table that is kept in DIR/dataset.json. Every file is checked on the way.",
        _import_arguments,
        _import,
    ),
    Command(
        "check",
        "DATA [--json] [--html FILE]",
        "Examine a data set: what is wrong, in which files, and the command that mends it.",
        "Errors are what would make scores or labels false; the exit code is then 1. Warnings may be meant.",
        _check_arguments,
        _check,
    ),
    Command(
        "fix",
        "DATA --REMEDY … --out DIR",
        "Write a mended copy of a data set, by the remedies that `terrazzo check` names.",
        "Nothing is done that was not asked for by its own word; what is left out is listed. DATA stays as it is.",
        _fix_arguments,
        _fix,
    ),
    Command(
        "browse",
        "DATA RECIPE [key=value …] [--out DIR] [-n N]",
        "Draw samples as training will see them: scaled, cropped, mirrored, recoloured.",
        "They are the first samples of a training with that recipe and seed, in its order. The paths are printed.",
        _browse_arguments,
        _browse,
    ),
)
