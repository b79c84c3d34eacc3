"""What a path on the command line means: a project, a folder of projects, or of images to be one; or an empty folder.

A folder of images becomes a project beside it, FOLDER.db, whose root is the folder. Images that are new since are added
whenever it is opened; one that cannot be read is told, and keeps nobody from the others.
"""

from dataclasses import dataclass
from pathlib import Path

from terrazzo.errors import MissingPathError, ProjectError, UsageError, quoted
from terrazzo.labelling.shelf import SUFFIX, is_project
from terrazzo.project import open_project


@dataclass(frozen=True)
class Opened:
    """Where a server finds its projects."""

    folder: Path
    """The folder in which they lie."""
    name: str | None
    """The one that is shown first; None: the list of them."""
    added: int = 0
    """How many images were added."""
    problems: tuple[str, ...] = ()
    """What could not be added, and why."""


def open_path(path: Path) -> Opened:
    """Return what `path` means; raises MissingPathError, UsageError, and what opening a project raises."""
    path = path.expanduser().absolute()
    if path.is_file():
        open_project(path, create=False).close()  # raises for what is no project
        if path.suffix != SUFFIX:
            raise UsageError(
                f"A project that is served is a file called NAME{SUFFIX}.", found=path.name,
                command=f"mv {quoted(path.name)} {quoted(path.stem + SUFFIX)}",
            )  # fmt: skip
        return Opened(path.parent, path.stem)
    if not path.is_dir():
        if path.suffix == SUFFIX and path.parent.is_dir():
            raise MissingPathError(
                f"There is no project {path}.",
                expected="a project's file, or a folder of images",
                hint="A folder of images becomes a project beside it:",
                command=f"terrazzo label {quoted(path.with_suffix(''))}",
            )
        raise MissingPathError(f"There is no {path}.", expected="a project's file, or a folder of images")
    if any(is_project(one) for one in path.glob(f"*{SUFFIX}") if one.is_file()):
        return Opened(path, None)
    if not any(path.iterdir()):
        return Opened(path, None)  # projects are made on the page
    return _images(path)


def _images(folder: Path) -> Opened:
    real = folder.resolve()
    if not real.name:
        raise UsageError(f"{folder} has no name that a project could have.", expected="a folder of images")
    beside = real.parent / f"{real.name}{SUFFIX}"
    is_new = not beside.exists()
    problems: list[str] = []
    with open_project(beside, root=real) as project:
        try:
            added = project.samples.add_folder(real, problems=problems)
        except MissingPathError:
            if is_new and not len(project):
                project.close()
                beside.unlink(missing_ok=True)
                raise
            added = []
        if not len(project):
            project.close()
            beside.unlink(missing_ok=True)
            raise ProjectError(
                f"No image in {folder} can be read.", found="\n" + "\n".join(problems[:10]), expected="images"
            )
    return Opened(real.parent, real.name, len(added), tuple(problems))
