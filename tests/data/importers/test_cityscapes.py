"""Cityscapes comes over whole or not at all, from folders or zips, its ids through the table, its polygons drawn."""

import json
import os
import re
import stat
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cityscapes_tree import labels, polygons, write_cityscapes, zip_up
from terrazzo.data import importers, open_dataset
from terrazzo.data.importers import cityscapes
from terrazzo.data.importers.planning import Wanted
from terrazzo.errors import (
    DatasetFormatError,
    MissingPathError,
    UnknownNameError,
    UnreadableFileError,
    UsageError,
)
from terrazzo.images import read_mask

HW = (48, 96)
TRAIN_IDS = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13,
             27: 14, 28: 15, 31: 16, 32: 17, 33: 18}  # fmt: skip  # trainId by id, cityscapesscripts labels.py


def run(raw: Path, out: Path, *, link: bool = False, workers: int = 1, **words: Any) -> Path:
    wanted = Wanted(**{"partial": True, **words})
    return importers.run("cityscapes", raw, out, wanted, link=link, workers=workers)


def test_the_table_is_that_of_the_authors_scripts() -> None:
    assert cityscapes.REMAP.to_class == {raw: TRAIN_IDS.get(raw) for raw in range(34)}
    assert len(cityscapes.CLASSES) == 19
    assert cityscapes.CLASSES.names[11:14] == ("person", "rider", "car")
    assert cityscapes.CLASSES.colors[13] == (0, 0, 142)


@pytest.mark.parametrize("link", [False, True])
def test_folders_come_over_byte_for_byte_and_ids_through_the_table(tmp_path: Path, link: bool) -> None:
    raw = write_cityscapes(tmp_path / "raw")
    out = run(raw, tmp_path / "out", link=link, workers=3)
    data = open_dataset(out)
    assert data["train"].names == [
        "aachen/aachen_000000_000019",
        "aachen/aachen_000002_000019",
        "bochum/bochum_000001_000019",
        "bochum/bochum_000003_000019",
    ]
    assert data["val"].names == ["frankfurt/frankfurt_000000_000019", "frankfurt/frankfurt_000001_000019"]
    assert not data["test"].has_masks  # its published masks are dummies
    original = raw / "leftImg8bit" / "train" / "aachen" / "aachen_000000_000019_leftImg8bit.png"
    copied = out / "train" / "images" / "aachen" / "aachen_000000_000019.png"
    assert copied.read_bytes() == original.read_bytes()
    assert copied.samefile(original) is link
    seen = data["train"].read_mask(0)
    np.testing.assert_array_equal(seen, np.vectorize(lambda raw: TRAIN_IDS.get(raw, 255))(labels(0, HW)))
    np.testing.assert_array_equal(data.remap.inverse(seen), np.where(seen == 255, 0, labels(0, HW)))
    assert data.raw_names[0] == "unlabeled"


def test_equal_stems_of_two_cities_do_not_collide(tmp_path: Path) -> None:
    raw = write_cityscapes(tmp_path / "raw")
    for kind, ending in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds")):
        folder = raw / kind / "train"
        os.rename(folder / "bochum" / f"bochum_000001_000019_{ending}.png",
                  folder / "bochum" / f"aachen_000000_000019_{ending}.png")  # fmt: skip
    data = open_dataset(run(raw, tmp_path / "out"))
    assert {"aachen/aachen_000000_000019", "bochum/aachen_000000_000019"} <= set(data["train"].names)
    masks = [
        data["train"].read_mask(data["train"].names.index(f"{c}/aachen_000000_000019"))
        for c in ("aachen", "bochum")
    ]
    assert (masks[0] != masks[1]).any()


def test_polygons_are_painted_as_arrays_are_filled(tmp_path: Path) -> None:
    raw = write_cityscapes(tmp_path / "raw", form="polygons")
    out = run(raw, tmp_path / "out")
    drawn = read_mask(out / "train" / "masks" / "aachen" / "aachen_000000_000019.png")
    np.testing.assert_array_equal(
        drawn, labels(0, HW)
    )  # groups, plates, deleted ones and the order among them


