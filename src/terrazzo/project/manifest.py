"""What a release says: canonical JSON, whose sha256 is the release's id; and what is new between two of them.

Keys are sorted, nothing stands between them, text is UTF-8: the same content is the same bytes on every machine.
Samples are listed by name, each with the hash of its image and that of its label: the id stands for every pixel.
"""

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from terrazzo.errors import DamagedLabelError
from terrazzo.project import categories, trees
from terrazzo.project.samples import COLUMNS, Entry

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Member:
    """A sample as a release has it."""

    name: str
    """As it was called."""
    path: str
    """Where its image lay, below the root."""
    sha256: str
    """Of the image's file."""
    height: int
    """Of the upright image."""
    width: int
    """Of the upright image."""
    orientation: int
    """EXIF's."""
    split: str | None
    """train, val or test, where somebody said so."""
    status: str
    """How far its label was."""
    reason: str | None
    """Why it was rejected or skipped."""
    author: str | None
    """Who labelled it last."""
    revision: int
    """Which revision of its label; 0 where nobody ever drew."""
    tree: str | None
    """The hash of its label; None where nobody ever drew."""

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the upright image."""
        return self.height, self.width


def compose(
    db: sqlite3.Connection, *, name: str, parent: str | None, description: str, project: str, at: str
) -> dict[str, Any]:
    """Return the manifest of the project as it stands, plain JSON."""
    from terrazzo import __version__

    samples = []
    for row in db.execute(f"SELECT {COLUMNS} FROM samples ORDER BY name").fetchall():
        one = Entry(*row)
        tree = db.execute(
            "SELECT lower(hex(tree)) FROM revisions WHERE sample = ? AND number = ?", (one.id, one.head)
        ).fetchone()
        member = {
            key: getattr(one, key) for key in Member.__dataclass_fields__ if key not in ("revision", "tree")
        }
        samples.append({**member, "revision": one.head, "tree": None if tree is None else tree[0]})
    living = [one.to_json() for one in categories.read(db) if not one.is_deleted]
    return {
        "format_version": FORMAT_VERSION,
        "terrazzo": __version__,
        "project": project,
        "name": name,
        "description": description,
        "created_at": at,
        "parent": parent,
        "categories": living,
        "samples": samples,
    }


def seal(value: Mapping[str, Any]) -> tuple[str, bytes]:
    """Return (id, bytes) of a manifest."""
    data = trees.canonical(value)
    return hashlib.sha256(data).hexdigest(), data


def opened(identity: str, data: bytes) -> dict[str, Any]:
    """Return the manifest in these bytes; DamagedLabelError where they are not what the id says."""
    if hashlib.sha256(data).hexdigest() != identity:
        raise DamagedLabelError(
            f"The release {identity[:16]}… is damaged.",
            found=f"a manifest with sha256 {hashlib.sha256(data).hexdigest()[:16]}…",
            hint="Restore the project's file from a backup.",
        )
    value: dict[str, Any] = json.loads(data)
    return value


@dataclass(frozen=True)
class Diff:
    """What is new in a release since another one."""

    old: str | None
    """The name of the earlier one; None: since nothing."""
    new: str
    """The name of the later one."""
    added: tuple[str, ...]
    """Samples that are new."""
    removed: tuple[str, ...]
    """Samples that are not there any more."""
    changed: tuple[str, ...]
    """Samples whose image, label, status or split is another."""
    categories: tuple[str, ...]
    """What became of the categories, a sentence each."""
    pixels: Mapping[str, tuple[int, int]]
    """Category -> pixels before and after, "unlabelled" among them."""

    def text(self) -> str:
        """Return it for people to read."""
        lines = [f"{self.old or 'nothing'} -> {self.new}"]
        for word, names in (("added", self.added), ("removed", self.removed), ("changed", self.changed)):
            more = ", …" if len(names) > 10 else ""
            lines.append(
                f"  {word:<9} {len(names):,}" + (f": {', '.join(names[:10])}{more}" if names else "")
            )
        lines += [f"  {sentence}" for sentence in self.categories]
        width = max((len(name) for name in self.pixels), default=0)
        lines += [
            f"  {name:<{width}}  {before:>14,} -> {after:>14,} pixels  ({after - before:+,})"
            for name, (before, after) in self.pixels.items()
        ]
        return "\n".join(lines)


def members(manifest: Mapping[str, Any]) -> tuple[Member, ...]:
    """Return the samples of a manifest, by name."""
    return tuple(Member(**one) for one in manifest["samples"])


def changes(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> tuple[list[str], list[str], list[str]]:
    """Return the names of the samples that were added, removed and changed."""
    before = {one.name: one for one in members(old)} if old else {}
    after = {one.name: one for one in members(new)}
    added = [name for name in after if name not in before]
    removed = [name for name in before if name not in after]

    def content(one: Member) -> tuple[Any, ...]:
        return one.sha256, one.tree, one.status, one.split

    changed = [name for name in after if name in before and content(after[name]) != content(before[name])]
    return added, removed, changed


def category_changes(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> list[str]:
    """Return what became of the categories, a sentence each."""
    before = {one["id"]: one for one in old["categories"]} if old else {}
    after = {one["id"]: one for one in new["categories"]}
    said = [f"category {after[n]['name']!r} is new" for n in after if n not in before]
    said += [f"category {before[n]['name']!r} is gone" for n in before if n not in after]
    for n in after:
        if n in before and before[n] != after[n]:
            keys = [key for key in after[n] if before[n][key] != after[n][key]]
            moves = ", ".join(f"{key} {before[n][key]!r} -> {after[n][key]!r}" for key in keys)
            said.append(f"category {before[n]['name']!r}: {moves}")
    return said
