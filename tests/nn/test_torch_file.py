"""Files of torch.save: what torch wrote is read bit for bit, what lies about its size is refused, and nothing runs.

The truth is torch.load(weights_only=True) where it opens a file, and the objects that were saved where it does not.
"""

import builtins
import collections
import contextlib
import functools
import io
import os
import pickle
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from terrazzo.errors import MissingPathError, TerrazzoError, UnreadableFileError, UnsafeFileError
from terrazzo.nn.pickled import Inert, MalformedError, read_pickle
from terrazzo.nn.pickled_values import FILLED, PLAIN
from terrazzo.nn.torch_file import read_torch_file

CONTAINERS = {"zip": True, "before torch 1.6": False}
GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "mmseg"


def saved(value: Any, path: Path, *, is_zip: bool = True, protocol: int = 2) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=is_zip, pickle_protocol=protocol)
    return path


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit, dtypes, containers and shared storages' values included."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return (
            isinstance(one, Tensor) and isinstance(other, Tensor) and one.dtype == other.dtype
            and one.shape == other.shape and one.stride() == other.stride()
            and torch.equal(one.contiguous().flatten().view(torch.uint8) if one.numel() else one,
                            other.contiguous().flatten().view(torch.uint8) if other.numel() else other)
        )  # fmt: skip
    if isinstance(one, dict):
        return (
            isinstance(other, dict) and list(one) == list(other) and all(same(one[k], other[k]) for k in one)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return type(one) is type(other) and one == other


def everything() -> dict[str, Any]:
    """What checkpoints hold, as torch.load(weights_only=True) opens it too."""
    torch.manual_seed(0)
    dtypes = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
              torch.int8, torch.uint8)  # fmt: skip
    tied = torch.rand(3, 4)
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2))
    return {
        "dtypes": {str(dtype): (torch.rand(5, 3) * 100).to(dtype) for dtype in dtypes},
        "bool": torch.tensor([True, False]),
        "complex": torch.complex(torch.rand(3), torch.rand(3)),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 4),
        "tied": [tied, tied],
        "transposed": torch.rand(4, 5).t(),
        "strided": torch.arange(20)[3:15:2],
        "window": torch.rand(6, 6)[1:4, 2:],
        "state_dict": network.state_dict(),
        "parameter": collections.OrderedDict(weight=torch.rand(2)),
        "plain": [
            None,
            True,
            1,
            -7,
            2**40,
            -(2**80),
            0.1,
            float("inf"),
            "ünïcode",
            b"bytes",
            (1,),
            {"a": {1: 2}},
        ],
        "size": tuple(torch.rand(2, 3).shape),
    }


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_torch_reads_is_read_to_the_last_bit(container: str, protocol: int, tmp_path: Path):
    value = everything()
    path = saved(value, tmp_path / "a.pth", is_zip=CONTAINERS[container], protocol=protocol)
    read = read_torch_file(path)
    assert same(read, value)
    if protocol == 2:  # torch's own safe reader knows no other
        assert same(read, torch.load(path, weights_only=True))


@pytest.mark.parametrize("container", CONTAINERS)
def test_tied_tensors_stay_tied_and_the_file_stays_as_it_is(container: str, tmp_path: Path):
    tied = torch.zeros(4)
    path = saved({"a": tied, "b": tied, "c": tied[1:]}, tmp_path / "a.pth", is_zip=CONTAINERS[container])
    before = path.read_bytes()
    read = read_torch_file(path)
    read["a"][1] = 7.0
    assert read["b"][1] == 7.0
    assert read["c"][0] == 7.0
    assert path.read_bytes() == before


def test_parameters_and_newer_dtypes_are_tensors(tmp_path: Path):
    value = {"p": nn.Parameter(torch.rand(3)), "u": torch.tensor([1, 2], dtype=torch.uint16),
             "f8": torch.rand(4).to(torch.float8_e4m3fn)}  # fmt: skip
    read = read_torch_file(saved(value, tmp_path / "a.pth"))
    assert torch.equal(read["p"], value["p"].detach())
    assert read["u"].tolist() == [1, 2] and read["u"].dtype == torch.uint16
    assert torch.equal(read["f8"].float(), value["f8"].float())


