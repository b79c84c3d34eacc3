"""Classes and the one table between raw ids and class ids, against tables worked by hand."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terrazzo.classes import Classes, Remap, check_names, distinct_colors, drop_void, ignore_value, is_void
from terrazzo.errors import DatasetFormatError, MaskValueError, UnknownNameError

ROAD_SKY = Classes(("road", "sky"), ((128, 64, 128), (70, 130, 180)))


def test_the_ignore_value_leaves_eight_bits_only_when_it_must() -> None:
    assert [ignore_value(k) for k in (1, 254, 255, 256, 1000)] == [255, 255, 255, 65535, 65535]
    assert Classes(tuple(f"c{i}" for i in range(255))).mask_dtype == np.uint8
    assert Classes(tuple(f"c{i}" for i in range(256))).mask_dtype == np.uint16


def test_a_class_id_is_its_position() -> None:
    assert ROAD_SKY.id_of("sky") == 1
    assert len(ROAD_SKY) == 2
    assert ROAD_SKY.palette.tolist() == [[128, 64, 128], [70, 130, 180]]
    with pytest.raises(UnknownNameError, match=r"There is no class 'raod'(.|\n)*Did you mean 'road'"):
        ROAD_SKY.id_of("raod")


@pytest.mark.parametrize(
    ("names", "colors", "sentence"),
    [
        ((), (), "at least one class"),
        (("a", "b", "a"), (), "Class names must be distinct(.|\n)*a more than once"),
        (("a", " "), (), "Every class needs a name(.|\n)*none at position 1"),
        (("a", "b\ud800"), (), "Class names must be text(.|\n)*lone surrogate(.|\n)*position 1"),
        (("a", "b"), ((0, 0, 0),), "Every class needs one colour(.|\n)*2 names and 1 colours"),
        (("a",), ((0, 0, 256),), "three whole numbers, 0-255(.|\n)*256"),
        (("a",), ((0.5, 0.5, 0.5),), "three whole numbers, 0-255(.|\n)*0.5"),
        (("a",), ("#ff0000",), "three whole numbers, 0-255(.|\n)*#ff0000"),
        (tuple(f"c{i}" for i in range(65536)), (), "At most 65535 classes(.|\n)*65536 names"),
    ],
)
def test_classes_that_cannot_be_are_refused_in_words(names: tuple, colors: tuple, sentence: str) -> None:
    with pytest.raises(DatasetFormatError, match=sentence):
        Classes(names, colors)


def test_classes_come_back_from_json_as_they_went() -> None:
    assert Classes.from_json(json.loads(json.dumps(ROAD_SKY.to_json()))) == ROAD_SKY
    mixed = Classes.from_json(["road", {"name": "sky", "color": [0, 0, 0]}, {"name": "car", "color": None}])
    assert mixed.names == ("road", "sky", "car")
    assert mixed.colors[1] == (0, 0, 0)
    assert mixed.colors[::2] == distinct_colors(3)[::2]
    with pytest.raises(DatasetFormatError, match="none at position 1"):
        Classes.from_json(["road", {"color": [0, 0, 0]}])


def test_colors_are_distinct_and_stable_when_classes_are_added() -> None:
    assert len(set(distinct_colors(150))) == 150
    assert distinct_colors(150)[:30] == distinct_colors(30)


def test_colors_suffice_for_more_classes_than_four_bands_of_hue_hold() -> None:
    assert len(set(distinct_colors(10_000))) == 10_000  # ADE20K's full vocabulary has 3,688


def test_a_mask_with_a_foreign_id_is_named_with_ids_and_counts() -> None:
    mask = np.array([[0, 1, 255], [2, 2, 7]], np.uint8)
    ROAD_SKY.check_mask(mask[:1], where="val/a.png")
    with pytest.raises(MaskValueError) as raised:
        ROAD_SKY.check_mask(mask, where="val/a.png")
    text = str(raised.value)
    assert text.startswith("val/a.png has class id 2; this data set has ids 0-1 and 255 (ignore).")
    assert "found: 2 (2 pixels), 7 (1 pixels)" in text
    assert text.endswith("terrazzo check DATA")


def test_a_negative_id_is_foreign() -> None:
    with pytest.raises(MaskValueError, match="class id -1"):
        ROAD_SKY.check_mask(np.array([[0, -1]], np.int64), where="a")


def test_255_is_a_class_when_there_are_more_than_255() -> None:
    many = Classes(tuple(f"c{i}" for i in range(300)))
    many.check_mask(np.array([[255, 299, 65535]], np.uint16), where="a")
    with pytest.raises(MaskValueError, match="class id 300"):
        many.check_mask(np.array([[300]], np.uint16), where="a")


CITY = Remap({0: None, 7: 0, 8: 1, 11: 2, 255: None}, 3)  # raw Cityscapes ids, the first three classes


def test_raw_ids_become_class_ids_by_the_table_alone() -> None:
    raw = np.array([[0, 7], [8, 11], [255, 7]], np.uint8)
    mask = CITY(raw, where="a")
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[255, 0], [1, 2], [255, 0]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.int64, ">u2"])
def test_the_table_reads_every_integer_type_alike(dtype: str) -> None:
    raw = np.array([[0, 7], [8, 11]]).astype(dtype)
    assert CITY(raw, where="a").tolist() == [[255, 0], [1, 2]]


def test_one_bit_masks_are_ids_0_and_1() -> None:
    assert Remap.identity(2)(np.array([[True, False]]), where="a").tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("raw", "dtype", "found"),
    [
        ([[7, 9, 9]], np.uint8, "9 (2 pixels)"),
        ([[7, 254]], np.uint8, "254 (1 pixels)"),
        ([[7, 256]], np.uint16, "256 (1 pixels)"),
        ([[7, 65535]], np.uint16, "65535 (1 pixels)"),
        ([[7, -1]], np.int32, "-1 (1 pixels)"),
        ([[7, 70000]], np.int32, "70000 (1 pixels)"),
    ],
)
def test_a_raw_id_that_is_not_in_the_table_is_an_error_never_a_guess(
    raw: list, dtype: type, found: str
) -> None:
    with pytest.raises(MaskValueError) as raised:
        CITY(np.array(raw, dtype), where="train/masks/x.png")
    assert str(raised.value).startswith(
        f"train/masks/x.png has raw id {found.split(' ')[0]}, which is not in"
    )
    assert raised.value.found == found
    assert raised.value.expected == "0, 7, 8, 11, 255"


def test_fractions_are_not_ids() -> None:
    with pytest.raises(MaskValueError, match="a is not a map of ids(.|\n)*float32"):
        CITY(np.zeros((1, 1), np.float32), where="a")
    with pytest.raises(TypeError):
        Remap({0: 0.5}, 1)  # type: ignore[dict-item]


def test_the_table_must_stay_in_the_label_space() -> None:
    with pytest.raises(DatasetFormatError, match="leaves the label space(.|\n)*class ids 0-2 or null"):
        Remap({0: 3}, 3)
    with pytest.raises(DatasetFormatError, match="leaves the label space"):
        Remap({-1: 0}, 3)
    with pytest.raises(DatasetFormatError, match="leaves the label space"):
        Remap({65536: 0}, 3)


@pytest.mark.parametrize("table", [{"road": 0}, {"0": "road"}, {"0": 1.5}, ["0", "1"], None])
def test_a_table_that_is_no_table_is_refused_in_words(table: object) -> None:
    with pytest.raises(DatasetFormatError, match="remap table cannot be read"):
        Remap.from_json(table, 2)  # type: ignore[arg-type]


def test_the_table_survives_json() -> None:
    written = json.loads(json.dumps(CITY.to_json()))
    assert written == {"0": None, "7": 0, "8": 1, "11": 2, "255": None}
    assert Remap.from_json(written, 3) == CITY


def test_the_first_raw_id_of_a_class_stands_for_it() -> None:
    two_to_one = Remap({4: 0, 9: 0, 5: 1, 255: None}, 2)
    assert two_to_one.inverse(np.array([[0, 1, 255]], np.uint8)).tolist() == [[4, 5, 255]]


@st.composite
def tables(draw: st.DrawFn) -> Remap:
    """Draw a table in which every class has a raw id."""
    num_classes = draw(st.integers(1, 300))
    raw_ids = draw(st.lists(st.integers(0, 65535), min_size=num_classes + 1, unique=True))
    to_class: dict[int, int | None] = dict(zip(raw_ids, range(num_classes), strict=False))
    to_class.update(dict.fromkeys(raw_ids[num_classes:]))
    return Remap(to_class, num_classes)


@given(tables(), st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_raw_ids_and_back_is_the_same_mask(remap: Remap, seed: int) -> None:
    ids = [*range(remap.num_classes), ignore_value(remap.num_classes)]
    mask = np.random.default_rng(seed).choice(ids, (5, 7))
    assert np.array_equal(remap(remap.inverse(mask), where="a"), mask)


@given(st.integers(1, 400), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_identity_changes_nothing_however_often(num_classes: int, seed: int) -> None:
    remap = Remap.identity(num_classes)
    mask = np.random.default_rng(seed).choice([*range(num_classes), ignore_value(num_classes)], (4, 4))
    once = remap(mask, where="a")
    assert np.array_equal(once, mask)
    assert np.array_equal(remap(once, where="a"), once)
    assert remap.is_identity


def test_only_unchanged_numbers_are_the_identity() -> None:
    assert not Remap({0: 1, 1: 0}, 2).is_identity
    assert not Remap({0: 0, 1: 1, 7: None}, 2).is_identity
    assert not CITY.is_identity


def test_void_names_are_those_that_mean_not_labelled() -> None:
    assert all(map(is_void, ["unlabeled", "Void", "void-dynamic", "void_ground", " unknown ", "IGNORE"]))
    assert not any(map(is_void, ["background", "avoid", "voidness", "other", "sky"]))


def test_void_classes_become_ignore_and_the_others_close_ranks() -> None:
    names, remap = drop_void(["unlabeled", "road", "void-static", "sky"])
    assert names == ("road", "sky")
    raw = np.array([[0, 1, 2, 3, 255]], np.uint8)
    assert remap(raw, where="a").tolist() == [[255, 0, 255, 1, 255]]


def test_when_all_names_are_void_they_are_classes() -> None:
    names, remap = drop_void(["void", "unknown"])
    assert names == ("void", "unknown")
    assert remap.is_identity


def test_raw_id_255_can_be_a_class_beside_the_ignore_value() -> None:
    names, remap = drop_void(["void", *(f"c{i}" for i in range(1, 256))])
    assert len(names) == 255
    assert remap(np.array([[0, 1, 255]], np.uint8), where="a").tolist() == [[255, 0, 254]]


@pytest.mark.parametrize(
    "name", ["a\tb", "\x1b[2J", "a\0", "\u202eetihw", "line\u2028line", "x" * 201], ids=ascii
)
def test_names_that_cannot_be_shown_are_refused(name: str) -> None:
    with pytest.raises(DatasetFormatError, match="1 class names cannot be shown as they are") as caught:
        check_names(("road", name))
    assert ascii(name)[:40] in str(caught.value)


def test_names_of_any_script_and_any_meaning_elsewhere_are_names() -> None:
    """Reserved words, markup, formulas: a name is text here, and is shown as text."""
    odd = (
        "con",
        "null",
        "__proto__",
        "<img src=x onerror=alert(1)>",
        "=1+1",
        "../up",
        "-rf",
        "道路",
        "می\u200cخواهم",
        "a\u00a0b",
    )
    check_names(odd)
    assert Classes(odd).names == odd
    assert Classes.from_json(Classes(odd).to_json()).names == odd


@pytest.mark.parametrize(
    "entries", [[{"name": 1}], [{"name": None}], [{"name": ["a"]}], [1], [None], "road", 7, None, [[]]]
)
def test_json_that_names_no_classes_is_refused(entries: object) -> None:
    with pytest.raises(DatasetFormatError, match="Every class needs a name|Classes are a list"):
        Classes.from_json(entries)  # type: ignore[arg-type]
