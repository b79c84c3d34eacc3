"""Releases: the state of a project under a name, for ever; made whole or not at all, compared, verified.

A release is one row: its manifest, whose sha256 is its id. It copies no pixel: labels are addressed by their content,
and what a release names is never removed. Nothing can change it; the file itself refuses.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from terrazzo.errors import DataError, ProjectError, TerrazzoError, UsageError, unknown_name
from terrazzo.project import audit, manifest, trees
from terrazzo.project.categories import Category
from terrazzo.project.labels import Label
from terrazzo.project.manifest import Diff, Member
from terrazzo.project.samples import Samples
from terrazzo.project.store import Store, now
from terrazzo.project.tiles import Tiles, count, places, tile_hw

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
MAX_DESCRIPTION = 10_000  # characters


@dataclass(frozen=True)
class Withdrawal:
    """That a release is not to be used any more."""

    reason: str
    """Why; "" where nobody said."""
    author: str | None
    """Who said so."""
    at: str
    """When, UTC."""


@dataclass(frozen=True)
class Brief:
    """A release in a list."""

    id: str
    """sha256 of its manifest, hex."""
    name: str
    """As people call it."""
    parent: str | None
    """The id of the release before it."""
    description: str
    """What it is for."""
    created_at: str
    """When, UTC."""
    samples: int
    """How many it has."""
    withdrawal: Withdrawal | None
    """That it was withdrawn, where it was."""


@dataclass(frozen=True, eq=False)
class Release:
    """One release, with all that it says."""

    id: str
    """sha256 of its manifest, hex."""
    name: str
    """As people call it; no other release's."""
    manifest: Mapping[str, Any]
    """Plain JSON; `manifest.compose` says what is in it."""
    withdrawal: Withdrawal | None
    """That it was withdrawn, where it was by the time it was read."""
    _store: Store
    _tiles: Tiles
    _samples: Samples

    @property
    def parent(self) -> str | None:
        """The id of the release before it."""
        parent: str | None = self.manifest["parent"]
        return parent

    @property
    def created_at(self) -> str:
        """When, UTC."""
        return str(self.manifest["created_at"])

    @property
    def categories(self) -> tuple[Category, ...]:
        """As they were."""
        return tuple(Category(**{**one, "color": tuple(one["color"])}) for one in self.manifest["categories"])

    @property
    def samples(self) -> tuple[Member, ...]:
        """As they were, by name."""
        return manifest.members(self.manifest)

    def refuse_withdrawn(self) -> None:
        """Raise ProjectError where it was withdrawn."""
        if self.withdrawal is not None:
            reason = f": {self.withdrawal.reason}" if self.withdrawal.reason else ""
            raise ProjectError(
                f"The release {self.name} was withdrawn.",
                found=f"by {self.withdrawal.author or 'somebody'} at {self.withdrawal.at}{reason}",
                hint="What was made of it keeps its hash. Use another release.",
            )

    def image(self, member: Member) -> bytes:
        """Return the bytes of an image's file; DataError where it is gone, or is not the one that was released."""
        with self._store.reading() as db:
            row = db.execute("SELECT path FROM samples WHERE name = ?", (member.name,)).fetchone()
        one = self._samples.get(member.name) if row is not None else None
        if one is None:
            raise ProjectError(
                f"The sample {member.name!r} of the release {self.name} is not in the project any more."
            )
        return self._samples.content(one, sha256=member.sha256)

    def where(self, member: Member) -> str:
        """Return what names an image to a person: its path."""
        return str(self._samples.root / member.path)

    def label(self, member: Member) -> Label:
        """Return a label as it was released; DamagedLabelError where it cannot be read."""
        where = f"{member.name!r} ({self.name})"
        if member.tree is None:
            return Label(np.zeros(member.size_hw, np.uint16), (), 0, "")
        with self._store.reading() as db:
            tree = trees.load(db, bytes.fromhex(member.tree), where=where)
            packed = self._tiles.fetch(db, tree.tiles)
        object_map = self._tiles.join(packed, tree.tiles, tree.size_hw, where=where)
        return Label(object_map, tree.annotations, member.revision, member.tree)