def test_numpy_numbers_and_arrays_are_data(tmp_path: Path):
    arrays = {
        "scalar": np.float64(0.25), "integer": np.int32(-3), "flag": np.bool_(True),
        "big": np.arange(3, dtype=">i4"), "array": np.arange(6, dtype=np.int16).reshape(2, 3),
        "fortran": np.asfortranarray(np.eye(3)[:, :2]), "half": np.array([0.5], np.float16), "empty": np.empty((0, 2)),
    }  # fmt: skip
    for protocol in (2, 4, 5):
        read = read_torch_file(saved(arrays, tmp_path / "a.pth", protocol=protocol))
        for name, array in arrays.items():
            assert np.array_equal(read[name], array), (name, protocol)
            assert np.shape(read[name]) == np.shape(array)


class Buffer:
    """As mmengine's HistoryBuffer: a class that need not be here to be read."""

    def __init__(self, values: list[float]) -> None:
        self.values = np.array(values)


class Config(dict):
    """As mmengine's ConfigDict."""


Point = collections.namedtuple("Point", "x y")


def test_objects_of_others_are_kept_inert(tmp_path: Path):
    value = {
        "hub": {"loss": Buffer([1.0, 2.0])},
        "config": Config(lr=0.1, nested=Config(a=1)),
        "method": functools.partial(max, 1),
        "counter": collections.Counter("aab"),
        "default": collections.defaultdict(list, {"k": [1]}),
        "point": Point(1, 2),
        "path": Path("x"),
        "weight": torch.ones(2),
    }
    read = read_torch_file(saved(value, tmp_path / "a.pth"))
    hub = read["hub"]["loss"]
    assert isinstance(hub, Inert)
    assert hub.what.endswith("Buffer")
    assert np.array_equal(hub.state["values"], [1.0, 2.0])
    assert read["config"].entries["lr"] == 0.1
    assert read["config"].entries["nested"].entries == {"a": 1}
    assert isinstance(read["method"], Inert) and isinstance(read["point"], Inert)
    assert read["counter"] == {"a": 2, "b": 1} and read["default"] == {"k": [1]}
    assert torch.equal(read["weight"], torch.ones(2))


# nothing runs -------------------------------------------------------------------------------------------


