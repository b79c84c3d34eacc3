"""Files of torch.save that mean ill or are damaged: nothing runs, lies about sizes are refused, nothing crashes."""

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

from terrazzo.errors import TerrazzoError, UnreadableFileError, UnsafeFileError
from terrazzo.nn.pickled import MalformedError, read_pickle
from terrazzo.nn.pickled_values import FILLED, PLAIN
from terrazzo.nn.torch_file import read_torch_file
from torch_files import CONTAINERS, Buffer, everything, saved

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
