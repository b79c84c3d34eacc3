"""Tables open under the same rules as folders, from the bytes that are in them."""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from terrazzo.data import open_dataset
from terrazzo.errors import DatasetFormatError, UnreadableFileError

datasets = pytest.importorskip("datasets")
RNG = np.random.default_rng(2)
IMAGES = [RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8) for _ in range(6)]
MASKS = [RNG.integers(0, 4, (4, 6), dtype=np.uint8) for _ in range(6)]
NAMES = {"0": "unlabeled", "1": "road", "2": "void-dynamic", "3": "car"}
TO_CLASS = np.array([255, 0, 255, 1], np.uint8)  # by hand, from NAMES


@pytest.fixture(autouse=True)
def _silent() -> Any:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def table(
    image: str = "image", mask: str | None = "label", *, masks: list[Any] | None = None, count: int = 6
) -> Any:
    columns: dict[str, Any] = {image: [Image.fromarray(one) for one in IMAGES[:count]]}
    features: dict[str, Any] = {image: datasets.Image()}
    if mask is not None:
        columns[mask] = (masks or [Image.fromarray(one) for one in MASKS])[:count]
        features[mask] = datasets.Image()
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def save(root: Path, saved: Any, names: Any = NAMES) -> Path:
    saved.save_to_disk(str(root))
    if names is not None:
        (root / "id2label.json").write_text(json.dumps(names))
    return root


def samples(data: Any) -> dict[str, Any]:
    return {sample.name: sample for split in data.splits.values() for sample in split}


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("image", "label"),
        ("pixel_values", "label"),
        ("image", "annotation"),
        ("image", "mask"),
        ("image", "segmentation"),
    ],
)
def test_a_saved_table_gives_the_same_pixels_and_remapped_ids(tmp_path: Path, image: str, mask: str) -> None:
    data = open_dataset(save(tmp_path / "t", table(image, mask)))
    assert data.classes.names == ("road", "car")
    assert data.raw_names == {0: "unlabeled", 1: "road", 2: "void-dynamic", 3: "car"}
    found = samples(data)
    assert sorted(found) == [f"{row:06d}" for row in range(6)]
    for row in range(6):
        np.testing.assert_array_equal(found[f"{row:06d}"].image, IMAGES[row])
        np.testing.assert_array_equal(found[f"{row:06d}"].mask, TO_CLASS[MASKS[row]])
    assert (len(data["train"]), len(data["val"])) == (5, 1)
    assert data["train"].size_hw(0) == (4, 6)
    assert data.channels == 3


def test_splits_of_a_saved_table_get_our_names(tmp_path: Path) -> None:
    whole = table()
    saved = datasets.DatasetDict(
        {
            "train": whole.select(range(4)),
            "validation": whole.select([4, 5]),
            "test": table(mask=None, count=1),
        }
    )
    saved["test"] = table(masks=[None] * 6, count=2)
    data = open_dataset(save(tmp_path / "t", saved))
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "val": 2, "test": 2}
    assert not data["test"].has_masks
    assert data["test"][0].mask is None
    np.testing.assert_array_equal(data["val"][1].image, IMAGES[5])


def test_parquet_files_open_alone_and_in_folders(tmp_path: Path) -> None:
    whole = table()
    (tmp_path / "one").mkdir()
    whole.to_parquet(str(tmp_path / "one" / "all.parquet"))
    (tmp_path / "one" / "id2label.json").write_text(json.dumps(NAMES))
    alone = open_dataset(tmp_path / "one" / "all.parquet")
    assert (len(alone["train"]), len(alone["val"])) == (5, 1)
    np.testing.assert_array_equal(samples(alone)["000003"].mask, TO_CLASS[MASKS[3]])

    folder = tmp_path / "many"
    (folder / "data").mkdir(parents=True)
    whole.select(range(2)).to_parquet(str(folder / "data" / "train-00000-of-00002.parquet"))
    whole.select(range(2, 4)).to_parquet(str(folder / "data" / "train-00001-of-00002.parquet"))
    whole.select(range(4, 6)).to_parquet(str(folder / "data" / "validation-00000-of-00001.parquet"))
    (folder / "id2label.json").write_text(json.dumps(NAMES))
    data = open_dataset(folder)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 4, "val": 2}
    np.testing.assert_array_equal(data["train"][3].image, IMAGES[3])
    np.testing.assert_array_equal(data["val"][0].mask, TO_CLASS[MASKS[4]])

    (folder / "data" / "extra.parquet").write_bytes(
        (folder / "data" / "train-00000-of-00002.parquet").read_bytes()
    )
    with pytest.raises(DatasetFormatError, match="has parquet files whose split is not clear"):
        open_dataset(folder)


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(UnreadableFileError, match=r"a\.parquet cannot be read as parquet"):
        open_dataset(tmp_path / "a.parquet")


