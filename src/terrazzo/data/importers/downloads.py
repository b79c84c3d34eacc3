"""What somebody downloaded: folders, or the zips as they came, read member by member and never unpacked.

A zip is never trusted. Refused before anything is written: names that leave the folder, links, encrypted or doubled
members, members that share bytes (so that what comes out is bounded by what is there), and more members than any data
set has. Refused while reading: a member that grows beyond what its packed size allows, and one whose checksum is off.
"""

import os
import re
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from terrazzo.data.importers.planning import Piece
from terrazzo.errors import UnreadableFileError

MAX_MEMBERS = 1_000_000  # gtCoarse.zip, a large one, has about 94,000
MAX_RATIO = 200  # Cityscapes' polygons are packed to a tenth, its dummy masks to a fiftieth
SLACK = 1 << 16  # bytes that a member may unpack to whatever its ratio
PATCHED = 0x20  # a flag of a member
OTHER_METHODS = {9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstandard"}  # of PKWARE's APPNOTE 4.4.5
SHOWN = 10  # how many bad members an error lists


@dataclass(frozen=True)
class Member:
    """A file inside a zip."""

    archive: zipfile.ZipFile
    """Open; its members may be read by several threads at once."""
    info: zipfile.ZipInfo
    """Where it lies in it."""

    @property
    def suffix(self) -> str:
        """Such as ".png"."""
        return PurePosixPath(self.info.filename).suffix

    def __str__(self) -> str:
        return f"{self.archive.filename}:{self.info.filename}"

    def read(self) -> bytes:
        """Return its bytes, checked against the zip's checksum; UnreadableFileError where they are not what it says."""
        limit = MAX_RATIO * self.info.compress_size + SLACK
        if self.info.file_size > limit:
            raise UnreadableFileError(
                f"{self} would unpack to {self.info.file_size:,} bytes.",
                found=f"{self.info.compress_size:,} bytes packed",
                expected=f"at most {MAX_RATIO} times as many; more looks like a zip bomb",
            )
        try:
            with self.archive.open(self.info) as file:  # stops at file_size, and checks the CRC there
                return file.read()
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise _damaged(self, error) from error


Origin = Path | Member  # a file, wherever it lies


def collect(root: Path, folder: str, zips: Sequence[str], stack: ExitStack) -> Mapping[str, Origin]:
    """Return {"folder/sub/name.png": where it lies} of a package, from root/folder and from the zips in `root`.

    What the folder has is taken from there. Zips stay open until `stack` closes. {} where there is neither. Raises
    UnreadableFileError for a zip that is damaged or not to be trusted.
    """
    found: dict[str, Origin] = {}
    for name in zips:
        if (root / name).is_file():
            for info, archive in _trusted(root / name, stack):
                if info.filename.startswith(f"{folder}/"):
                    found[info.filename] = Member(archive, info)
    for place, _, names in os.walk(root / folder, followlinks=True):
        for path in (Path(place, name) for name in names if not name.startswith(".")):
            found[path.relative_to(root).as_posix()] = path
    return found


def by_place(files: Mapping[str, Origin], pattern: str) -> dict[tuple[str, str], Origin]:
    """Return {(split, name): where it lies} of the files whose whole path fits `pattern`.

    Its first group is the split; the others, joined by "/", are the name.
    """
    compiled = re.compile(pattern)
    matches = ((compiled.fullmatch(path), origin) for path, origin in files.items())
    return {(m[1], "/".join(m.groups()[1:])): origin for m, origin in matches if m is not None}


def read(origin: Path | Piece) -> bytes:
    """Return the bytes of a file, wherever it lies; UnreadableFileError where it cannot be read."""
    if not isinstance(origin, Path):
        return origin.read()
    try:
        return origin.read_bytes()
    except OSError as error:
        raise UnreadableFileError(f"{origin} cannot be read.", found=error.strerror or str(error)) from error


def _trusted(path: Path, stack: ExitStack) -> list[tuple[zipfile.ZipInfo, zipfile.ZipFile]]:
    """Open a zip and return its members; raises for one that is not to be trusted."""
    try:
        archive = stack.enter_context(zipfile.ZipFile(path))
    except (zipfile.BadZipFile, ValueError) as error:
        raise _damaged(path, error) from error
    except RuntimeError as error:  # a version of the format that zipfile has no word for
        raise _packed_otherwise(path, str(error)) from error
    infos = [info for info in archive.infolist() if not info.is_dir()]
    if len(infos) > MAX_MEMBERS:
        raise UnreadableFileError(
            f"{path} holds {len(infos):,} files.",
            expected=f"at most {MAX_MEMBERS:,}, as any data set known here",
        )
    if others := [info for info in infos if not _is_plainly_packed(info)]:
        raise _packed_otherwise(
            path, "; ".join(f"{one.filename!r} {_packing(one)}" for one in others[:SHOWN])
        )
    bad = [f"{info.filename!r} {why}" for info in infos if (why := _distrust(info))]
    bad += [f"{name!r} is there more than once" for name in _twice(info.filename for info in infos)]
    bad += [f"{name!r} shares bytes with another" for name in _overlapping(infos, path.stat().st_size)]
    if bad:
        listed = bad[:SHOWN] + ([f"… {len(bad)} in all"] if len(bad) > SHOWN else [])
        raise UnreadableFileError(
            f"{path} is not to be trusted; nothing was unpacked.",
            found="\n".join(listed),
            expected="plain files below the folder they are unpacked to, as the publisher packs them",
            hint="Download it again from where it is published.",
        )
    return [(info, archive) for info in infos]


def _distrust(info: zipfile.ZipInfo) -> str | None:
    name = info.orig_filename  # before zipfile cuts it at a NUL and turns backslashes round
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name:
        return "leaves the folder"
    if stat.S_ISLNK(info.external_attr >> 16):
        return "is a link"
    if info.flag_bits & 0x1:
        return "is encrypted"
    return None


def _is_plainly_packed(info: zipfile.ZipInfo) -> bool:
    """Stored or deflated, and no patch to another file: what publishers' zips hold, and what zlib unpacks."""
    return info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) and not info.flag_bits & PATCHED


def _packing(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & PATCHED:
        return "is a patch to another file"
    return f"is packed by {OTHER_METHODS.get(info.compress_type, f'method {info.compress_type}')}"


def _twice(names: Iterable[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _overlapping(infos: Sequence[zipfile.ZipInfo], size: int) -> list[str]:
    """Members whose packed bytes reach into the next one's, or beyond the file: many of them may be one bomb."""
    by_place = sorted(infos, key=lambda info: info.header_offset)
    ends = [info.header_offset for info in by_place[1:]] + [size]
    return [
        info.filename
        for info, end in zip(by_place, ends, strict=True)
        if info.header_offset + info.compress_size > end
    ]


def _packed_otherwise(path: Path, found: str) -> UnreadableFileError:
    return UnreadableFileError(
        f"{path} is packed in a form that is not read here.",
        found=found,
        expected="files that are stored or deflated",
        hint="Unpack it by hand, with 7z or unzip, and name the folder it was unpacked to.",
    )


def _damaged(what: object, error: BaseException) -> UnreadableFileError:
    return UnreadableFileError(
        f"{what} is damaged, or not a zip that Python reads.",
        found=f"{type(error).__name__}: {error}",
        hint="A download that broke off looks like this. Download it again.",
    )
