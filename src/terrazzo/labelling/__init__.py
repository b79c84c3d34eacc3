"""The labelling page and its server: `terrazzo label PROJECT_OR_FOLDER`.

    limits.py     what one client may ask of the machine
    access.py     people, roles, tokens; the gate through which every request passes; people.py: where tokens are kept
    bodies.py     requests' bodies, taken apart without trust
    shelf.py      the projects in one folder, and what their requests share
    opening.py    what a path on the command line means: a project, a folder of projects, a folder of images
    pictures.py   images as browsers show them; thumbnails
    drops.py      images that come in through the page
    arrival.py    operations, from base64 to arrays
    parcels.py    releases as one file to take away
    jobs.py       work in the background; events.py: pages are told of changes
    forms.py      what the page is told, as plain JSON; refusals.py: errors, likewise
    assist.py     superpixels (slic.py, merging.py), masks of boxes (grabcut.py, sam.py), scissors.py; kept.py: a cache
    training.py   train on this, in a process of its own; scores.py: what more labels might be worth
    tools.py      which tools are ready on this machine
    app.py        the application; *_routes.py its routes, by subject
    running.py    sockets, signals, and the end
    static/       the page

Nothing is fetched and nothing is sent anywhere. This package needs `pip install "terrazzo[label]"`, and torch only
where a model is attached or predicts.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from terrazzo.errors import MissingExtraError
from terrazzo.labelling.limits import Limits

if TYPE_CHECKING:
    from pathlib import Path

Where = str | os.PathLike[str]


def label(
    path: Where,
    *,
    host: str = "127.0.0.1",
    port: int = 8001,
    names: Sequence[str] = (),
    token_file: "Where | None" = None,
    people: "Where | None" = None,
    model: "Where | None" = None,
    limits: Limits | None = None,
    browser: bool = True,
) -> None:
    """Serve the labelling page until Ctrl-C or SIGTERM.

    path: a project, such as "street.db"; a folder that holds projects; or a folder of images, which becomes a project
    beside it, FOLDER.db, to which its images are added, now and whenever it is opened again. host: beyond this
    machine's own addresses everybody needs a token; tokens are made, kept in `token_file`, which only its owner can
    read, and shown once. people: a JSON file {"name": "viewer | labeller | reviewer | admin"}; one admin where None.
    model: a run or a model that is attached, and predicts in the background what nobody labelled yet; a project without
    categories gets its classes. port: 0 takes any free one. names: host names by which the server is called, beside its
    addresses. browser: open the page. Raises UsageError, MissingExtraError, ProjectError, ProjectInUseError, and what
    `load` raises.
    """
    check_installed()
    from terrazzo.labelling.running import serve

    serve(
        path,
        host=host,
        port=port,
        names=names,
        token_file=token_file,
        people=people,
        model=model,
        limits=limits or Limits(),
        browser=browser,
    )


def backup(path: Where, target: Where) -> "Path":
    """Copy a project as it stands to the new file `target`, while others go on working with it."""
    from terrazzo.project import open_project

    with open_project(os.fspath(path), create=False) as project:
        return project.backup(os.fspath(target))


def check_installed() -> None:
    """Raise MissingExtraError unless what the server needs is there."""
    try:
        import fastapi
        import uvicorn
    except ImportError as error:
        raise MissingExtraError(
            "Labelling needs packages that are not installed.",
            found=f"no {error.name}",
            command='pip install "terrazzo[label]"',
        ) from error
    del fastapi, uvicorn