def test_masks_of_16_and_32_bits_arrive_as_tiff_and_keep_their_ids(tmp_path: Path) -> None:
    for dtype in (np.uint16, np.int32):
        wide = [(one.astype(dtype) * 100) for one in MASKS]
        names = {str(100 * i): name for i, name in enumerate(("a", "b", "c", "d"))}
        data = open_dataset(save(tmp_path / np.dtype(dtype).name, table(masks=wide), names))
        np.testing.assert_array_equal(samples(data)["000002"].mask, MASKS[2])
        assert data.remap.to_class == {0: 0, 100: 1, 200: 2, 300: 3, 255: None}


def test_cells_keep_their_own_encoding_and_paths_become_names(tmp_path: Path) -> None:
    def encoded(array: np.ndarray, name: str) -> dict[str, Any]:
        stream = io.BytesIO()
        Image.fromarray(array).save(stream, "PNG")
        return {"bytes": stream.getvalue(), "path": name}

    palette = Image.fromarray(MASKS[0])
    palette.putpalette([9] * 768)
    stream = io.BytesIO()
    palette.save(stream, "PNG")
    cells = {
        "image": [encoded(IMAGES[i], f"drive/{'abc'[i]}.png") for i in range(3)],
        "label": [{"bytes": stream.getvalue(), "path": None}] * 3,
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Image()})
    data = open_dataset(save(tmp_path / "t", datasets.Dataset.from_dict(cells, features=features)))
    found = samples(data)
    assert sorted(found) == ["a", "b", "c"]
    np.testing.assert_array_equal(found["b"].image, IMAGES[1])
    np.testing.assert_array_equal(found["b"].mask, TO_CLASS[MASKS[0]])  # indices, not colours
    places = [split.where(i, mask=True) for split in data.splits.values() for i in range(len(split))]
    assert f"{tmp_path / 't'}, row 1 (b), column 'label'" in places


def test_plain_arrays_are_tables_too(tmp_path: Path) -> None:
    features = datasets.Features(
        {"image": datasets.Array3D((4, 6, 3), "uint8"), "mask": datasets.Array2D((4, 6), "uint8")}
    )
    data = open_dataset(
        save(tmp_path / "t", datasets.Dataset.from_dict({"image": IMAGES, "mask": MASKS}, features=features))
    )
    np.testing.assert_array_equal(samples(data)["000004"].image, IMAGES[4])
    np.testing.assert_array_equal(samples(data)["000004"].mask, TO_CLASS[MASKS[4]])
    assert data["train"].size_hw(0) == (4, 6)


def test_missing_names_are_told_with_the_file_to_write(tmp_path: Path) -> None:
    root = save(tmp_path / "t", table(), names=None)
    with pytest.raises(DatasetFormatError) as caught:
        open_dataset(root)
    message = str(caught.value)
    assert message.startswith(
        f"{root} does not say what its ids mean.\n  found: 4 ids in 6 of 6 masks: 0, 1, 2, 3"
    )
    command = message.splitlines()[-1].strip()
    text, target = command.removeprefix("echo '").split("' > ")
    Path(target).write_text(text)  # the command that it gives opens the table
    assert open_dataset(root).classes.names == ("class0", "class1", "class2", "class3")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: table("photo"),
            "has no image column that terrazzo knows.\n  found: columns photo (Image), label (Image)",
        ),
        (lambda: table(mask="classes"), "has no mask column that terrazzo knows"),
        (lambda: table().add_column("mask", [b"x"] * 6), "has more than one mask column"),
        (
            lambda: table(mask=None).add_column("label", [0] * 6),
            "A label that is one number classifies the whole image",
        ),
        (
            lambda: table(masks=[None, *map(Image.fromarray, MASKS[1:])]),
            "has 1 rows without a mask.\n  found: empty cells in 'label', rows 0",
        ),
    ],
)
def test_columns_that_are_not_clear_are_told(tmp_path: Path, make: Any, sentence: str) -> None:
    with pytest.raises(DatasetFormatError) as caught:
        open_dataset(save(tmp_path / "t", make()))
    assert sentence in str(caught.value)


