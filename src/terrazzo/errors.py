"""Every mistake a user can make, as a tree; each says what, where, got / expected, and what to type next.

    TerrazzoError                exit 1: the work failed
    ├── UsageError               exit 2: the call itself is wrong
    │   ├── MissingPathError         a path that is not there
    │   ├── UnknownNameError         a recipe, class, split, model or format nobody knows; names the nearest
    │   ├── RecipeError              a recipe field or override: unknown, of the wrong type, out of range
    │   ├── MissingExtraError        an optional package that is not installed
    │   └── ExistingOutputError      an output that is already there and would be overwritten
    ├── DataError                the data is not what it says it is
    │   ├── UnreadableFileError      corrupt, truncated, or of a format we do not read
    │   ├── ImageFormatError         channels, dtype or size that the data set does not declare
    │   ├── MaskValueError           class ids that are not in the table
    │   ├── MaskSizeError            a mask whose size is not its image's
    │   └── DatasetFormatError       dataset.json, columns, pairing, splits
    ├── WeightsError             tensors that do not fit the network, or are missing
    │   └── UnsafeFileError          a file that would run code when opened; refused
    ├── RunError                 a run folder that cannot be used as asked
    │   ├── CheckpointError          truncated, missing or newer than this version
    │   ├── RunInUseError            another training writes here
    │   └── DataChangedError         the data set is not the one the run was trained on
    ├── ProjectError             a labelling project that cannot be used as asked
    │   ├── ProjectInUseError        another process holds it
    │   ├── StaleRevisionError       somebody else changed the label meanwhile
    │   └── DamagedLabelError        a label that cannot be read back whole; it opens read-only
    ├── TrainingError            training cannot go on
    │   ├── NonFiniteLossError       NaN or Inf in the loss
    │   └── MemoryShortageError      a step does not fit the memory of its device
    ├── ExportError              an exported graph that does not do what its model does
    ├── UnreachableError         a place on the network that does not answer
    └── StorageError             the disk is full or read-only; what was there before is intact

`TerrazzoError` is for users; our own logic uses `assert`.
"""

import difflib
import os
import shlex
from collections.abc import Iterable

SHOWN = "\n\u00a0\u200c\u200d"  # line ends, a space that keeps words together, and what joins letters in some scripts
LONGEST_LINE = 4000  # characters of a line of an error; about a screen


class TerrazzoError(Exception):
    """A mistake or failure told in four parts; `str(error)` is what a person reads.

    what: one sentence with the place in it. found / expected: what was there and what should be. hint: why, in a
    sentence. command: what to type next. Parts that are None are left out.
    """

    exit_code = 1
    is_told = False  # True where another process of the same work tells it

    def __init__(
        self,
        what: str,
        *,
        found: str | None = None,
        expected: str | None = None,
        hint: str | None = None,
        command: str | None = None,
    ) -> None:
        self.what, self.found, self.expected, self.hint, self.command = what, found, expected, hint, command
        lines = [what]
        if found is not None:
            lines.append(f"found: {found}")
        if expected is not None:
            lines.append(f"expected: {expected}")
        lines.extend(part for part in (hint, command) if part is not None)
        super().__init__(
            shown("\n".join([lines[0], *("  " + one.replace("\n", "\n  ") for one in lines[1:])]))
        )

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the way back from a worker process with every part."""
        parts = (self.found, self.expected, self.hint, self.command)
        return _rebuild, (type(self), self.what, *parts)


def shown(text: str) -> str:
    """Return `text` as any terminal and log can show it.

    Names and files come from anywhere: what a terminal would obey, what turns the direction of reading round, and half
    characters become their escapes; a line of more than a screen is cut.
    """
    if not text.isprintable():
        text = "".join(c if c.isprintable() or c in SHOWN else ascii(c)[1:-1] for c in text)
    if len(text) <= LONGEST_LINE:
        return text
    lines = text.split("\n")
    cut = (f"{line[:LONGEST_LINE]} … ({len(line):,} characters)" for line in lines)
    return "\n".join(
        line if len(line) <= LONGEST_LINE else short for line, short in zip(lines, cut, strict=True)
    )


def _rebuild(
    kind: type[TerrazzoError],
    what: str,
    found: str | None,
    expected: str | None,
    hint: str | None,
    command: str | None,
) -> TerrazzoError:
    return kind(what, found=found, expected=expected, hint=hint, command=command)


class UsageError(TerrazzoError):
    """The call itself is wrong; nothing was started."""

    exit_code = 2


class MissingPathError(UsageError):
    """A path that is not there."""


class UnknownNameError(UsageError):
    """A name nobody knows, with the nearest ones that exist."""


class RecipeError(UsageError):
    """A recipe field or override that is unknown, of the wrong type or out of range."""


class MissingExtraError(UsageError):
    """An optional package that is not installed."""


class ExistingOutputError(UsageError):
    """An output that is already there and would be overwritten."""


class DataError(TerrazzoError):
    """The data is not what it says it is."""


class UnreadableFileError(DataError):
    """A file that is corrupt, truncated, or of a format we do not read."""


class ImageFormatError(DataError):
    """An image whose channels, dtype or size are not those the data set declares."""


class MaskValueError(DataError):
    """A mask with class ids that are not in the table."""


class MaskSizeError(DataError):
    """A mask whose size is not its image's."""


