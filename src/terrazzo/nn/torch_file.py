"""Files of torch.save, read without executing anything: the zip of torch 1.6 and later, and the form before it.

    zip       NAME/data.pkl, a pickle whose tensors refer to NAME/data/KEY; NAME/byteorder
    before    the pickles of a magic number, a version, the machine, the object and the storage keys; then each
              storage as a count and its raw values

Pickles go through `pickled.py`, so what is no tensor or plain value comes back as an inert object. Tensors are views
of the mapped file: nothing is read before it is used, and a network that copies them holds the only copy. Sizes that
a file claims are checked against the file's own before they are used: storages lie inside it and do not overlap, and
tensors lie inside their storage. torch.load is not used.
"""

import mmap
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from terrazzo.errors import MissingPathError, UnreadableFileError, UnsafeFileError, quoted
from terrazzo.nn.pickled import Answer, Data, HarmfulError, Inert, Machine, MalformedError, Name, read_pickle
from terrazzo.nn.pickled_values import FILLED, PLAIN

MAGIC = 0x1950A86A20F9469CFC6C  # of the form before torch 1.6
LEGACY_VERSION = 1001
LFS = b"version https://git-lfs"
DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
NAMED_DTYPES = {
    str(dtype): dtype
    for dtype in (
        *DTYPES.values(),
        torch.uint16,
        torch.uint32,
        torch.uint64,
        torch.float8_e4m3fn,
        torch.float8_e5m2,
    )
}
MOST_DIMENSIONS = 32


def read_torch_file(path: str | PathLike[str]) -> Any:
    """Return what torch.save put into a file: dicts, lists, numbers, strings, tensors on the CPU, and `Inert` objects.

    Tensors are private views of the file: writing to them leaves it alone, and they hold it open. Parameters come
    back as tensors, named tuples and classes as inert objects. Raises MissingPathError, UnreadableFileError for
    what is damaged or no such file, UnsafeFileError for a pickle that names what runs code (none of which runs).
    """
    path = Path(path)
    if not path.is_file():
        raise MissingPathError(f"There is no weights file {path}.")
    size = path.stat().st_size
    if size == 0:
        raise _damaged(path, "it is empty")
    try:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        if data[:4] == b"PK\x03\x04":
            return _read_zip(data)
        if data[:1] == b"\x80":
            return _read_legacy(data)
    except HarmfulError as error:
        raise _unsafe(path, str(error)) from None
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, struct.error, EOFError, OSError, RuntimeError,
            zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error) as error:  # fmt: skip
        is_told = isinstance(error, MalformedError)
        raise _damaged(path, str(error) if is_told else f"what torch.save never writes ({error})") from error
    raise _no_torch_file(path, data)


# the zip ------------------------------------------------------------------------------------------------


def _read_zip(data: mmap.mmap) -> Any:
    entries = _entries(data)
    pickles = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise MalformedError(f"a zip of {len(entries)} files without data.pkl, so it is none of torch.save's")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in entries:
        raise MalformedError("it is a TorchScript program, not weights")
    order = data[entries[f"{root}byteorder"]] if f"{root}byteorder" in entries else b"little"
    if order not in (b"little", b"big"):
        raise MalformedError("its byte order is neither little nor big")
    storages: dict[str, Storage] = {}

    def storage(identity: Any) -> "Flat | Inert":
        dtype, key, count = _identity(identity, 5)
        if dtype is None:
            return Inert("torch storage", identity)
        if key not in storages:
            piece = entries.get(f"{root}data/{key}", slice(0, 0))
            storages[key] = Storage(data, piece.start, piece.stop - piece.start, is_swapped=order == b"big")
        if order == b"big" and identity[1].name.endswith("UntypedStorage"):
            raise MalformedError("it was written on a big-endian machine, without the kinds of its numbers")
        if storages[key].num_bytes != count * dtype.itemsize:
            raise MalformedError(
                f"storage {key[:20]} claims {count * dtype.itemsize:,} bytes and has {storages[key].num_bytes:,}"
            )
        return storages[key].of(dtype)

    return _object(data[entries[pickles[0]]], 0, storage, most=len(data))[0]


