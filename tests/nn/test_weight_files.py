"""Files of tensors: what would run code is not opened, shards are put together, damage is named."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from terrazzo.errors import (
    MissingPathError,
    TerrazzoError,
    UnreadableFileError,
    UnsafeFileError,
    WeightsError,
)
from terrazzo.nn.starting import load_pretrained
from terrazzo.nn.weights import read_model, read_tensors
from tiny_segformer import ROAD, agree, tiny


class Payload:
    """Unpickling it runs a shell command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["torch", "plain pickle", "beside tensors"])
def test_a_pickle_with_code_is_refused_and_nothing_runs(form: str, tmp_path: Path):
    witness = tmp_path / "it-ran"
    payload = Payload(f"touch {witness}")
    path = tmp_path / "pytorch_model.bin"
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload if form == "torch" else {"weight": torch.ones(2), "meta": payload}, path)
    with pytest.raises(UnsafeFileError, match="is not opened: it holds more than tensors") as caught:
        read_tensors(path)
    assert not witness.exists()
    assert f"found: a reference to {os.system.__module__}.system" in str(caught.value)
    assert "Nothing in it was run." in str(caught.value)
    assert caught.value.exit_code == 1
    # the payload is real: whoever opens it carelessly runs it
    if form == "plain pickle":
        pickle.loads(path.read_bytes())
        assert witness.exists()


def test_a_folder_with_an_unsafe_pickle_is_refused_by_every_door(saved: Path):
    witness = saved / "it-ran"
    torch.save(Payload(f"touch {witness}"), saved / "pytorch_model.bin")
    (saved / "model.safetensors").unlink()
    for door in (lambda: read_model(saved), lambda: load_pretrained(tiny(), saved, classes=ROAD)):
        with pytest.raises(UnsafeFileError):
            door()
    assert not witness.exists()


def test_a_pickle_of_tensors_is_read_and_goes_after_safetensors(saved: Path):
    tensors = load_file(saved / "model.safetensors")
    changed = {name: tensor + 1 for name, tensor in tensors.items()}
    torch.save(changed, saved / "pytorch_model.bin")
    assert torch.equal(
        read_tensors(saved)["decode_head.classifier.bias"], tensors["decode_head.classifier.bias"]
    )
    (saved / "model.safetensors").unlink()
    assert read_tensors(saved).keys() == tensors.keys()
    assert torch.equal(
        read_tensors(saved)["decode_head.classifier.bias"], changed["decode_head.classifier.bias"]
    )


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_a_state_dict_inside_a_checkpoint_is_found(key: str, tmp_path: Path):
    torch.save({key: {"weight": torch.ones(2)}, "epoch": 3}, tmp_path / "last.pth")
    assert read_tensors(tmp_path / "last.pth").keys() == {"weight"}


def test_a_file_without_tensors_says_so(tmp_path: Path):
    torch.save({"epoch": 3}, tmp_path / "last.pth")
    with pytest.raises(WeightsError, match="holds no named tensors"):
        read_tensors(tmp_path / "last.pth")


def test_shards_are_put_together(saved: Path):
    tensors = load_file(saved / "model.safetensors")
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, held in shards.items():
        save_file({name: tensors[name].clone() for name in held}, saved / shard)
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    (saved / "model.safetensors").unlink()
    (saved / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert agree(read_model(saved).network, tiny())
    (saved / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(MissingPathError, match="There is no weights file .*model-00002-of-00002"):
        read_model(saved)


def test_an_index_must_not_lead_out_of_its_folder(saved: Path):
    (saved / "model.safetensors").rename(saved.parent / "elsewhere.safetensors")
    index = {"weight_map": {"x": "../elsewhere.safetensors"}}
    (saved / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UnsafeFileError, match="points outside its folder"):
        read_tensors(saved)


def test_an_index_of_nothing_is_told(saved: Path):
    (saved / "model.safetensors").unlink()
    for text in ("[]", '{"weight_map": [1]}', '{"weight_map": {"a": 1}}'):
        (saved / "model.safetensors.index.json").write_text(text)
        with pytest.raises(WeightsError):
            read_tensors(saved)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_damaged_files_are_named(name: str, damage: str, saved: Path):
    tensors = load_file(saved / "model.safetensors")
    torch.save(tensors, saved / "pytorch_model.bin")
    data = (saved / name).read_bytes()
    (saved / name).write_bytes(
        {"cut": data[: len(data) // 2], "empty": b"", "text": b"<html>404</html>"}[damage]
    )
    with pytest.raises(TerrazzoError, match=name) as caught:
        read_tensors(saved / name)
    assert isinstance(caught.value, UnreadableFileError | UnsafeFileError)
    if name == "model.safetensors" or damage != "text":
        assert f"It has {(saved / name).stat().st_size:,} bytes" in str(caught.value)


def test_a_git_lfs_pointer_is_recognised(saved: Path):
    (saved / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )
    with pytest.raises(UnreadableFileError, match="is a Git LFS pointer") as caught:
        read_model(saved)
    assert str(caught.value).endswith("git lfs pull")
