"""A data set in plain folders elsewhere, or in an archive, is the data set it would be here."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

import terrazzo as tz
from streamed import Dots, assert_same_samples
from terrazzo import errors
from terrazzo.inference import Predictor


@pytest.fixture
def far_boxes(boxes: Path) -> Iterator[str]:
    files = fsspec.filesystem("memory")
    for path in boxes.rglob("*"):
        if path.is_file():
            files.pipe_file(f"/bucket/boxes/{path.relative_to(boxes).as_posix()}", path.read_bytes())
    yield "memory://bucket/boxes"
    files.store.clear()
    files.pseudo_dirs[:] = [""]


def test_a_folder_elsewhere_is_the_same_data_set(boxes: Path, far_boxes: str) -> None:
    here, far = tz.open_dataset(boxes), tz.open_dataset(far_boxes)
    assert_same_samples(here, far)
    assert far.classes == here.classes
    assert far["val"].where(1, mask=True) == "memory://bucket/boxes/val/masks/001.png"
    before = far.fingerprint
    fsspec.filesystem("memory").pipe_file("/bucket/boxes/val/masks/001.png", b"other")
    assert tz.open_dataset(far_boxes).fingerprint != before
    with pytest.raises(errors.UnreadableFileError, match="memory://bucket/boxes/val/masks/001.png"):
        tz.open_dataset(far_boxes)["val"][1]
    fsspec.filesystem("memory").rm("/bucket/boxes/val/masks/001.png")
    with pytest.raises(
        errors.DatasetFormatError, match="1 files in memory://bucket/boxes/val have no partner"
    ):
        tz.open_dataset(far_boxes)


def test_a_data_set_in_an_archive_is_the_same(boxes: Path, shelf: Path, tmp_path: Path) -> None:
    for folder in (boxes, shelf):
        archive = shutil.make_archive(str(tmp_path / folder.name), "zip", folder.parent, folder.name)
        here = tz.open_dataset(folder)
        assert_same_samples(here, tz.open_dataset(f"zip://{folder.name}::{archive}"))
        inside = shutil.make_archive(str(tmp_path / "inside"), "zip", folder)
        assert_same_samples(here, tz.open_dataset(f"zip://::{inside}"))
    assert len(tz.open_dataset(f"zip://train-0.parquet::{inside}")["train"]) == 10  # of 13, three set aside


def test_images_elsewhere_are_predicted_to_a_folder_here(far_boxes: str, boxes: Path, tmp_path: Path) -> None:
    from terrazzo.images import read_mask
    from terrazzo.predicting import predict

    predictor = Predictor(Dots().eval(), tz.open_dataset(boxes).classes, device="cpu")
    far = predict(predictor, f"{far_boxes}/val/images", out=tmp_path / "far", quiet=True)
    here = predict(predictor, boxes / "val" / "images", out=tmp_path / "here", quiet=True)
    assert [path.name for path in far] == [path.name for path in here]
    for one, other in zip(far, here, strict=True):
        np.testing.assert_array_equal(read_mask(one), read_mask(other))
    with pytest.raises(errors.UsageError, match="written to a folder on this machine"):
        predict(predictor, boxes / "val" / "images", out="memory://bucket/out")


def test_the_doctor_reads_what_lies_elsewhere(far_boxes: str, bucket: str) -> None:
    from terrazzo.data.examination import examine

    for url, count in ((far_boxes, 11), (bucket, 28)):
        cases = examine(url, workers=1).cases
        assert len(cases) == count
        assert not [
            case for case in cases if case.seen.problem or case.labelled is None or case.labelled.problem
        ]
