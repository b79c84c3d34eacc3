"""label: the page; release: what was labelled, under a name, for ever; and labels brought in."""

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from terrazzo.cli.parsing import Command, Parser, one_of, whole_number
from terrazzo.errors import UsageError, quoted

if TYPE_CHECKING:
    from terrazzo.project import Project

ACTIONS = ("create", "list", "show", "diff", "verify", "export", "import")
# the keys of exchange.WAYS_IN and WAYS_OUT, here so that --help imports nothing; a test compares
WAYS_IN = ("coco", "cvat", "data-set", "label-studio", "labelme", "segments")
WAYS_OUT = ("coco-panoptic", "folder", "segments", "table")


def _label_arguments(parser: Parser) -> None:
    parser.add_argument(
        "path",
        metavar="PROJECT_OR_FOLDER",
        help="a project, such as street.db; a folder of projects; or a folder of images, which becomes one",
    )
    parser.add_argument(
        "--host",
        metavar="HOST",
        default="127.0.0.1",
        help="the address to listen on; 127.0.0.1 (this machine alone) by default; elsewhere everybody needs a token",
    )
    parser.add_argument(
        "--port", metavar="PORT", type=whole_number, default=8001, help="8001 by default; 0: any free one"
    )
    parser.add_argument(
        "--name",
        metavar="HOST",
        action="append",
        default=[],
        help="a host name by which people call the server, beside its addresses; may be repeated",
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="a run or a model folder, such as runs/demo: it predicts in the background what nobody labelled yet",
    )
    parser.add_argument(
        "--people",
        metavar="FILE",
        help='who may do what: JSON, {"ann": "labeller"}; viewer, labeller, reviewer or admin',
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        help="where tokens are kept, readable by you alone; .terrazzo-tokens.json beside the project by default",
    )
    parser.add_argument(
        "--backup", metavar="FILE", help="copy the project to a new file, while it may be open, and end"
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")


def _label(arguments: Namespace) -> None:
    from terrazzo.labelling import backup, label

    if arguments.backup is not None:
        print(f"Copied: {backup(arguments.path, arguments.backup)}")
        return
    label(
        arguments.path,
        host=arguments.host,
        port=arguments.port,
        names=arguments.name,
        people=arguments.people,
        token_file=arguments.token_file,
        model=arguments.model,
        browser=not arguments.no_browser,
    )


def _release_arguments(parser: Parser) -> None:
    parser.add_argument(
        "project", metavar="PROJECT", help="the file of a labelling project, such as street.db"
    )
    parser.add_argument("action", metavar="ACTION", type=one_of("action", *ACTIONS), help=", ".join(ACTIONS))
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="a release, such as v1; diff takes a second, the earlier one; import takes what to bring in",
    )
    parser.add_argument("--description", metavar="TEXT", default="", help="create: what it is for")
    parser.add_argument(
        "--format",
        metavar="FORMAT",
        help=f"export: {', '.join(WAYS_OUT)}; import: {', '.join(WAYS_IN)}",
    )
    parser.add_argument("--out", metavar="DIR", help="export: the new folder, made whole or not at all")
    parser.add_argument(
        "--keep-metadata",
        action="store_true",
        help="export: leave in image files what they say beside their pixels, such as places",
    )
    parser.add_argument("--json", action="store_true", help="show: print the manifest itself")


def _release(arguments: Namespace) -> int:
    from terrazzo.project import open_project

    action: str = arguments.action
    least, most = {"list": (0, 0), "diff": (1, 2)}.get(action, (1, 1))
    wanted = {(0, 0): "no name", (1, 1): "the name of one release"}.get((least, most), "one or two releases")
    wanted = "one file or folder" if action == "import" else wanted
    if not least <= len(arguments.names) <= most:
        raise UsageError(
            f"{action} takes {wanted}.",
            found=" ".join(arguments.names) or "none",
            command="terrazzo release --help",
        )
    for word, value, needed in (
        ("--out", arguments.out, ("export",)),
        ("--format", arguments.format, ("export", "import")),
    ):
        if (value is None) == (action in needed):
            raise UsageError(
                f"{action} needs {word}."
                if action in needed
                else f"{word} is a word of {' and '.join(needed)}.",
                command="terrazzo release --help",
            )
    work: dict[str, Callable[[Project, Namespace], int]] = {
        "create": _create,
        "list": _list,
        "show": _show,
        "diff": _diff,
        "verify": _verify,
        "export": _export,
        "import": _import,
    }
    is_new = not Path(arguments.project).expanduser().exists()
    with open_project(arguments.project, create=action == "import") as project:
        try:
            return work[action](project, arguments)
        except BaseException:
            is_left = is_new and not len(project) and not len(project.categories)
            if is_left:  # made for what could not be brought in
                project.close()
                project.path.unlink()
            raise


