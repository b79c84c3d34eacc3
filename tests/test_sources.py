"""Files, folders and globs become images, each once and each with a name of its own."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terrazzo.errors import MissingPathError, UsageError
from terrazzo.sources import find_sources


@pytest.fixture
def streets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """day/{1.png, 2.JPG, deep/3.tif}, night/{2.png, 4.png}, and what is no image."""
    files = ["day/1.png", "day/2.JPG", "day/deep/3.tif", "day/notes.txt", "day/.hidden/5.png", "day/._1.png"]
    for name in [*files, "night/2.png", "night/4.png", "empty/readme.md"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*arguments: str, outside: Path | None = None) -> list[str]:
    return [source.name for source in find_sources(arguments, outside=outside)]


def test_a_folder_gives_its_images_to_the_bottom_and_nothing_hidden(streets: Path) -> None:
    found = find_sources(["day"])
    assert [source.name for source in found] == ["1", "2", "deep/3"]
    assert [source.path for source in found] == [
        streets / "day" / name for name in ("1.png", "2.JPG", "deep/3.tif")
    ]


def test_a_file_is_taken_whatever_its_suffix(streets: Path) -> None:
    assert names("day/notes.txt", "day/.hidden/5.png") == ["notes", "5"]


def test_a_glob_is_named_below_its_fixed_folders(streets: Path) -> None:
    assert names("day/*") == ["1", "2"]
    assert names("day/**/*.tif") == ["deep/3"]
    assert names("*/2.*") == ["day/2", "night/2"]


def test_an_image_named_twice_is_looked_at_once(streets: Path) -> None:
    assert names("night/4.png", "night", str(streets / "night" / "4.png")) == ["4", "2"]


def test_images_of_one_name_in_two_folders_do_not_meet(streets: Path) -> None:
    assert names("day", "night") == ["day/1", "day/2", "day/deep/3", "night/2", "night/4"]


def test_files_that_a_shell_named_one_by_one_are_told_apart_alike(streets: Path) -> None:
    assert names("day/1.png", "day/2.JPG", "night/2.png") == ["day/1", "day/2", "night/2"]


def test_images_that_differ_in_suffix_alone_keep_it(streets: Path) -> None:
    (streets / "day" / "1.jpg").touch()
    assert names("day") == ["1.jpg", "1.png", "2", "deep/3"]


def test_names_that_differ_in_case_alone_are_numbered(streets: Path) -> None:
    (streets / "night" / "A.png").touch()
    (streets / "night" / "a.png").touch()
    if len(list((streets / "night").glob("[aA].png"))) == 1:
        pytest.skip("this file system does not tell case apart, so there are no two such files")
    assert names("night")[-2:] == ["A.png", "a.png-2"] or names("night")[-1] == "a.png-2"


def test_answers_of_an_earlier_call_are_not_sources(streets: Path) -> None:
    (streets / "day" / "out" / "masks").mkdir(parents=True)
    (streets / "day" / "out" / "masks" / "1.png").touch()
    assert names("day", outside=streets / "day" / "out") == ["1", "2", "deep/3"]
    assert names("day/**/*.png", outside=Path("day/out")) == ["1"]


def test_a_folder_that_is_the_output_too_is_told_so(streets: Path) -> None:
    for argument, out in (("day", "day"), ("day", "."), ("day/*.png", "day")):
        with pytest.raises(UsageError, match="lie in the folder that answers are written to") as told:
            names(argument, outside=Path(out))
        assert "--out" in str(told.value.command)


def test_a_folder_that_links_to_itself_ends(streets: Path) -> None:
    try:
        os.symlink(streets / "night", streets / "night" / "again")
    except OSError:
        pytest.skip("no symbolic links here")
    assert names("night") == ["2", "4"]


def test_a_path_that_leads_nowhere_is_named_with_its_nearest(streets: Path) -> None:
    with pytest.raises(MissingPathError) as raised:
        find_sources(["nihgt"])
    assert str(raised.value) == "There is no image, folder or glob nihgt.\n  Did you mean night?"
    with pytest.raises(MissingPathError, match="no folder nowhere"):
        find_sources(["nowhere/1.png"])


def test_a_glob_without_images_says_what_it_met(streets: Path) -> None:
    with pytest.raises(
        MissingPathError, match=r"No image matches day/\*\.txt\.\n  found: 1 other paths\n  expected: files"
    ):
        find_sources(["day/*.txt"])
    with pytest.raises(MissingPathError, match="found: nothing"):
        find_sources(["day/*.gif"])


def test_a_folder_without_images_says_what_it_holds(streets: Path) -> None:
    with pytest.raises(UsageError, match=r"There are no images in empty\.\n  found: 1 other files"):
        find_sources(["empty"])
    (streets / "bare").mkdir()
    with pytest.raises(UsageError, match="found: an empty folder"):
        find_sources(["bare"])


PARTS = st.sampled_from(["a", "A", "b", "c"])
PATHS = st.tuples(PARTS, PARTS, st.sampled_from(["x", "X", "y"]), st.sampled_from(["png", "jpg"]))


@given(st.lists(PATHS, min_size=1, max_size=12, unique=True), st.booleans())
@settings(max_examples=60, deadline=None)
def test_no_two_images_ever_share_a_name(
    tmp_path_factory: pytest.TempPathFactory, paths: list, by_folder: bool
) -> None:
    root = tmp_path_factory.mktemp("sources")
    files = [root / one / two / f"{stem}.{suffix}" for one, two, stem, suffix in paths]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    arguments = sorted({file.parent for file in files}) if by_folder else files
    found = find_sources(arguments)
    assert {os.path.realpath(source.path) for source in found} == {os.path.realpath(file) for file in files}
    assert len({source.name.casefold() for source in found}) == len(found)
    assert not any(source.name.startswith(("/", "..")) for source in found)
