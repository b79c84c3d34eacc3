"""A split depends on names, seed and groups alone."""

import hashlib
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terrazzo.data import splits
from terrazzo.errors import DatasetFormatError, MissingPathError
from terrazzo.storage import write_json

NAMES = [f"drive{i // 10}/frame{i:03d}" for i in range(50)]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.text(max_size=4), min_size=2, max_size=30, unique=True),
    st.integers(0, 99),
    st.floats(0.05, 0.95),
)
def test_every_name_is_on_one_side_and_the_order_does_not_matter(
    names: list[str], seed: int, fraction: float
) -> None:
    made = splits.make_split(names, fraction, seed)
    assert sorted(made["train"] + made["val"]) == sorted(names)
    assert made["train"]
    assert made["val"]
    random.Random(seed).shuffle(names)
    assert splits.make_split(names, fraction, seed) == made
    assert abs(len(made["val"]) - fraction * len(names)) <= 1


def test_the_names_whose_hash_comes_first_are_val() -> None:
    made = splits.make_split(NAMES, 0.2, seed=7)
    by_hash = sorted(NAMES, key=lambda name: hashlib.sha256(b"7\0" + name.encode()).digest())
    assert made["val"] == sorted(by_hash[:10])
    assert splits.make_split(NAMES, 0.2, seed=8) != made


def test_groups_stay_together_and_the_count_stays_near() -> None:
    groups = splits.groups_by_pattern(NAMES, r"^(drive\d)/")
    for seed in range(10):
        made = splits.make_split(NAMES, 0.2, seed, groups)
        assert {groups[name] for name in made["train"]}.isdisjoint({groups[name] for name in made["val"]})
        assert len(made["val"]) == 10


def test_one_large_group_does_not_become_val() -> None:
    names = [f"a{i}" for i in range(90)] + [f"b{i}" for i in range(5)] + [f"c{i}" for i in range(5)]
    for seed in range(10):
        val = splits.make_split(names, 0.1, seed, {name: name[0] for name in names})["val"]
        assert {name[0] for name in val} == {"b", "c"}
    pair = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "b2": "b", "b3": "b", "b4": "b", "b5": "b"}
    assert splits.make_split(pair, 0.01, 0, pair)["val"] == ["a1", "a2", "a3"]


@pytest.mark.parametrize(
    ("names", "groups", "sentence"),
    [
        (["a"], None, "1 images in 1 group"),
        ([], None, "0 images in 0 groups"),
        (["a", "b"], {"a": "x", "b": "x"}, "2 images in 1 group"),
    ],
)
def test_what_cannot_be_split_is_an_error(
    names: list[str], groups: dict[str, str] | None, sentence: str
) -> None:
    with pytest.raises(DatasetFormatError, match=f"one side would be empty.\n  found: {sentence}"):
        splits.make_split(names, groups=groups)
    with pytest.raises(DatasetFormatError, match="fraction between 0 and 1"):
        splits.make_split(["a", "b"], fraction=1.0)


def test_a_pattern_names_groups_or_says_what_it_does_not_fit() -> None:
    assert splits.groups_by_pattern(["a_1", "b_2"], r"\w") == {"a_1": "a", "b_2": "b"}
    with pytest.raises(DatasetFormatError, match="1 of 2 without a match: b2"):
        splits.groups_by_pattern(["a_1", "b2"], "^(.)_")
    with pytest.raises(DatasetFormatError, match="is not a regular expression"):
        splits.groups_by_pattern(["a"], "(")


def test_a_manifest_goes_through_its_file(tmp_path: Path) -> None:
    made = splits.make_split(NAMES)
    stored = splits.manifest(made, of="train", fraction=0.2, seed=0, groups=None)
    write_json(tmp_path / "split.json", stored)
    assert splits.read_manifest(tmp_path / "split.json") == stored == splits.read_manifest(stored)
    with pytest.raises(MissingPathError):
        splits.read_manifest(tmp_path / "none.json")
    with pytest.raises(DatasetFormatError, match="The split manifest cannot be used"):
        splits.read_manifest({"splits": {"train": []}})
    with pytest.raises(DatasetFormatError, match="has 1 names in train and in val.\n  found: a"):
        splits.read_manifest({"splits": {"train": ["a", "b"], "val": ["a"]}})
