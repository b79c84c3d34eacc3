"""Who has which role and which token: a list of people that is written by hand, and tokens that are not.

The list is JSON, {"ann": "labeller", "ben": "reviewer"}. Tokens are made here, 256 bits each, and kept in a file that
only its owner can read; a new one is shown once, when it is made. Whoever is taken from the list loses their token.
"""

import json
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from terrazzo.errors import MissingPathError, UnreadableFileError, UsageError, quoted, unknown_name
from terrazzo.labelling.access import ROLES, Role
from terrazzo.storage import replacing

BYTES = 32  # of randomness in a token
SHORTEST = 22  # characters of a token that somebody wrote into the file: 128 bits, base64
MAX_NAME = 100


def read_people(path: Path) -> dict[str, Role]:
    """Return {name: role}; raises UsageError with everything that is wrong."""
    value = _json(path, '{"ann": "labeller", "ben": "reviewer"}')
    for name, role in value.items():
        if role not in ROLES:
            raise unknown_name("role", str(role)[:80], ROLES)
        if not 0 < len(name) <= MAX_NAME or not name.isprintable() or name != name.strip():
            raise UsageError(f"{name!r:.80} is no name that can be shown.", found=str(path))
    if not value:
        raise UsageError(f"The list of people in {path} is empty.", expected='{"ann": "labeller"}')
    return {name: role for name, role in value.items() if role in ROLES}


def tokens_for(path: Path, names: Mapping[str, Role]) -> tuple[dict[str, str], dict[str, str]]:
    """Return ({name: token} of all, {name: token} of those that were made just now), kept in the file `path`."""
    known: dict[str, str] = {}
    if path.exists():
        _refuse_open(path)
        known = {name: str(token) for name, token in _json(path, '{"ann": "<token>"}').items()}
        weak = [name for name, token in known.items() if len(token) < SHORTEST or not token.isascii()]
        if weak or len(set(known.values())) < len(known):
            raise UsageError(
                f"A token in {path} can be guessed, or two people share one.",
                found=", ".join(weak) or "equal ones",
                expected=f"{SHORTEST} characters or more of ASCII, each its own",
                hint="Take the lines out, and new ones are made.",
            )
    new = {name: secrets.token_urlsafe(BYTES) for name in names if name not in known}
    kept = {name: token for name, token in {**known, **new}.items() if name in names}
    if kept != known:
        _write(path, kept)
    return kept, new


def _write(path: Path, tokens: Mapping[str, str]) -> None:
    with replacing(path) as beside:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(tokens, file, indent=1, ensure_ascii=False)


def _refuse_open(path: Path) -> None:
    mode = path.stat().st_mode
    if os.name != "nt" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(
            f"Others can read the tokens in {path}.",
            found=f"mode {stat.S_IMODE(mode):o}",
            expected="600",
            hint="If somebody may have read it, remove the file: new tokens are made.",
            command=f"chmod 600 {quoted(path)}",
        )


def _json(path: Path, expected: str) -> dict[str, Any]:
    if not path.is_file():
        raise MissingPathError(f"There is no file {path}.", expected=expected)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableFileError(
            f"{path} cannot be read as JSON.", found=str(error)[:200], expected=expected
        ) from error
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise UsageError(f"{path} holds no list of names.", found=f"{value!r:.80}", expected=expected)
    return value
