"""Errors say what, where, found / expected and what to type next; the tree decides the exit code."""

import inspect
import pickle

import pytest

from terrazzo import errors
from terrazzo.errors import MaskValueError, TerrazzoError, UnknownNameError, UsageError, nearest, unknown_name

TREE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, TerrazzoError)]


def test_the_four_parts_read_as_the_style_page_draws_them() -> None:
    error = MaskValueError(
        "masks/aachen_000012.png has class id 33.",
        found="0-18, 33 (1,204 pixels)",
        expected="0-18 and 255 (ignore)",
        hint='In raw Cityscapes ids 33 is "bicycle".\nImport it once:',
        command="terrazzo import cityscapes PATH --out data/cityscapes",
    )
    assert str(error) == (
        "masks/aachen_000012.png has class id 33.\n"
        "  found: 0-18, 33 (1,204 pixels)\n"
        "  expected: 0-18 and 255 (ignore)\n"
        '  In raw Cityscapes ids 33 is "bicycle".\n'
        "  Import it once:\n"
        "  terrazzo import cityscapes PATH --out data/cityscapes"
    )


def test_parts_that_are_absent_leave_no_line() -> None:
    assert str(TerrazzoError("It failed.")) == "It failed."
    assert str(TerrazzoError("It failed.", command="terrazzo env")) == "It failed.\n  terrazzo env"
    assert str(TerrazzoError("It failed.", found="")) == "It failed.\n  found: "


def test_a_misused_call_exits_with_2_and_failed_work_with_1() -> None:
    for kind in TREE:
        assert kind.exit_code == (2 if issubclass(kind, UsageError) else 1), kind.__name__


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_survives_the_way_from_a_worker_process(kind: type[TerrazzoError]) -> None:
    error = kind("what", found="f", expected="e", hint="h", command="c")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert str(back) == str(error)
    assert (back.found, back.expected, back.hint, back.command) == ("f", "e", "h", "c")


def test_the_drawing_on_top_of_the_file_is_the_tree() -> None:
    drawing = errors.__doc__ or ""
    drawn: dict[str, int] = {}
    for line in drawing.splitlines():
        name = line.strip(" │├└─").split(" ")[0]
        if name.endswith("Error"):
            drawn[name] = line.index(name)
    assert set(drawn) == {kind.__name__ for kind in TREE}
    for kind in TREE:
        depth = len(kind.__mro__) - len(TerrazzoError.__mro__)
        assert drawn[kind.__name__] == 4 + 4 * depth, (
            f"{kind.__name__} is drawn on another stair than it stands"
        )


def test_every_error_says_in_its_docstring_when_it_is_raised() -> None:
    assert [kind.__name__ for kind in TREE if not (kind.__doc__ or "").strip()] == []


def test_nearest_names_come_most_alike_first_and_ignore_case() -> None:
    choices = ["segformer-b0", "segformer-b5", "quickstart", "sidewalk"]
    assert nearest("segformer-b", choices)[:2] in (choices[:2], choices[1::-1])
    assert nearest("Sidewlak", choices) == ["sidewalk"]
    assert nearest("zzz", choices) == []
    assert nearest("PERSON", ["Person", "Car"]) == ["Person"]
    assert len(nearest("a1", [f"a{i}" for i in range(10)])) == 3


def test_an_unknown_name_lists_the_known_and_offers_the_nearest() -> None:
    error = unknown_name("split", "vla", ["train", "val", "test"], command="terrazzo check data/x")
    assert isinstance(error, UnknownNameError)
    assert str(error) == (
        "There is no split 'vla'.\n"
        "  expected: one of train, val, test\n"
        "  Did you mean 'val'?\n"
        "  terrazzo check data/x"
    )


def test_an_unknown_name_with_no_likeness_offers_none() -> None:
    assert unknown_name("split", "qqq", ["train"]).hint is None


def test_an_unknown_name_among_nothing_lists_nothing() -> None:
    assert str(unknown_name("split", "val", [])) == "There is no split 'val'."


def test_a_long_list_of_names_is_cut_and_counted() -> None:
    error = unknown_name("class", "x", [f"class {i}" for i in range(150)])
    assert error.expected is not None
    assert error.expected.endswith("class 19, … (150 in all)")
    assert "class 20," not in error.expected


def test_what_a_terminal_would_obey_or_cannot_show_becomes_its_escape() -> None:
    """A name from anywhere cannot colour, hide or turn round what is said, and never fails to be printed."""
    error = TerrazzoError("a\x1b[31m.png is \u202egnp\ud800.", found="tab\tnul\0")
    assert str(error) == "a\\x1b[31m.png is \\u202egnp\\ud800.\n  found: tab\\tnul\\x00"
    assert str(error).encode()
    assert error.found == "tab\tnul\0"  # the parts are as they were
    told = (
        "Größe, 大きさ, 10\u00a0%, \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"  # joined as Persian is
    )
    assert str(TerrazzoError(told)) == told


def test_a_line_of_more_than_a_screen_is_cut() -> None:
    assert str(TerrazzoError("It failed.", found="x" * 100_000)) == (
        f"It failed.\n  found: {'x' * 3991} … (100,009 characters)"
    )