class Reduced:
    """Unpickling it calls `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class ByState:
    """Unpickling it hands its state to __setstate__."""

    def __init__(self, state: Any) -> None:
        self.state = state

    def __getstate__(self) -> Any:
        return self.state

    def __setstate__(self, state: Any) -> None:
        builtins.eval(state)


def payloads(canary: Path) -> Iterator[tuple[str, Any]]:
    """What attackers pickle; each makes `canary` when it is opened carelessly."""
    touch = f"open({str(canary)!r}, 'w').close()"
    yield "os.system", Reduced(os.system, f"touch {canary}")
    yield "eval", Reduced(builtins.eval, f"__import__('builtins').{touch}")
    yield "exec", Reduced(builtins.exec, touch)
    yield "setstate", ByState(touch)
    yield "getattr", Reduced(getattr, Reduced(__import__, "os"), "system")
    yield "partial", Reduced(functools.partial(os.system, f"touch {canary}"))
    yield "map", Reduced(list, Reduced(map, os.system, [f"touch {canary}"]))
    yield "pathlib", Reduced(Path.touch, canary)
    yield "torch.load", Reduced(torch.load, io.BytesIO(pickle.dumps(Reduced(os.system, f"touch {canary}"))))


FIELDS = {
    "alone": lambda payload: payload,
    "meta": lambda payload: {"meta": {"cfg": payload}, "state_dict": {"w": torch.ones(1)}},
    "state_dict": lambda payload: {"state_dict": {"w": torch.ones(1), "x": payload}},
    "optimizer": lambda payload: {"state_dict": {"w": torch.ones(1)}, "optimizer": {"state": {0: [payload]}}},
    "message_hub": lambda payload: {
        "message_hub": collections.OrderedDict(a=(1, {"b": payload})),
        "w": torch.ones(1),
    },
}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("field", FIELDS)
def test_no_payload_runs_wherever_it_lies(container: str, field: str, tmp_path: Path):
    canary = tmp_path / "it-ran"
    for protocol in (2, 4, 5):
        for name, payload in payloads(canary):
            path = saved(
                FIELDS[field](payload), tmp_path / "a.pth", is_zip=CONTAINERS[container], protocol=protocol
            )
            with contextlib.suppress(UnsafeFileError):
                read_torch_file(path)
            assert not canary.exists(), (name, protocol)
    with pytest.raises(UnsafeFileError, match="is not opened: it holds more than tensors") as caught:
        read_torch_file(saved(FIELDS[field](Reduced(os.system, "true")), tmp_path / "a.pth"))
    assert f"found: a reference to {os.system.__module__}.system" in str(caught.value)


def test_the_payloads_are_real(tmp_path: Path):
    for name, payload in payloads(tmp_path / "it-ran"):
        (tmp_path / "it-ran").unlink(missing_ok=True)
        try:
            done = pickle.loads(pickle.dumps(payload))
            if name == "getattr":
                done(f"touch {tmp_path / 'it-ran'}")
        except Exception:
            assert name == "torch.load", name  # torch's own reader refuses it
            continue
        assert (tmp_path / "it-ran").exists(), name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),  # protocol 0
        (b"(S'true'\nios\nsystem\n.", "os.system"),  # INST
        (b"(cos\nsystem\nS'true'\no.", "os.system"),  # OBJ
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.", "os.system"),  # STACK_GLOBAL
        (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85\x81.", "os.system"),  # NEWOBJ
        (b"\x80\x04cposix\nsystem\n\x8c\x04true\x85}\x92.", "posix.system"),  # NEWOBJ_EX
        (b"c__builtin__\neval\n(S'1'\ntR.", "builtins.eval"),
        (b"\x80\x04\x8c\x08builtins\x8c\x0beval.__call\x93.", "builtins.eval.__call"),
    ],
)
def test_every_way_to_name_a_function_is_seen(text: bytes, said: str, tmp_path: Path):
    with pytest.raises(ValueError, match=said):
        read_pickle(text, known=PLAIN, filled=FILLED)
    before = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    (tmp_path / "a.pth").write_bytes(before + text)
    with pytest.raises(UnsafeFileError, match=said):
        read_torch_file(tmp_path / "a.pth")


# lies about sizes ---------------------------------------------------------------------------------------


def lying(original: Path, change: Callable[[bytes], bytes]) -> Path:
    """The same zip with another data.pkl."""
    path = original.with_name("lying.pth")
    with zipfile.ZipFile(original) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
        for info in source.infolist():
            data = source.read(info)
            target.writestr(info.filename, change(data) if info.filename.endswith("data.pkl") else data)
    return path


def changed(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        assert data.count(old) == 1, data
        return data.replace(old, new)

    return change


def test_lying_sizes_are_refused_in_words(tmp_path: Path):
    # 300 = M\x2c\x01 values; the storage says so, and the tensor has shape (300,), stride (1,), offset 0
    path = saved({"w": torch.zeros(300)}, tmp_path / "a.pth")
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("a/data.pkl")
    assert pickled.count(b"M\x2c\x01") == 2
    storage, shape = pickled.index(b"M\x2c\x01"), pickled.rindex(b"M\x2c\x01")

    def at(place: int, new: bytes) -> Callable[[bytes], bytes]:
        return lambda data: data[:place] + new + data[place + 3 :]

    huge = b"\x8a\x06" + (2**41).to_bytes(6, "little")
    for change, said in (
        (at(storage, b"M\x2d\x01"), "storage 0 claims 1,204 bytes and has 1,200"),
        (at(storage, huge), "storage 0 claims"),
        (
            at(shape, b"M\x2d\x01"),
            r"a tensor of shape \(301,\) claims values that its storage of 300 does not have",
        ),
        (at(shape, huge), "does not have"),
        (at(shape, b"J\xff\xff\xff\xff"), "has no proper shape"),
        (lambda data: data.replace(b"\x85q\x07", b"\x85q\x07"), None),
    ):
        if said is None:
            assert read_torch_file(lying(path, change))["w"].shape == (300,)
            continue
        with pytest.raises(UnreadableFileError, match=said) as caught:
            read_torch_file(lying(path, change))
        assert caught.value.exit_code == 1


def test_strides_must_stay_inside_and_not_multiply_the_file(tmp_path: Path):
    offset = torch.zeros(10)[2:8]  # K\x02 K\x06
    path = saved({"w": offset}, tmp_path / "a.pth")
    change = changed(b"QK\x02K\x06\x85", b"QK\x05K\x06\x85")
    with pytest.raises(UnreadableFileError, match="its storage of 10 does not have"):
        read_torch_file(lying(path, change))
    spread = saved({"w": torch.zeros(1).expand(200)}, tmp_path / "b.pth")
    assert read_torch_file(spread)["w"].shape == (200,)
    with pytest.raises(UnreadableFileError, match="does not have"):
        read_torch_file(lying(spread, changed(b"K\xc8\x85", b"J\x00\x00\x00\x40\x85")))


def test_a_zip_that_is_none_of_torchs_is_refused(tmp_path: Path):
    path = saved({"w": torch.zeros(3000)}, tmp_path / "a.pth")
    with zipfile.ZipFile(path) as source:
        parts = {info.filename: source.read(info) for info in source.infolist()}

    def repacked(compression: int = zipfile.ZIP_STORED, **more: bytes) -> Path:
        target = tmp_path / "b.pth"
        with zipfile.ZipFile(target, "w", compression) as archive:
            for name, data in (parts | more).items():
                archive.writestr(name, data)
        return target

    assert torch.equal(read_torch_file(repacked())["w"], torch.zeros(3000))
    with pytest.raises(UnreadableFileError, match="is compressed or locked"):
        read_torch_file(repacked(zipfile.ZIP_DEFLATED))  # what a zip bomb needs
    with pytest.raises(UnreadableFileError, match="TorchScript program"):
        read_torch_file(repacked(**{"a/constants.pkl": b""}))
    with zipfile.ZipFile(tmp_path / "c.pth", "w") as archive:
        archive.writestr("readme.txt", b"hello")
    with pytest.raises(UnreadableFileError, match="a zip of 1 files without data.pkl"):
        read_torch_file(tmp_path / "c.pth")
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"a/data/0"))  # the directory's word on the storage
    for place, value, said in (
        (24, 2**31 - 1, "compressed or locked|not there"),
        (42, 5, "is not where the zip's directory says"),
        (42, 0, "on top of each other|has changed"),
    ):
        lie = bytearray(data)
        lie[entry + place : entry + place + 4] = struct.pack("<I", value)
        (tmp_path / "d.pth").write_bytes(lie)
        with pytest.raises(UnreadableFileError, match=said):
            read_torch_file(tmp_path / "d.pth")


def test_zip64_is_read(tmp_path: Path):
    path = saved({"w": torch.arange(5)}, tmp_path / "a.pth")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "b.pth", "w") as target:
        for info in source.infolist():
            with target.open(info.filename, "w", force_zip64=True) as file:
                file.write(source.read(info))
    assert read_torch_file(tmp_path / "b.pth")["w"].tolist() == [0, 1, 2, 3, 4]


def test_big_endian_files_are_turned(tmp_path: Path):
    values = {"f": torch.tensor([1.5, -2.0]), "i": torch.tensor([1, -2**40]), "b": torch.tensor([1.5]).bfloat16(),
              "c": torch.tensor([1 + 2j]), "u": torch.tensor([3], dtype=torch.uint8)}  # fmt: skip
    path = saved(values, tmp_path / "a.pth")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "b.pth", "w") as target:
        for info in source.infolist():
            data = source.read(info)
            if info.filename == "a/byteorder":
                data = b"big"
            elif info.filename.startswith("a/data/"):
                tensor = list(values.values())[int(info.filename.rpartition("/")[2])]
                width = tensor.element_size() // (2 if tensor.is_complex() else 1)
                data = b"".join(data[i : i + width][::-1] for i in range(0, len(data), width))
            target.writestr(info.filename, data)
    read = read_torch_file(tmp_path / "b.pth")
    assert all(same(read[name], value) for name, value in values.items())


# what is no file of torch's -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"<html>404 not found</html>", "text, which begins '<html>404 not found</html>'"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "is a Git LFS pointer"),
        (pickle.dumps({"a": 1}), "a pickle, but none of torch.save's: it holds a dict"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "begins with the bytes 89 48 44 46"),
        (b"PK\x03\x04" + bytes(50), "cut short"),
    ],
)
def test_other_files_get_a_sentence(content: bytes, said: str, tmp_path: Path):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UnreadableFileError) as caught:
        read_torch_file(tmp_path / "a.pth")
    assert said in str(caught.value)


def test_safetensors_under_another_name_and_no_file(tmp_path: Path):
    save_file({"w": torch.ones(2)}, tmp_path / "a.pth")
    with pytest.raises(UnreadableFileError, match="is a safetensors file with another ending") as caught:
        read_torch_file(tmp_path / "a.pth")
    assert str(caught.value).endswith(f"mv {tmp_path / 'a.pth'} {tmp_path / 'a.safetensors'}")
    with pytest.raises(MissingPathError):
        read_torch_file(tmp_path / "none.pth")


# damage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("seed", range(2))
def test_damage_is_told_and_never_a_crash(
    container: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Cut anywhere, or with bytes changed anywhere: read, or refused in words. Checksums are made right again."""
    value = {
        "state_dict": everything()["state_dict"],
        "hub": Buffer([1.0]),
        "np": np.float64(2),
        "c": {1: "a"},
    }
    whole = saved(value, tmp_path / "a.pth", is_zip=CONTAINERS[container]).read_bytes()
    monkeypatch.setattr("terrazzo.nn.torch_file._has_changed", lambda info, data: False)
    dice = random.Random(seed)
    for _ in range(80):
        data = bytearray(whole)
        if dice.random() < 0.3:
            del data[dice.randrange(len(data)) :]
        else:
            for _ in range(dice.randint(1, 4)):
                data[dice.randrange(len(data))] = dice.randrange(256)
        (tmp_path / "b.pth").write_bytes(data)
        with contextlib.suppress(TerrazzoError):
            read_torch_file(tmp_path / "b.pth")


