"""Text and JSON become values by the type of their field, and back; sentences are found in the source."""

from dataclasses import MISSING, dataclass, field, make_dataclass
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terrazzo.fields import Leaf, conform, example, expects, field_docs, get, leaves, parse, sections, to_text

Choice = Literal["none", "poly"]
TYPES: list[Any] = [
    int,
    float,
    bool,
    str,
    Choice,
    tuple[int, int],
    tuple[float, float],
    tuple[str, ...],
    tuple[float, ...],
    tuple[Choice, ...],
]
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    str: st.text(),
    Choice: st.sampled_from(["none", "poly"]),
    tuple[int, int]: st.tuples(st.integers(), st.integers()),
    tuple[float, float]: st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2),
    tuple[str, ...]: st.lists(st.from_regex(r"[a-z+= ]*[a-z]", fullmatch=True).map(str.strip)).map(tuple),
    tuple[float, ...]: st.lists(st.floats(allow_nan=False, allow_infinity=False)).map(tuple),
    tuple[Choice, ...]: st.lists(st.sampled_from(["none", "poly"])).map(tuple),
}


@dataclass(frozen=True)
class Oven:
    """A section."""

    degrees: float = 180.0
    """How hot
    it is."""
    fan: bool = True


@dataclass(frozen=True)
class Cake:
    """A config."""

    name: str
    """What it is called."""
    oven: Oven = field(default_factory=Oven)
    eggs: int | None = None
    """How many; null is
    none at all."""
    layers: tuple[str, ...] = ()


@settings(max_examples=50)
@given(st.data())
@pytest.mark.parametrize("annotation", TYPES, ids=str)
def test_what_is_written_is_read_back(annotation: Any, data: st.DataObject) -> None:
    value = data.draw(VALUES[annotation])
    for kind in (annotation, annotation | None):
        assert parse(to_text(value, kind), kind) == value
        assert parse("null", annotation | None) is None


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("2000", int, 2000),
        ("2_000", int, 2000),
        ("1e3", int, 1000),
        ("-3", int, -3),
        (" 7 ", int, 7),
        ("1e-3", float, 0.001),
        ("6", float, 6.0),
        ("yes", bool, True),
        ("FALSE", bool, False),
        ("poly", Choice, "poly"),
        ("none", Choice | None, "none"),  # a choice first
        ("null", Choice | None, None),
        ("None", int | None, None),
        ("none", str | None, None),
        ("'none'", str | None, "none"),
        ("none", str, "none"),
        ("nvidia/mit-b0", str | None, "nvidia/mit-b0"),
        ("a=b", str, "a=b"),
        ("256x320", tuple[int, int], (256, 320)),
        ("256X320", tuple[int, int], (256, 320)),
        ("256,320", tuple[int, int], (256, 320)),
        ("[256, 320]", tuple[int, int], (256, 320)),
        ("(256 320)", tuple[int, int], (256, 320)),
        ("0.5,2", tuple[float, float], (0.5, 2.0)),
        ("[]", tuple[float, ...], ()),
        ("1,2.5,3", tuple[float, ...], (1.0, 2.5, 3.0)),
        ("box,fox", tuple[str, ...], ("box", "fox")),  # an x in a word parts nothing
        ("car+truck=vehicle, rider", tuple[str, ...], ("car+truck=vehicle", "rider")),
    ],
)
def test_text_is_read_by_its_type(text: str, annotation: Any, value: Any) -> None:
    read = parse(text, annotation)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "annotation"),
    [
        ("lots", int),
        ("2.5", int),
        ("1e300", int),  # a float that size no longer counts one by one
        ("", int),
        ("true", int),
        ("2k", int),
        ("nan", float),
        ("inf", float),
        ("1", bool),
        ("Poly", Choice),
        ("null", int),
        ("256", tuple[int, int]),
        ("1,2,3", tuple[int, int]),
        ("256x320.5", tuple[int, int]),
        ("256xx320", tuple[int, int]),
        ("1,,2", tuple[float, ...]),
        ("a,b", tuple[float, ...]),
    ],
)
def test_text_of_another_type_is_refused(text: str, annotation: Any) -> None:
    with pytest.raises(ValueError):
        parse(text, annotation)


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        ([256, 320], tuple[int, int], (256, 320)),
        ([], tuple[str, ...], ()),
        (1, float, 1.0),
        (None, int | None, None),
        ("none", Choice, "none"),
    ],
)
def test_json_is_taken_by_its_type(value: Any, annotation: Any, expected: Any) -> None:
    taken = conform(value, annotation)
    assert taken == expected
    assert type(taken) is type(expected)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (True, int),
        (1, bool),
        (1.0, int),
        ("1", int),
        (None, int),
        (float("nan"), float),
        ("linear", Choice),
        ([1], tuple[int, int]),
        ([1, "2"], tuple[int, int]),
        (["a"], str),
    ],
)
def test_json_of_another_type_is_refused(value: Any, annotation: Any) -> None:
    with pytest.raises(ValueError):
        conform(value, annotation)


@pytest.mark.parametrize("annotation", TYPES, ids=str)
def test_each_types_example_is_of_that_type(annotation: Any) -> None:
    assert conform(parse(example(annotation), annotation), annotation) is not None


def test_types_are_said_in_words() -> None:
    assert expects(int | None) == "a whole number or null"
    assert expects(Choice) == "one of none, poly"
    assert expects(tuple[int, int]) == "two whole numbers"
    assert expects(tuple[float, ...]) == "numbers with commas between them"
    shown = [
        Leaf("x", kind, None, "").type_text
        for kind in (float, int | None, Choice, tuple[int, int], tuple[str, ...])
    ]
    assert shown == ["float", "int | null", "none | poly", "(int, int)", "(str, …)"]


def test_leaves_have_paths_types_defaults_and_sentences() -> None:
    assert leaves(Cake) == {
        "name": Leaf("name", str, MISSING, "What it is called."),
        "oven.degrees": Leaf("oven.degrees", float, 180.0, "How hot it is."),
        "oven.fan": Leaf("oven.fan", bool, True, ""),
        "eggs": Leaf("eggs", int | None, None, "How many; null is none at all."),
        "layers": Leaf("layers", tuple[str, ...], (), ""),
    }
    assert list(leaves(Cake)) == ["name", "oven.degrees", "oven.fan", "eggs", "layers"]  # as in the source
    assert sections(Cake) == {"oven": Oven}
    assert get(Cake("lemon", Oven(200.0)), "oven.degrees") == 200.0


def test_a_class_without_source_has_no_sentences() -> None:
    assert field_docs(make_dataclass("Made", [("x", int)])) == {}
    assert field_docs(int) == {}


def test_a_whole_number_too_large_for_a_float_is_none() -> None:
    with pytest.raises(ValueError):
        conform(10**400, float)
    with pytest.raises(ValueError):
        conform(float("inf"), float)
