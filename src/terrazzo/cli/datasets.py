"""import, check, fix: data in, and what is wrong with it."""

from argparse import Namespace

from terrazzo.cli.parsing import Command, Parser, count

FORMATS = (
    "camvid",
)  # the keys of data.importers.IMPORTERS, here so that --help imports nothing; a test compares


def _import_arguments(parser: Parser) -> None:
    parser.add_argument("format", metavar="FORMAT", help=", ".join(FORMATS))
    parser.add_argument("src", metavar="SRC", help="the data set as it was published; it is only read")
    parser.add_argument(
        "--out", metavar="DIR", required=True, help="the data set's new folder, made whole or not at all"
    )
    parser.add_argument("--workers", metavar="N", type=count, default=1, help="processes; 1 by default")
    parser.add_argument(
        "--link", action="store_true", help="hard links instead of copies where the disk allows"
    )


def _import(arguments: Namespace) -> None:
    from terrazzo.data import importers, open_dataset

    folder = importers.run(
        arguments.format, arguments.src, arguments.out, link=arguments.link, workers=arguments.workers
    )
    print(open_dataset(folder).describe())
    print(f"\nImported: {folder}. Next:\n  terrazzo check {folder}")


def _check_arguments(parser: Parser) -> None:
    parser.add_argument(
        "data", metavar="DATA", help="a folder, a saved data set, or a Hub id; it is only read"
    )
    parser.add_argument(
        "--workers", metavar="N", type=count, default=-1, help="threads; one per core by default"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def _check(arguments: Namespace) -> int:
    from terrazzo.data import doctor
    from terrazzo.progress import Progress

    with Progress(total=1, what="check") as progress:

        def show(done: int, total: int) -> None:
            progress.total = total
            progress.update(done, "images and masks")

        diagnosis = doctor.check(arguments.data, workers=arguments.workers, progress=show)
    print(diagnosis.to_json() if arguments.json else diagnosis.text())
    return 0 if diagnosis.ok else 1


COMMANDS: tuple[Command, ...] = (
    Command(
        "import",
        "FORMAT SRC --out DIR [--workers N] [--link]",
        "Bring a published data set into one label space, once.",
        "Raw ids are remapped by the table that is kept in DIR/dataset.json.",
        _import_arguments,
        _import,
    ),
    Command(
        "check",
        "DATA [--json]",
        "Examine a data set: what is wrong, in which files, and the command that mends it.",
        "Errors are what would make scores or labels false; the exit code is then 1. Warnings may be meant.",
        _check_arguments,
        _check,
    ),
)
