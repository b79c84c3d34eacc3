"""Files of torch.save: what torch wrote is read bit for bit, and what is none of its files gets a sentence.

The truth is torch.load(weights_only=True) where it opens a file, and the objects that were saved where it does not.
"""

import collections
import functools
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from terrazzo.errors import MissingPathError, UnreadableFileError
from terrazzo.nn.pickled import Inert
from terrazzo.nn.torch_file import read_torch_file
from torch_files import CONTAINERS, Buffer, everything, same, saved

GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "mmseg"


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