def _entries(data: mmap.mmap) -> dict[str, slice]:
    """Return where each file of the zip lies in `data`: stored as it is, inside the zip, apart from all others."""
    try:
        with zipfile.ZipFile(_Window(data)) as directory:
            infos = directory.infolist()
    except (zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise MalformedError(
            "it is cut short: the directory at the end of the zip is missing or broken"
        ) from error
    found: dict[str, slice] = {}
    for info in infos:
        if (
            info.compress_type != zipfile.ZIP_STORED
            or info.flag_bits & 0x1
            or info.file_size != info.compress_size
        ):
            raise MalformedError(
                f"{info.filename[:60]!r} in it is compressed or locked, as torch.save does nothing"
            )
        head = data[info.header_offset : info.header_offset + 30]
        if len(head) < 30 or head[:4] != b"PK\x03\x04":
            raise MalformedError(f"{info.filename[:60]!r} is not where the zip's directory says")
        name_length, extra_length = struct.unpack("<HH", head[26:30])
        start = info.header_offset + 30 + name_length + extra_length
        piece = slice(start, start + info.file_size)
        if info.file_size < 0 or piece.stop > len(data) or info.filename in found:
            raise MalformedError(f"{info.filename[:60]!r} claims {info.file_size:,} bytes that are not there")
        if _has_changed(info, memoryview(data)[piece]):
            raise MalformedError(
                f"{info.filename[:60]!r} in it has changed since it was written (its checksum differs)"
            )
        found[info.filename] = piece
    behind = 0
    for piece in sorted(found.values(), key=lambda one: (one.start, one.stop)):
        if piece.start < behind:
            raise MalformedError("files in its zip lie on top of each other")
        behind = piece.stop
    return found


def _has_changed(info: zipfile.ZipInfo, piece: memoryview) -> bool:
    """True where a file of the zip is not what was written; a checksum of 0 was never taken (an option of torch's)."""
    return info.CRC != 0 and zlib.crc32(piece) != info.CRC


class _Window:
    """`data` as a file, for zipfile to read the directory from: a mapped file's own position is left alone."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = offset + (0, self.at, len(self.data))[whence]
        if self.at < 0:
            raise OSError("before the beginning")
        return self.at

    def read(self, count: int = -1) -> bytes:
        piece = self.data[self.at :] if count < 0 else self.data[self.at : self.at + count]
        self.at += len(piece)
        return piece


# the form before torch 1.6 ------------------------------------------------------------------------------


def _read_legacy(data: mmap.mmap) -> Any:
    magic, at = _object(data, 0, None, most=len(data))
    if magic != MAGIC:
        raise MalformedError(
            f"it is a pickle, but none of torch.save's: it holds {_kind(magic)} where torch puts its number"
        )
    version, at = _object(data, at, None, most=len(data))
    machine, at = _object(data, at, None, most=len(data))
    if version != LEGACY_VERSION or not isinstance(machine, dict):
        raise MalformedError(f"its form has the version {str(version)[:20]}, not {LEGACY_VERSION}")
    is_little = bool(machine.get("little_endian", True))
    claims: dict[str, tuple[torch.dtype, int]] = {}

    def claim(identity: Any) -> Any:
        if isinstance(identity, tuple) and identity[:1] == ("module",) and len(identity) == 4:
            return identity[1]  # a class with its source, which is not read
        dtype, key, count = _identity(identity, 6)
        if dtype is None:
            return Inert("torch storage", identity)
        if claims.setdefault(key, (dtype, count)) != (dtype, count):
            raise MalformedError(f"storage {key[:20]} is claimed in two sizes")
        return Inert("torch storage", identity)

    begin = at
    _, at = _object(data, begin, claim, most=0)  # where the storages lie stands behind the object
    keys, at = _object(data, at, None, most=len(data))
    if (
        not isinstance(keys, list)
        or not all(isinstance(key, str) for key in keys)
        or len(set(keys)) < len(keys)
    ):
        raise MalformedError("its list of storages is none")
    storages: dict[str, Storage] = {}
    for key in keys:
        if key not in claims:
            raise MalformedError(f"storage {key[:20]} belongs to no tensor")
        dtype, count = claims[key]
        (stored,) = struct.unpack("<q" if is_little else ">q", data[at : at + 8])
        end = at + 8 + stored * dtype.itemsize
        if stored != count or end > len(data):
            raise MalformedError(
                f"storage {key[:20]} claims {count * dtype.itemsize:,} bytes, which are not there"
            )
        storages[key] = Storage(data, at + 8, stored * dtype.itemsize, is_swapped=not is_little)
        at = end

    def storage(identity: Any) -> Any:
        dtype, key, count = _identity(identity, 6) if len(identity) == 6 else (None, "", 0)
        if dtype is None:
            return claim(identity)
        if key not in storages:
            raise MalformedError(f"storage {key[:20]} is not in it")
        flat = storages[key].of(dtype)
        view = identity[5]
        if view is None:
            return flat
        if (
            not isinstance(view, tuple)
            or len(view) != 3
            or not _are_counts(view[1:])
            or view[1] + view[2] > count
        ):
            raise MalformedError(f"a view of storage {key[:20]} leaves it")
        return Flat(flat.tensor[view[1] : view[1] + view[2]])

    return _object(data, begin, storage, most=len(data))[0]


# storages and tensors -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Flat:
    """All values of a storage, as one row."""

    tensor: Tensor


class Storage:
    """Some bytes of the file, made into tensors when they are asked for."""

    def __init__(self, data: mmap.mmap, start: int, num_bytes: int, *, is_swapped: bool) -> None:
        self.data, self.start, self.num_bytes, self.is_swapped = data, start, num_bytes, is_swapped
        self.rows: dict[torch.dtype, Flat] = {}

    def of(self, dtype: torch.dtype) -> Flat:
        """Return the values as `dtype`; tensors that share a storage share their memory here too."""
        if dtype not in self.rows:
            self.rows[dtype] = Flat(self._read(dtype))
        return self.rows[dtype]

    def _read(self, dtype: torch.dtype) -> Tensor:
        if self.num_bytes == 0:
            return torch.empty(0, dtype=dtype)
        count = self.num_bytes // dtype.itemsize
        if self.is_swapped:
            width = dtype.itemsize // (2 if dtype.is_complex else 1)
            raw = torch.frombuffer(bytearray(self._bytes()), dtype=torch.uint8)
            return raw.view(-1, width).flip(1).contiguous().flatten().view(dtype)
        if self.start % dtype.itemsize:  # the old form aligns nothing; processors want it
            return torch.frombuffer(bytearray(self._bytes()), dtype=dtype)
        return torch.frombuffer(self.data, dtype=dtype, count=count, offset=self.start)

    def _bytes(self) -> bytes:
        return self.data[self.start : self.start + self.num_bytes]


def _identity(identity: Any, length: int) -> tuple[torch.dtype | None, str, int]:
    """Return dtype, key and count of values of a storage's persistent id; no dtype where the kind is unknown."""
    if not isinstance(identity, tuple) or len(identity) != length or identity[0] != "storage":
        raise MalformedError("it refers to something that is no storage")
    kind, key, _, count = identity[1:5]
    if not isinstance(kind, Name) or not isinstance(key, str) or not _are_counts([count]):
        raise MalformedError("it refers to a storage without kind, key or size")
    is_torch = kind.module.partition(".")[0] == "torch"
    return DTYPES.get(kind.name.lstrip("_")) if is_torch else None, key, count


def _object(data: Data, start: int, persistent: Callable[[Any], Any] | None, *, most: int) -> tuple[Any, int]:
    """Read one pickle; tensors of at most `most` bytes. 0: leave tensors inert."""
    answers = {**PLAIN, **_tensor_answers(most)} if most else PLAIN
    return read_pickle(data, start, known=answers, filled=FILLED, persistent=persistent)


def _tensor_answers(most: int) -> dict[str, Answer]:
    def tensor(machine: Machine, arguments: tuple[Any, ...]) -> Any:
        """storage, offset, size, stride, requires_grad, hooks, and in newer files flags."""
        flat, offset, size, stride = arguments[:4]
        flags = arguments[6] if len(arguments) > 6 else None
        if (
            not isinstance(flat, Flat) or flags
        ):  # a kind of storage we do not know; conjugated or negated on reading
            return Inert("torch.Tensor", arguments)
        return _strided(flat.tensor, offset, size, stride, most)

    def typed(machine: Machine, arguments: tuple[Any, ...]) -> Any:
        """The same, and the dtype of an untyped storage."""
        dtype = NAMED_DTYPES.get(str(arguments[6])) if len(arguments) > 6 else None
        flat = arguments[0]
        if dtype is None or not isinstance(flat, Flat):
            return Inert("torch.Tensor", arguments)
        if flat.tensor.numel() * flat.tensor.element_size() % dtype.itemsize:
            raise MalformedError("a storage of it does not fit its tensor")
        row = flat.tensor.view(dtype) if flat.tensor.numel() else torch.empty(0, dtype=dtype)
        offset, size, stride = arguments[1:4]
        return _strided(row, offset, size, stride, most)

    def parameter(machine: Machine, arguments: tuple[Any, ...]) -> Any:
        """The tensor itself."""
        return arguments[0] if arguments else Inert("torch.nn.Parameter")

    def of_a_subclass(machine: Machine, arguments: tuple[Any, ...]) -> Any:
        """function, class, arguments, attributes: what the function makes, as a plain tensor."""
        inner = (
            plain.get(str(arguments[0])) if len(arguments) == 4 and isinstance(arguments[2], tuple) else None
        )
        return inner(machine, arguments[2]) if inner else Inert("torch.Tensor", arguments)

    plain: Mapping[str, Answer] = {
        "torch._utils._rebuild_tensor": tensor,
        "torch._utils._rebuild_tensor_v2": tensor,
        "torch._utils._rebuild_tensor_v3": typed,
        "torch._utils._rebuild_parameter": parameter,
        "torch._utils._rebuild_parameter_with_state": parameter,
    }
    return {
        **plain,
        "torch._tensor._rebuild_from_type_v2": of_a_subclass,
        "torch.nn.parameter.Parameter": parameter,
    }


def _strided(row: Tensor, offset: Any, size: Any, stride: Any, most: int) -> Tensor:
    """Return a tensor of `row`, refused where it would leave it or be larger than the file."""
    is_shape = (
        isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride) <= MOST_DIMENSIONS
    )
    if not is_shape or not _are_counts([offset, *size, *stride]):
        raise MalformedError("a tensor of it has no proper shape")
    if 0 in size:
        if max(size) > most:
            raise MalformedError("a tensor of it claims a size that is not there")
        return torch.empty(size, dtype=row.dtype)
    count, last = 1, offset
    for length, step in zip(size, stride, strict=True):
        count *= length
        last += (length - 1) * step
    if last >= row.numel() or count * row.element_size() > most:
        raise MalformedError(
            f"a tensor of shape {size} claims values that its storage of {row.numel():,} does not have"[:200]
        )
    return torch.as_strided(row, size, stride, offset)


