"""Bugs on purpose, put into a child process: a run that does not find them would find nothing."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def lets_pillow_speak() -> None:
    """Whatever Pillow trips over comes out as it is."""
    from PIL import Image

    from terrazzo import decoding

    decoding._open = lambda stream, where: Image.open(stream)  # type: ignore[assignment, return-value]


def waits_for_ever() -> None:
    """A damaged file is read again and again."""

    def again(*_: Any, **__: Any) -> Any:
        while True:
            pass

    from terrazzo import decoding

    decoding._unreadable = again


def dies() -> None:
    """A damaged file ends the process."""
    from terrazzo import decoding

    decoding._unreadable = lambda *_, **__: os.abort()  # type: ignore[assignment, misc]


def believes_every_size() -> None:
    """What a header claims is allocated before it is looked at."""
    from terrazzo import decoding

    def allocate(width: int, height: int, *, where: str) -> None:
        bytearray(width * height)

    decoding.check_size = allocate


def leaves_a_part() -> None:
    """An import that fails leaves what it had written."""
    from contextlib import contextmanager

    from terrazzo.data.importers import copying

    @contextmanager
    def straight(path: Path) -> Any:
        path.mkdir()
        yield path

    copying.replace_folder = straight  # type: ignore[assignment]


def writes_elsewhere() -> None:
    """Beside its output, an import writes a file that nobody asked for."""
    from terrazzo.data.importers import copying

    write = copying.write_description

    def and_a_note(folder: Path, description: Any) -> None:
        Path(tempfile.gettempdir()).with_name("note.txt").write_text("x")
        write(folder, description)

    copying.write_description = and_a_note  # type: ignore[assignment]


def guesses_ids() -> None:
    """Ids that no class has are let through."""
    from terrazzo.classes import Classes

    Classes.check_mask = lambda self, mask, *, where: None  # type: ignore[method-assign]


PLANTS: dict[str, Callable[[], None]] = {
    one.__name__: one
    for one in (
        lets_pillow_speak,
        waits_for_ever,
        dies,
        believes_every_size,
        leaves_a_part,
        writes_elsewhere,
        guesses_ids,
    )
}
