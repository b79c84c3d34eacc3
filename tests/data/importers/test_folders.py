"""Plain folders of any naming come over by what their masks hold; what cannot be told is refused and counted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from terrazzo import cli
from terrazzo.data import Dataset, importers, open_dataset
from terrazzo.data.importers.planning import Wanted
from terrazzo.errors import DatasetFormatError, MaskValueError, MissingPathError, UsageError

IMAGES, MASKS = "**/photos/**/*.jpg", "**/labels/**/*.png"
IDS = np.array([[0, 1, 2], [2, 1, 255]], np.uint8)
COLORS = {0: (128, 64, 128), 1: (0, 0, 142), 2: (220, 20, 60), 255: (0, 0, 0)}
TABLE = "128 64 128\troad\n0 0 142\tcar\n220 20 60\tperson\n0 0 0\tvoid\n"


def write(root: Path, masks: dict[str, Any], *, size_wh: tuple[int, int] = (3, 2)) -> Path:
    """Write {"train/a": array or picture}: photographs of that size, and masks."""
    for name, mask in masks.items():
        split, _, stem = name.rpartition("/")
        photo, label = root / split / "photos" / f"{stem}.jpg", root / split / "labels" / f"{stem}.png"
        for path in (photo, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size_wh, (90, 120, 30)).save(photo)
        (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(label)
    return root


def names_file(folder: Path, text: str, name: str = "names.txt") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def run(root: Path, **words: Any) -> Dataset:
    wanted = Wanted(**{"images": IMAGES, "masks": MASKS, **words})
    return open_dataset(importers.run("folders", root, root.parent / "out", wanted))


def painted(ids: np.ndarray) -> np.ndarray:
    table = np.zeros((256, 3), np.uint8)
    for raw, color in COLORS.items():
        table[raw] = color
    return table[ids]


def test_ids_come_over_byte_for_byte_with_their_splits_and_sub_folders(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    for place in ("training/photos/oslo/a.jpg", "training/photos/rome/a.jpg", "valid/photos/rome/b.jpg"):
        label = raw / place.replace("photos", "labels").replace(".jpg", ".png")
        for path in (raw / place, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2)).save(raw / place)
        Image.fromarray(IDS).save(label)
    data = run(raw, classes=names_file(tmp_path, "road\ncar\nperson\n"))
    assert {name: split.names for name, split in data.splits.items()} == {
        "train": ["oslo/a", "rome/a"],
        "val": ["rome/b"],
    }
    np.testing.assert_array_equal(data["val"][0].mask, IDS)
    copied = tmp_path / "out" / "train" / "masks" / "rome" / "a.png"
    assert copied.read_bytes() == (raw / "training" / "labels" / "rome" / "a.png").read_bytes()


def test_without_splits_all_are_train_and_a_split_is_made_by_name(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    raw = write(tmp_path / "raw", {f"{i}": IDS for i in range(10)})
    data = run(raw, classes=names_file(tmp_path, "road\ncar\nperson\n"))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 8, "val": 2}
    assert "No folder says a split: all 10 are in train" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (TABLE, "label_colors.txt"),
        ("name,r,g,b\nroad,128,64,128\ncar,0,0,142\nperson,220,20,60\nvoid,0,0,0\n", "class_dict.csv"),
        (
            "# label:color_rgb:parts:actions\nroad:128,64,128::\ncar:0,0,142::\nperson:220,20,60::\nvoid:0,0,0::\n",
            "labelmap.txt",
        ),
        (
            json.dumps(
                [
                    {"name": n, "color": COLORS[i]}
                    for i, n in ((0, "road"), (1, "car"), (2, "person"), (255, "void"))
                ]
            ),
            "classes.json",
        ),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_colours_become_ids_by_a_table(tmp_path: Path, text: str, name: str, mode: str) -> None:
    raw = write(tmp_path / "raw", {f"train/{i}": Image.fromarray(painted(IDS)).convert(mode) for i in "ab"})
    write(raw, {"val/c": Image.fromarray(painted(IDS.T)).convert(mode)}, size_wh=(2, 3))
    data = run(raw, classes=names_file(tmp_path, text, name))
    assert data.classes.names == ("road", "car", "person")
    assert data.classes.colors == (COLORS[0], COLORS[1], COLORS[2])
    np.testing.assert_array_equal(data["train"][0].mask, IDS)
    np.testing.assert_array_equal(data["val"][0].mask, IDS.T)
    with Image.open(tmp_path / "out" / "train" / "masks" / "a.png") as shown:  # in a viewer as it was
        np.testing.assert_array_equal(np.asarray(shown.convert("RGB")), painted(IDS))


def test_a_palettes_colours_count_where_there_is_a_table_of_them(tmp_path: Path) -> None:
    """A drawing program numbers a palette as it likes: here person is 0."""
    order = [2, 0, 255, 1]
    indices = np.array([[1, 3, 0], [0, 3, 2]], np.uint8)  # IDS in that order
    picture = Image.fromarray(indices)
    picture.putpalette([channel for raw in order for channel in COLORS[raw]])
    raw = write(tmp_path / "raw", {"train/a": picture, "val/b": picture})
    data = run(raw, classes=names_file(tmp_path, TABLE))
    np.testing.assert_array_equal(data["train"][0].mask, IDS)


def test_a_palettes_indices_count_where_names_have_no_colours(tmp_path: Path) -> None:
    picture = Image.fromarray(IDS)
    picture.putpalette([7, 8, 9] * 256)
    raw = write(tmp_path / "raw", {"train/a": picture, "val/b": picture})
    data = run(raw, classes=names_file(tmp_path, "road\ncar\nperson\n"))
    np.testing.assert_array_equal(data["train"][0].mask, IDS)
    copied = tmp_path / "out" / "train" / "masks" / "a.png"
    assert copied.read_bytes() == (raw / "train" / "labels" / "a.png").read_bytes()


def test_colours_that_are_not_in_the_table_are_listed_with_their_pixels(tmp_path: Path) -> None:
    picture = painted(IDS)
    picture[0, :2] = (1, 2, 3)
    raw = write(tmp_path / "raw", {"train/a": picture, "val/b": painted(IDS)})
    with pytest.raises(MaskValueError) as caught:
        run(raw, classes=names_file(tmp_path, TABLE))
    assert "in 2 of 2 masks: (1, 2, 3) (2 pixels)" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_colour_in_a_mask_that_was_not_looked_at_is_found_when_it_comes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("terrazzo.data.importers.folders.LOOKED_AT", 1)
    odd = painted(IDS)
    odd[1, 1] = (9, 9, 9)
    raw = write(tmp_path / "raw", {"train/a": painted(IDS), "val/b": odd})
    with pytest.raises(
        MaskValueError, match=r"labels/b.png has colours that are not those of .*names.txt"
    ) as caught:
        run(raw, classes=names_file(tmp_path, TABLE))
    assert "(9, 9, 9) (1 pixels)" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_colours_without_a_table_are_listed(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", {"train/a": painted(IDS), "val/b": painted(IDS)})
    with pytest.raises(MaskValueError, match="nothing says which class each of them is") as caught:
        run(raw, classes=names_file(tmp_path, "road\ncar\nperson\n"))
    assert "(0, 0, 142) (4 pixels)" in str(caught.value)


def test_masks_of_ids_and_of_colours_are_not_mixed(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", {"train/a": painted(IDS), "val/b": IDS})
    with pytest.raises(MaskValueError, match="1 masks hold colours, 1 hold ids"):
        run(raw, classes=names_file(tmp_path, TABLE))


@pytest.mark.parametrize("mode", ["L", "RGB", "LA"])
def test_masks_of_0_and_255_are_background_and_foreground_and_that_is_said(
    tmp_path: Path, mode: str, capfd: pytest.CaptureFixture[str]
) -> None:
    mask = np.array([[0, 255, 0], [255, 255, 0]], np.uint8)
    raw = write(tmp_path / "raw", {n: Image.fromarray(mask).convert(mode) for n in ("train/a", "val/b")})
    data = run(raw)
    assert data.classes.names == ("background", "foreground")
    np.testing.assert_array_equal(data["train"][0].mask, mask // 255)
    assert "0 is background, 255 is foreground (--binary NAME names it)" in capfd.readouterr().err
    if mode == "L":
        copied = tmp_path / "out" / "train" / "masks" / "a.png"
        assert copied.read_bytes() == (raw / "train" / "labels" / "a.png").read_bytes()


def test_two_names_for_masks_of_0_and_255_are_theirs(tmp_path: Path) -> None:
    mask = np.array([[0, 255, 0], [255, 255, 0]], np.uint8)
    raw = write(tmp_path / "raw", {"train/a": mask, "val/b": mask})
    data = run(raw, classes=names_file(tmp_path, "tarmac\ncrack\n"))
    assert data.classes.names == ("tarmac", "crack")
    np.testing.assert_array_equal(data["train"][0].mask, mask // 255)


def test_255_that_is_ignored_by_word_stays_ignored(tmp_path: Path) -> None:
    mask = np.array([[0, 255, 0], [255, 255, 0]], np.uint8)
    raw = write(tmp_path / "raw", {"train/a": mask, "val/b": mask})
    data = run(raw, classes=names_file(tmp_path, "tarmac\ncrack\n"), ignore=("255",))
    np.testing.assert_array_equal(data["train"][0].mask, mask)


def test_one_bit_masks_are_binary_where_that_was_said(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 0], [1, 1, 0]], np.uint8)
    raw = write(tmp_path / "raw", {n: Image.fromarray(mask * 255).convert("1") for n in ("train/a", "val/b")})
    with pytest.raises(DatasetFormatError, match="--binary NAME"):
        run(raw)
    data = run(raw, binary="crack")
    assert data.classes.names == ("background", "crack")
    np.testing.assert_array_equal(data["train"][0].mask, mask)


def test_masks_of_more_ids_are_not_binary(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", {"train/a": IDS, "val/b": IDS})
    with pytest.raises(MaskValueError, match=r"are not binary.") as caught:
        run(raw, binary="crack")
    assert "0 (2 pixels), 1 (4 pixels), 2 (4 pixels), 255 (2 pixels)" in str(caught.value)


def test_raw_ids_are_merged_and_ignored_by_rules(tmp_path: Path) -> None:
    ids = np.array([[7, 8, 26], [27, 0, 33]], np.uint8)
    raw = write(tmp_path / "raw", {"train/a": ids, "val/b": ids})
    rules = names_file(tmp_path, "# streets\n7 + 8 = ground\n26+27=vehicle\n", "merge.txt")
    data = run(raw, merge=(rules, "33=ignore"), ignore=("0",))
    assert data.classes.names == ("ground", "vehicle")
    assert data["train"][0].mask.tolist() == [[0, 0, 1], [1, 255, 255]]


def test_names_are_merged_and_unknown_ones_get_their_nearest(tmp_path: Path) -> None:
    ids = np.array([[7, 8, 26], [27, 0, 33]], np.uint8)
    raw = write(tmp_path / "raw", {"train/a": ids, "val/b": ids})
    names = names_file(tmp_path, "0 unlabeled\n7 road\n8 sidewalk\n26 car\n27 truck\n33 bicycle\n")
    with pytest.raises(UsageError, match="Did you mean 'truck'"):
        run(raw, classes=names, merge=("car+truk=vehicle",))
    data = run(raw, classes=names, merge=("car+truck=vehicle",), ignore=("bicycle",))
    assert data.classes.names == ("road", "sidewalk", "vehicle")
    assert data["train"][0].mask.tolist() == [[0, 1, 2], [2, 255, 255]]
    assert data.raw_names[27] == "truck"
    assert data.remap.inverse(np.array([[2]]))[0, 0] == 26  # the first raw id of the class


def test_ids_that_no_class_has_are_counted(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", {"train/a": IDS, "val/b": IDS})
    with pytest.raises(MaskValueError, match=r"in 2 of 2 masks: 2 \(4 pixels\)"):
        run(raw, classes=names_file(tmp_path, "road\ncar\n"))


def test_names_that_begin_at_one_are_told_apart_from_an_unknown_id(tmp_path: Path) -> None:
    ids = np.array([[0, 1, 2], [3, 1, 2]], np.uint8)
    raw = write(tmp_path / "raw", {"train/a": ids, "val/b": ids})
    with pytest.raises(MaskValueError, match="Do the names begin at id 1"):
        run(raw, classes=names_file(tmp_path, "wall\nfloor\ndoor\n"))
    data = run(raw, classes=names_file(tmp_path, "unlabeled\nwall\nfloor\ndoor\n"))
    assert data["train"][0].mask.tolist() == [[255, 0, 1], [2, 0, 1]]


def test_a_data_set_json_brings_all_it_says(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", {"train/a": IDS, "val/b": IDS})
    about = {
        "classes": [{"name": "ground", "color": [1, 2, 3]}, {"name": "car"}],
        "remap": {"0": 0, "2": 0, "1": 1, "255": None},
        "name": "our street",
        "license": "CC-BY-4.0",
        "groups": "^(.)",
    }
    data = run(raw, classes=names_file(tmp_path, json.dumps(about), "dataset.json"))
    assert (data.name, data.license, data.classes.names) == ("our street", "CC-BY-4.0", ("ground", "car"))
    assert data["train"][0].mask.tolist() == [[0, 1, 0], [0, 1, 255]]
    assert json.loads((tmp_path / "out" / "dataset.json").read_text())["groups"] == "^(.)"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("road\nroad\n", "'road' is there 2 times"),
        ("road\n\x1b[31mcar\n", "'\\x1b[31mcar'"),
        ("", "no name"),
        ("1 2 3 road\n1 2 3 car\n", "(1, 2, 3): twice"),
        ("1 2 3 road\n1 2 300 car\n", "1 2 300 car"),
        ("1 2 3 road\ncar\n", "car"),
        ("7 road\n7 car\n", "names id 7 more than once"),
    ],
)
def test_files_of_classes_that_mean_nothing_are_refused(tmp_path: Path, text: str, found: str) -> None:
    raw = write(tmp_path / "raw", {"train/a": IDS, "val/b": IDS})
    with pytest.raises(DatasetFormatError) as caught:
        run(raw, classes=names_file(tmp_path, text))
    assert found in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        [{"name": "a", "id": "9" * 5000}],
        [{"name": "a", "color": 4}],
        [{"name": "a", "color": ["x", 2, 3]}],
        [{"name": None}],
        [{"name": "a"}, {"name": "b", "id": 0}],
        {"9" * 5000: "a"},
        {"\u00b2": "a"},
        {"a": True},
        {"a": 1, "b": 1},
        {"0": ["a"]},
        7,
    ],
)
def test_json_that_names_no_classes_is_refused(tmp_path: Path, value: Any) -> None:
    raw = write(tmp_path / "raw", {"train/a": IDS, "val/b": IDS})
    with pytest.raises(
        DatasetFormatError, match=r"does not name classes|names id \d+ more than once|A colour is"
    ):
        run(raw, classes=names_file(tmp_path, json.dumps(value), "classes.json"))


def test_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", {"train/a": IDS, "val/b": IDS})
    with pytest.raises(UsageError, match=r"train/photos/\*\.jpg \(1\)"):
        importers.run("folders", raw, tmp_path / "out")
    with pytest.raises(DatasetFormatError, match="Nothing says what the ids"):
        run(raw)
    with pytest.raises(MissingPathError, match="There is no file"):
        run(raw, classes=str(tmp_path / "none.txt"))
    with pytest.raises(MissingPathError, match="There is no folder"):
        run(tmp_path / "nowhere")
    with pytest.raises(MissingPathError, match="neither a rule nor a file"):
        run(raw, merge=("roads.txt",))
    with pytest.raises(UsageError, match="--binary names the only class"):
        run(raw, binary="x", classes=names_file(tmp_path, "road\n"))
    assert not (tmp_path / "out").exists()


def test_words_of_plain_folders_are_refused_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not know these words") as caught:
        importers.run("camvid", tmp_path, tmp_path / "out", Wanted(images="*.png", binary="x"))
    assert "--images, --binary" in str(caught.value)


def test_a_jpeg_mask_is_refused_as_one(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", {"train/a": IDS, "val/b": IDS})
    label = raw / "train" / "labels" / "a.png"
    Image.fromarray(IDS).save(label, format="JPEG")
    with pytest.raises(MaskValueError, match="is a JPEG, which does not keep class ids"):
        run(raw, classes=names_file(tmp_path, "road\ncar\nperson\n"))


def test_sixteen_bit_ids_stay_what_they_are(tmp_path: Path) -> None:
    ids = np.array([[7000, 1, 1], [7000, 1, 0]], np.uint16)
    raw = write(tmp_path / "raw", {"train/a": ids, "val/b": ids})
    data = run(raw, classes=names_file(tmp_path, "1 tree\n7000 moss\n"), ignore=("0",))
    assert data["train"][0].mask.tolist() == [[1, 0, 0], [1, 0, 255]]


def test_the_command_line_says_what_it_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "raw", {"train/a": painted(IDS), "val/b": painted(IDS)})
    names_file(tmp_path, TABLE, "colors.txt")
    monkeypatch.chdir(tmp_path)
    words = ["import", "folders", "raw", "--images", IMAGES, "--masks", MASKS, "--classes", "colors.txt"]
    assert cli.main([*words, "--merge", "car+person=moving", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "Masks hold colours; ids are made of them by the 4 colours of colors.txt." in shown
    assert "Ignored, not trained and not scored: void." in shown
    moving = [line.split() for line in shown.splitlines() if line.strip().startswith("moving")]
    assert moving == [
        ["moving", *("4", "80.00%", "1") * 2]
    ]  # by hand: car and person are 4 of 5 labelled pixels
    assert (tmp_path / "folders-sheet.png").is_file()
    assert not (tmp_path / "out").exists()


def test_what_would_not_open_as_a_data_set_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where all images are frames of one drive, and there is no val."""

    def refuses(folder: Path) -> None:
        assert (folder / "dataset.json").is_file()
        raise DatasetFormatError("There is nothing to split.")

    raw = write(tmp_path / "raw", {"train/a": IDS, "val/b": IDS})
    monkeypatch.setattr("terrazzo.data.open.open_dataset", refuses)
    with pytest.raises(DatasetFormatError, match="nothing to split"):
        run(raw, classes=names_file(tmp_path, "road\ncar\nperson\n"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["names.txt", "raw"]