def test_a_saved_table_that_lost_a_file_is_told(tmp_path: Path) -> None:
    root = save(tmp_path / "t", table())
    next(root.glob("*.arrow")).unlink()
    with pytest.raises(
        UnreadableFileError, match="looks like a saved Hugging Face data set and cannot be loaded"
    ):
        open_dataset(root)


def test_a_cell_that_is_damaged_or_gone_is_named_by_row_and_column(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    stream = io.BytesIO()
    Image.fromarray(IMAGES[0]).save(stream, "PNG")
    whole, cut = ({"bytes": data, "path": None} for data in (stream.getvalue(), stream.getvalue()[:60]))
    gone = {"bytes": None, "path": "/nowhere/m.png"}  # as a table that another program wrote
    (tmp_path / "id2label.json").write_text(json.dumps(NAMES))
    for name, image, sentence in (
        ("cut", cut, r"row 0, column 'image' cannot be read"),
        (
            "gone",
            whole,
            r"row \d, column 'label' refers to a file that cannot be read.\n  found: /nowhere/m\.png: No such",
        ),
    ):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"image": [image] * 2, "label": [gone] * 2}), path)
        with pytest.raises(UnreadableFileError, match=sentence):
            open_dataset(path)["train"][0]


def test_a_table_pickles_as_its_paths_and_its_fingerprint_is_of_its_contents(tmp_path: Path) -> None:
    data = open_dataset(save(tmp_path / "a", table()))
    sent = pickle.dumps(data["train"])
    assert len(sent) < 6000
    np.testing.assert_array_equal(pickle.loads(sent)[2].image, data["train"][2].image)
    assert open_dataset(tmp_path / "a").fingerprint == data.fingerprint
    same = open_dataset(save(tmp_path / "b", table()))
    assert same.fingerprint == data.fingerprint
    other = open_dataset(save(tmp_path / "c", table(masks=[Image.fromarray(one) for one in MASKS[::-1]])))
    assert other.fingerprint != data.fingerprint


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("state.json", b'{"_data_files": []}'),
        ("state.json", b"[]"),
        ("dataset_info.json", b'{"features": []}'),
        ("dataset_info.json", b'{"features": {"image": "x"}}'),
    ],
)
def test_a_saved_table_whose_own_description_is_damaged_is_told(
    tmp_path: Path, file: str, content: bytes
) -> None:
    path = save(tmp_path / "a", table())
    (path / file).write_bytes(content)
    with pytest.raises((UnreadableFileError, DatasetFormatError), match=str(path)):
        open_dataset(path)


def test_cells_that_do_not_lie_where_the_file_says_are_never_read(tmp_path: Path) -> None:
    """pyarrow believes the places of cells, and would read what lies there instead, or beyond the file."""
    path = save(tmp_path / "a", table())
    file = next(path.glob("*.arrow"))
    data = file.read_bytes()
    ends = np.cumsum([0, *(len(cell) for cell in _cells(path))]).astype(np.int32).tobytes()
    assert data.count(ends) == 1
    for place, value in ((1, 1 << 30), (2, -5)):
        changed = np.frombuffer(ends, np.int32).copy()
        changed[place] = value
        file.write_bytes(data.replace(ends, changed.tobytes()))
        with pytest.raises(UnreadableFileError, match="its cells do not lie where it says"):
            open_dataset(path)


def _cells(path: Path) -> list[bytes]:
    saved = datasets.load_from_disk(str(path)).cast_column("image", datasets.Image(decode=False))
    return [row["image"]["bytes"] for row in saved]