def test_label_files_are_preferred_to_polygons_and_the_two_agree(tmp_path: Path) -> None:
    raw = write_cityscapes(tmp_path / "raw")
    write_cityscapes(raw, form="polygons")
    mask = raw / "gtFine" / "train" / "aachen" / "aachen_000000_000019_gtFine_labelIds.png"
    found = open_dataset(run(raw, tmp_path / "both"))
    assert (
        tmp_path / "both" / "train" / "masks" / "aachen" / "aachen_000000_000019.png"
    ).read_bytes() == mask.read_bytes()
    mask.unlink()
    again = open_dataset(run(raw, tmp_path / "drawn"))
    np.testing.assert_array_equal(found["train"].read_mask(0), again["train"].read_mask(0))


def test_zips_as_downloaded_give_what_their_folders_give(tmp_path: Path) -> None:
    raw = write_cityscapes(tmp_path / "raw")
    from_folders = open_dataset(run(raw, tmp_path / "folders"))
    zip_up(raw, "leftImg8bit", "leftImg8bit_trainvaltest.zip")
    zip_up(raw, "gtFine", "gtFine_trainvaltest.zip")
    from_zips = open_dataset(run(raw, tmp_path / "zips", workers=4))
    assert from_zips.fingerprint == from_folders.fingerprint
    assert sorted(os.listdir(raw)) == ["gtFine_trainvaltest.zip", "leftImg8bit_trainvaltest.zip"]
    fresh = write_cityscapes(tmp_path / "fresh", form="polygons")
    zip_up(fresh, "gtFine", "gtFine_trainvaltest.zip")
    mixed = open_dataset(run(fresh, tmp_path / "mixed"))  # images in folders, polygons in a zip
    np.testing.assert_array_equal(mixed["val"].read_mask(1), from_zips["val"].read_mask(1))


def test_coarse_labels_take_in_the_extra_images_where_they_are(tmp_path: Path) -> None:
    raw = write_cityscapes(tmp_path / "raw", kind="gtCoarse", counts={"train": 2, "val": 1})
    extra = "augsburg/augsburg_000000_000000"
    (raw / "gtCoarse" / "train_extra" / "augsburg").mkdir(parents=True)
    target = raw / "gtCoarse" / "train_extra" / f"{extra}_gtCoarse_polygons.json"
    target.write_text(json.dumps(polygons(5, HW)))
    without = open_dataset(run(raw, tmp_path / "without", annotations="coarse"))
    assert len(without["train"]) == 2
    (raw / "leftImg8bit" / "train_extra" / "augsburg").mkdir(parents=True)
    Image.new("RGB", (HW[1], HW[0])).save(raw / "leftImg8bit" / "train_extra" / f"{extra}_leftImg8bit.png")
    assert len(open_dataset(run(raw, tmp_path / "with", annotations="coarse"))["train"]) == 3
    with pytest.raises(DatasetFormatError, match="gtFine/, or .*gtFine_trainvaltest.zip"):
        run(raw, tmp_path / "fine")
    with pytest.raises(UnknownNameError, match="no kind of annotations 'corse'"):
        run(raw, tmp_path / "x", annotations="corse")
    with pytest.raises(UsageError, match="camvid has one kind of masks"):
        importers.run("camvid", raw, tmp_path / "x", Wanted(annotations="fine"))


def test_other_counts_than_the_published_are_told(tmp_path: Path) -> None:
    raw = write_cityscapes(tmp_path / "raw")
    with pytest.raises(DatasetFormatError) as caught:
        run(raw, tmp_path / "out", partial=False)
    assert "found: train 4, val 2, test 1 images\n  expected: train 2,975, val 500, test 1,525" in str(
        caught.value
    )
    assert "--partial" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_the_whole_of_it_passes(tmp_path: Path) -> None:
    images, ids = {}, {}
    for split, count in (("train", 2975), ("val", 500), ("test", 1525)):
        for number in range(count):
            stem = f"{split}/ulm/ulm_{number:06d}_000019"
            images[f"leftImg8bit/{stem}_leftImg8bit.png"] = tmp_path / "i.png"
            ids[f"gtFine/{stem}_gtFine_labelIds.png"] = tmp_path / "m.png"
    pairs = cityscapes.find(tmp_path, {**images, **ids})
    assert {split: len(members) for split, members in pairs.items()} == {
        "train": 2975,
        "val": 500,
        "test": 1525,
    }
    assert all(pair.mask is None for pair in pairs["test"])