def _are_counts(values: Any) -> bool:
    return all(type(value) is int and 0 <= value < 1 << 48 for value in values)


# what is said -------------------------------------------------------------------------------------------


def _no_torch_file(path: Path, data: mmap.mmap) -> UnreadableFileError:
    head = data[:512]
    if head.startswith(LFS):
        return UnreadableFileError(
            f"{path} is a Git LFS pointer, not the weights.",
            found=f"{len(data)} bytes of text",
            hint="The repository was cloned without its large files. In its folder:",
            command="git lfs pull",
        )
    if head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= len(data) - 8:
        return UnreadableFileError(
            f"{path} is a safetensors file with another ending.",
            hint="Give it its own, and it opens:",
            command=f"mv {quoted(path)} {quoted(path.with_suffix('.safetensors'))}",
        )
    if data[257:262] == b"ustar":
        return _damaged(path, "a tar archive, the form of torch 0.1; nobody reads it any more")
    if not any(byte < 9 for byte in head):
        text = head.decode("utf-8", "replace").split("\n")[0].strip()[:60]
        return _damaged(path, f"text, which begins {text!r}: perhaps the page of a download that failed")
    return _damaged(path, f"it begins with the bytes {head[:4].hex(' ')}, as no file of torch.save does")


def _damaged(path: Path, found: str) -> UnreadableFileError:
    return UnreadableFileError(
        f"{path} is damaged, or no weights file.",
        found=(found.splitlines() or ["nothing that can be read"])[0][:300],
        hint=f"It has {path.stat().st_size:,} bytes; compare with where it came from, and copy it again.",
    )


def _unsafe(path: Path, name: str) -> UnsafeFileError:
    return UnsafeFileError(
        f"{path} is not opened: it holds more than tensors, and opened elsewhere it could run code.",
        found=f"a reference to {name}",
        expected="tensors, plain values, and objects that need not be run to be read",
        hint="Nothing in it was run. No training writes such a file: ask where it comes from.",
    )


def _kind(value: Any) -> str:
    return value.what if isinstance(value, Inert) else f"a {type(value).__name__}"
