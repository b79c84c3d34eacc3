"""Samples are remapped and checked where they enter; every error names the file; splits travel light."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from terrazzo.classes import Classes, Remap
from terrazzo.data import Dataset, Split, open_dataset
from terrazzo.data.description import Description, write_description
from terrazzo.errors import (
    DatasetFormatError,
    ImageFormatError,
    MaskSizeError,
    MaskValueError,
    UnknownNameError,
    UnreadableFileError,
)
from terrazzo.images import write_image, write_mask
from terrazzo.sample import Sample

CLASSES = Classes(("sky", "road", "car"))
RNG = np.random.default_rng(11)


def make(
    root: Path,
    *,
    train: int = 3,
    val: int = 2,
    channels: int = 3,
    dtype: type = np.uint8,
    description: Description | None = None,
) -> Path:
    for split, count in (("train", train), ("val", val)):
        for i in range(count):
            image = RNG.random((4, 5, channels)).astype(np.float32)
            if dtype is not np.float32:
                image = (image * np.iinfo(dtype).max).astype(dtype)
            write_image(root / split / "images" / f"{split}{i}.tif", image, durable=False)
            mask = RNG.integers(0, 3, (4, 5)).astype(np.uint8)
            write_mask(root / split / "masks" / f"{split}{i}.png", mask, durable=False)
    write_description(root, description or Description(classes=CLASSES))
    return root


def test_a_split_is_a_sequence_of_samples(tmp_path: Path) -> None:
    train = open_dataset(make(tmp_path))["train"]
    assert len(train) == 3
    assert [sample.name for sample in train] == ["train0", "train1", "train2"]
    assert train[-1].name == "train2"
    assert isinstance(train[0], Sample)
    assert isinstance(train[1:], Split)
    assert train[1:].names == ["train1", "train2"]
    with pytest.raises(IndexError):
        train[3]
    assert train.size_hw(0) == (4, 5)
    np.testing.assert_array_equal(train.read_mask(1), train[1].mask)


def test_subsets_are_by_position_or_name_and_in_the_order_asked(tmp_path: Path) -> None:
    train = open_dataset(make(tmp_path))["train"]
    assert train.subset([2, 0]).names == ["train2", "train0"]
    few = train.subset(["train1", "train0"])
    assert few.names == ["train1", "train0"]
    np.testing.assert_array_equal(few[0].image, train[1].image)
    assert few.subset([1]).names == ["train0"]
    with pytest.raises(UnknownNameError) as caught:
        train.subset(["train9"])
    assert "There is no image in split 'train' called 'train9'." in str(caught.value)
    assert few.where(0) == train.where(1)


def test_a_split_pickles_small_and_reads_the_same(tmp_path: Path) -> None:
    split = open_dataset(make(tmp_path, train=20))["train"]
    sent = pickle.dumps(split)
    assert len(sent) < 3000
    again = pickle.loads(sent)
    np.testing.assert_array_equal(again[7].image, split[7].image)
    np.testing.assert_array_equal(again[7].mask, split[7].mask)


def test_an_unknown_split_gets_its_nearest_and_other_names_of_val_are_known(tmp_path: Path) -> None:
    data = open_dataset(make(tmp_path))
    assert data["validation"].names == data["val"].names
    with pytest.raises(UnknownNameError, match="Did you mean 'train'") as caught:
        data["trian"]
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("channels", "dtype"), [(1, np.uint8), (3, np.uint16), (5, np.uint16), (2, np.float32)]
)
def test_any_count_of_channels_of_any_dtype_works_through(tmp_path: Path, channels: int, dtype: type) -> None:
    data = open_dataset(make(tmp_path, channels=channels, dtype=dtype))
    assert (data.channels, data.dtype) == (channels, np.dtype(dtype).name)
    assert data["train"][0].image.shape == (4, 5, channels)
    images = np.concatenate([sample.image.reshape(-1, channels) for sample in data["train"]]).astype(
        np.float64
    )
    images /= 1 if dtype is np.float32 else np.iinfo(dtype).max
    np.testing.assert_allclose(data.mean, images.mean(0), atol=1e-9)
    np.testing.assert_allclose(data.std, images.std(0), atol=1e-9)
    assert "measured on 3 images" in data.notes[0]


def test_declared_mean_and_std_are_kept_and_a_constant_channel_stays_finite(tmp_path: Path) -> None:
    said = Description(classes=CLASSES, channels=1, dtype="uint8", mean=(0.4,), std=(0.2,))
    data = open_dataset(make(tmp_path / "a", channels=1, description=said))
    assert (data.mean, data.std, data.notes) == ((0.4,), (0.2,), ())
    root = make(tmp_path / "b", channels=1)
    for path in (root / "train/images").iterdir():
        write_image(path, np.full((4, 5, 1), 51, np.uint8))
    data = open_dataset(root)
    np.testing.assert_allclose((*data.mean, *data.std), (0.2, 1.0))


def test_grey_among_rgb_is_rgb(tmp_path: Path) -> None:
    root = make(tmp_path)
    write_image(root / "train/images/train0.tif", np.full((4, 5, 1), 9, np.uint8))
    data = open_dataset(root)
    assert data.channels == 3
    assert data["train"][0].image.tolist() == np.full((4, 5, 3), 9).tolist()


def test_every_error_names_the_file(tmp_path: Path) -> None:
    root = make(tmp_path)
    data = open_dataset(root)["train"]
    images, masks = root / "train/images", root / "train/masks"

    write_mask(masks / "train1.png", np.zeros((5, 5), np.uint8))
    with pytest.raises(MaskSizeError) as caught:
        data[1]
    assert str(caught.value).startswith(
        f"{masks}/train1.png has another size than its image.\n  found: mask 5x5"
    )
    assert f"expected: 4x5, as {images}/train1.tif" in str(caught.value)

    write_mask(masks / "train1.png", np.array([[0, 1, 2, 7, 255]] * 4, np.uint8))
    with pytest.raises(MaskValueError) as value:
        data[1]
    assert str(value.value).startswith(
        f"{masks}/train1.png has class id 7; this data set has ids 0-2 and 255 (ignore)."
    )
    assert "7 (4 pixels)" in str(value.value)

    write_image(images / "train2.tif", np.zeros((4, 5, 3), np.uint16))
    with pytest.raises(ImageFormatError) as form:
        data[2]
    assert str(form.value).startswith(f"The image {images}/train2.tif is uint16; the data set is uint8.")

    write_image(images / "train2.tif", np.zeros((4, 5, 4), np.uint8))
    with pytest.raises(ImageFormatError, match=r"train2\.tif has 4 channels instead of 3"):
        data[2]

    (images / "train0.tif").write_bytes(b"II*\0")
    with pytest.raises(UnreadableFileError, match=r"train0\.tif cannot be read"):
        data[0]


def test_raw_ids_outside_the_table_are_errors_with_the_path(tmp_path: Path) -> None:
    table = Remap({0: 0, 1: 1, 2: 2, 11: None}, 3)
    root = make(tmp_path, description=Description(classes=CLASSES, remap=table))
    write_mask(root / "val/masks/val0.png", np.array([[11, 12, 0, 0, 0]] * 4, np.uint8))
    with pytest.raises(
        MaskValueError, match=r"val0\.png has raw id 12, which is not in the data set's table"
    ):
        open_dataset(root)["val"][0]


def test_a_split_without_masks_says_so(tmp_path: Path) -> None:
    root = make(tmp_path)
    (root / "val").rename(root / "test")
    shutil.rmtree(root / "test/masks")
    data = open_dataset(root)
    assert data["test"][0].mask is None
    with pytest.raises(DatasetFormatError, match="The split 'test' has no masks"):
        data["test"].read_mask(0)
    assert [*data.splits] == ["train", "val", "test"]
    assert set(data["train"].names) | set(data["val"].names) == {"train0", "train1", "train2"}


def test_the_stored_split_is_used_again_and_new_images_stay_out(tmp_path: Path) -> None:
    root = make(tmp_path, train=12, val=0)
    first = open_dataset(root)
    assert first.split_manifest is not None
    write_image(root / "train/images/aaa.tif", np.zeros((4, 5, 3), np.uint8))
    write_mask(root / "train/masks/aaa.png", np.zeros((4, 5), np.uint8))
    again = open_dataset(root, split_manifest=first.split_manifest)
    assert again["val"].names == first["val"].names
    assert again["train"].names == first["train"].names
    assert "1 images are newer than the stored split and are left out." in again.notes
    gone = first["val"].names[0]
    (root / f"train/images/{gone}.tif").unlink()
    (root / f"train/masks/{gone}.png").unlink()
    with pytest.raises(
        DatasetFormatError, match=f"1 images of the stored split are not .*\n  found: missing: {gone}"
    ):
        open_dataset(root, split_manifest=first.split_manifest)


def test_one_image_is_not_split(tmp_path: Path) -> None:
    data = open_dataset(make(tmp_path, train=1, val=0))
    assert [*data.splits] == ["train"]
    assert data.notes == ("One image cannot be split: there is no val.",)


def test_void_classes_are_ignored_unless_kept(tmp_path: Path) -> None:
    said = Description(classes=Classes(("unlabeled", "road", "car")))
    root = make(tmp_path, description=said)
    write_mask(root / "train/masks/train0.png", np.array([[0, 1, 2, 255, 0]] * 4, np.uint8))
    data, kept = open_dataset(root), open_dataset(root, keep_void=True)
    assert data.classes.names == ("road", "car")
    assert "Ignored, not trained and not scored: unlabeled" in data.describe()
    assert data["train"].read_mask(0)[0].tolist() == [255, 0, 1, 255, 255]
    assert kept.classes.names == ("unlabeled", "road", "car")
    assert kept["train"].read_mask(0)[0].tolist() == [0, 1, 2, 255, 0]
    assert data.raw_names == {0: "unlabeled", 1: "road", 2: "car"}


def test_merged_data_reads_merged_masks(tmp_path: Path) -> None:
    root = make(tmp_path)
    write_mask(root / "train/masks/train0.png", np.array([[0, 1, 2, 255, 0]] * 4, np.uint8))
    data = open_dataset(root)
    merged = data.merged(["sky+road=ground"])
    assert merged.classes.names == ("ground", "car")
    assert merged["train"].read_mask(0)[0].tolist() == [0, 0, 1, 255, 0]
    assert merged.fingerprint == data.fingerprint
    assert data.merged([]) is data


# -- fingerprint -------------------------------------------------------------------------------------------------------


def test_the_fingerprint_is_of_names_and_contents_and_of_nothing_else(tmp_path: Path) -> None:
    root = make(tmp_path / "a")
    first = open_dataset(root).fingerprint
    assert len(first) == 64
    shutil.copytree(root, tmp_path / "elsewhere")
    assert open_dataset(tmp_path / "elsewhere").fingerprint == first
    assert open_dataset(root, keep_void=True).fingerprint == first

    (root / "train/images/train0.tif").rename(root / "train/images/other.tif")
    (root / "train/masks/train0.png").rename(root / "train/masks/other.png")
    renamed = open_dataset(root).fingerprint
    assert renamed != first

    mask = open_dataset(root)["val"].read_mask(0).copy()
    mask[0, 0] = (mask[0, 0] + 1) % 3
    write_mask(root / "val/masks/val0.png", mask)
    assert open_dataset(root).fingerprint not in (first, renamed)


def test_how_a_data_set_is_split_does_not_change_its_fingerprint(tmp_path: Path) -> None:
    root = make(tmp_path, train=8, val=0)
    data = open_dataset(root)
    stored = dict(data.split_manifest or {})
    sides = stored["splits"]
    swapped = {**stored, "splits": {"train": sides["val"], "val": sides["train"]}}
    assert open_dataset(root, split_manifest=swapped).fingerprint == data.fingerprint


def test_unchanged_files_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from terrazzo.data import fingerprint

    hashed: list[str] = []
    original = fingerprint._hash_file
    monkeypatch.setattr(fingerprint, "_hash_file", lambda path: (hashed.append(path), original(path))[1])
    root = make(tmp_path / "a")
    first = open_dataset(root).fingerprint
    assert len(hashed) == 10
    assert open_dataset(root).fingerprint == first
    assert len(hashed) == 10
    write_mask(root / "val/masks/val1.png", np.ones((4, 5), np.uint8))
    assert open_dataset(root).fingerprint != first
    assert hashed[10:] == [str(root / "val/masks/val1.png")]


@pytest.mark.parametrize("how", ["a file in its place", "damaged"])
def test_a_cache_that_cannot_be_used_only_costs_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    root = make(tmp_path / "a")
    first = open_dataset(root).fingerprint
    cache = tmp_path / "cache"
    monkeypatch.setenv("TERRAZZO_CACHE", str(cache))
    if how == "damaged":
        assert open_dataset(root).fingerprint == first
        for path in (cache / "fingerprints").iterdir():
            path.write_text('{"x": 3')
    else:
        cache.write_text("not a folder")
    assert open_dataset(root).fingerprint == first


def test_nothing_is_written_into_the_data(tmp_path: Path) -> None:
    root = make(tmp_path)
    before = sorted(str(path) for path in root.rglob("*"))
    data = open_dataset(root)
    assert data.fingerprint
    assert data["train"][0].mask is not None
    assert sorted(str(path) for path in root.rglob("*")) == before


def test_describe_tells_what_it_is(tmp_path: Path) -> None:
    root = make(
        tmp_path,
        description=Description(classes=CLASSES, name="Streets", license="CC0-1.0", source="made up"),
    )
    data = open_dataset(root)
    assert isinstance(data, Dataset)
    assert open_dataset(data) is data
    assert data.describe() == (
        "Streets: train 3, val 2\n"
        "  images    3 channels of uint8\n"
        "  classes   3: sky, road, car; 255 is ignored\n"
        "  licence   CC0-1.0\n"
        "  source    made up"
    )
    assert repr(data) == "Dataset('Streets', 3 classes, train: 3, val: 2)"
    assert repr(data["train"]) == "Split('train', 3 samples)"