def test_every_missing_partner_is_listed(tmp_path: Path) -> None:
    raw = write_cityscapes(tmp_path / "raw")
    (raw / "gtFine" / "train" / "aachen" / "aachen_000000_000019_gtFine_labelIds.png").unlink()
    (raw / "leftImg8bit" / "val" / "frankfurt" / "frankfurt_000001_000019_leftImg8bit.png").unlink()
    with pytest.raises(DatasetFormatError) as caught:
        run(raw, tmp_path / "out", partial=False)
    message = str(caught.value)
    assert "is not a whole Cityscapes download: 2 paths are missing." in message
    assert "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png" in message
    assert "leftImg8bit/val/frankfurt/frankfurt_000001_000019_leftImg8bit.png" in message
    with pytest.raises(
        DatasetFormatError, match="1 path is missing"
    ):  # labels alone are no error, images alone are
        run(raw, tmp_path / "out")


def test_a_folder_without_the_packages_names_them(tmp_path: Path) -> None:
    with pytest.raises(DatasetFormatError) as caught:
        run(tmp_path, tmp_path / "out")
    assert "leftImg8bit_trainvaltest.zip" in str(caught.value)
    assert "gtFine_trainvaltest.zip" in str(caught.value)
    assert "https://www.cityscapes-dataset.com/downloads/" in str(caught.value)
    with pytest.raises(MissingPathError):
        run(tmp_path / "nowhere", tmp_path / "out")


