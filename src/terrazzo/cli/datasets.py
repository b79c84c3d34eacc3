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


COMMANDS: tuple[Command, ...] = (
    Command(
        "import",
        "FORMAT SRC --out DIR [--workers N] [--link]",
        "Bring a published data set into one label space, once.",
        "Raw ids are remapped by the table that is kept in DIR/dataset.json.",
        _import_arguments,
        _import,
    ),
)
