"""Names of samples, which anybody may have typed on a site, as names of files: one each, or words about it."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from terrazzo.images import IMAGE_SUFFIXES

MAX_NAME = 200  # bytes of a part of a name; a file system takes 255


def file_names(samples: Sequence[Any], problems: list[str]) -> dict[str, str]:
    """Return {sample's name: its files' name}: without the suffix, except where two would then be one.

    '/' makes sub-folders. What is no name of a file, and names that are one where upper and lower case are, is added to
    `problems`, a sentence each.
    """
    names = []
    for place, name in enumerate(samples):
        if not isinstance(name, str) or _is_no_file_name(name):
            problems.append(f"sample {place} with the name {name!r:.80}, which no file can have")
        else:
            names.append(name)
    problems += [f"two samples called {name!r:.80}" for name in repeated(name.casefold() for name in names)]
    folders = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    problems += [
        f"sample {name!r:.80} is a folder of another sample's name" for name in names if name in folders
    ]
    plain = {name: _without_suffix(name) for name in names}
    twice = set(repeated(stem.casefold() for stem in plain.values()))
    found = {name: name if stem.casefold() in twice else stem for name, stem in plain.items()}
    problems += [f"two samples whose files are called {stem!r:.80}" for stem in repeated(found.values())]
    return found


def repeated(values: Iterable[Any]) -> list[Any]:
    """Return what comes more than once."""
    return [value for value, count in Counter(values).items() if count > 1]


def _is_no_file_name(name: str) -> bool:
    """True for what would leave the folder, hide, or be refused by a file system."""
    if not name.isprintable() or "\\" in name or re.match(r"[A-Za-z]:", name):
        return True
    return any(
        part in ("", "..") or part.startswith(".") or len(part.encode(errors="replace")) > MAX_NAME
        for part in name.split("/")
    )


def _without_suffix(name: str) -> str:
    path = PurePosixPath(name)
    return str(path.with_suffix("")) if path.suffix.lower() in IMAGE_SUFFIXES else name
