"""A dry run counts what the import would bring, draws it, and writes no data set."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ade20k_tree import write_benchmark
from bdd100k_tree import write_bdd100k
from camvid_tree import write_camvid
from cityscapes_tree import write_cityscapes
from coco_tree import write_instances, write_panoptic
from terrazzo import cli
from terrazzo.data import doctor, importers
from terrazzo.data.importers.camvid import CLASSES
from terrazzo.data.importers.planning import Wanted
from terrazzo.previewing import preview
from voc_tree import write_voc


def bdd(root: Path) -> Path:
    return write_bdd100k(root)


def cityscapes(root: Path) -> Path:
    return write_cityscapes(root, counts={"train": 3, "val": 1}, form="polygons")


@pytest.mark.parametrize(
    ("name", "write", "annotations"),
    [
        ("ade20k", write_benchmark, None),
        ("bdd100k", bdd, "ins_seg"),
        ("camvid", write_camvid, None),
        ("cityscapes", cityscapes, None),
        ("coco", write_instances, None),
        ("coco", write_panoptic, "panoptic"),
        ("voc", write_voc, None),
    ],
)
def test_the_counts_are_those_of_the_data_set_that_is_imported_then(
    name: str, write: Callable[[Path], Path], annotations: str | None, tmp_path: Path
) -> None:
    raw, wanted = write(tmp_path / "raw"), Wanted(annotations, partial=True)
    shown = preview(name, raw, wanted, sheet=tmp_path / "sheet.png").survey
    assert sorted(os.listdir(tmp_path)) == ["raw", "sheet.png"]
    diagnosis = doctor.check(importers.run(name, raw, tmp_path / "out", wanted))
    assert shown.images == diagnosis.images
    assert shown.counts == diagnosis.counts
    assert shown.ignored == diagnosis.ignored


def test_the_report_says_it_in_a_table(tmp_path: Path) -> None:
    raw = write_camvid(tmp_path / "raw")
    shown = preview("camvid", raw, sheet=tmp_path / "sheet.png")
    assert shown.ok
    lines = shown.text().splitlines()
    assert lines[0] == f"{raw}, not imported yet:"
    assert [line.split() for line in lines[2:5]] == [
        ["split", "images", "masks"],
        ["train", "3", "3"],
        ["val", "1", "1"],
    ]
    # by hand: 48 pixels of 12 ids in each mask, one of them ignored
    assert ["road", "12", "9.09%", "3", "4", "9.09%", "1"] in [line.split() for line in lines]
    assert ["(ignored)", "8.33%", "8.33%"] in [line.split() for line in lines]
    assert lines[-1] == f"Overlays to look at: {tmp_path / 'sheet.png'}"


def test_the_sheet_shows_each_class_in_its_colour_over_the_image(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for split, ids in {"train": (3, 8), "val": (5, 11)}.items():
        for folder in (split, f"{split}annot"):
            (raw / folder).mkdir(parents=True)
        for number in ids:  # a black image of one class each; 11 is void, and stays black
            Image.new("RGB", (60, 40)).save(raw / split / f"x_{number}.png")
            Image.new("L", (60, 40), number).save(raw / f"{split}annot" / f"x_{number}.png")
    shown = preview("camvid", raw, sheet=tmp_path / "sheet.png")
    assert shown.sheet is not None
    with Image.open(shown.sheet) as opened:
        colors = {color: n for n, color in opened.convert("RGB").getcolors(1 << 20) or []}
    for class_id in (3, 8, 5):
        half = tuple(int(np.rint(channel / 2)) for channel in CLASSES.colors[class_id])
        assert colors[half] == 60 * 40 * 6**2  # enlarged in whole steps, to at most 400
        assert CLASSES.colors[class_id] in colors  # in the legend
    assert colors[0, 0, 0] >= 60 * 40 * 6**2
    assert CLASSES.colors[1] not in colors  # building is not on the sheet, nor in its legend


def test_of_many_masks_some_are_counted_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("terrazzo.data.importers.surveying.MOST", 2)
    shown = preview("camvid", write_camvid(tmp_path / "raw"), sheet=tmp_path / "sheet.png")
    assert shown.survey.read == {"train": 2, "val": 1}
    assert "  counted: 2 of the 3 masks of train" in shown.text().splitlines()


def test_damaged_pairs_are_told_and_the_exit_code_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = write_camvid(tmp_path / "raw")
    Image.new("L", (3, 3)).save(raw / "valannot" / "0016E5_07959.png")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["import", "camvid", str(raw), "--dry-run"]) == 1
    told = capsys.readouterr().out
    assert "valannot/0016E5_07959.png has another size than its image (mask 3 x 3, image 6 x 8)" in told
    assert sorted(os.listdir(tmp_path)) == ["camvid-sheet.png", "raw"]


def test_the_sheet_lies_beside_out_and_overwrites_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = write_camvid(tmp_path / "raw")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "camvid-sheet.png").write_text("mine")
    assert cli.main(["import", "camvid", "raw", "--out", "data/camvid/", "--dry-run"]) == 0
    assert (tmp_path / "data" / "camvid-sheet.png").read_text() == "mine"
    assert sorted(os.listdir(tmp_path / "data")) == ["camvid-sheet-2.png", "camvid-sheet.png"]
    assert "Overlays to look at: data/camvid-sheet-2.png" in capsys.readouterr().out
    assert raw.is_dir()


def test_an_import_without_a_place_to_go_to_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["import", "camvid", "raw"]) == 2
    assert "--out DIR, or --dry-run to look first" in capsys.readouterr().err
