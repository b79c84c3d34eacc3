"""Folds: disjoint, covering, the same in every run, found again by whoever opens the data with the manifest."""

import pickle
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import terrazzo as tz
from terrazzo.data import folds, splits
from terrazzo.errors import DatasetFormatError, UsageError
from terrazzo.storage import read_json, write_json


def some(boxes: Path, folder: Path, *, train: int, val: int) -> Path:
    """A copy of the first few boxes."""
    shutil.copytree(boxes, folder)
    for split, count in (("train", train), ("val", val)):
        for path in (folder / split).glob("*/*.png"):
            if int(path.stem) >= count:
                path.unlink()
    return folder


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(max_size=4), min_size=2, max_size=30, unique=True),
    st.integers(2, 30),
    st.integers(0, 9),
    st.integers(1, 12),
)
def test_folds_are_disjoint_cover_everything_and_keep_groups(
    names: list[str], count: int, seed: int, num_groups: int
) -> None:
    groups = {name: str(number % num_groups) for number, name in enumerate(sorted(names))}
    for grouping in (None, groups):
        units = len(set(groups.values())) if grouping else len(names)
        if units < 2:
            continue
        made = splits.make_folds(reversed(names), min(count, units), seed, grouping)
        assert sorted(name for fold in made for name in fold) == sorted(names)
        assert all(made)
        if grouping:
            assert sum(len({groups[name] for name in fold}) for fold in made) == units
        else:
            assert max(map(len, made)) - min(map(len, made)) <= 1
        assert made == splits.make_folds(names, min(count, units), seed, grouping)


def test_a_fold_pools_train_and_val_and_leaves_the_rest(boxes: Path) -> None:
    data = tz.open_dataset(boxes)
    seen: Counter[str] = Counter()
    for number in (1, 2, 3):
        fold = folds.folded(data, (number, 3))
        assert len(fold["train"]) + len(fold["val"]) == 11
        assert not set(fold["train"].names) & set(fold["val"].names)
        assert len(fold["val"]) in (3, 4)
        assert fold.fingerprint == data.fingerprint  # how it is split does not matter
        seen.update(fold["val"].names)
    assert seen == Counter(f"{split}/{name}" for split in ("train", "val") for name in data[split].names)
    one = fold["val"].names[0]
    split, _, name = one.partition("/")
    original, pooled = data[split].subset([name])[0], fold["val"][0]
    assert pooled.name == one
    assert np.array_equal(pooled.image, original.image)
    assert np.array_equal(pooled.mask, original.mask)
    assert fold["val"].where(0, mask=True) == data[split].where(int(name), mask=True)
    assert fold.notes[-1] == f"Fold 3 of 3: {len(fold['train'])} train, {len(fold['val'])} val."
    assert pickle.loads(pickle.dumps(fold["train"])).names == fold["train"].names


def test_one_labelled_split_is_folded_as_it_is(boxes: Path, tmp_path: Path) -> None:
    copy = some(boxes, tmp_path / "boxes", train=6, val=0)
    shutil.rmtree(copy / "val")
    data = tz.open_dataset(copy)
    assert data.notes[0].startswith("No val split: made one by name")
    fold = folds.folded(data, (1, 3))
    assert sorted(fold["train"].names + fold["val"].names) == [f"{i:03d}" for i in range(6)]
    assert fold.notes == ("Fold 1 of 3: 4 train, 2 val.",)
    assert fold.fingerprint == data.fingerprint


def test_groups_of_the_data_set_stay_in_one_fold(boxes_of_my_own: Path) -> None:
    about = read_json(boxes_of_my_own / "dataset.json")
    about["groups"] = r"(\d)$"  # 000 of train and 000 of val are one patient
    write_json(boxes_of_my_own / "dataset.json", about)
    data = tz.open_dataset(boxes_of_my_own)
    for number in range(1, 9):
        fold = folds.folded(data, (number, 8))
        last = [{name[-1] for name in fold[side].names} for side in ("train", "val")]
        assert last[0].isdisjoint(last[1])
        assert (
            folds.folded(fold, (number, 8))["val"].names == fold["val"].names
        )  # folding again asks the same names
    with pytest.raises(UsageError, match="9 folds need 9 groups of images") as few:
        folds.folded(data, (1, 9))
    assert "terrazzo train … --fold 1/8" in str(few.value)


@pytest.mark.parametrize(
    ("fold", "words"),
    [
        ((0, 5), ["There is no fold 0 of 5", "a fold from 1 to 5", "--fold 1/5"]),
        ((6, 5), ["There is no fold 6 of 5", "--fold 5/5"]),
        ((1, 1), ["There is no fold 1 of 1", "2 folds or more", "--fold 1/5"]),
        ((1, 0), ["There is no fold 1 of 0", "2 folds or more"]),
        ((1, 12), ["12 folds need 12 labelled images", "11 in boxes", "at most 11 folds", "--fold 1/11"]),
    ],
)
def test_nonsense_is_refused_in_words(boxes: Path, fold: tuple[int, int], words: list[str]) -> None:
    with pytest.raises(UsageError) as refused:
        folds.folded(tz.open_dataset(boxes), fold)
    assert all(word in str(refused.value) for word in words)


def test_a_stored_fold_is_found_again(boxes: Path) -> None:
    made = folds.folded(tz.open_dataset(boxes), (2, 4))
    assert made.split_manifest is not None
    for source in (boxes, tz.open_dataset(boxes), folds.folded(tz.open_dataset(boxes), (1, 3))):
        again = tz.open_dataset(source, split_manifest=made.split_manifest)
        assert {side: again[side].names for side in ("train", "val")} == made.split_manifest["splits"]


def test_a_fold_of_other_data_is_not_followed(boxes: Path, boxes_of_my_own: Path, tmp_path: Path) -> None:
    made = folds.folded(tz.open_dataset(boxes), (2, 4))
    assert made.split_manifest is not None
    elsewhere = some(boxes, tmp_path / "elsewhere", train=3, val=2)
    write_json(elsewhere / "dataset.json", read_json(elsewhere / "dataset.json") | {"name": "fields"})
    other = tz.open_dataset(elsewhere, split_manifest=made.split_manifest)
    assert [len(other[side]) for side in ("train", "val")] == [3, 2]
    assert other.notes[-1].startswith("Trained on fold 2 of 4 of 'boxes'; other images")
    for path in (boxes_of_my_own / "val").glob("*/000.png"):
        path.unlink()
    with pytest.raises(
        DatasetFormatError, match="1 images of the stored split are not in the data set any more"
    ):
        tz.open_dataset(boxes_of_my_own, split_manifest=made.split_manifest)
