"""What the small Hub of hub_server.py knows: repositories, their states and files, and the faults that were planned."""

import hashlib
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAIN, V1 = "0123456789abcdef0123456789abcdef01234567", "1" * 40  # of the repositories in FOLDER
LARGE = (".parquet", ".safetensors", ".png", ".jpg", ".bin")  # as .gitattributes of new repositories say


@dataclass(frozen=True)
class Blob:
    """A file at a commit."""

    content: bytes
    is_large: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """The git object: of the file, or of the pointer that stands for it."""
        stored = self.content
        if self.is_large:
            version = "version https://git-lfs.github.com/spec/v1"
            stored = f"{version}\noid sha256:{self.sha256}\nsize {len(stored)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_large else self.oid


@dataclass
class Repo:
    """A repository: its states, and which names point to which."""

    private: bool = False
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str | None) -> str | None:
        revision = revision or "main"
        found = self.refs.get(revision, revision)
        return found if found in self.commits else None


@dataclass
class Fault:
    """What happens to the next `times` requests whose "METHOD /path" matches `path`.

    kind: "status" answers so; "drop" reads `after` bytes of the body and hangs up; "cut" sends `after` bytes of a file
    and hangs up; "silence" never answers.
    """

    path: str
    kind: str = "status"
    times: int = 1
    status: int = 503
    after: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)


class Store:
    """All that the server knows; shared by its threads."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}  # ("models" | "datasets", "user/name")
        self.large: dict[tuple[str, str], bytes] = {}  # by repository, which keeps its own, and sha256
        self.parts: dict[tuple[str, int], bytes] = {}
        self.faults: list[Fault] = []
        self.log: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.port = 0

    def add_folder(self, folder: Path) -> None:
        files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
        tree = {name: Blob(path.read_bytes(), name.endswith(LARGE)) for name, path in files.items()}
        refs = {"main": MAIN, "v1": V1}
        key = ("datasets", folder.relative_to(folder.parent.parent).as_posix())
        self.repos[key] = Repo(commits={MAIN: tree, V1: tree}, refs=refs)
