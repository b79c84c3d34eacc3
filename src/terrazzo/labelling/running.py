"""A shelf of projects behind a gate, from the first request to the last."""

import getpass
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from urllib.parse import quote

from terrazzo.errors import ProjectInUseError, UsageError
from terrazzo.labelling.access import Access, Person, Role
from terrazzo.labelling.app import create_app
from terrazzo.labelling.limits import Limits
from terrazzo.labelling.opening import Opened, open_path
from terrazzo.labelling.people import read_people, tokens_for
from terrazzo.labelling.shelf import Shelf
from terrazzo.project import checks
from terrazzo.web.doors import LOOPBACK, is_loopback, names_of
from terrazzo.web.server import Server, address_of, allow_many_files, bind, settings

COMMAND = "terrazzo label PROJECT --port 0"
SOON = 5.0  # seconds
TOKENS = ".terrazzo-tokens.json"  # beside the projects


def serve(
    path: "str | os.PathLike[str]",
    *,
    host: str,
    port: int,
    names: Sequence[str],
    token_file: "str | os.PathLike[str] | None",
    people: "str | os.PathLike[str] | None",
    model: "str | os.PathLike[str] | None",
    limits: Limits,
    browser: bool,
) -> None:
    """Serve the projects at `path` until a signal. See `labelling.label`."""
    # before images are looked at: a port that is taken is told at once
    with bind(host, port, command=COMMAND) as listener:
        opened = open_path(Path(path))
        access, links = access_for(
            host,
            listener.getsockname()[1],
            names=names,
            token_file=Path(token_file or opened.folder / TOKENS)
            if needs_tokens(host, token_file, people)
            else None,
            people=None if people is None else Path(people),
            wrong_tokens=limits.wrong_tokens,
        )
        shelf = Shelf(opened.folder, access, limits)
        try:
            if opened.name is not None:
                shelf.project(opened.name)
            elif shelf.names() and not any(_can_open(shelf, name) for name in shelf.names()):
                raise ProjectInUseError(f"Every project in {opened.folder} is served by another process.")
            if model is not None:
                _attach(shelf, opened, model)
            _soon(checks.warm_up)  # before somebody submits a label
            run(shelf, opened, listener, links=links, browser=browser)
        finally:
            shelf.close()


def run(
    shelf: Shelf,
    opened: Opened,
    listener: socket.socket,
    *,
    links: dict[str, str],
    browser: bool = False,
    stop: threading.Event | None = None,
) -> None:
    """Tell where the page is, and serve until a signal, or `stop`."""
    allow_many_files()
    address = address_for_people(listener, shelf.access.names)
    _tell(shelf, opened, address, links)
    config = settings(
        create_app(shelf), head_seconds=shelf.limits.head_seconds, stop_seconds=shelf.limits.stop_seconds
    )
    if browser and not links and sys.stdout.isatty():  # somebody sits before it
        threading.Timer(0.5, webbrowser.open, (f"{address}#/{quote(opened.name or '')}",)).start()
    Server(config, shelf.events.close, stop).run(sockets=[listener])
    print("Stopped. Everything that was acknowledged is saved.", flush=True)


def address_for_people(listener: socket.socket, names: Collection[str]) -> str:
    """Return the URL that people type: the address, or this machine's name where the server listens on all of them."""
    host, port = listener.getsockname()[:2]
    if host not in ("0.0.0.0", "::"):
        return address_of(listener)
    others = [
        name for name in (*sorted(names), socket.gethostname().lower()) if name not in (*LOOPBACK, host, "*")
    ]
    return f"http://{others[0]}:{port}/" if others else address_of(listener)


def needs_tokens(host: str, token_file: object, people: object) -> bool:
    """Whether everybody needs a token: where others can reach the server, or somebody asked for it."""
    return not is_loopback(host) or token_file is not None or people is not None


def access_for(
    host: str,
    port: int,
    *,
    names: Sequence[str] = (),
    token_file: Path | None,
    people: Path | None,
    wrong_tokens: int = 10,
) -> tuple[Access, dict[str, str]]:
    """Return (who may do what, {name: token} of the tokens that were made just now)."""
    local = local_name()
    known = names_of(host, names)
    if token_file is None:
        return Access(known, Person(local, "admin"), wrong_tokens=wrong_tokens), {}
    roles: dict[str, Role] = {local: "admin"} if people is None else read_people(people)
    tokens, new = tokens_for(token_file, roles)
    holders = {token: Person(name, roles[name]) for name, token in tokens.items()}
    access = Access(known, None, holders, cookie=f"terrazzo-label-{port}", wrong_tokens=wrong_tokens)
    return access, new


def local_name() -> str:
    """Return what history calls whoever runs the server."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "me"


def _soon(work: Callable[[], None]) -> None:
    """Do something once the page has had its first answers."""
    timer = threading.Timer(SOON, work)
    timer.daemon = True
    timer.start()


def _can_open(shelf: Shelf, name: str) -> bool:
    try:
        shelf.project(name)
    except ProjectInUseError:
        return False
    return True


def _attach(shelf: Shelf, opened: Opened, model: "str | os.PathLike[str]") -> None:
    """Attach a model to the project that is served, and let it predict in the background."""
    if opened.name is None:
        raise UsageError(
            "A model is attached to one project.",
            found=f"a folder of projects: {', '.join(shelf.names()[:5]) or 'none yet'}",
            command=f"terrazzo label {opened.folder / (*shelf.names(), 'PROJECT')[0]}.db --model {os.fspath(model)}",
        )
    from terrazzo import prelabelling
    from terrazzo.labelling.loop_routes import predicting

    project = shelf.writable(opened.name)
    had = len(project.categories)
    one = prelabelling.attach(project, model, author=local_name())
    if not had:
        print(f"The project gets the {len(one.classes)} classes of {one.name}.")
    left_out = [name for name, number in one.mapping.items() if number is None]
    if left_out:
        print(f"No category is called as these classes, which are left out: {', '.join(left_out)}")
    job = shelf.jobs.start(
        "predict", opened.name, predicting(shelf, opened.name, one.hash, None), project=opened.name
    )
    print(f"Attached {one.name} ({one.hash}); it predicts in the background (job {job.id}).", flush=True)


def _tell(shelf: Shelf, opened: Opened, address: str, links: dict[str, str]) -> None:
    if opened.added:
        print(f"Added {opened.added:,} image{'s' if opened.added != 1 else ''}.")
    for line in opened.problems[:10]:
        print(f"Not added: {line}", file=sys.stderr)
    if len(opened.problems) > 10:
        print(f"… {len(opened.problems):,} files were not added.", file=sys.stderr)
    where = opened.folder / f"{opened.name}.db" if opened.name else opened.folder
    here = f"#/{quote(opened.name)}" if opened.name and shelf.access.local is not None else ""
    print(f"Labelling {where}: {address}{here}", flush=True)
    if shelf.access.local is None:
        print("Everybody needs a token of their own. Links of those that are new, shown once:" if links else
              "Everybody needs a token of their own; they were shown when they were made.", flush=True)  # fmt: skip
        for name, token in links.items():
            print(f"  {name}: {address}?token={token}", flush=True)
        print(
            "WARNING: nothing is encrypted. Whoever sees the network's traffic sees tokens and labels: let a proxy "
            "speak https to people.",
            file=sys.stderr,
            flush=True,
        )