class Releases:
    """The releases of one project, the newest last: `project.releases["v1"]`."""

    def __init__(self, store: Store, tiles: Tiles, samples: Samples, project: str) -> None:
        self._store, self._tiles, self._samples, self._project = store, tiles, samples, project
        self._briefs: dict[str, Brief] = {}

    def __iter__(self) -> Iterator[Release]:
        return iter(self.all())

    def __len__(self) -> int:
        return len(self.names())

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def __getitem__(self, name: str) -> Release:
        """Return the release with this name, id, or beginning of an id (8 characters and more)."""
        with self._store.reading() as db:
            rows = db.execute("SELECT id, name, manifest FROM releases ORDER BY rowid").fetchall()
        is_id = len(name) >= 8
        for identity, called, data in rows:
            if name == called or (is_id and identity.startswith(name)):
                return self._release(identity, called, data)
        raise unknown_name("release", name, [called for _, called, _ in rows])

    def names(self) -> list[str]:
        """Return the names of all releases, the newest last."""
        with self._store.reading() as db:
            return [row[0] for row in db.execute("SELECT name FROM releases ORDER BY rowid")]

    def all(self) -> list[Release]:
        """Return all releases, the newest last."""
        return [self[name] for name in self.names()]

    def briefs(self) -> list[Brief]:
        """Return all releases as a list shows them, the newest last; manifests are not read whole, nor verified."""
        withdrawn = self.withdrawals()
        with self._store.reading() as db:
            known = db.execute("SELECT id FROM releases ORDER BY rowid").fetchall()
            for (identity,) in known:
                if identity not in self._briefs:  # a release does not change
                    row: tuple[str, str, str | None, str, str, int] = db.execute(
                        "SELECT id, name, parent, json_extract(CAST(manifest AS TEXT), '$.description'), at, "
                        "json_array_length(CAST(manifest AS TEXT), '$.samples') FROM releases WHERE id = ?",
                        (identity,),
                    ).fetchone()
                    self._briefs[identity] = Brief(*row, None)
        return [replace(self._briefs[one], withdrawal=withdrawn.get(one)) for (one,) in known]

    def create(self, name: str, *, description: str = "", author: str | None = None) -> Release:
        """Make the project as it stands a release, in one transaction; UsageError where the name is taken."""
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UsageError(
                f"A release cannot be called {name!r:.80}.",
                expected="letters, digits, '.', '_' and '-', such as v1.0",
            )
        if len(description) > MAX_DESCRIPTION:
            raise UsageError(f"A description has at most {MAX_DESCRIPTION:,} characters.")
        with self._store.transaction() as db:
            known = self.names()
            if name in known:
                raise UsageError(
                    f"There is a release {name!r} already, and it cannot be changed.",
                    hint="Choose another name.",
                )
            if db.execute("SELECT 1 FROM samples").fetchone() is None:
                raise ProjectError("The project has no images: there is nothing to release.")
            parent = self[known[-1]].id if known else None
            at = now()
            value = manifest.compose(
                db, name=name, parent=parent, description=description, project=self._project, at=at
            )
            identity, data = manifest.seal(value)
            db.execute("INSERT INTO releases VALUES (?, ?, ?, ?, ?)", (identity, name, parent, data, at))
            audit.note(db, "release", author=author, name=name, id=identity, samples=len(value["samples"]))
        return self._release(identity, name, data)

    def withdraw(self, name: str, *, reason: str = "", author: str | None = None) -> Withdrawal:
        """Say that a release is not to be used any more; it stays, with its history, and cannot come back."""
        if len(reason) > MAX_DESCRIPTION:
            raise UsageError(f"A reason has at most {MAX_DESCRIPTION:,} characters.")
        with self._store.transaction() as db:
            release = self[name]
            known = self.withdrawals().get(release.id)
            if known is not None:
                raise UsageError(f"The release {release.name} was withdrawn already.", found=known.at)
            made = Withdrawal(reason, author, now())
            values = (release.id, made.reason, made.author, made.at)
            db.execute("INSERT INTO withdrawals VALUES (?, ?, ?, ?)", values)
            audit.note(
                db, "release withdrawn", author=author, name=release.name, id=release.id, reason=reason
            )
        return made

    def withdrawals(self) -> dict[str, Withdrawal]:
        """Return {id: withdrawal} of the releases that were withdrawn."""
        with self._store.reading() as db:
            if db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'withdrawals'").fetchone() is None:
                return {}  # an older file, opened to read
            rows = db.execute("SELECT release, reason, author, at FROM withdrawals").fetchall()
        return {identity: Withdrawal(*rest) for identity, *rest in rows}

    def diff(self, new: str, old: str | None = None) -> Diff:
        """Return what is new in a release since another one; None: since its parent, or nothing."""
        after = self[new]
        before = self[old] if old is not None else self[after.parent] if after.parent is not None else None
        older = None if before is None else before.manifest
        added, removed, changed = manifest.changes(older, after.manifest)
        had = {} if before is None else self.pixels(before)
        has = self.pixels(after)
        return Diff(
            old=None if before is None else before.name,
            new=after.name,
            added=tuple(added),
            removed=tuple(removed),
            changed=tuple(changed),
            categories=tuple(manifest.category_changes(older, after.manifest)),
            pixels={name: (had.get(name, 0), has.get(name, 0)) for name in {**has, **had}},
        )

    def pixels(self, release: Release) -> dict[str, int]:
        """Return {category: pixels} of a release, "unlabelled" first, from what stands beside the tiles."""
        total = {0: 0, **{one.id: 0 for one in release.categories}}
        with self._store.reading() as db:
            for member in release.samples:
                left = member.height * member.width
                if member.tree is not None:
                    tree = trees.load(db, bytes.fromhex(member.tree), where=repr(member.name))
                    counts = self._tiles.counts(db, tree.tiles)
                    for one in tree.annotations:
                        total[one.category_id] = total.get(one.category_id, 0) + counts.get(one.id, 0)
                        left -= counts.get(one.id, 0)
                total[0] += left
        names = {0: "unlabelled", **{one.id: one.name for one in release.categories}}
        return {names.get(number, f"category {number}"): pixels for number, pixels in total.items()}

    def verify(self, name: str) -> list[str]:
        """Return what is wrong with a release, a sentence each; [] where every byte is what it was.

        The manifest, every label's tree and tiles, and every image's file are hashed anew.
        """
        try:
            release = self[name]
        except DataError as error:
            return [error.what]
        except ProjectError as error:
            return [_line(error)]
        problems = [f"The project's file: {line}" for line in self._store.damages()]
        for member in release.samples:
            problems += self._wrong_image(release, member)
            problems += self._wrong_label(release, member)
        return problems

    def _wrong_image(self, release: Release, member: Member) -> list[str]:
        try:
            release.image(member)
        except TerrazzoError as error:
            return [_line(error)]
        return []

    def _wrong_label(self, release: Release, member: Member) -> list[str]:
        if member.tree is None:
            return []
        problems = []
        with self._store.reading() as db:
            where = f"{member.name!r} ({release.name})"
            try:
                tree = trees.load(db, bytes.fromhex(member.tree), where=where)
            except ProjectError as error:
                return [_line(error)]
            packed = self._tiles.fetch(db, tree.tiles)
            beside = self._tiles.beside(db, tree.tiles)
        for place, tile in zip(places(tree.size_hw), tree.tiles, strict=True):
            try:
                hw = tile_hw(place, tree.size_hw)
                pixels = self._tiles.unpack(packed, tile, hw, where=f"{where}, tile {place}")
            except ProjectError as error:
                problems.append(_line(error))
                continue
            if tile in beside and beside[tile] != count(pixels):
                problems.append(f"The label of {where}, tile {place}, is counted wrongly.")
        return problems

    def _release(self, identity: str, name: str, data: bytes) -> Release:
        value = manifest.opened(identity, data)
        withdrawal = self.withdrawals().get(identity)
        return Release(identity, name, value, withdrawal, self._store, self._tiles, self._samples)


def _line(error: TerrazzoError) -> str:
    return error.what + (f" ({error.found})" if error.found else "")
