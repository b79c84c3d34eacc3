"""release: what was labelled, under a name, for ever."""

from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from terrazzo.cli.parsing import Command, Parser, one_of
from terrazzo.errors import UsageError

if TYPE_CHECKING:
    from terrazzo.project import Project

ACTIONS = ("create", "list", "show", "diff", "verify")


def _release_arguments(parser: Parser) -> None:
    parser.add_argument(
        "project", metavar="PROJECT", help="the file of a labelling project, such as street.db"
    )
    parser.add_argument("action", metavar="ACTION", type=one_of("action", *ACTIONS), help=", ".join(ACTIONS))
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="a release, such as v1; diff takes a second, the earlier one"
    )
    parser.add_argument("--description", metavar="TEXT", default="", help="create: what it is for")
    parser.add_argument("--json", action="store_true", help="show: print the manifest itself")


def _release(arguments: Namespace) -> int:
    from terrazzo.project import open_project

    action: str = arguments.action
    least, most = {"list": (0, 0), "diff": (1, 2)}.get(action, (1, 1))
    wanted = {(0, 0): "no name", (1, 1): "the name of one release"}.get((least, most), "one or two releases")
    if not least <= len(arguments.names) <= most:
        raise UsageError(
            f"{action} takes {wanted}.",
            found=" ".join(arguments.names) or "none",
            command="terrazzo release --help",
        )
    work: dict[str, Callable[[Project, Namespace], int]] = {
        "create": _create,
        "list": _list,
        "show": _show,
        "diff": _diff,
        "verify": _verify,
    }
    with open_project(arguments.project, create=False) as project:
        return work[action](project, arguments)


def _create(project: "Project", arguments: Namespace) -> int:
    release = project.releases.create(arguments.names[0], description=arguments.description)
    print(f"Released: {release.name}, {len(release.samples):,} samples, {release.id}")
    print(project.releases.diff(release.name).text())
    print(f"\nTo train on it:\n  terrazzo train RECIPE --data {arguments.project}@{release.name}")
    return 0


def _list(project: "Project", arguments: Namespace) -> int:
    for release in project.releases:
        print(
            f"{release.name:<20} {release.created_at[:19]}  {len(release.samples):>7,} samples  {release.id[:16]}"
        )
    if not len(project.releases):
        print(f"No releases yet. To make one:\n  terrazzo release {arguments.project} create v1")
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


COMMANDS = (
    Command(
        "release",
        "PROJECT create|list|show|diff|verify [NAME] [EARLIER]",
        "Keep what was labelled under a name, for ever: list, compare and verify such releases.",
        "A release cannot be changed; its id is a sha256 over every image and every label. diff compares with the one\n"
        "before, or with EARLIER. verify hashes all images and labels anew; the exit code is 1 where one is not what\n"
        "was released. Training takes one as data: --data street.db@v1.",
        _release_arguments,
        _release,
    ),
)
