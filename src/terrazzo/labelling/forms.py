"""What the page is told of samples, categories, labels and releases: plain JSON, the same words everywhere."""

from typing import Any

from terrazzo.labelling.pictures import levels
from terrazzo.project import Project
from terrazzo.project.audit import Deed
from terrazzo.project.categories import Category
from terrazzo.project.history import Revision
from terrazzo.project.issues import Issue
from terrazzo.project.listing import Line
from terrazzo.project.operations import Written
from terrazzo.project.releases import Release


def sample(line: Line, *, client: str | None = None) -> dict[str, Any]:
    """A sample as a list has it. client: whose lease is "mine"."""
    one = line.entry
    lease = None
    if line.client is not None:
        lease = {"client": line.client, "author": line.holder, "is_mine": line.client == client}
    return {
        "id": one.id,
        "name": one.name,
        "width": one.width,
        "height": one.height,
        "status": one.status,
        "split": one.split,
        "revision": one.head,
        "author": one.author,
        "reason": one.reason,
        "lease": lease,
        "issues": line.num_issues,
        "score": line.score,
        "why": line.why,
    }


def whole_sample(project: Project, line: Line, *, client: str | None = None) -> dict[str, Any]:
    """A sample that is opened."""
    one = line.entry
    return {
        **sample(line, client=client),
        "levels": levels(one),
        "image_state": project.samples.state(one),
        "orientation": one.orientation,
        "sha256": one.sha256,
    }


def category(one: Category, pixels: dict[int, int]) -> dict[str, Any]:
    """A category with how many pixels have it."""
    return {
        "id": one.id,
        "name": one.name,
        "color": "#{:02x}{:02x}{:02x}".format(*one.color),
        "has_instances": one.has_instances,
        "is_ignore": one.is_ignore,
        "pixels": pixels.get(one.id, 0),
    }


def categories(project: Project) -> list[dict[str, Any]]:
    """The categories of a project."""
    pixels = project.holdings.pixels()
    return [category(one, pixels) for one in project.categories]


def written(one: Written) -> dict[str, Any]:
    """What became of an operation."""
    return {
        "revision": one.revision,
        "tree_hash": one.tree_hash,
        "is_merged": one.is_merged,
        "is_replay": one.is_replay,
    }


def revision(one: Revision) -> dict[str, Any]:
    """A line of a history."""
    names = ("number", "parent", "tree_hash", "kind", "tool", "author", "ms", "at")
    return {name: getattr(one, name) for name in names}


def issue(one: Issue) -> dict[str, Any]:
    """A talk about a pixel."""
    return {
        "id": one.id,
        "sample": one.sample,
        "x": one.x,
        "y": one.y,
        "comments": [{"author": each.author, "text": each.text, "at": each.at} for each in one.comments],
        "resolved_at": one.resolved_at,
        "resolved_by": one.resolved_by,
    }


def deed(one: Deed) -> dict[str, Any]:
    """A line of the log."""
    return {
        "at": one.at,
        "author": one.author,
        "action": one.action,
        "sample": one.sample,
        "detail": one.detail,
    }


def releases(project: Project) -> list[dict[str, Any]]:
    """The releases of a project, the newest last."""
    return [
        {
            "name": one.name,
            "id": one.id,
            "parent": one.parent,
            "description": one.description,
            "created_at": one.created_at,
            "samples": one.samples,
            "withdrawn_at": None if one.withdrawal is None else one.withdrawal.at,
            "withdrawn_for": None if one.withdrawal is None else one.withdrawal.reason,
        }
        for one in project.releases.briefs()
    ]


def release(project: Project, one: Release) -> dict[str, Any]:
    """A release, without its samples."""
    return next(brief for brief in releases(project) if brief["id"] == one.id)
