"""Images and videos named on a command line: files, folders, globs and URLs become paths, each with a name.

A name is the path below the folder or glob it was found by, without its suffix: "aachen/000012". Where day/0001.png and
night/0001.png would share one, the names of both folders' images begin with the folder; where street.jpg and street.png
would, they keep their suffixes. So no answer is written over another. Nothing is opened; elsewhere folders are listed.
"""

import glob
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from terrazzo import remote
from terrazzo.errors import MissingPathError, UsageError, nearest, quoted
from terrazzo.images import IMAGE_SUFFIXES
from terrazzo.video import VIDEO_SUFFIXES, is_live, is_video

Suffixes = frozenset[str]


@dataclass(frozen=True)
class Source:
    """An image or a video to look at."""

    path: Path | str
    """Where it is: a path, or a URL."""
    name: str
    """What answers about it are called, "/" between folders; no other source has it."""

    @property
    def is_video(self) -> bool:
        """Whether it is many images: a file by its suffix, a camera or a network stream."""
        return is_video(self.path)


def find_sources(
    arguments: Iterable[str | os.PathLike[str]], *, outside: Path | None = None, videos: bool = False
) -> list[Source]:
    """Return the images that `arguments` (files, folders, globs, URLs) name, in their order, folders sorted, each once.

    Folders are searched to the bottom, hidden files and folders left aside; a file named itself is taken whatever its
    suffix. outside: a folder that is not searched: the output of an earlier call may lie among its sources. videos:
    find these too, and take cameras ("camera:0") and streams ("rtsp://…").
    Raises MissingPathError for a path or glob that leads nowhere, UsageError for a folder without images; for URLs
    also what `remote.read` raises.
    """
    barred = None if outside is None else _absolute(outside)
    found: dict[Path, _Place] = {}
    suffixes = IMAGE_SUFFIXES | VIDEO_SUFFIXES if videos else IMAGE_SUFFIXES
    for argument in [os.fspath(one) for one in arguments]:
        if videos and is_live(argument):
            key = Path("live:", re.sub(r"\W+", "-", argument), _live_name(argument))
            found.setdefault(key, _Place("", PurePath(key.name), argument))
            continue
        if remote.is_url(argument):
            for url, below, key in _expand_url(argument, suffixes):
                found.setdefault(key, _Place("" if url == argument else argument, below, url))
            continue
        for path, below in _expand(argument, barred, suffixes):
            group = "" if path == Path(argument).expanduser() else argument  # a shell names files one by one
            found.setdefault(_absolute(path), _Place(group, below, _absolute(path)))
    names = _distinct_names(found)
    return [Source(place.path, names[key]) for key, place in found.items()]


@dataclass(frozen=True)
class _Place:
    """Where an image was found."""

    group: str  # the folder or glob; "" for all files that were named themselves
    below: PurePath  # the path below it
    path: Path | str


def _expand(argument: str, barred: Path | None, suffixes: Suffixes) -> Iterator[tuple[Path, PurePath]]:
    """Yield (path, path below the folder or glob) of every image that one argument names."""
    path = Path(argument).expanduser()
    if path.is_dir():
        if _is_below(path, barred):
            raise _inside_output(argument, barred)
        inside = [(file, file.relative_to(path)) for file in _images_below(path, barred, suffixes)]
        if not inside:
            raise _no_images(path, suffixes)
        yield from inside
    elif path.exists():
        yield path, PurePath(path.name)
    elif glob.has_magic(argument):
        yield from _expand_glob(str(path), barred, suffixes)
    else:
        near = nearest(path.name, _entries(path.parent))
        raise MissingPathError(
            f"There is no image, folder or glob {argument}.",
            found=None if path.parent.is_dir() else f"no folder {path.parent}",
            hint=f"Did you mean {' or '.join(str(path.parent / name) for name in near)}?" if near else None,
        )


def _expand_url(url: str, suffixes: Suffixes) -> Iterator[tuple[str, PurePath, Path]]:
    """Yield (URL, path below the folder or glob, a path that no other image has) of every image that a URL names."""
    path = remote.path_of(url)
    if remote.is_web(url):
        asked = re.sub(r"\W+", "-", url.partition("?")[2])
        name = PurePosixPath(path)
        own = name.with_name(f"{name.stem}-{asked}{name.suffix}") if asked else name
        yield url, PurePath(own.name), Path("https:", own)
    elif glob.has_magic(path):
        yield from _named_urls(remote.matches(url), f"No image matches {url}.", suffixes)
    elif _is_named(PurePosixPath(path), suffixes):
        yield url, PurePath(PurePosixPath(path).name), Path(url)
    elif remote.is_folder(url):
        yield from _named_urls(remote.files_below(url), f"There are no images in {url}.", suffixes)
    elif remote.exists(url):
        yield url, PurePath(PurePosixPath(path).name), Path(url)
    else:
        raise MissingPathError(f"There is no image, folder or glob {url}.")