def test_without_val_a_split_is_made_with_sequences_kept_together(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_cityscapes(raw, counts={"train": 4})
    for kind, ending in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_labelIds")):
        for path in sorted((raw / kind / "train").rglob("*.png")):  # each sequence gets a second frame
            os.link(path, path.with_name(path.name.replace("_000019_", "_000020_")))
            assert path.name.endswith(f"{ending}.png")
    data = open_dataset(run(raw, tmp_path / "out"))
    sides = {side: {name[:-7] for name in data[side].names} for side in ("train", "val")}
    assert sides["val"]
    assert not sides["train"] & sides["val"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objects": [{"label": "spaceship", "polygon": [[0, 0], [5, 0], [5, 5]]}]}, "names spaceship"),
        ({"objects": [{"label": "car", "polygon": [[1, 1]]}]}, "1 polygons without a shape"),
        ({"objects": [{"label": "car", "polygon": [[1e400, 1], [2, 2]]}]}, "1 polygons without a shape"),
        ({"objects": [{"label": "car"}]}, "KeyError: 'polygon'"),
        ({"objects": 7}, "TypeError"),
        ({"imgWidth": 10**9}, "claims an image of 48 x 1,000,000,000 pixels"),
    ],
)
def test_polygons_that_cannot_be_drawn_are_named_and_nothing_stays(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    raw = write_cityscapes(tmp_path / "raw", form="polygons")
    bad = raw / "gtFine" / "val" / "frankfurt" / "frankfurt_000000_000019_gtFine_polygons.json"
    bad.write_text(json.dumps({**polygons(0, HW), **change}))
    with pytest.raises(DatasetFormatError, match=re.escape(message)) as caught:
        run(raw, tmp_path / "out", workers=2)
    assert str(bad) in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["raw"]


# zips nobody should trust --------------------------------------------------------------------------------------------


def packed(tmp_path: Path) -> Path:
    raw = write_cityscapes(tmp_path / "raw", counts={"train": 1, "val": 1})
    zip_up(raw, "gtFine", "gtFine_trainvaltest.zip")
    return raw


def link_entry() -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("gtFine/train/aachen/link.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


@pytest.mark.parametrize(
    ("entry", "content", "message"),
    [
        ("../../evil.png", b"x", "'../../evil.png' leaves the folder"),
        ("/etc/evil.png", b"x", "leaves the folder"),
        ("gtFine\\..\\..\\evil.png", b"x", "leaves the folder"),
        ("C:/evil.png", b"x", "leaves the folder"),
        (link_entry(), b"/etc/passwd", "is a link"),
        ("license.txt", b"again", "'license.txt' is there more than once"),
    ],
    ids=["up", "root", "backslash", "drive", "link", "twice"],
)
def test_a_zip_that_would_reach_outside_is_refused(
    tmp_path: Path, entry: str | zipfile.ZipInfo, content: bytes, message: str
) -> None:
    raw = packed(tmp_path)
    with warnings.catch_warnings(), zipfile.ZipFile(raw / "gtFine_trainvaltest.zip", "a") as archive:
        warnings.simplefilter("ignore")  # zipfile's own, of the doubled name
        archive.writestr(entry, content)
    with pytest.raises(UnreadableFileError, match="is not to be trusted") as caught:
        run(raw, tmp_path / "out")
    assert message in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["raw"]


def test_a_member_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path: Path) -> None:
    raw = packed(tmp_path)
    name = "aachen/aachen_000009_000019"
    Image.new("RGB", (HW[1], HW[0])).save(raw / "leftImg8bit" / "train" / f"{name}_leftImg8bit.png")
    with zipfile.ZipFile(raw / "gtFine_trainvaltest.zip", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"gtFine/train/{name}_gtFine_labelIds.png", bytes(50 << 20))
    with pytest.raises(UnreadableFileError, match="would unpack to 52,428,800 bytes"):
        run(raw, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_members_that_share_their_bytes_are_refused(tmp_path: Path) -> None:
    raw = packed(tmp_path)
    path = raw / "gtFine_trainvaltest.zip"
    with zipfile.ZipFile(path, "a") as archive:
        first = next(info for info in archive.infolist() if info.compress_size)
        for number in range(3):  # the same packed bytes under other names: a bomb without a large member
            copy = zipfile.ZipInfo(f"gtFine/train/aachen/{number}.png")
            copy.header_offset, copy.CRC = first.header_offset, first.CRC
            copy.compress_size, copy.file_size = first.compress_size, first.file_size
            copy.compress_type = first.compress_type
            archive.filelist.append(copy)
        archive._didModify = True  # type: ignore[attr-defined]
    with pytest.raises(UnreadableFileError, match="shares bytes with another"):
        run(raw, tmp_path / "out")


@pytest.mark.parametrize(
    ("method", "flags", "said"),
    [
        (zipfile.ZIP_BZIP2, 0, "is packed by bzip2"),
        (9, 0, "is packed by deflate64"),  # what Windows takes for large files
        (zipfile.ZIP_DEFLATED, 0x20, "is a patch to another file"),
    ],
)
def test_what_is_packed_in_another_way_is_to_be_unpacked_by_hand(
    tmp_path: Path, method: int, flags: int, said: str
) -> None:
    raw = packed(tmp_path)
    mark_first_member(raw / "gtFine_trainvaltest.zip", method=method, flags=flags)
    with pytest.raises(UnreadableFileError, match="is packed in a form that is not read here") as caught:
        run(raw, tmp_path / "out")
    assert said in str(caught.value)
    assert "Unpack it by hand, with 7z or unzip" in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["raw"]


def test_a_zip_of_a_form_to_come_is_to_be_unpacked_by_hand(tmp_path: Path) -> None:
    raw = packed(tmp_path)
    mark_first_member(raw / "gtFine_trainvaltest.zip", version=99)
    with pytest.raises(UnreadableFileError, match="is packed in a form that is not read here") as caught:
        run(raw, tmp_path / "out")
    assert "zip file version 9.9" in str(caught.value)


def test_encrypted_members_and_endless_lists_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = packed(tmp_path)
    monkeypatch.setattr("terrazzo.data.importers.downloads.MAX_MEMBERS", 1)
    with pytest.raises(UnreadableFileError, match=r"holds \d+ files(.|\n)*at most 1"):
        run(raw, tmp_path / "out")
    monkeypatch.undo()
    mark_first_member(raw / "gtFine_trainvaltest.zip", flags=0x1)
    with pytest.raises(UnreadableFileError, match="is encrypted"):
        run(raw, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["raw"]


def mark_first_member(
    path: Path, *, method: int | None = None, flags: int = 0, version: int | None = None
) -> None:
    """Change what the directory of a zip says of a member: APPNOTE 4.3.12 has the places."""
    content = bytearray(path.read_bytes())
    entry = content.index(b"PK\x01\x02")
    content[entry + 8] |= flags
    if method is not None:
        content[entry + 10] = method
    if version is not None:
        content[entry + 6] = version
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["cut", "bit"])
def test_a_download_that_broke_off_is_told(tmp_path: Path, damage: str) -> None:
    raw = packed(tmp_path)
    path = raw / "gtFine_trainvaltest.zip"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        with zipfile.ZipFile(path) as archive:
            info = next(info for info in archive.infolist() if info.filename.endswith("labelIds.png"))
        content[info.header_offset + 30 + len(info.filename) + 40] ^= 0xFF
        path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match="is damaged, or not a zip that Python reads") as caught:
        run(raw, tmp_path / "out")
    assert "Download it again" in str(caught.value)
    assert not (tmp_path / "out").exists()
