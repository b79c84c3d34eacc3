"""One door; what is behind no door is told in words, with what to type next."""

from pathlib import Path

import pytest

from terrazzo.data import open_dataset
from terrazzo.errors import DatasetFormatError, MissingPathError


def test_a_missing_folder_names_what_looks_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data" / "camvid").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for source in ("data/camvd", str(tmp_path / "data/camvd"), "./data/camvd"):
        with pytest.raises(MissingPathError) as caught:
            open_dataset(source)
        assert str(caught.value).startswith(f"There is no data set {source}.")
        assert "camvid?" in str(caught.value)
        assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("source", "command"),
    [
        ("scene_parse_150", "terrazzo import ade20k PATH --out data/ade20k"),
        ("cityscapes", "terrazzo import cityscapes PATH --out data/cityscapes"),
        ("camvid", "terrazzo import camvid PATH --out data/camvid"),
    ],
)
def test_data_sets_that_are_published_as_scripts_name_their_importer(source: str, command: str) -> None:
    with pytest.raises(DatasetFormatError) as caught:
        open_dataset(source)
    assert "is published as a Python script, which is never run." in str(caught.value)
    assert caught.value.command == command


def test_a_hub_name_without_a_network_says_that_neither_is_there() -> None:
    with pytest.raises(MissingPathError) as caught:
        open_dataset("nobody/nothing-of-this-name@v1")
    assert "no such folder here, and the Hugging Face Hub cannot be reached" in str(caught.value)


def test_a_file_that_is_no_data_set_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK")
    with pytest.raises(DatasetFormatError, match="is a file that holds no data set"):
        open_dataset(tmp_path / "a.zip")