@pytest.mark.parametrize("seed", range(3))
def test_any_bytes_are_a_pickle_or_malformed(seed: int):
    """Random instructions, most of them valid ones, end in a value or in an error of the expected kinds, quickly."""
    dice = random.Random(seed)
    codes = b"()]}lt.0125NIKMJGFSUTXVBCpqrghjcRbioPQ"
    codes += b"\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8f\x90\x91\x93\x94\x95\x96"
    for _ in range(1000):
        data = bytes(
            dice.choice(codes) if dice.random() < 0.7 else dice.randrange(256)
            for _ in range(dice.randint(1, 60))
        )
        try:
            read_pickle(data + b".", known=PLAIN, filled=FILLED, persistent=lambda identity: identity)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError, struct.error):
            continue


def test_copies_of_copies_and_deep_keys_end():
    ladder = b"]q\x000" + b"".join(b"h%ch%c\x86q%c0" % (i, i, i + 1) for i in range(60))
    with pytest.raises(MalformedError, match="key that is no plain value"):
        read_pickle(ladder + b"}h\x3cNs.", known=PLAIN, filled=FILLED)  # hashing it would take 2^60 steps
    many = b"](" + b"N" * 3000 + b"eq\x00"
    again = b"c__builtin__\nlist\nq\x010" + b"h\x01h\x00\x85R0" * 3000
    with pytest.raises(MalformedError, match="copies more than it holds"):
        read_pickle(many + again + b"N.", known=PLAIN, filled=FILLED)
    with pytest.raises(MalformedError, match="ends in the middle"):
        read_pickle(b"\x80\x04\x8e" + (2**62).to_bytes(8, "little"), known=PLAIN, filled=FILLED)
    deep, _ = read_pickle(b"]" * 100_000 + b"a" * 99_999 + b".", known=PLAIN, filled=FILLED)
    assert isinstance(deep[0][0], list)


# files of MMSegmentation's own --------------------------------------------------------------------------


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="no golden files at ../shared/golden")
def test_goldens_are_read_as_torch_reads_them():
    kinds = ("fcn_r50-d8_v0_legacy", "segformer_mit-b0", "trained_by_mmengine_pspnet_r50-d8")
    for path in (GOLDEN / f"{kind}.pth" for kind in kinds):
        read = read_torch_file(path)
        if path.name.startswith("trained_by"):  # which torch refuses
            with pytest.raises(pickle.UnpicklingError):
                torch.load(path, weights_only=True)
            assert isinstance(read["message_hub"], dict | Inert)
            continue
        assert same(read, torch.load(path, weights_only=True)), path.name