def _create(project: "Project", arguments: Namespace) -> int:
    release = project.releases.create(arguments.names[0], description=arguments.description)
    print(f"Released: {release.name}, {len(release.samples):,} samples, {release.id}")
    print(project.releases.diff(release.name).text())
    print(f"\nTo train on it:\n  terrazzo train RECIPE --data {quoted(arguments.project)}@{release.name}")
    return 0


def _list(project: "Project", arguments: Namespace) -> int:
    for release in project.releases:
        print(
            f"{release.name:<20} {release.created_at[:19]}  {len(release.samples):>7,} samples  {release.id[:16]}"
        )
    if not len(project.releases):
        print(f"No releases yet. To make one:\n  terrazzo release {quoted(arguments.project)} create v1")
    return 0


def _show(project: "Project", arguments: Namespace) -> int:
    import json
    from collections import Counter

    release = project.releases[arguments.names[0]]
    if arguments.json:
        print(json.dumps(release.manifest, indent=1, ensure_ascii=False, sort_keys=True))
        return 0
    counts = Counter(one.status for one in release.samples)
    print(
        f"{release.name} of {release.created_at}\n  id          {release.id}\n  parent      {release.parent or 'none'}"
    )
    if release.manifest["description"]:
        print(f"  description {release.manifest['description']}")
    print(f"  samples     {', '.join(f'{status} {count:,}' for status, count in sorted(counts.items()))}")
    for name, pixels in project.releases.pixels(release).items():
        print(f"  {pixels:>14,} pixels  {name}")
    return 0


def _diff(project: "Project", arguments: Namespace) -> int:
    new, *old = arguments.names
    print(project.releases.diff(new, old[0] if old else None).text())
    return 0


def _verify(project: "Project", arguments: Namespace) -> int:
    problems = project.releases.verify(arguments.names[0])
    for line in problems:
        print(line)
    print("Every byte is what was released." if not problems else f"{len(problems)} problems.")
    return 1 if problems else 0


def _export(project: "Project", arguments: Namespace) -> int:
    from terrazzo.exchange import give

    release = project.releases[arguments.names[0]]
    out = give(release, arguments.format, arguments.out, keep_metadata=arguments.keep_metadata)
    print(f"Exported: {out}")
    return 0


def _import(project: "Project", arguments: Namespace) -> int:
    from terrazzo.exchange import bring

    print(bring(project, arguments.format, arguments.names[0]).text())
    return 0


COMMANDS = (
    Command(
        "label",
        "PROJECT_OR_FOLDER",
        "Open the labelling page on a project or a folder of images.",
        "A folder of images becomes a project beside it, FOLDER.db; run it again to add what is new. Every stroke is\n"
        "saved when it is drawn, and Ctrl-C loses nothing. On 127.0.0.1 nobody needs a token; with --host elsewhere\n"
        'everybody has one of their own. Needs:\npip install "terrazzo[label]"',
        _label_arguments,
        _label,
    ),
    Command(
        "release",
        "PROJECT create|list|show|diff|verify|export|import [NAME] [EARLIER]",
        "Keep what was labelled under a name, for ever: list, compare, verify and export such releases.",
        "A release cannot be changed; its id is a sha256 over every image and label. diff compares with the one\n"
        "before, or with EARLIER. verify hashes all images and labels anew; the exit code is 1 where one is not what\n"
        "was released. Training takes one as data: --data street.db@v1. import brings labels of others into the\n"
        "project, which is made where there is none; images stay where they are, below the project's folder.",
        _release_arguments,
        _release,
    ),
)