def _named_urls(
    files: Sequence[remote.Found], if_none: str, suffixes: Suffixes
) -> Iterator[tuple[str, PurePath, Path]]:
    pairs = [(file.url, PurePosixPath(file.below)) for file in files]
    images = [(url, below) for url, below in pairs if _is_named(below, suffixes) and not _is_hidden(below)]
    if not images:
        raise UsageError(
            if_none, found=f"{len(files)} other files" if files else "nothing", expected=_listed(suffixes)
        )
    for url, below in images:
        yield url, PurePath(below), Path(url)


def _expand_glob(pattern: str, barred: Path | None, suffixes: Suffixes) -> Iterator[tuple[Path, PurePath]]:
    fixed = Path(*_fixed_part(Path(pattern)))
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    images = [
        path
        for path in matches
        if path.is_file() and _is_named(path, suffixes) and not _is_below(path, barred)
    ]
    if not images:
        if any(path.is_file() and _is_named(path, suffixes) for path in matches):
            raise _inside_output(pattern, barred)
        raise MissingPathError(
            f"No image matches {pattern}.",
            found=f"{len(matches)} other paths" if matches else "nothing",
            expected=_listed(suffixes),
        )
    for path in images:
        yield path, path.relative_to(fixed) if path.is_relative_to(fixed) else PurePath(path.name)


def _fixed_part(pattern: PurePath) -> tuple[str, ...]:
    """Return the leading folders of a glob that hold no magic."""
    parts = pattern.parts
    first = next(index for index, part in enumerate(parts) if glob.has_magic(part))
    return parts[:first]


def _images_below(folder: Path, barred: Path | None, suffixes: Suffixes) -> Iterator[Path]:
    """Yield the images in a folder and below, sorted; links are followed, each real folder once."""
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen or _is_below(Path(here), barred):
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith(".") and _is_named(Path(name), suffixes):
                yield Path(here, name)


def _distinct_names(found: Mapping[Path, _Place]) -> dict[Path, str]:
    """Return a name for each absolute path; two differ in more than case, which some file systems do not see."""
    folders: Counter[str] = Counter()  # how many folders above it a group's names begin with
    suffixed: set[Path] = set()  # paths whose names keep their suffix
    while True:
        names = {
            path: _name(path, len(place.below.parts) + folders[place.group], path in suffixed)
            for path, place in found.items()
        }
        clashes = _clashes(names)
        siblings = {path for paths in clashes for path in paths if _has_sibling(path, paths)}
        groups = {found[path].group for paths in clashes for path in paths if path not in siblings}
        if not groups and siblings <= suffixed:
            return _numbered(names)
        suffixed |= siblings
        folders.update(groups)


def _name(path: Path, depth: int, keeps_suffix: bool) -> str:
    tail = PurePath(*[part for part in path.parts if part != path.anchor][-depth:])
    return (tail if keeps_suffix else tail.with_suffix("")).as_posix()


def _clashes(names: Mapping[Path, str]) -> list[list[Path]]:
    """Return the groups of paths that share a name."""
    by_name = defaultdict(list)
    for path, name in names.items():
        by_name[name.casefold()].append(path)
    return [paths for paths in by_name.values() if len(paths) > 1]


def _has_sibling(path: Path, paths: Sequence[Path]) -> bool:
    """True when another of `paths` lies in the same folder, so that more folders would not tell them apart."""
    parent = str(path.parent).casefold()
    return sum(str(other.parent).casefold() == parent for other in paths) > 1


def _numbered(names: Mapping[Path, str]) -> dict[Path, str]:
    """Return names in which the second of two that differ in case only ("a.png", "A.png") ends in "-2"."""
    taken: set[str] = set()
    numbered = {}
    for path, name in names.items():
        number, own = 1, name
        while own.casefold() in taken:
            number += 1
            own = f"{name}-{number}"
        taken.add(own.casefold())
        numbered[path] = own
    return numbered


def _is_hidden(path: PurePath) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _is_named(path: PurePath, suffixes: Suffixes) -> bool:
    return path.suffix.lower() in suffixes


def _live_name(source: str) -> str:
    """camera-0 of camera:0; the last part of a stream's address."""
    tail = source.rstrip("/").rpartition("/")[2].rpartition("@")[2]
    return re.sub(r"\W+", "-", tail).strip("-") + ".live"


def _is_below(path: Path, folder: Path | None) -> bool:
    return folder is not None and _absolute(path).is_relative_to(folder)


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))


def _entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []


def _listed(suffixes: Suffixes) -> str:
    return "files that end in " + ", ".join(sorted(suffixes))


def _inside_output(argument: str, output: Path | None) -> UsageError:
    return UsageError(
        f"The images of {argument} lie in the folder that answers are written to.",
        found=f"--out {output}",
        expected="a folder of its own: the next time, answers there would be taken for images",
        command=f"terrazzo predict MODEL {quoted(argument)} --out {quoted(f'{output}-predictions')}",
    )


def _no_images(folder: Path, suffixes: Suffixes) -> UsageError:
    files = sum(1 for path in folder.rglob("*") if path.is_file())
    return UsageError(
        f"There are no images in {folder}.",
        found=f"{files} other files" if files else "an empty folder",
        expected=_listed(suffixes),
    )