class DatasetFormatError(DataError):
    """A data set whose description, columns, pairs or splits cannot be used."""


class WeightsError(TerrazzoError):
    """Tensors that do not fit the network, or are missing."""


class UnsafeFileError(WeightsError):
    """A file that would run code when opened; refused."""


class RunError(TerrazzoError):
    """A run folder that cannot be used as asked."""


class CheckpointError(RunError):
    """A checkpoint that is truncated, missing or newer than this version."""


class RunInUseError(RunError):
    """Another training writes to this run."""


class DataChangedError(RunError):
    """The data set is not the one the run was trained on."""


class ProjectError(TerrazzoError):
    """A labelling project that cannot be used as asked."""


class ProjectInUseError(ProjectError):
    """Another process holds the project, or has been writing to it for too long."""


class StaleRevisionError(ProjectError):
    """The same part of a label was changed by somebody else meanwhile; what was refused is kept as a branch."""

    current: int | None = None  # the revision that stands
    branch: int | None = None  # the revision that keeps what was refused


class DamagedLabelError(ProjectError):
    """A label that cannot be read back whole: it opens read-only, and never as an empty one."""


class TrainingError(TerrazzoError):
    """Training cannot go on; the run folder keeps its last good checkpoint."""


class NonFiniteLossError(TrainingError):
    """NaN or Inf in the loss."""


class MemoryShortageError(TrainingError):
    """A step does not fit the memory of its device; what to change was measured."""


class ExportError(TerrazzoError):
    """An exported graph that does not do what its model does; nothing was written."""


class UnreachableError(TerrazzoError):
    """A place on the network that does not answer; tried again before it was said."""


class StorageError(TerrazzoError):
    """The disk is full or read-only; what was there before is intact."""


def quoted(path: str | os.PathLike[str]) -> str:
    """Return a path as a command to type has it: one word for the shell, whatever is in its name."""
    return shlex.quote(os.fspath(path))


def nearest(name: str, choices: Iterable[str], *, most: int = 3) -> list[str]:
    """Return up to `most` of `choices` that look like `name`, the most alike first; [] when none does."""
    by_lower = {choice.lower(): choice for choice in choices}  # "Person" is near "person"
    return [by_lower[near] for near in difflib.get_close_matches(name.lower(), by_lower, n=most, cutoff=0.5)]


def unknown_name(
    kind: str, name: str, choices: Iterable[str], *, command: str | None = None
) -> UnknownNameError:
    """Build the error for a `name` of a `kind` ("recipe", "class", "split") that is not among `choices`."""
    known = list(choices)
    near = nearest(name, known)
    listed = "one of " + ", ".join(known[:20]) + (f", … ({len(known)} in all)" if len(known) > 20 else "")
    hint = f"Did you mean {' or '.join(repr(choice) for choice in near)}?" if near else None
    return UnknownNameError(
        f"There is no {kind} {name!r}.", expected=listed if known else None, hint=hint, command=command
    )
