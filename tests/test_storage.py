"""What was there stays there: writes are whole or not at all, whatever stops them."""

import errno
import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from terrazzo import storage
from terrazzo.errors import ExistingOutputError, MissingPathError, StorageError, UnreadableFileError


def _refuse(code: int):
    def fail(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "new" / "words.txt"
    for text in ("old", "new"):
        with storage.replacing(path) as beside:
            assert beside.parent == path.parent
            assert beside.suffix == ".txt"
            beside.write_text(text)
            assert path.exists() == (text == "new")
        assert path.read_text() == text
    assert os.listdir(path.parent) == ["words.txt"]


def test_an_error_while_writing_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("old")

    def write_half() -> None:
        with storage.replacing(path) as beside:
            beside.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["words.txt"]


def test_a_link_keeps_pointing_where_it_points(tmp_path: Path) -> None:
    target, link = tmp_path / "target.txt", tmp_path / "link.txt"
    target.write_text("old")
    link.symlink_to(target)
    with storage.replacing(link) as beside:
        beside.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.skipif(os.name == "nt", reason="limits on file size are POSIX")
def test_a_real_limit_of_the_system_is_a_storage_error_and_the_old_file_is_intact(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"good")
    code = f"""
import resource
from terrazzo.errors import StorageError
from terrazzo.storage import replacing
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
try:
    with replacing({str(path)!r}) as beside:
        beside.write_bytes(bytes(5000))
except StorageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"The disk is full: {path} could not be written.")
    assert "What was there before is intact." in done.stdout
    assert path.read_bytes() == b"good"
    assert os.listdir(tmp_path) == ["weights.bin"]


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (errno.ENOSPC, "The disk is full"),
        (errno.EROFS, "the disk is read-only"),
        (errno.EACCES, "no permission"),
    ],
)
def test_a_full_or_closed_disk_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, sentence: str
) -> None:
    path = tmp_path / "a.json"
    storage.write_json(path, {"kept": 1})
    monkeypatch.setattr(os, "fsync", _refuse(code))
    with pytest.raises(StorageError) as caught:
        storage.write_json(path, {"lost": 2})
    assert sentence in str(caught.value)
    assert "What was there before is intact." in str(caught.value)
    assert caught.value.exit_code == 1
    assert storage.read_json(path) == {"kept": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_the_words_of_a_library_that_wraps_a_full_disk_are_understood(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match="The disk is full"),
        storage.replacing(tmp_path / "model.safetensors"),
    ):
        raise ValueError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_an_error_about_another_file_is_not_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), storage.replacing(tmp_path / "out" / "a.txt"):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/input.png")


def test_a_folder_appears_whole_and_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "last"
    for content in ("one", "two"):
        with storage.replace_folder(path) as beside:
            (beside / "deep").mkdir()
            (beside / "deep" / "state.json").write_text(content)
        assert (path / "deep" / "state.json").read_text() == content
        assert os.listdir(tmp_path) == ["last"]


@pytest.mark.parametrize("is_one_call", [True, False])
def test_a_folder_swap_that_fails_keeps_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_one_call: bool
) -> None:
    path = tmp_path / "last"
    path.mkdir()
    (path / "good").write_text("good")
    if not is_one_call:
        monkeypatch.setattr(storage, "_exchange", lambda one, other: False)
    rename, calls = os.rename, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(source, target)

    if is_one_call:
        monkeypatch.setattr(os, "fsync", _refuse(errno.ENOSPC))
    else:
        monkeypatch.setattr(os, "rename", second_fails)
    with pytest.raises(StorageError), storage.replace_folder(path) as beside:
        (beside / "new").write_text("new")
    assert os.listdir(path) == ["good"]
    assert os.listdir(tmp_path) == ["last"]


def test_two_renames_serve_where_the_system_has_no_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "_exchange", lambda one, other: False)
    for content in ("one", "two"):
        with storage.replace_folder(tmp_path / "last") as beside:
            (beside / "a").write_text(content)
    assert (tmp_path / "last" / "a").read_text() == "two"
    assert os.listdir(tmp_path) == ["last"]


def test_json_keeps_plain_values_and_writes_nan_as_null(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Value:
        path: Path
        shape_hw: tuple[int, int]

    path = tmp_path / "a.json"
    storage.write_json(
        path,
        {
            "nan": float("nan"),
            "array": np.array([[1.5, np.inf], [0, 1]]),
            "scalar": np.int64(3),
            "value": Value(Path("x"), (2, 3)),
            "ü": {2, 1},
        },
    )
    assert storage.read_json(path) == {
        "nan": None,
        "array": [[1.5, None], [0.0, 1.0]],
        "scalar": 3,
        "value": {"path": "x", "shape_hw": [2, 3]},
        "ü": [1, 2],
    }
    assert '"ü"' in path.read_text(encoding="utf-8")


def test_json_that_is_absent_or_broken_names_the_file_and_the_line(tmp_path: Path) -> None:
    with pytest.raises(MissingPathError, match=r"There is no file .*none\.json"):
        storage.read_json(tmp_path / "none.json")
    path = tmp_path / "broken.json"
    path.write_text('{"a": 1,\n"b": }')
    with pytest.raises(
        UnreadableFileError, match=r"broken\.json is not valid JSON.\n  found: .* at line 2, column 6"
    ):
        storage.read_json(path)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UnreadableFileError, match="cannot be read as JSON"):
        storage.read_json(path)
    for text in ("[" * 100_000, '{"a":' * 100_000, "1" * 10_000):  # deeper, and longer, than Python reads
        path.write_text(text)
        with pytest.raises(UnreadableFileError, match="cannot be read as JSON"):
            storage.read_json(path)


def test_lines_are_appended_one_by_one_and_after_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    storage.append_line(path, '{"step": 1}')
    storage.append_line(path, '{"step": 2}\n')
    with open(path, "a") as file:
        file.write('{"step": 3, "lo')  # a crash
    storage.append_line(path, '{"step": 3}')
    lines = path.read_text().split("\n")
    assert lines == ['{"step": 1}', '{"step": 2}', '{"step": 3, "lo', '{"step": 3}', ""]
    assert json.loads(lines[3]) == {"step": 3}


def test_a_line_that_does_not_fit_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.jsonl"
    storage.append_line(path, "one")
    monkeypatch.setattr(os, "fsync", _refuse(errno.ENOSPC))
    with pytest.raises(StorageError, match="The disk is full"):
        storage.append_line(path, "two")
    assert path.read_text() == "one\n"


def test_an_output_that_exists_is_refused_and_an_empty_folder_is_not(tmp_path: Path) -> None:
    storage.refuse_existing(tmp_path)
    storage.refuse_existing(tmp_path / "new")
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ExistingOutputError) as caught:
        storage.refuse_existing(tmp_path)
    assert str(caught.value).startswith(
        f"The output {tmp_path} is already there.\n  found: a folder with 1 entries"
    )
    assert caught.value.exit_code == 2
    with pytest.raises(ExistingOutputError, match="found: a file"):
        storage.refuse_existing(tmp_path / "mine.txt")


@pytest.mark.skipif(os.name == "nt", reason="another shell")
def test_a_command_to_type_names_one_path_whatever_is_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "my run; x" / "inside").mkdir(parents=True)
    with pytest.raises(ExistingOutputError) as caught:
        storage.refuse_existing(tmp_path / "my run; x")
    assert shlex.split(caught.value.command or "") == ["rm", "-r", str(tmp_path / "my run; x")]


def test_the_cache_folder_is_the_one_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERRAZZO_CACHE", str(tmp_path))
    assert storage.cache_folder() == tmp_path
    monkeypatch.delenv("TERRAZZO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert storage.cache_folder() == tmp_path / "xdg" / "terrazzo"
