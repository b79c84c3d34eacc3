"""push, pull: to the Hugging Face Hub, and back."""

import argparse
import sys
from argparse import Namespace

from terrazzo.cli.parsing import Command, Parser, one_of

TIMEOUT = 120.0  # hub_client.TIMEOUT, here so that --help imports nothing; a test compares


def seconds(text: str) -> float:
    """Read a number of seconds above 0."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def _timeout_argument(parser: Parser) -> None:
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=TIMEOUT,
        help=f"give up when the Hub is silent for so long; {TIMEOUT:g} by default",
    )


def _push_arguments(parser: Parser) -> None:
    parser.add_argument(
        "path", metavar="PATH", help="a run (its best checkpoint), a model folder, or a data set"
    )
    parser.add_argument(
        "name", metavar="user/name", help="what it is called on the Hub; made where it is not there"
    )
    parser.add_argument("--private", action="store_true", help="make it private, where it is new")
    parser.add_argument(
        "--revision", metavar="BRANCH", help="to a branch other than main; made where it is not there"
    )
    parser.add_argument(
        "--license",
        metavar="ID",
        help="what you give it away under, such as CC-BY-4.0; else what dataset.json says, or what weights inherit",
    )
    parser.add_argument(
        "--keep-metadata",
        action="store_true",
        help="leave in images what they say beside their pixels: GPS, device, texts; else only the orientation stays",
    )
    parser.add_argument("--no-pictures", action="store_true", help="show no images on the card")
    _timeout_argument(parser)


def _push(arguments: Namespace) -> int:
    from terrazzo.hub import push

    try:
        pushed = push(
            arguments.path,
            arguments.name,
            private=arguments.private,
            revision=arguments.revision,
            license=arguments.license,
            keep_metadata=arguments.keep_metadata,
            pictures=not arguments.no_pictures,
            timeout=arguments.timeout,
        )
    except KeyboardInterrupt:
        print("\nStopped. Nothing new is shown on the Hub; what it has received it keeps. To go on, push again.",
              file=sys.stderr)  # fmt: skip
        return 130
    print(f"Pushed: {pushed}")
    return 0


def _pull_arguments(parser: Parser) -> None:
    parser.add_argument(
        "name", metavar="user/name", help="a model or a data set on the Hub; user/name@REVISION for a state"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="the new folder, made whole or not at all; NAME by default"
    )
    parser.add_argument(
        "--revision", metavar="REVISION", help="a branch, a tag or a commit, instead of @REVISION"
    )
    parser.add_argument(
        "--kind",
        metavar="model|dataset",
        type=one_of("kind", "model", "dataset"),
        help="which, where a model and a data set have one name",
    )
    _timeout_argument(parser)


def _pull(arguments: Namespace) -> int:
    from terrazzo.hub import pull

    try:
        folder = pull(
            arguments.name,
            arguments.out,
            kind=arguments.kind,
            revision=arguments.revision,
            timeout=arguments.timeout,
        )
    except KeyboardInterrupt:
        print("\nStopped. What has arrived is kept beside the folder. To go on, pull again.", file=sys.stderr)
        return 130
    print(f"Pulled: {folder}")
    return 0


COMMANDS = (
    Command(
        "push",
        "PATH user/name [--private] [--revision BRANCH]",
        "Share a run, a model or a data set on the Hugging Face Hub, with its card.",
        "The token is that of `hf auth login`, or HF_TOKEN. No optimiser state, no logs, no local path is sent, and\n"
        "of images nothing but the picture. What the Hub has already is not sent again: after a break, push again.",
        _push_arguments,
        _push,
    ),
    Command(
        "pull",
        "user/name [--out DIR]",
        "Fetch a model or a data set from the Hugging Face Hub into a folder.",
        "Without pulling, every command that takes a MODEL or DATA also takes user/name[@REVISION] itself.",
        _pull_arguments,
        _pull,
    ),
)
